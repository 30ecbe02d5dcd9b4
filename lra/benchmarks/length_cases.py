"""One backbone at ascending lengths, in a process of its own, so that its peak of memory is its own.

Run by `lengths.py` as `python -m lra.benchmarks.length_cases TARGET BACKBONE OPTIONS`, the options as JSON; prints a
line of JSON for each length and direction.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from functools import partial
from statistics import median
from typing import Any

import torch

from lra.benchmarks.subjects import FUSED, HEAD_DIM, HEADS, SUBJECTS, contenders
from lra.benchmarks.timing import Parts, Row, interleave, milliseconds, seconds_of
from lra.machine.flops import WorkCounter
from lra.machine.memory import is_out_of_memory, limit_memory, peak_of
from lra.statistics import extrapolate

# A length that has the fewest repetitions runs its own pass so often: cold, for memory, and in turn with the others.
OWN_PASSES = 5


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


def sweep(target: str, name: str, options: dict[str, Any]) -> Iterator[Row]:
    """Measure one backbone."""
    device = torch.device(options["device"])
    subject, whole = SUBJECTS[target]
    history = History(options["case_seconds"], options["memory_gib"] * 2**30)
    limit_memory(history.budget_bytes, device)
    torch.manual_seed(0)
    exhausted = ""
    for n in options["lengths"]:
        status = exhausted or history.objection(n)
        if not status:
            try:
                makers = contenders(name, options["budget"])
                build = {who: partial(subject, make, n, options["batch"], device) for who, make in makers.items()}
                rows, pass_seconds, num_bytes = measure(name, build, whole, options, device)
                history.add(n, pass_seconds, num_bytes)
                yield from ({"n": n, **row} for row in rows)
                continue
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error) and "memory" not in str(error).lower():
                    raise
                status = "out of memory"
                exhausted = f"not started (out of memory at {n:,})"
        yield {"n": n, "direction": whole, "status": status}


def measure(
    name: str, build: dict[str, partial[Parts]], whole: str, options: dict[str, Any], device: torch.device
) -> tuple[list[Row], float, int]:
    """Measure one length: cold pass and counts, peak of memory, then repetitions in turn.

    Returns:
        A row for each direction, the seconds of a pass, and the bytes at its peak.
    """
    parts = build[name]()
    before: dict[str, tuple[int, int]] = {}
    work: dict[str, tuple[int, int]] = {}
    start = time.perf_counter()
    with WorkCounter() as counter:
        for part, run in parts.items():
            before[part] = counter.flops, counter.exponentials
            run()
            work[part] = counter.flops - before[part][0], counter.exponentials - before[part][1]
    cold = time.perf_counter() - start
    work[whole] = counter.flops, counter.exponentials
    peak = peak_of(lambda: seconds_of(parts, device, whole), device)

    others = {who: make() for who, make in build.items() if who != name}
    if name == FUSED:
        others = {FUSED: build[FUSED]()}
    for other in others.values():
        seconds_of(other, device, whole)
    actions = {"ours": parts, **others}
    times = interleave(
        {who: partial(seconds_of, its, device, whole) for who, its in actions.items()},
        options["repeats"], options["seconds"],
    )  # fmt: skip
    rows = []
    for direction in times["ours"]:
        row: Row = {"direction": direction, "status": "ok", **milliseconds(times["ours"][direction])}
        for who in others:
            against = "fused" if who == FUSED else who
            pairs = zip(times["ours"][direction], times[who][direction], strict=True)
            row[f"ratio_to_{against}"] = median(a / b for a, b in pairs)  # within a round
        row["flops"], row["exponentials"] = work[direction]
        if direction == whole:
            row |= {"peak_bytes": peak, "cold_ms": 1e3 * cold}
        rows.append(row)
    return rows, rows[-1]["ms"] / 1e3, peak


def traffic(direction: str, n: int, batch: int) -> int:
    """Count the bytes that a mechanism must at least read and write, float32: inputs, outputs and their gradients."""
    tensors = {"forward": 4, "backward": 7, "both": 8}.get(direction, 0)
    return 4 * tensors * batch * n * HEADS * HEAD_DIM


if __name__ == "__main__":
    for found in sweep(sys.argv[1], sys.argv[2], json.loads(sys.argv[3])):
        print(json.dumps(found), flush=True)
