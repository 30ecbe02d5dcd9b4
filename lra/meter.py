"""Wall-clock and peak memory of training alone: synchronised, warm-up apart, evaluation outside."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch

# The first steps pay for kernel selection, memory pools and cold caches; they are timed apart.
WARMUP_STEPS = 3


class Meter:
    """A stop-watch over training steps that is paused for everything else.

    Call `start`, then `lap` after every step, then `stop` before an evaluation, and `start` again after it. On CUDA
    the laps are events, read only at `stop`, so that measuring does not stall the queue of kernels.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.laps: list[float] = []  # seconds, one a step
        self.tokens: list[tuple[int, int]] = []  # real and padded, one a step
        self.peak_memory_bytes = 0
        self.peak_memory_reserved_bytes: int | None = None
        self._marks: list[Any] = []

    def start(self) -> None:
        """Begin a stretch of training steps."""
        reset_peak_memory(self.device)
        self._marks = [self._mark()]

    def lap(self, real_tokens: int, padded_tokens: int) -> None:
        """Note the end of a step that processed so many tokens, without and with padding."""
        self._marks.append(self._mark())
        self.tokens.append((real_tokens, padded_tokens))

    def stop(self) -> None:
        """End the stretch: wait for the device, read the laps and the peak of memory."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
            laps = [a.elapsed_time(b) / 1e3 for a, b in zip(self._marks, self._marks[1:], strict=False)]
        else:
            laps = [b - a for a, b in zip(self._marks, self._marks[1:], strict=False)]
        self.laps += laps
        self._marks = []
        allocated, reserved = peak_memory(self.device)
        self.peak_memory_bytes = max(self.peak_memory_bytes, allocated)
        if reserved is not None:
            self.peak_memory_reserved_bytes = max(self.peak_memory_reserved_bytes or 0, reserved)

    def summary(self) -> dict[str, Any]:
        """Return what the record holds of time and memory; times are None before the warm-up is over."""
        laps = np.array(self.laps)
        timed = laps[WARMUP_STEPS:]
        real, padded = np.array(self.tokens[: len(laps)]).reshape(-1, 2)[WARMUP_STEPS:].sum(axis=0).tolist()
        seconds = float(timed.sum())
        low, middle, high = np.quantile(timed * 1e3, [0.25, 0.5, 0.75]).tolist() if len(timed) else [None] * 3
        return {
            "train_seconds": seconds if len(timed) else None,
            "warmup_seconds": float(laps[:WARMUP_STEPS].sum()),
            "ms_per_step": middle,
            "ms_per_step_quartiles": [low, high],
            "tokens_per_second": real / seconds if seconds else None,
            "padded_tokens_per_second": padded / seconds if seconds else None,
            "peak_memory_bytes": self.peak_memory_bytes or None,
            "peak_memory_reserved_bytes": self.peak_memory_reserved_bytes,
        }

    def _mark(self) -> Any:
        if self.device.type == "cuda":
            event = torch.cuda.Event(enable_timing=True)
            event.record(torch.cuda.current_stream(self.device))
            return event
        return time.perf_counter()


def reset_peak_memory(device: torch.device) -> None:
    """Forget the highest memory use so far."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    else:
        # Linux resets a process's high-water mark on this write; elsewhere the peak is that of the whole process.
        with suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")


def peak_memory(device: torch.device) -> tuple[int, int | None]:
    """Return the highest memory use since the last reset, in bytes.

    Returns:
        On CUDA what tensors took and what the allocator had reserved; on CPU the resident set of the process, and None.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device), torch.cuda.max_memory_reserved(device)
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024, None
    import resource
    import sys

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024, None
