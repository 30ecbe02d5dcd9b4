"""What a training produced so far, and how it can go wrong."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

# Metadata of fields that are not copied into a run's record, or neither there nor into a checkpoint.
NOT_IN_RECORD = {"record": False}
IN_NEITHER = {"record": False, "checkpoint": False}


class DivergedError(ArithmeticError):
    """The loss is no longer a finite number."""


@dataclass
class Outcome:
    """What training produced so far. It is filled as training goes on, so that it survives a failure.

    Accuracies are fractions. `val_accuracy` and `test_accuracy` belong to the weights of `best_step`, the evaluation
    with the highest validation accuracy (the first, if several share it); the `last_` ones to the weights of the last
    step, `steps`. `micro_batch` is how many examples a forward pass had, `compile_seconds` what compiling took,
    `wall_seconds` what earlier attempts took, `started` when this one began, and `resumptions` says at which step, when
    and with which commit interrupted ones were taken up.
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
    started: float = field(default_factory=time.perf_counter, metadata=IN_NEITHER)
    resumptions: list[dict[str, Any]] = field(default_factory=list)
    cost: dict[str, Any] = field(default_factory=dict, metadata=IN_NEITHER)
    curve: list[dict[str, Any]] = field(default_factory=list, metadata=NOT_IN_RECORD)
    weights: dict[str, Tensor] = field(default_factory=dict, metadata=NOT_IN_RECORD)
    predictions: dict[str, NDArray[np.uint8]] = field(default_factory=dict, metadata=IN_NEITHER)

    def elapsed(self) -> float:
        """Return the seconds of this attempt and the earlier ones."""
        return self.wall_seconds + time.perf_counter() - self.started

    def evaluated(self) -> bool:
        """Say whether the last step has had its validation pass."""
        return bool(self.curve) and self.curve[-1]["step"] == self.steps

    def in_record(self) -> dict[str, Any]:
        """Return the fields that the run's record has too, under the same names."""
        return self._held_by("record")

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint keeps; the time until now counts as an earlier attempt's."""
        return {**self._held_by("checkpoint"), "wall_seconds": self.elapsed()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there.

        Raises:
            ValueError: it is no state of an outcome.
        """
        if state.keys() != self.state_dict().keys():
            raise ValueError(f"it has other fields: {', '.join(state.keys() ^ self.state_dict().keys())}")
        for name, value in state.items():
            setattr(self, name, value)

    def _held_by(self, holder: str) -> dict[str, Any]:
        names = [attribute.name for attribute in fields(self) if attribute.metadata.get(holder, True)]
        return {name: getattr(self, name) for name in names}
