"""Memory: its peak, how much is free, whether it ran out, and a limit for it."""

from __future__ import annotations

import ctypes
import gc
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import torch


def load_libraries(device: torch.device) -> None:
    """Take a step with a tiny model, so that what torch loads at its first step is not counted as the model's."""
    weight = torch.zeros(8, 8, device=device, requires_grad=True)
    (weight @ weight).sum().backward()
    torch.optim.AdamW([weight], fused=True).step()


def return_free_memory(device: torch.device) -> None:
    """Give memory that is allocated but unused back to the system, so that the next peak shows its use again."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif sys.platform == "linux":
        ctypes.CDLL(None).malloc_trim(0)


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

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024, None


def is_out_of_memory(error: BaseException) -> bool:
    """Tell a lack of memory from other failures; on a CPU torch raises a plain RuntimeError for it."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "DefaultCPUAllocator" in str(error)


def free_memory(device: torch.device) -> float:
    """Return how many bytes are free; infinity where the system does not say."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
        return torch.cuda.mem_get_info(device)[0]
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return float("inf")
    return next(float(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))


def peak_of(action: Callable[[], object], device: torch.device) -> int:
    """Return how many bytes an action needs at most, beyond what is held before it."""
    return_free_memory(device)
    reset_peak_memory(device)
    before, _ = peak_memory(device)
    action()
    return peak_memory(device)[0] - before


def limit_memory(num_bytes: float | None, device: torch.device) -> None:
    """Limit this process to so many bytes beyond what it has; an allocation beyond the limit then fails in torch.

    Without the limit a CPU's system would kill the process, or another one. None lifts the limit.
    """
    if device.type == "cuda":
        total = torch.cuda.get_device_properties(device).total_memory
        torch.cuda.set_per_process_memory_fraction(min((num_bytes or total) / total, 1.0), device)
    elif sys.platform == "linux":
        import resource

        with suppress(OSError):
            lines = Path("/proc/self/status").read_text().splitlines()
            held = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmData:"))
            _, hard = resource.getrlimit(resource.RLIMIT_DATA)
            resource.setrlimit(resource.RLIMIT_DATA, (hard if num_bytes is None else int(held + num_bytes), hard))
