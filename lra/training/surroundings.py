"""What surrounds a training: its device, the other processes, checkpoints, the meter and the reports."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from lra.machine.distributed import World
from lra.machine.meter import Meter
from lra.machine.stopping import StopRequest
from lra.training.checkpoint import Checkpoints


def tell_nobody(point: dict[str, Any]) -> None:
    """Report nothing."""


@dataclass(frozen=True)
class Surroundings:
    """Where a training happens, who watches it and who may interrupt it: nothing of what it computes.

    Attributes:
        device: where the model is.
        world: the processes that train together; by default this one alone.
        stop: is looked at after every step and between batches of an evaluation; by default it is never requested.
        checkpoints: where to go on from and what to write; None for no checkpoints.
        meter: made before the model, so that it counts the model's memory; None for one that is made after it.
        report: is called after every validation pass with the latest point of the curve, a flat dict of numbers.
        trace: a file for the profile of a few steps; None for no profile.
    """

    device: torch.device
    world: World = field(default_factory=World)
    stop: StopRequest = field(default_factory=StopRequest)
    checkpoints: Checkpoints | None = None
    meter: Meter | None = None
    report: Callable[[dict[str, Any]], None] = tell_nobody
    trace: Path | None = None
