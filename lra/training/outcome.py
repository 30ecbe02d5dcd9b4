"""What a training produced so far, and how it can go wrong."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor


class DivergedError(ArithmeticError):
    """The loss is no longer a finite number."""


@dataclass
class Outcome:
    """What training produced so far; it is filled as training goes on, so that a failure leaves what there was.

    Accuracies are fractions. `val_accuracy` and `test_accuracy` belong to the weights of `best_step`, the evaluation
    with the highest validation accuracy (the first, if several share it); the `last_` ones to the weights of the last
    step, `steps`. `micro_batch` is how many examples a forward pass had, `compile_seconds` what compiling took and
    `wall_seconds` what earlier attempts took,
    `started` when this one began, and `resumptions` says at which step, when and with which commit interrupted ones
    were taken up.
    """

    steps: int = 0
    stopped_early: bool = False
    best_step: int | None = None
    val_accuracy: float | None = None
    test_accuracy: float | None = None
    last_val_accuracy: float | None = None
    last_test_accuracy: float | None = None
    micro_batch: int | None = None
    compile_seconds: float = 0.0
    wall_seconds: float = 0.0
    started: float = field(default_factory=time.perf_counter)
    resumptions: list[dict[str, Any]] = field(default_factory=list)
    cost: dict[str, Any] = field(default_factory=dict)
    curve: list[dict[str, Any]] = field(default_factory=list)
    weights: dict[str, Tensor] = field(default_factory=dict)
    predictions: dict[str, NDArray[np.uint8]] = field(default_factory=dict)

    def elapsed(self) -> float:
        """Return the seconds of this attempt and the earlier ones."""
        return self.wall_seconds + time.perf_counter() - self.started
