"""One optimiser step: the gradients of a batch, added up over its parts and over processes, and the update."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from lra.machine.memory import is_out_of_memory
from lra.tasks import Split
from lra.training import compilation
from lra.training.batching import lengths
from lra.training.micro_batch import largest_micro_batch
from lra.training.objectives import compute_logits
from lra.training.progress import Training

log = logging.getLogger(__name__)


@dataclass
class Stepper:
    """Takes the steps of a training.

    Attributes:
        training: what each step changes.
        split: the training examples.
        max_len: the task's longest sequence.
        steps, batch_size, micro_batch, precision: as the trainer has them.
        clip_norm: largest norm of the gradient; None for no clipping.
    """

    training: Training
    split: Split
    max_len: int
    steps: int
    batch_size: int
    micro_batch: int | Literal["auto"] | None
    precision: str
    clip_norm: float | None

    def prepare(self, compile: bool | str) -> None:
        """Choose how many examples a forward pass takes, unless an earlier attempt did, and compile if that is wanted.

        Args:
            compile: as the trainer has it.
        """
        outcome = self.training.outcome
        if outcome.micro_batch is None:
            outcome.micro_batch = self._choose_micro_batch()
        if compilation.wanted(compile, self.training.device):
            self._compile(outcome.micro_batch)

    def take(self, index: NDArray[np.int64]) -> None:
        """Take one step on the batch of these examples."""
        training = self.training
        optimizer, scaler, world = training.optimizer, training.scaler, training.world
        share = world.share(index)
        while True:
            try:
                totals, tokens = self._gradients(share, len(index))
                break
            except RuntimeError as error:
                size = training.outcome.micro_batch
                if self.micro_batch != "auto" or not is_out_of_memory(error) or size is None or size == 1:
                    raise
                training.outcome.micro_batch = size // 2
                log.warning("Out of memory with %d examples at once; going on with %d.", size, size // 2)
        with training.mark("optimizer"):
            world.sum_gradients(training.model)
            world.sum(totals)
            if self.clip_norm is not None:
                scaler.unscale_(optimizer)
                nn.utils.clip_grad_norm_(training.model.parameters(), self.clip_norm)
            training.last_rate = optimizer.param_groups[0]["lr"]
            scaler.step(optimizer)
            scaler.update()
        training.window.add(totals)
        training.outcome.steps += 1
        if training.outcome.steps < self.steps:
            training.schedule.step()
        training.meter.lap(*tokens)

    def _gradients(self, share: NDArray[np.int64], batch_size: int) -> tuple[Tensor, tuple[int, int]]:
        """Add up the gradients of this process's share of a batch.

        Returns:
            The share's part of the batch's mean loss and accuracy, (2,), on the device; real and padded tokens.
        """
        training = self.training
        size = training.outcome.micro_batch or len(share)
        if size < len(share):  # parts of about equally long examples have less padding
            share = share[np.argsort(lengths(self.split, share), kind="stable")]
        training.optimizer.zero_grad(set_to_none=True)
        totals = torch.zeros(2, device=training.device)
        real = padded = 0
        for first in range(0, len(share), size):
            with training.mark("data"):
                batch = training.batching.gather(self.split, share[first : first + size], self.max_len)
                labels = batch.labels.to(training.device, non_blocking=True)
            with training.mark("forward"):
                logits = compute_logits(training.forward, batch, training.device, self.precision)
                # Sums over the batch's size, not means over the part's: the gradient is that of the undivided batch.
                loss = F.cross_entropy(logits, labels, reduction="sum") / batch_size
            with training.mark("backward"):
                training.scaler.scale(loss).backward()
            totals += torch.stack([loss.detach(), (logits.argmax(-1) == labels).sum() / batch_size])
            real, padded = real + int(batch.mask.sum()), padded + batch.mask.numel()
        return totals, (real, padded)

    def _choose_micro_batch(self) -> int:
        """Return how many examples a forward pass of this process takes."""
        training = self.training
        largest = -(-self.batch_size // training.world.size)
        if self.micro_batch != "auto":
            return min(self.micro_batch or largest, largest)
        by_length = np.argsort(lengths(self.split, np.arange(len(self.split.labels))), kind="stable")

        def attempt(size: int) -> None:
            with torch.random.fork_rng(devices=[training.device] if training.device.type == "cuda" else []):
                training.outcome.micro_batch = size
                self._gradients(by_length[-size:], size)

        found = min(training.world.gather(largest_micro_batch(attempt, largest, training.device)))
        training.optimizer.zero_grad(set_to_none=True)
        log.info("trainer.micro_batch=auto: %d of %d examples at once.", found, largest)
        return found

    def _compile(self, size: int) -> None:
        """Compile the training step for the shapes of this process's share of a batch."""
        training = self.training
        share = -(-self.batch_size // training.world.size)
        sizes = {min(size, share), share % size or size}
        training.batching = compilation.bounded(training.batching, self.max_len)
        training.forward, seconds = compilation.compiled(
            training.model, self.split, training.batching, sizes, self.max_len, training.device, self.precision
        )
        training.outcome.compile_seconds += seconds
        log.info("Compiled in %.1f s.", seconds)
