"""The only training loop: every task, every backbone, the same steps, the same evaluation."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from lra.data import Batch, Batching
from lra.errors import InputError
from lra.meter import Meter
from lra.optimization import Optimization
from lra.tasks import Split, Task

log = logging.getLogger(__name__)

PRECISIONS = {"fp32": None, "bf16": torch.bfloat16}
# Losses are read back from the device this often: for the progress bar, and to stop a diverged run.
READ_EVERY = 20
LONG_ON_CPU_SECONDS = 15 * 60


class Evaluation(NamedTuple):
    """One full pass over a split: mean loss, accuracy as a fraction, (N,) predicted classes."""

    loss: float
    accuracy: float
    predictions: NDArray[np.uint8]


class DivergedError(ArithmeticError):
    """The loss is no longer a finite number."""


@dataclass
class Outcome:
    """What training produced so far; it is filled as training goes on, so that a failure leaves what there was.

    Accuracies are fractions. `val_accuracy` and `test_accuracy` belong to the weights of `best_step`, the evaluation
    with the highest validation accuracy (the first, if several share it); the `last_` ones to the weights of the last
    step, `steps`.
    """

    steps: int = 0
    stopped_early: bool = False
    best_step: int | None = None
    val_accuracy: float | None = None
    test_accuracy: float | None = None
    last_val_accuracy: float | None = None
    last_test_accuracy: float | None = None
    cost: dict[str, Any] = field(default_factory=dict)
    weights: dict[str, Tensor] = field(default_factory=dict)
    predictions: dict[str, NDArray[np.uint8]] = field(default_factory=dict)


@dataclass(frozen=True)
class Trainer:
    """How to train; the fields are the `trainer` node of the configuration, but for the last two.

    Attributes:
        steps: optimiser steps.
        batch_size: examples in one optimiser step.
        micro_batch: examples in one forward pass, a divisor of batch_size; None for the whole batch.
        precision: "fp32", or "bf16" for autocast.
        eval_every: steps from one validation pass to the next; the last step always has one.
        patience: validation passes without a lower loss before training stops, None for never.
        eval_batch_size: examples in one forward pass of an evaluation.
        optimization: how weights are updated; a node of its own, `optimizer`.
        batching: how examples become batches; a node of its own, `data`.
    """

    steps: int
    batch_size: int
    micro_batch: int | None
    precision: str
    eval_every: int
    patience: int | None
    eval_batch_size: int
    optimization: Optimization
    batching: Batching

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "eval_every", "eval_batch_size"):
            if getattr(self, name) < 1:
                raise InputError(f"trainer.{name} must be at least 1. Got {getattr(self, name)}.")
        if self.precision not in PRECISIONS:
            raise InputError(f"trainer.precision must be one of {', '.join(PRECISIONS)}. Got {self.precision!r}.")
        self.optimization.check(self.steps)
        if self.micro_batch is not None and (self.micro_batch < 1 or self.batch_size % self.micro_batch):
            raise InputError(
                f"trainer.micro_batch must divide trainer.batch_size={self.batch_size}. Got {self.micro_batch}; "
                f"the largest that fits below it is {_largest_divisor(self.batch_size, self.micro_batch)}."
            )

    def fit(
        self,
        model: nn.Module,
        task: Task,
        *,
        seed: int,
        device: torch.device,
        report: Callable[[dict[str, Any]], None],
        outcome: Outcome,
    ) -> None:
        """Train, keep the best weights on validation, and test both them and the last ones.

        Args:
            model: maps tokens (B, I, L) and mask (B, I, L) to logits; it is left with the best weights.
            task: a prepared task.
            seed: of the order of the examples and of the draws at evaluation; the caller seeds those of training.
            device: where the model is.
            report: is handed a flat dict of numbers after every evaluation.
            outcome: is filled on the way.

        Raises:
            DivergedError: the loss is not finite any more.
        """
        train, val, test = task.split("train"), task.split("val"), task.split("test")
        optimizer, schedule = self.optimization.build(model.parameters(), self.steps)
        meter, window, choice = Meter(device), _Window(), _Choice(self.patience)
        indices = self.batching.training(train, self.batch_size, seed)
        model.train()
        with _progress_bar(self.steps) as bar:
            try:
                meter.start()
                while outcome.steps < self.steps and not outcome.stopped_early:
                    learning_rate = optimizer.param_groups[0]["lr"]
                    window.add(*self._step(model, optimizer, train, next(indices), task.max_len, device, meter))
                    outcome.steps += 1
                    if outcome.steps < self.steps:
                        schedule.step()
                    bar.update()
                    if outcome.steps == 1:
                        bar.clear()
                        self._warn_if_long(meter, device)
                    evaluating = outcome.steps % self.eval_every == 0 or outcome.steps == self.steps
                    if evaluating or outcome.steps % READ_EVERY == 0:
                        window.read(outcome.steps)
                        bar.set_postfix_str(f"{window.recent}  {choice}", refresh=False)
                    if not evaluating:
                        continue
                    meter.stop()
                    result = self.evaluate(model, val, task.max_len, device, seed)
                    choice.consider(result, model, outcome)
                    report(
                        {
                            "step": outcome.steps,
                            "epoch": outcome.steps * self.batch_size / len(train.labels),
                            **window.close(),
                            "val_loss": result.loss,
                            "val_accuracy": result.accuracy,
                            "learning_rate": learning_rate,
                            "train_seconds": meter.summary()["train_seconds"],
                        }
                    )
                    meter.start()
            finally:
                meter.stop()
                outcome.cost = meter.summary()

        last = best = self.evaluate(model, test, task.max_len, device, seed)
        model.load_state_dict(outcome.weights)
        if outcome.best_step != outcome.steps:
            best = self.evaluate(model, test, task.max_len, device, seed)
        outcome.last_test_accuracy, outcome.test_accuracy = last.accuracy, best.accuracy
        outcome.predictions = {"last": last.predictions, "best": best.predictions}

    @torch.no_grad()
    def evaluate(self, model: nn.Module, split: Split, max_len: int, device: torch.device, seed: int) -> Evaluation:
        """Pass once over every example of a split, none dropped, each with the same weight.

        The draws of stochastic mechanisms are seeded, and the random state of training is left as it was: evaluating
        twice gives the same number and changes nothing that follows.
        """
        was_training = model.training
        model.eval()
        loss = torch.zeros((), device=device, dtype=torch.float64)
        predictions = np.zeros(len(split.labels), dtype=np.uint8)
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(seed)
            for index, batch in self.batching.evaluation(split, self.eval_batch_size, max_len):
                logits = self._logits(model, batch, device)
                loss += F.cross_entropy(logits, batch.labels.to(device), reduction="sum")
                predictions[index] = logits.argmax(-1).cpu().numpy()
        model.train(was_training)
        return Evaluation(loss.item() / len(predictions), float((predictions == split.labels).mean()), predictions)

    def _step(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        train: Split,
        index: NDArray[np.int64],
        max_len: int,
        device: torch.device,
        meter: Meter,
    ) -> tuple[Tensor, Tensor]:
        """Take one optimiser step; return the batch's mean loss and accuracy, on the device."""
        optimizer.zero_grad(set_to_none=True)
        total = torch.zeros(2, device=device)
        real = padded = 0
        for first in range(0, len(index), self.micro_batch or len(index)):
            part = index[first : first + (self.micro_batch or len(index))]
            batch = self.batching.gather(train, part, max_len)
            labels = batch.labels.to(device, non_blocking=True)
            logits = self._logits(model, batch, device)
            # Sums over the batch's size, not means over the part's: the gradient is that of the undivided batch.
            loss = F.cross_entropy(logits, labels, reduction="sum") / len(index)
            loss.backward()
            total += torch.stack([loss.detach(), (logits.argmax(-1) == labels).sum() / len(index)])
            real, padded = real + int(batch.mask.sum()), padded + batch.mask.numel()
        if self.optimization.clip_norm is not None:
            nn.utils.clip_grad_norm_(model.parameters(), self.optimization.clip_norm)
        optimizer.step()
        meter.lap(real, padded)
        return total[0], total[1]

    def _logits(self, model: nn.Module, batch: Batch, device: torch.device) -> Tensor:
        dtype = PRECISIONS[self.precision]
        with torch.autocast(device.type, dtype=dtype, enabled=dtype is not None):
            logits = model(batch.tokens.to(device, non_blocking=True), batch.mask.to(device, non_blocking=True))
        return logits.float()

    def _warn_if_long(self, meter: Meter, device: torch.device) -> None:
        """Say at the start how long a run on a CPU will take, if that is long."""
        if device.type != "cpu":
            return
        meter.stop()
        seconds = meter.laps[0] * self.steps
        if seconds > LONG_ON_CPU_SECONDS:
            log.warning(
                "The first of %d steps took %.1f s: about %.1f hours on this CPU, evaluations aside. "
                "scale=mini is made for a CPU and takes minutes.",
                self.steps,
                meter.laps[0],
                seconds / 3600,
            )
        meter.start()


class _Window:
    """Training loss and accuracy since the last evaluation, left on the device until they are read."""

    def __init__(self) -> None:
        self.recent = ""  # the mean of what was read last, for the progress bar
        self._unread: list[Tensor] = []
        self._values: list[list[float]] = []

    def add(self, loss: Tensor, accuracy: Tensor) -> None:
        self._unread.append(torch.stack([loss, accuracy]))

    def read(self, step: int) -> None:
        """Fetch what is unread, if anything; `step` is the number of the last step added."""
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


class _Choice:
    """Keeps the weights with the best validation accuracy, and says when the validation loss no longer falls."""

    def __init__(self, patience: int | None) -> None:
        self._patience = patience
        self._lowest_loss = float("inf")
        self._passes_without = 0
        self._best_accuracy: float | None = None

    def __str__(self) -> str:
        return "" if self._best_accuracy is None else f"best val {self._best_accuracy:.1%}"

    def consider(self, result: Evaluation, model: nn.Module, outcome: Outcome) -> None:
        if not np.isfinite(result.loss):
            raise DivergedError(f"The validation loss is {result.loss} after step {outcome.steps}.")
        outcome.last_val_accuracy = result.accuracy
        if self._best_accuracy is None or result.accuracy > self._best_accuracy:
            self._best_accuracy = outcome.val_accuracy = result.accuracy
            outcome.best_step = outcome.steps
            outcome.weights = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
        if result.loss < self._lowest_loss:
            self._lowest_loss, self._passes_without = result.loss, 0
        else:
            self._passes_without += 1
        outcome.stopped_early = self._patience is not None and self._passes_without >= self._patience


def _progress_bar(steps: int) -> tqdm:
    # In a log file every refresh is a line of its own: a few of them will do.
    seconds = 0.2 if sys.stderr.isatty() else 30
    return tqdm(total=steps, desc="train", unit="step", file=sys.stderr, mininterval=seconds, maxinterval=2 * seconds)


def _largest_divisor(number: int, limit: int) -> int:
    return max(d for d in range(1, number + 1) if number % d == 0 and d <= max(limit, 1))
