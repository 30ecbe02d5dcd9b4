"""A training under way: its curve, its choice of weights, and everything that must survive an interruption."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.amp import GradScaler
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from lra.machine.distributed import World
from lra.machine.meter import Meter
from lra.machine.profiling import Mark, unmarked
from lra.training.batching import Batching
from lra.training.checkpoint import random_state, set_random_state
from lra.training.evaluation import Evaluation
from lra.training.outcome import DivergedError, Outcome

# fp16's gradients overflow now and then, and the scale is halved; where that ends here, no scale would do.
LEAST_SCALE = 2.0**-10


class Window:
    """Training loss and accuracy since the last evaluation, left on the device until they are read."""

    def __init__(self) -> None:
        self.recent = ""  # the mean of what was read last, for the progress bar
        self._unread: list[Tensor] = []
        self._values: list[list[float]] = []

    def add(self, loss_and_accuracy: Tensor) -> None:
        """Add a step's pair, (2,)."""
        self._unread.append(loss_and_accuracy)

    def read(self, step: int) -> None:
        """Fetch what is unread, if anything; `step` is the number of the last step added.

        Raises:
            DivergedError: a loss is not finite.
        """
        if not self._unread:
            return
        values = torch.stack(self._unread).tolist()
        self._unread = []
        self._values += values
        for number, (loss, _) in enumerate(values, start=step - len(values) + 1):
            if not np.isfinite(loss):
                raise DivergedError(f"The training loss is {loss} at step {number}.")
        loss, accuracy = np.mean(values, axis=0)
        self.recent = f"loss {loss:.3f}  train {accuracy:.1%}"

    def close(self) -> dict[str, float]:
        """Return the means since the last call, and begin anew."""
        loss, accuracy = np.mean(self._values, axis=0).tolist()
        self._values = []
        return {"train_loss": loss, "train_accuracy": accuracy}

    def state_dict(self) -> list[list[float]]:
        """Return what was read; call `read` first."""
        return self._values

    def load_state_dict(self, values: list[list[float]]) -> None:
        """Go on from there."""
        self._values = values


class Choice:
    """Keeps the weights with the best validation accuracy, and says when the validation loss no longer falls."""

    def __init__(self, patience: int | None) -> None:
        self._patience = patience
        self._lowest_loss = float("inf")
        self._passes_without = 0

    def consider(self, result: Evaluation, model: nn.Module, outcome: Outcome) -> None:
        """Note a validation pass in the outcome.

        Raises:
            DivergedError: its loss is not finite.
        """
        if not np.isfinite(result.loss):
            raise DivergedError(f"The validation loss is {result.loss} after step {outcome.steps}.")
        outcome.last_val_accuracy = result.accuracy
        if outcome.val_accuracy is None or result.accuracy > outcome.val_accuracy:
            outcome.val_accuracy = result.accuracy
            outcome.best_step = outcome.steps
            outcome.weights = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
        if result.loss < self._lowest_loss:
            self._lowest_loss, self._passes_without = result.loss, 0
        else:
            self._passes_without += 1
        outcome.stopped_early = self._patience is not None and self._passes_without >= self._patience

    def state_dict(self) -> list[float]:
        """Return what the next choice depends on."""
        return [self._lowest_loss, self._passes_without]

    def load_state_dict(self, values: list[float]) -> None:
        """Go on from there."""
        self._lowest_loss, self._passes_without = values[0], int(values[1])


@dataclass
class Training:
    """The parts of a training that change as it goes on."""

    model: nn.Module
    optimizer: Optimizer
    schedule: LRScheduler
    scaler: GradScaler
    window: Window
    choice: Choice
    meter: Meter
    outcome: Outcome
    batching: Batching
    device: torch.device
    world: World
    last_rate: float = 0.0  # the learning rate of the last step
    forward: nn.Module = field(init=False)  # the model as training calls it, compiled or not
    mark: Mark = unmarked  # names a part of a step for the profiler

    def __post_init__(self) -> None:
        self.forward = self.model

    def read(self) -> None:
        """Fetch what the device has of the last steps.

        Raises:
            DivergedError: training is past saving.
        """
        self.window.read(self.outcome.steps)
        if self.scaler.is_enabled() and self.scaler.get_scale() < LEAST_SCALE:
            raise DivergedError(
                f"The gradients are not finite in fp16 at any scale, at step {self.outcome.steps}. "
                "Try trainer.precision=bf16 or fp32."
            )

    def evaluated(self) -> bool:
        """Say whether the last step has had its validation pass."""
        return bool(self.outcome.curve) and self.outcome.curve[-1]["step"] == self.outcome.steps

    def state_dict(self) -> dict[str, Any]:
        """Return all that a resumed training needs to be bit for bit this one; between two steps, after `read`."""
        apart = ("cost", "predictions", "started")
        outcome = {name: value for name, value in vars(self.outcome).items() if name not in apart}
        return {
            "outcome": {**outcome, "wall_seconds": self.outcome.elapsed()},
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "scaler": self.scaler.state_dict(),
            "window": self.window.state_dict(),
            "choice": self.choice.state_dict(),
            "meter": self.meter.state_dict(),
            "last_rate": self.last_rate,
            "random": self.world.gather(random_state(self.device)),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there, on every process of the world."""
        for name, value in state["outcome"].items():
            setattr(self.outcome, name, value)
        for name in ("model", "optimizer", "schedule", "scaler", "window", "choice", "meter"):
            getattr(self, name).load_state_dict(state[name])
        self.last_rate = state["last_rate"]
        set_random_state(state["random"][self.world.rank], self.device)
