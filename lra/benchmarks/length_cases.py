"""One backbone at ascending lengths, in a process of its own, so that its peak of memory is its own.

Run by `lengths.py` as `python -m lra.benchmarks.length_cases BACKBONE SETTINGS`, the settings as JSON; prints a row as
its line of JSON for each length and direction.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Any, NamedTuple

import torch

from lra.benchmarks.mechanisms import WIDTH, Factory
from lra.benchmarks.passes import FUSED, MIXER, PASSES, contenders
from lra.benchmarks.roofline import Rates
from lra.benchmarks.timing import Parts, interleave, milliseconds, seconds_of
from lra.machine.flops import WorkCounter
from lra.machine.memory import is_out_of_memory, limit_memory, peak_of
from lra.records.benchmark_rows import LengthCase, LengthRow, format_row
from lra.statistics import extrapolate

# A length that has the fewest repetitions runs its own pass so often: cold, for memory, and in turn with the others.
OWN_PASSES = 5


@dataclass(frozen=True)
class Settings:
    """What all backbones of a sweep over lengths have in common.

    Attributes:
        timed: which of `PASSES`.
        device: of torch.
        lengths: ascending.
        batch, budget: of every case.
        repeats, seconds: rounds at most, and after which time none is begun.
        case_seconds, memory_gib: what a length that is predicted to need more is not started for.
        rates: what the machine reaches, of `Rates`.
    """

    timed: str
    device: str
    lengths: list[int]
    batch: int
    budget: int
    repeats: int
    seconds: float
    case_seconds: float
    memory_gib: float
    rates: dict[str, float]

    def about(self, name: str, n: int) -> dict[str, Any]:
        """Return the fields that every row of a backbone at a length has, but for its direction."""
        shared = {"batch": self.batch, "budget": self.budget, "dtype": "float32", "rates": self.rates}
        return {"backbone": name, "n": n, "as_mixer": self.timed == MIXER, **shared}


class History:
    """What the lengths so far cost, and so what the next will."""

    def __init__(self, budget_seconds: float, budget_bytes: float) -> None:
        self.budget_seconds = budget_seconds
        self.budget_bytes = budget_bytes
        self.lengths: list[int] = []
        self._seconds: list[float] = []
        self._bytes: list[float] = []

    def add(self, n: int, seconds: float, num_bytes: float) -> None:
        """Note a length: the seconds of a pass, and the bytes at its peak."""
        self.lengths.append(n)
        self._seconds.append(seconds)
        self._bytes.append(num_bytes)

    def objection(self, n: int) -> str:
        """Say why a length is not to be started; "" if nothing speaks against it."""
        if len(self.lengths) < 2:
            return ""
        seconds = OWN_PASSES * extrapolate(self.lengths, self._seconds, n)
        num_bytes = extrapolate(self.lengths, self._bytes, n)
        reasons = [f"{seconds:,.0f} s"] if seconds > self.budget_seconds else []
        if num_bytes > self.budget_bytes:
            reasons.append(f"{num_bytes / 2**30:,.1f} GiB")
        return f"not started (predicted {', '.join(reasons)})" if reasons else ""


def sweep(name: str, settings: Settings) -> Iterator[LengthCase]:
    """Measure one backbone."""
    device = torch.device(settings.device)
    history = History(settings.case_seconds, settings.memory_gib * 2**30)
    limit_memory(history.budget_bytes, device)
    torch.manual_seed(0)
    exhausted = ""
    for n in settings.lengths:
        status = exhausted or history.objection(n)
        if not status:
            try:
                rows, seconds, num_bytes = measure(name, n, settings)
                history.add(n, seconds, num_bytes)
                yield from rows
                continue
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error) and "memory" not in str(error).lower():
                    raise
                status = "out of memory"
                exhausted = f"not started (out of memory at {n:,})"
        yield LengthCase(status=status, direction=PASSES[settings.timed].whole, **settings.about(name, n))


def measure(name: str, n: int, settings: Settings) -> tuple[list[LengthRow], float, int]:
    """Measure one length: cold pass and counts, peak of memory, then repetitions in turn.

    Returns:
        A row for each direction, the seconds of a pass, and the bytes at its peak.
    """
    device, timed = torch.device(settings.device), PASSES[settings.timed]
    whole = timed.whole
    makers = contenders(name, settings.budget)

    def prepare(make: Factory) -> Parts:
        return timed.prepare(make, n, settings.batch, device)

    parts = prepare(makers[name])
    cold, work = _count(parts, whole)
    peak = peak_of(lambda: seconds_of(parts, device, whole), device)
    others = {who: prepare(make) for who, make in makers.items() if who != name or name == FUSED}
    for other in others.values():
        seconds_of(other, device, whole)
    actions = {"ours": parts, **others}
    times = interleave(
        {who: partial(seconds_of, its, device, whole) for who, its in actions.items()},
        settings.repeats, settings.seconds,
    )  # fmt: skip
    own = times.pop("ours")
    rows = []
    for direction, seconds in own.items():
        ratios = {who: _ratio(seconds, its[direction]) for who, its in times.items()}
        num_bytes = 4 * timed.tensors.get(direction, 0) * settings.batch * n * WIDTH
        row = LengthRow(
            **settings.about(name, n), direction=direction, **milliseconds(seconds)._asdict(),
            **work[direction]._asdict(),
            ratio_to_fused=ratios[FUSED], ratio_to_transcription=ratios.get("transcription"),
            least_ms=Rates(**settings.rates).least_ms(*work[direction], num_bytes) if num_bytes else None,
            peak_bytes=peak if direction == whole else None, cold_ms=1e3 * cold if direction == whole else None,
        )  # fmt: skip
        rows.append(row)
    return rows, rows[-1].ms / 1e3, peak


class Work(NamedTuple):
    """What a part of a pass computes, as `WorkCounter` counts it."""

    flops: int
    exponentials: int


def _count(parts: Parts, whole: str) -> tuple[float, dict[str, Work]]:
    """Run a pass for the first time; return its seconds, and the work of each part and of the whole."""
    work = {}
    start = time.perf_counter()
    with WorkCounter() as counter:
        for part, run in parts.items():
            before = Work(counter.flops, counter.exponentials)
            run()
            work[part] = Work(counter.flops - before.flops, counter.exponentials - before.exponentials)
    cold = time.perf_counter() - start
    return cold, {**work, whole: Work(counter.flops, counter.exponentials)}


def _ratio(ours: list[float], theirs: list[float]) -> float:
    """Return the median quotient within a round."""
    return median(a / b for a, b in zip(ours, theirs, strict=True))


if __name__ == "__main__":
    for case in sweep(sys.argv[1], Settings(**json.loads(sys.argv[2]))):
        print(format_row(case), flush=True)
