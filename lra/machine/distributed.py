"""Several processes that train one model together: their numbers, the share of each, and how they agree.

`torchrun --nproc_per_node=N run.py ...` starts them. Every batch is dealt out among them, gradients are summed, and
every example of an evaluation is counted once, so that N processes compute the same as one, up to rounding.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor, nn

from lra.errors import InputError

T = TypeVar("T")

log = logging.getLogger(__name__)

# Of these torchrun sets all.
VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
ALONE = {"RANK": "0", "WORLD_SIZE": "1"}  # their values for a single process
LONGEST_WAIT = timedelta(minutes=10)  # for the other processes, which may prepare their data first


@dataclass(frozen=True)
class World:
    """The processes of a run; the default is a single one, for which everything here does nothing.

    Attributes:
        rank: the number of this process.
        size: how many there are.
    """

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Whether this process is the one that writes and reports."""
        return self.rank == 0

    def share(self, index: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return this process's part of a batch."""
        return index[self.rank :: self.size]

    def sum(self, tensor: Tensor) -> Tensor:
        """Add a tensor up over all processes, in place."""
        if self.size > 1:
            dist.all_reduce(tensor)
        return tensor

    def sum_gradients(self, model: nn.Module) -> None:
        """Add the gradients up over all processes: one message for all of them."""
        if self.size == 1:
            return
        gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
        flat = self.sum(torch.cat([gradient.flatten() for gradient in gradients]))
        for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(part.view_as(gradient))

    def share_buffers(self, model: nn.Module) -> None:
        """Give every process the first one's buffers: what a model keeps beside its parameters."""
        if self.size > 1:
            for buffer in model.buffers():
                shared = buffer.contiguous()
                dist.broadcast(shared, 0)
                buffer.copy_(shared)

    def agree(self, value: T) -> T:
        """Return the first process's value in all of them."""
        if self.size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box)
        return box[0]

    def gather(self, value: T) -> list[T]:
        """Return every process's value, by rank."""
        if self.size == 1:
            return [value]
        values: list[T | None] = [None] * self.size
        dist.all_gather_object(values, value)
        return values  # type: ignore[return-value]


@dataclass(frozen=True)
class Launch:
    """What a launcher such as torchrun told this process: one of `size`, number `rank`, on its machine `local_rank`."""

    rank: int
    size: int
    local_rank: int


def launched() -> Launch | None:
    """Read what the launcher told this process.

    Returns:
        None where there is none: schedulers and containers set some of the variables too, and start one process.

    Raises:
        InputError: all variables are set, and one has an impossible value.
    """
    told = {name: os.environ[name] for name in VARIABLES if os.environ.get(name)}
    if len(told) < len(VARIABLES):
        return None
    try:
        rank, size, local_rank = (int(told[name]) for name in VARIABLES[:3])
        possible = 0 <= rank < size and 0 <= local_rank < size and 0 < int(told["MASTER_PORT"]) < 2**16
    except ValueError:
        possible = False
    if not possible:
        values = " ".join(f"{name}={value}" for name, value in told.items())
        raise InputError(
            f"{values} must be numbers with RANK and LOCAL_RANK below WORLD_SIZE, as torchrun sets them. Unset them to "
            "train in one process."
        )
    return Launch(rank, size, local_rank)


def leads() -> bool:
    """Say whether this process is the one that writes and reports, before the others are joined and after."""
    launch = launched()
    return launch is None or launch.rank == 0


@contextmanager
def joined(device: torch.device) -> Iterator[World]:
    """Join the processes that torchrun started beside this one, if it did.

    Raises:
        InputError: they cannot be reached, or do not come.
    """
    launch = launched()
    if launch is None or launch.size == 1:
        _warn_of_stray_variables(launch)
        yield World()
        return
    backend, device_id = ("nccl", device) if device.type == "cuda" else ("gloo", None)
    try:
        store, rank, size = next(dist.rendezvous("env://", timeout=LONGEST_WAIT))
        dist.init_process_group(backend, store=store, rank=rank, world_size=size, device_id=device_id)
    except (RuntimeError, ValueError, OSError) as error:
        reason = str(error) or type(error).__name__
        raise InputError(
            f"Process {launch.rank} of {launch.size} cannot join the others at MASTER_ADDR={os.environ['MASTER_ADDR']} "
            f"MASTER_PORT={os.environ['MASTER_PORT']}: {reason.splitlines()[0]}. Start them all, with torchrun, or "
            "unset WORLD_SIZE to train in one process."
        ) from error
    if rank > 0:
        logging.getLogger("lra").setLevel(logging.ERROR)
    try:
        yield World(rank, size)
        dist.barrier()  # torchrun ends all when one fails, on its way out too: not before the first has written all
    finally:
        dist.destroy_process_group()


def _warn_of_stray_variables(launch: Launch | None) -> None:
    """Say that one process trains alone though the environment speaks of several."""
    stray = [f"{name}={os.environ[name]}" for name, alone in ALONE.items() if os.environ.get(name, alone) != alone]
    if launch is None and stray:
        lacking = [name for name in VARIABLES if not os.environ.get(name)]
        log.warning(
            "%s is set, but not %s: not by torchrun, and this process trains alone. Several are started with "
            "torchrun --nproc_per_node=N run.py.",
            " ".join(stray),
            ", ".join(lacking),
        )
