"""How time is taken in every benchmark: clean state, warm-up, interleaved repetitions, medians and quartiles."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

Parts = Mapping[str, Callable[[], object]]

LEAST_REPEATS = 3


def seconds_of(parts: Parts, device: torch.device, total: str) -> dict[str, float]:
    """Run the parts of a pass one after the other; return the seconds of each, and under `total` of all together."""
    _wait(device)
    start = last = time.perf_counter()
    seconds = {}
    for name, part in parts.items():
        part()
        _wait(device)
        now = time.perf_counter()
        seconds[name] = now - last
        last = now
    return {**seconds, total: last - start}


def interleave(
    actions: Mapping[str, Callable[[], dict[str, float]]], repeats: int, seconds: float
) -> dict[str, dict[str, list[float]]]:
    """Repeat several actions in turn, there and back again, so that a drift of the machine meets them alike.

    Args:
        actions: each returns the seconds of its parts.
        repeats: rounds at most.
        seconds: no round is begun after them, once there were enough for quartiles.

    Returns:
        For each action and each of its parts the seconds of every round.
    """
    start = time.perf_counter()
    times: dict[str, dict[str, list[float]]] = {name: {} for name in actions}
    for number in range(repeats):
        if number >= LEAST_REPEATS and time.perf_counter() - start > seconds:
            break
        for name in list(actions)[:: 1 if number % 2 == 0 else -1]:
            for part, value in actions[name]().items():
                times[name].setdefault(part, []).append(value)
    return times


class Repetitions(NamedTuple):
    """Median, first and third quartile, and how many repetitions."""

    ms: float
    ms_quartiles: list[float]
    repeats: int


def milliseconds(seconds: Sequence[float]) -> Repetitions:
    """Summarise repetitions as a row does."""
    low, middle, high = (1e3 * np.quantile(seconds, [0.25, 0.5, 0.75])).tolist()
    return Repetitions(middle, [low, high], len(seconds))


class Progress:
    """Says on stderr what is being measured, and about how long the rest will take."""

    def __init__(self, title: str, steps: int) -> None:
        self.title = title
        self.steps = steps
        self.done = 0
        self._start = time.perf_counter()

    def over(self, items: Iterable[Any]) -> Iterable[Any]:
        """Count items as they are done."""
        for item in items:
            self.say(str(item))
            yield item
            self.done += 1

    def say(self, what: str) -> None:
        """Name what comes next."""
        elapsed = time.perf_counter() - self._start
        left = f", about {elapsed / self.done * (self.steps - self.done) / 60:.1f} min left" if self.done else ""
        text = f"{self.title} {self.done + 1}/{self.steps}: {what} ({elapsed / 60:.1f} min so far{left})"
        end = "\r" if sys.stderr.isatty() else "\n"
        print(f"{text:<110}" if end == "\r" else text, end=end, file=sys.stderr, flush=True)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
