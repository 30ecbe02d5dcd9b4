"""Figures of many units, as the targets `data` and `listops` have them: a name, a value, its ratio to the first."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from lra.benchmarks.rendering import number, table
from lra.benchmarks.timing import Row


@dataclass
class Figure:
    """One measured quantity; a value that is not finite says that there was nothing to measure."""

    name: str
    value: float
    unit: str
    note: str = ""


def timed(function: Callable[[], Any], repeats: int) -> float:
    """Return the median wall seconds of a call."""
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - start)
    return median(seconds)


def rows(figures: Iterable[Figure]) -> Iterator[Row]:
    """Make rows of figures, each with its ratio to the first of its unit."""
    first: dict[str, float] = {}
    for figure in figures:
        if math.isfinite(figure.value):
            ratio = figure.value / first.setdefault(figure.unit, figure.value)
            yield {**asdict(figure), "ratio": ratio, "status": "ok"}
        else:
            yield {"name": figure.name, "status": f"skipped: {figure.note}"}


def render(rows: Sequence[Row]) -> str:
    """Lay out a line for each figure."""
    lines = [
        [row["name"], number(row["value"], 4), row["unit"], number(row["ratio"]), row["note"]]
        if row["status"] == "ok"
        else [row["name"], "", "", "", row["status"]]
        for row in rows
    ]
    return table(("what", "value", "unit", "x first of its unit", "note"), lines)
