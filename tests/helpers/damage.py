"""A results folder with a file of every kind, and what may befall each of them."""

from __future__ import annotations

import dataclasses
import json
import random
from collections.abc import Callable, Iterator
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple

import torch

from lra.records.collection import collect
from lra.records.folder import RunFolder
from lra.records.missing_data import note_missing
from lra.records.record import RunRecord
from lra.records.retest_record import Retest, write_retests
from lra.runs.run import Job, run
from tests.helpers.benchmark_rows import batch_row, flops_row, length_row, written
from tests.helpers.records import with_published
from tests.helpers.toy import ToyTask
from tests.helpers.training import TRAINER, model_for

TRAINED = [("softmax", 0), ("softmax", 1), ("vmean", 0)]
KILLED = ("performer", 0)


class Damage(NamedTuple):
    """What befalls a file.

    Attributes:
        name: what it is, in words.
        file: its path in the results folder.
        change: does it, given the path.
    """

    name: str
    file: Path
    change: Callable[[Path], Any]


def train(results_dir: Path, attn: str, seed: int) -> tuple[RunRecord, RunFolder]:
    """Do a tiny run, as its command does."""
    named = {"task": "toy", "attn": attn, "protocol": "skeinformer"}
    nodes = {node: {"name": name, "version": 1} for node, name in named.items()}
    job = Job(
        config={**nodes, "scale": "smoke", "seed": seed, "trainer": {"steps": 6}},
        task=ToyTask(), build_model=lambda: model_for(ToyTask()), device=torch.device("cpu"), results_dir=results_dir,
        trainer=dataclasses.replace(TRAINER, steps=6, eval_every=3), checkpoint_seconds=1e9, profile=False,
        command="python run.py", wandb={"mode": "disabled", "project": "lra", "entity": None},
    )  # fmt: skip
    return run(job)


def make_results(results_dir: Path) -> None:
    """Fill a results folder with a file of every kind."""
    with_published(results_dir)
    for attn, seed in TRAINED:
        record, folder = train(results_dir, attn, seed)
        retest = Retest(
            record.key, {"data_seed": 1}, record.data, 0.5, 1.0, {"majority": 0.4}, {"majority": 0.5}, 0, "cpu"
        )
        write_retests(folder.retests, [retest])
    collect(results_dir)
    train(results_dir, "bigbird", 0)  # is not collected yet
    _, folder = train(results_dir, *KILLED)
    folder.record.unlink()
    note_missing(results_dir, "text", "skeinformer", "full", "no files")
    benchmarks = results_dir / "benchmarks"
    benchmarks.mkdir()
    written(benchmarks / "cpu-attention.jsonl", [length_row(n=n) for n in (512, 1024)])
    written(benchmarks / "cpu-model.jsonl", [length_row(n=n) for n in (512, 1024)])
    written(benchmarks / "cpu-flops.jsonl", [flops_row("softmax", 1.0, 2.0), flops_row("vmean", None, None)])
    written(benchmarks / "cpu-max_batch.jsonl", [batch_row("vmean", "text", 1)])


VALUES: dict[str, Any] = {
    "null": None, "text": "text", "number": 7.5, "negative": -1, "true": True, "list": [1], "object": {"a": 1},
    "empty_object": {}, "huge": 10**30, "nan": float("nan"), "infinite": float("-inf"), "empty_text": "",
    "newline": "a\nb", "dollar": "$x^", "path": "../../x", "long": "x" * 5000,
}  # fmt: skip


def fields(path: Path) -> Iterator[tuple[str, Callable[[Path], Any]]]:
    """Replace every field of the JSON in the first line, or the whole, by every other kind of value; or remove it."""
    lines = path.read_text().splitlines() if path.suffix == ".jsonl" else [path.read_text()]
    whole = json.loads(lines[0])
    for place in _places(whole):
        for name, value in {**VALUES, "removed": ...}.items():
            text = "\n".join([json.dumps(_with(whole, place, value)), *lines[1:]]) + "\n"
            yield f"{'.'.join(place)}={name}", lambda path, text=text: path.write_text(text)


def _places(values: Any, above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    if isinstance(values, dict):
        for name, value in values.items():
            yield (*above, name)
            yield from _places(value, (*above, name))


def _with(values: dict[str, Any], place: tuple[str, ...], value: Any) -> dict[str, Any]:
    name, *rest = place
    if rest:
        return {**values, name: _with(values[name], tuple(rest), value)}
    return {own: value if own == name else kept for own, kept in values.items() if own != name or value is not ...}


def whole_files(path: Path, others: list[Path]) -> Iterator[tuple[str, Callable[[Path], Any]]]:
    """Damage a file as a whole."""
    size = path.stat().st_size
    yield "empty", lambda path: path.write_bytes(b"")
    yield "folder", lambda path: (path.unlink(), path.mkdir())
    yield "full_folder", lambda path: (path.unlink(), (path / "x").mkdir(parents=True), (path / "y").touch())
    yield "gone", lambda path: path.unlink()
    yield "no_text", lambda path: path.write_bytes(b"\xff\xfe\x00\n\x80")
    yield "nested", lambda path: path.write_text("[" * 100_000)
    yield "nested_object", lambda path: path.write_text('{"a":' * 5000 + "1" + "}" * 5000)
    yield "numbers", lambda path: path.write_text("1\n2.5\n-3\n")
    yield "word", lambda path: path.write_text("null")
    yield "huge_number", lambda path: path.write_text("9" * 10_000)
    yield "surrogate", lambda path: path.write_text('{"key": "\\ud800"}')
    for share in (0.1, 0.5, 0.99):
        yield f"cut_at_{share}", lambda path, share=share: path.write_bytes(path.read_bytes()[: int(share * size)])
    yield "twice", lambda path: path.write_bytes(path.read_bytes() * 2)
    for other in others:
        if other != path:
            yield f"copy_of_{other.name}", partial(Path.write_bytes, data=other.read_bytes())


def flipped(path: Path, rng: random.Random) -> Callable[[Path], Any]:
    """Flip a bit."""
    position, bit = rng.randrange(path.stat().st_size), rng.randrange(8)

    def change(path: Path) -> None:
        content = bytearray(path.read_bytes())
        content[position] ^= 1 << bit
        path.write_bytes(content)

    return change


def victims(results_dir: Path) -> list[Path]:
    """A file of every kind."""
    own = [path for path in results_dir.glob("runs/toy/softmax/*/*") if path.is_file() and path.name != ".lock"]
    folder = min(path.parent for path in own)
    killed = [path for path in results_dir.glob("runs/toy/performer/*/*") if path.is_file() and path.name != ".lock"]
    others = [*results_dir.glob("measured/*"), *results_dir.glob("benchmarks/*"), *results_dir.glob("runs/*/*.json")]
    return sorted([*(path for path in own if path.parent == folder), *killed, *others])


def damages(results_dir: Path, seed: int = 0) -> list[Damage]:
    """All of them, in an order that is none, but for that it goes round and round the files."""
    rng, found = random.Random(seed), []
    paths = victims(results_dir)
    foreign = [min(results_dir.glob(f"runs/toy/vmean/*/{name}")) for name in ("record.json", "config.json",
               "metrics.jsonl", "predictions.npz", "weights.pt")]  # fmt: skip
    for path in paths:
        changes = [*whole_files(path, [*foreign, *rng.sample(paths, 3)])]
        changes += [(f"flip_{number}", flipped(path, rng)) for number in range(20)]
        if path.suffix in (".json", ".jsonl") or path.name == ".holder":
            changes += fields(path)
        rng.shuffle(changes)
        file = path.relative_to(results_dir)
        found.append([Damage(f"{path.parent.name}/{path.name}: {name}", file, change) for name, change in changes])
    return [damage for round_of_files in zip_longest(*found) for damage in round_of_files if damage]
