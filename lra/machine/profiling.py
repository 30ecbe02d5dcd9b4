"""A profile of a few training steps by torch's profiler: a trace, and the share of each part on the terminal."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile, record_function, schedule

log = logging.getLogger(__name__)

SKIPPED, PROFILED = 5, 10  # steps
LAST = SKIPPED + 1 + PROFILED  # one between them is for the profiler itself to warm up
# The names that the trainer marks: a step, and its parts.
WHOLE = "step"
PARTS = ("data", "forward", "backward", "optimizer")

NOTHING = nullcontext()
Mark = Callable[[str], AbstractContextManager[object]]


def unmarked(name: str) -> AbstractContextManager[None]:
    """Mark nothing."""
    return NOTHING


@contextmanager
def profiled(path: Path | None, device: torch.device) -> Iterator[tuple[Mark, Callable[[], None]]]:
    """Profile a few steps of a training.

    Args:
        path: of the trace, in the format of chrome://tracing and https://ui.perfetto.dev; None for no profile.
        device: where the model is.

    Yields:
        What marks a part of a step by its name, and a function to call after every step.
    """
    if path is None:  # torch's marks would cost a hundredth of a small step
        yield unmarked, lambda: None
        return
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device.type == "cuda" else [])]

    def finish(finished: profile) -> None:
        finished.export_chrome_trace(str(path))
        totals = {event.key: event.cpu_time_total / PROFILED / 1e3 for event in finished.key_averages()}
        if WHOLE not in totals:
            log.warning("No profile: the run ended before step %d, the last one that is profiled.", LAST)
            return
        parts = {name: totals[name] for name in PARTS}
        parts["rest"] = totals[WHOLE] - sum(parts.values())
        lines = [f"{name:<10}{part:9.2f} ms {part / totals[WHOLE]:7.1%}" for name, part in parts.items()]
        log.info("A step takes the host %.2f ms under the profiler:\n%s\n%s", totals[WHOLE], "\n".join(lines), path)

    plan = schedule(skip_first=SKIPPED, wait=0, warmup=1, active=PROFILED, repeat=1)
    with profile(activities=activities, schedule=plan, on_trace_ready=finish) as profiler:
        yield record_function, profiler.step
