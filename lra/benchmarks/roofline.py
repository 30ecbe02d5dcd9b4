"""The least time that a case can take: what it must compute and move, at the rates this machine reaches."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

import torch

SIDE = 2048  # of the matrices whose product is timed
NUMBERS = 2**24  # numbers copied: beyond any cache
EXPONENTIALS = 2**18  # within a cache, so that memory does not bound them
REPEATS = 15


class Rates(NamedTuple):
    """What the machine reaches in float32, a second."""

    matmul_flops: float
    exponentials: float
    copied_bytes: float

    def least_ms(self, flops: float, exponentials: float, num_bytes: float) -> float:
        """Bound a case from below, as if each kind of work could hide behind the others."""
        return 1e3 * max(flops / self.matmul_flops, exponentials / self.exponentials, num_bytes / self.copied_bytes)


def measure_rates(device: torch.device) -> Rates:
    """Time a product of matrices, exponentials and a copy."""
    a, b, c = (torch.randn(SIDE, SIDE, device=device) for _ in range(3))
    x, y = (torch.randn(EXPONENTIALS, device=device) for _ in range(2))
    source, target = (torch.ones(NUMBERS, device=device) for _ in range(2))
    return Rates(
        2 * SIDE**3 / _seconds(lambda: torch.mm(a, b, out=c), device),
        100 * EXPONENTIALS / _seconds(lambda: [torch.exp(x, out=y) for _ in range(100)], device),
        2 * 4 * NUMBERS / _seconds(lambda: target.copy_(source), device),  # read and written
    )


def _seconds(action: Callable[[], object], device: torch.device) -> float:
    seconds = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        action()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - start)
    return min(seconds)  # what the machine can do, not what it does on average
