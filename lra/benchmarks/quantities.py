"""Quantities of many units, as the targets `data`, `listops` and `operators` measure them: a name, a value, a unit."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from lra.benchmarks.numbers import number
from lra.records.benchmark_rows import BenchmarkRow, QuantityCase, QuantityRow
from lra.reports.report import terminal

HEAD = ("what", "value", "unit", "x first of its unit", "note")


@dataclass
class Quantity:
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


def rows(quantities: Iterable[Quantity]) -> Iterator[QuantityCase]:
    """Make rows of quantities, each with its ratio to the first of its unit."""
    first: dict[str, float] = {}
    for one in quantities:
        if math.isfinite(one.value):
            ratio = one.value / first.setdefault(one.unit, one.value)
            yield QuantityRow(name=one.name, value=one.value, unit=one.unit, note=one.note, ratio=ratio)
        else:
            yield QuantityCase(status=f"skipped: {one.note}", name=one.name)


def render(rows: Sequence[BenchmarkRow]) -> str:
    """Lay out a line for each quantity."""
    return terminal(HEAD, [_line(row) for row in rows if isinstance(row, QuantityCase)])


def _line(row: QuantityCase) -> list[str]:
    if not isinstance(row, QuantityRow):
        return [row.name, "", "", "", row.status]
    return [row.name, number(row.value, 4), row.unit, number(row.ratio), row.note]
