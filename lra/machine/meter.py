"""Wall-clock and peak memory of training alone: synchronised, warm-up apart, evaluation outside."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import pairwise
from typing import Any

import numpy as np
import torch

from lra.machine.memory import load_libraries, peak_memory, reset_peak_memory, return_free_memory

# The first steps pay for kernel selection, memory pools and cold caches; they are timed apart.
WARMUP_STEPS = 3


class Meter:
    """A stop-watch over training steps that is paused for everything else, and the peak of memory meanwhile.

    Call `lap` after every step, within `running`, and do everything else within `paused`. On CUDA the laps are events,
    read only when the watch is stopped, so that measuring does not stall the queue of kernels.

    Memory counts from what is in use when the meter is made, after unused memory was given back: make it after the data
    are loaded and before the model is.

    Args:
        device: where the steps are taken.
        memory: whether to measure memory; not while a profiler keeps its own events in it.
    """

    def __init__(self, device: torch.device, *, memory: bool = True) -> None:
        self.device = device
        self._watches_memory = memory
        self.laps: list[float] = []  # seconds, one a step
        self.tokens: list[tuple[int, int]] = []  # real and padded, one a step
        self.peak_memory_bytes = 0
        self.peak_memory_reserved_bytes: int | None = None
        self.load_average: float | None = None  # of the whole system, over the last minute of training
        self._cold = set(range(WARMUP_STEPS))  # numbers of the laps that are warm-up
        self._marks: list[Any] = []
        load_libraries(device)
        return_free_memory(device)
        reset_peak_memory(device)
        self._before, _ = peak_memory(device)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Measure what happens within."""
        self._start()
        try:
            yield
        finally:
            self._stop()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Leave out what happens within; after an error there, nothing more is measured."""
        self._stop()
        yield
        self._start()

    def lap(self, real_tokens: int, padded_tokens: int) -> None:
        """Note the end of a step that processed so many tokens, without and with padding."""
        self._marks.append(self._mark())
        self.tokens.append((real_tokens, padded_tokens))

    def summary(self, num_processes: int = 1) -> dict[str, Any]:
        """Return what the record holds of time and memory; times are None before the warm-up is over.

        Args:
            num_processes: how many train together; each has about the same number of tokens of every batch.
        """
        laps = np.array(self.laps)
        warm = np.array([number not in self._cold for number in range(len(laps))], dtype=bool)
        timed = laps[warm]
        tokens = np.array(self.tokens[: len(laps)]).reshape(-1, 2)[warm].sum(axis=0) * num_processes
        real, padded = tokens.tolist()
        seconds = float(timed.sum())
        low, middle, high = np.quantile(timed * 1e3, [0.25, 0.5, 0.75]).tolist() if len(timed) else [None] * 3
        return {
            "train_seconds": seconds if len(timed) else None,
            "warmup_seconds": float(laps[~warm].sum()),
            "ms_per_step": middle,
            "ms_per_step_quartiles": [low, high],
            "tokens_per_second": real / seconds if seconds else None,
            "padded_tokens_per_second": padded / seconds if seconds else None,
            "peak_memory_bytes": self.peak_memory_bytes or None,
            "peak_memory_reserved_bytes": self.peak_memory_reserved_bytes,
            "load_average": self.load_average,
        }

    def state_dict(self) -> dict[str, Any]:
        """Return what was measured so far; not while it is running."""
        return {
            "laps": self.laps,
            "tokens": self.tokens,
            "cold": sorted(self._cold),
            "peaks": [self.peak_memory_bytes, self.peak_memory_reserved_bytes],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there, with another warm-up: the process is a new one."""
        self.laps, self.tokens = state["laps"], state["tokens"]
        self._cold = {*state["cold"], *range(len(self.laps), len(self.laps) + WARMUP_STEPS)}
        self.peak_memory_bytes, self.peak_memory_reserved_bytes = state["peaks"]

    def _start(self) -> None:
        """Begin a stretch of training steps."""
        reset_peak_memory(self.device)
        self._marks = [self._mark()]

    def _stop(self) -> None:
        """End the stretch, if one has begun: wait for the device, read the laps and the peak of memory."""
        if not self._marks:
            return
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
            laps = [a.elapsed_time(b) / 1e3 for a, b in pairwise(self._marks)]
        else:
            laps = [b - a for a, b in pairwise(self._marks)]
        self.laps += laps
        self._marks = []
        with suppress(OSError, AttributeError):  # where the system has none
            self.load_average = round(os.getloadavg()[0], 2)
        if not self._watches_memory:
            return
        allocated, reserved = peak_memory(self.device)
        self.peak_memory_bytes = max(self.peak_memory_bytes, allocated - self._before)
        if reserved is not None:
            self.peak_memory_reserved_bytes = max(self.peak_memory_reserved_bytes or 0, reserved)

    def _mark(self) -> Any:
        if self.device.type == "cuda":
            event = torch.cuda.Event(enable_timing=True)
            event.record(torch.cuda.current_stream(self.device))
            return event
        return time.perf_counter()
