"""What every benchmark shares: a figure, its median, and how it is asked for."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any

from lra.errors import InputError


@dataclass
class Figure:
    """One measured quantity; `ratio` is to the first figure of the same unit."""

    name: str
    value: float
    unit: str
    note: str = ""
    ratio: float = 1.0


def timed(function: Callable[[], Any], repeats: int) -> float:
    """Return the median wall seconds of a call."""
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - start)
    return median(seconds)


def positive(options: Mapping[str, str], name: str) -> int:
    """Read an option that counts something."""
    if not options[name].isdecimal() or int(options[name]) < 3:
        raise InputError(f"{name} must be an integer, at least 3. Got {options[name]!r}.")
    return int(options[name])
