"""What a training has around it."""

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
        stop: is looked at after every step and between batches of an evaluation; by default it never comes.
        checkpoints: where to go on from, and where to keep what there is; None to keep nothing.
        meter: made before the model, so that it counts the model's memory; None for one that is made after it.
        report: is handed a flat dict of numbers after every validation pass, the latest point of the curve.
        trace: a file for the profile of a few steps; None for no profile.
    """

    device: torch.device
    world: World = field(default_factory=World)
    stop: StopRequest = field(default_factory=StopRequest)
    checkpoints: Checkpoints | None = None
    meter: Meter | None = None
    report: Callable[[dict[str, Any]], None] = tell_nobody
    trace: Path | None = None
