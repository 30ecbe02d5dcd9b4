"""The device of a run: of several GPUs one that no other run on the machine uses, whatever launched the runs."""

from __future__ import annotations

import logging
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from filelock import FileLock, Timeout

from lra.errors import InputError
from lra.files import writing
from lra.machine.distributed import launched

log = logging.getLogger(__name__)


@contextmanager
def claimed_device(name: str) -> Iterator[torch.device]:
    """Turn `auto`, `cpu` or `cuda` into a device; of several GPUs choose one that no other run on this machine holds.

    Under torchrun each process has the GPU of its local rank.

    Raises:
        InputError: the name is another one, or asks for a GPU where there is none.
    """
    if name not in ("auto", "cpu", "cuda"):
        raise InputError(f"device must be auto, cpu or cuda. Got {name!r}.")
    if name == "cuda" and not torch.cuda.is_available():
        raise InputError(
            "device=cuda was asked for, but torch sees no CUDA device. Use device=cpu or device=auto, or install a "
            "build of torch with CUDA and check `nvidia-smi`."
        )
    if name == "cpu" or not torch.cuda.is_available():
        yield torch.device("cpu")
    elif launch := launched():
        if launch.local_rank >= torch.cuda.device_count():
            raise InputError(
                f"LOCAL_RANK={launch.local_rank} has no GPU: torch sees {torch.cuda.device_count()}. Start no more "
                "processes on a machine than it has GPUs, or use device=cpu."
            )
        yield _use(launch.local_rank)
    else:
        with writing("A folder for temporary files", "Name one that can be with TMPDIR=."):
            folder = Path(tempfile.gettempdir())
        with claimed_number(torch.cuda.device_count(), folder) as number:
            yield _use(number)


@contextmanager
def claimed_number(count: int, folder: Path) -> Iterator[int]:
    """Hold the first number below `count` that nobody holds; share one, with a warning, if all are held.

    Raises:
        InputError: the folder, where the locks are, cannot be written.
    """
    for number in range(count):
        visible = re.sub(r"\W", "-", os.environ.get("CUDA_VISIBLE_DEVICES", "all"))  # parts of a GPU have slashes
        lock = FileLock(folder / f"lra-{os.getuid()}-gpu-{visible}-{number}.lock")
        with writing(f"The lock of a GPU in {folder}", "Name another folder with TMPDIR=."):
            try:
                lock.acquire(timeout=0)
            except Timeout:
                continue
        try:
            yield number
        finally:
            lock.release()
        return
    shared = os.getpid() % count
    if count > 1:
        log.warning("All %d GPUs are in use by other runs; number %d is shared with one of them.", count, shared)
    yield shared


def _use(number: int) -> torch.device:
    device = torch.device("cuda", number)
    torch.cuda.set_device(device)
    return device
