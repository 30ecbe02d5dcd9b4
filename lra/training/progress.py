"""How a training goes: its loss since the last evaluation, and which of its weights are the best."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from lra.training.evaluation import Evaluation
from lra.training.outcome import DivergedError, Outcome
from lra.training.stepper import Step


class Window:
    """Training loss and accuracy since the last evaluation, left on the device until they are read.

    Attributes:
        recent: the mean of what was read, in words, for the progress bar.
        rate: the learning rate of the last step.
    """

    def __init__(self) -> None:
        self.recent = ""
        self.rate = 0.0
        self._unread: list[Step] = []
        self._values: list[list[float]] = []

    def add(self, step: Step) -> None:
        """Add a step, without waiting for its numbers."""
        self._unread.append(step)
        self.rate = step.rate

    def read(self, number: int) -> None:
        """Fetch what is unread, if anything; `number` is that of the last step added.

        Raises:
            DivergedError: a loss is not finite.
        """
        if not self._unread:
            return
        numbers = [tensor for step in self._unread for tensor in (step.loss, step.accuracy)]
        values = torch.stack(numbers).view(-1, 2).tolist()
        self._unread = []
        self._values += values
        for step_number, (loss, _) in enumerate(values, start=number - len(values) + 1):
            if not np.isfinite(loss):
                raise DivergedError(f"The training loss is {loss} at step {step_number}.")
        loss, accuracy = np.mean(values, axis=0)
        self.recent = f"loss {loss:.3f}  train {accuracy:.1%}"

    def close(self) -> dict[str, float]:
        """Return the means since the last call, and begin anew."""
        loss, accuracy = np.mean(self._values, axis=0).tolist()
        self._values = []
        return {"train_loss": loss, "train_accuracy": accuracy}

    def state_dict(self) -> dict[str, Any]:
        """Return what was read; call `read` first."""
        return {"values": self._values, "rate": self.rate}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        self._values, self.rate = state["values"], state["rate"]


class Choice:
    """Keeps the weights with the best validation accuracy, and says when the validation loss no longer falls."""

    def __init__(self, patience: int | None) -> None:
        self._patience = patience
        self._lowest_loss = float("inf")
        self._passes_without = 0

    def consider(self, evaluation: Evaluation, model: nn.Module, outcome: Outcome) -> None:
        """Note a validation pass in the outcome.

        Raises:
            DivergedError: its loss is not finite.
        """
        if not np.isfinite(evaluation.loss):
            raise DivergedError(f"The validation loss is {evaluation.loss} after step {outcome.steps}.")
        outcome.last_val_accuracy = evaluation.accuracy
        if outcome.val_accuracy is None or evaluation.accuracy > outcome.val_accuracy:
            outcome.val_accuracy = evaluation.accuracy
            outcome.best_step = outcome.steps
            outcome.weights = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
        if evaluation.loss < self._lowest_loss:
            self._lowest_loss, self._passes_without = evaluation.loss, 0
        else:
            self._passes_without += 1
        outcome.stopped_early = self._patience is not None and self._passes_without >= self._patience

    def state_dict(self) -> list[float]:
        """Return what the next choice depends on."""
        return [self._lowest_loss, self._passes_without]

    def load_state_dict(self, values: list[float]) -> None:
        """Go on from there."""
        self._lowest_loss, self._passes_without = values[0], int(values[1])
