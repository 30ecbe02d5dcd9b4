"""Wrong values for every key of the configuration, and what run.py does with each.

    python -m tests.helpers.mutations MUTATIONS.json OUTCOMES.json

runs each command line of the first file, a list of lists of words, and writes what came of it. The program is imported
once, and every command runs in a process forked from there: a start costs a tenth of one from nothing.
"""

from __future__ import annotations

import json
import os
import runpy
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from lra.files import ROOT

# A run of two steps on a few short examples, in which every key has its part.
TINY = (
    "scale=smoke", "task.num_train=64", "task.num_val=16", "task.num_test=16", "trainer.steps=2",
    "trainer.eval_every=2", "trainer.batch_size=8", "optimizer.warmup_steps=0", "wandb.mode=disabled", "model.dim=16",
    "model.mlp_dim=16",
)  # fmt: skip
# As on the command line: values of every type, and of no sense.
VALUES = (
    "abc", "''", "null", "true", "-1", "0", "1.5", "nan", "inf", "-inf", "[]", "[1,2]", "{}", "{a:1}", "1e400",
    "1000000000000", "'7'", "5min", "[null]", "'~'", "1e-30", "${nowhere}", "'${oc.env:NOWHERE}'", "???",
)  # fmt: skip
LIMIT_SECONDS = 60  # a command that takes longer hangs


def keys_of(node: Any, path: str = "") -> Iterator[str]:
    """Every key of a configuration, leaves and nodes alike; of the tables only themselves."""
    for name in list(node):
        key = f"{path}.{name}" if path else str(name)
        yield key
        child = node._get_node(name)
        if isinstance(child, DictConfig) and not child._is_interpolation() and key not in ("tasks", "sizes"):
            yield from keys_of(child, key)


def mutations(cfg: DictConfig, words: tuple[str, ...], count: int, first: int = 0) -> Iterator[list[str]]:
    """For each key as many wrong values, in turn, and the key removed."""
    for number, key in enumerate(keys_of(cfg)):
        for turn in range(count):
            value = VALUES[(first + number * count + turn) % len(VALUES)]
            yield [*words, f"{key}={value}"]
        if number % 3 == 0:
            yield [*words, f"~{key}"]


def outcome_of(words: list[str], results_dir: Path) -> dict[str, Any]:
    """Run a command line in a forked process."""
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        began = time.monotonic()
        child = os.fork()
        if child == 0:
            _run(words, results_dir, out.fileno(), err.fileno())
        _, status = os.waitpid(child, 0)
        out.seek(0)
        err.seek(0)
        return {
            "words": words,
            "code": os.waitstatus_to_exitcode(status),
            "out": out.read(),
            "err": err.read(),
            "seconds": time.monotonic() - began,
            "left": sorted(str(path.relative_to(results_dir)) for path in results_dir.rglob("*")),
        }


def _run(words: list[str], results_dir: Path, out: int, err: int) -> None:
    os.dup2(out, 1)
    os.dup2(err, 2)
    signal.alarm(LIMIT_SECONDS)
    folder = [] if any(word.lstrip("~").startswith("results_dir") for word in words) else [f"results_dir={results_dir}"]
    sys.argv = ["run.py", *words, *folder]
    os.chdir(results_dir)
    code = 99
    try:
        runpy.run_path(str(ROOT / "run.py"), run_name="__main__")
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BaseException:
        sys.excepthook(*sys.exc_info())
        code = 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def main(commands: str, outcomes: str) -> None:
    """Run all commands; the caller sets LRA_CACHE."""
    for module in ("hydra", "lra.runs.run", "lra.runs.schema", "lra.tasks.listops.generator", "models.classifier"):
        __import__(module)
    with tempfile.TemporaryDirectory() as folder, Path(outcomes).open("w") as file:
        for number, words in enumerate(json.loads(Path(commands).read_text())):
            results_dir = Path(folder, str(number))
            results_dir.mkdir()
            print(json.dumps(outcome_of(words, results_dir)), file=file, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
