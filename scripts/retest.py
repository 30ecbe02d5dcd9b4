"""Test trained runs again: python scripts/retest.py task=listops scale=full task.data_seed=1 task.num_test=20000.

task.NAME=VALUE     a setting of the task, otherwise than the run had it: `data_seed` and `num_test` draw more examples,
                    `max_depth` harder ones; none at all repeats the test of the run
task= attn= protocol= scale= key=
                    which of the finished runs in `results_dir`, by name, or by the key that is their folder's name
device=             where to test: cpu, cuda, or auto
results_dir=results cache_dir=

Needs the weights that a run leaves in its folder. A test that was done is not done again. `python scripts/report.py
retests` prints what was found.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from omegaconf import OmegaConf

from lra.arguments import parse
from lra.chosen import FILTERS, chosen
from lra.collected import load_records
from lra.errors import InputError
from lra.gpus import claimed_device
from lra.layout import write
from lra.record import RunRecord
from lra.retest import WEIGHTS_NAME, Retest, change_task, retest
from lra.retest_report import retest_report
from lra.stopping import StoppedError, stoppable

CONFIGS = Path(__file__).parent.parent.resolve() / "configs"
CHANGE = "task."


def main(arguments: list[str]) -> None:
    """Test every chosen run, and print what was found beside what was."""
    words = [word for word in arguments if not word.startswith(CHANGE)]
    defaults = {**dict.fromkeys((*FILTERS, "key", "cache_dir"), ""), "device": "auto", "results_dir": "results"}
    _, options = parse(words, verbs=("retest",), options=defaults)
    changes = parse_changes([word for word in arguments if word.startswith(CHANGE)])
    results_dir = Path(options["results_dir"])
    runs = with_weights(results_dir, options)
    command = " ".join(["python scripts/retest.py", *(word for word in arguments if "_dir=" not in word)])
    found: list[Retest] = []
    with claimed_device(options["device"]) as device, stoppable() as stop:
        for folder, run in runs.items():
            task = change_task(run, changes, options["cache_dir"] or None)
            found.append(retest(run, folder, changes, task, device=device, command=command, stop=stop))
    print(write(retest_report(found, list(runs.values())), "terminal"))


def parse_changes(words: list[str]) -> dict[str, Any]:
    """Read `task.name=value`, the value as on run.py's command line.

    Raises:
        InputError: a word has no value.
    """
    if wrong := [word for word in words if "=" not in word]:
        raise InputError(f"Unknown argument {wrong[0]!r}: expected task.name=value, for example task.num_test=20000.")
    values = OmegaConf.to_container(OmegaConf.from_dotlist([word.removeprefix(CHANGE) for word in words]))
    return cast(dict[str, Any], values)


def with_weights(results_dir: Path, options: Mapping[str, str]) -> dict[Path, RunRecord]:
    """Find the finished runs that the options name and whose weights are there, by their folders.

    Raises:
        InputError: there are none.
    """
    named = chosen(load_records(results_dir), {**options, "device": ""}, CONFIGS)
    ok = [run for run in named if run.status == "ok" and options["key"] in ("", run.key)]
    found = {results_dir / "runs" / run.task / run.attn / run.key: run for run in ok}
    there = {folder: run for folder, run in found.items() if (folder / WEIGHTS_NAME).exists()}
    if not there:
        raise InputError(
            f"None of the {len(found)} finished runs of that name in {results_dir.resolve()} has its {WEIGHTS_NAME}: a "
            "run leaves it in its own folder, and collected records come without."
        )
    return there


if __name__ == "__main__":
    logging.basicConfig(format="%(message)s", level=logging.INFO)
    try:
        main(sys.argv[1:])
    except (InputError, StoppedError) as error:
        sys.exit(str(error))
