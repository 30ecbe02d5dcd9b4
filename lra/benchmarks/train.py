"""The target `train`: the loop's own share, the time to the first step, a step on real batches; a file for each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from lra.benchmarks import options as read
from lra.benchmarks import train_loop, train_start, train_step
from lra.benchmarks.numbers import number
from lra.benchmarks.timing import Progress
from lra.records.benchmark_rows import BenchmarkRow, TrainCase, TrainRow
from lra.reports.report import terminal

PARTS = ("loop", "start", "step")
OPTIONS = {"parts": "all", "repeats": "5", "steps": "100", "tasks": "all", "attn": "all", "memory_gib": "12"}
LOOPS = ("softmax", "skeinformer")
HEAD = ("what", "value", "unit", "target", "met", "ms a step", "ms plain")


def measure(options: Mapping[str, str]) -> Iterator[TrainCase]:
    """Read the options; return the rows of every part that is asked for. Tasks and methods are those of the steps."""
    parts = read.chosen(options, "parts", PARTS)
    repeats, steps = read.count(options, "repeats"), read.count(options, "steps", least=20)
    tasks = read.chosen(options, "tasks", list(train_step.TASKS))
    names = read.chosen(options, "attn", train_step.METHODS)
    return _rows(parts, repeats, steps, tasks, names, read.amount(options, "memory_gib"))


def _rows(
    parts: Sequence[str], repeats: int, steps: int, tasks: Sequence[str], names: Sequence[str], memory_gib: float
) -> Iterator[TrainCase]:
    sizes = {"loop": len(LOOPS), "start": 1, "step": len(tasks) * len(names)}
    progress = Progress("train", sum(sizes[part] for part in parts))
    if "loop" in parts:
        for name in LOOPS:
            progress.say(f"loop overhead, {name}")
            yield from train_loop.measure(name, steps, repeats)
            progress.done += 1
    if "start" in parts:
        progress.say("from the command to the first step")
        yield from train_start.measure("skeinformer", repeats)
        progress.done += 1
    if "step" in parts:
        yield from train_step.measure(tasks, names, memory_gib, progress)


def render(rows: Sequence[BenchmarkRow]) -> str:
    """Lay out a line for each part, and beneath them what the authors' code was measured at."""
    authors = "; ".join(f"{name} {s['listops']} / {s['text']}" for name, s in train_step.AUTHORS_CODE.items())
    return (
        f"{terminal(HEAD, [_line(row) for row in rows if isinstance(row, TrainCase)])}\n"
        "For comparison, seconds a step (ListOps / Text) of the authors' code on this class of "
        f"CPU, measured for the design of this project: {authors}."
    )


def _line(row: TrainCase) -> list[str]:
    if not isinstance(row, TrainRow):
        return [row.name, "", row.status, "", "", "", ""]
    plain = row.bare_ms if row.plain_ms is None else row.plain_ms
    milliseconds = ["" if value is None else number(value) for value in (row.ms, plain)]
    met = {True: "yes", False: "no", None: ""}[row.met]
    return [row.name, number(row.value), row.unit, row.target_text, met, *milliseconds]
