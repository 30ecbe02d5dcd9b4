"""One optimiser step: the gradients of a batch, added up over its parts and over processes, and the update."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.amp import GradScaler
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from lra.machine.distributed import World
from lra.machine.memory import is_out_of_memory
from lra.machine.profiling import Mark, unmarked
from lra.tasks import Split
from lra.training import compilation
from lra.training.batching import Batching, lengths
from lra.training.micro_batch import largest_micro_batch
from lra.training.objectives import CLASSES, Objective
from lra.training.optimizer import Optimization
from lra.training.outcome import DivergedError

log = logging.getLogger(__name__)

# fp16's gradients overflow now and then, which halves their scale; below this one no scale will help.
LEAST_SCALE = 2.0**-10


class Step(NamedTuple):
    """What one step was; its tensors stay on the device, since reading them would wait for it.

    Attributes:
        loss: (), the mean of the batch, over all processes.
        accuracy: (), likewise, as a fraction.
        rate: the learning rate.
        real_tokens: of this process, without padding.
        padded_tokens: with it.
    """

    loss: Tensor
    accuracy: Tensor
    rate: float
    real_tokens: int
    padded_tokens: int


@dataclass
class Stepper:
    """Takes the steps of a training, and owns all that they change.

    Attributes:
        model: to be trained.
        split: the training examples.
        max_len: the task's longest sequence.
        device: where the model is.
        world: the processes that train together.
        steps, batch_size, micro_batch, precision, optimization, batching: as the trainer has them.
        objective: what the model is trained for.
        optimizer, schedule, scaler: made of these.
        forward: the model as training calls it, compiled or not.
        size: examples in a forward pass; None until `prepare`.
    """

    model: nn.Module
    split: Split
    max_len: int
    device: torch.device
    world: World
    steps: int
    batch_size: int
    micro_batch: int | Literal["auto"] | None
    precision: str
    optimization: Optimization
    batching: Batching
    objective: Objective = CLASSES
    optimizer: Optimizer = field(init=False)
    schedule: LRScheduler = field(init=False)
    scaler: GradScaler = field(init=False)
    forward: nn.Module = field(init=False)
    size: int | None = None

    def __post_init__(self) -> None:
        self.optimizer, self.schedule = self.optimization.build(self.model, self.steps)
        self.scaler = GradScaler(self.device.type, enabled=self.precision == "fp16")
        self.forward = self.model

    def prepare(self, compile: bool | str) -> float:
        """Choose how many examples a forward pass takes, unless an earlier attempt did, and compile if asked to.

        Args:
            compile: as the trainer has it.

        Returns:
            The seconds that compiling took.
        """
        if self.size is None:
            self.size = self._choose_size()
        return self._compile(self.size) if compilation.wanted(compile, self.device) else 0.0

    def take(self, index: NDArray[np.int64], mark: Mark = unmarked) -> Step:
        """Take one step on the batch of these examples, (batch_size,); `mark` names its parts for the profiler."""
        totals, tokens = self._gradients_that_fit(self.world.share(index), len(index), mark)
        with mark("optimizer"):
            self.world.sum_gradients(self.model)
            self.world.sum(totals)
            rate = self._update()
        # The schedule has no rate after the last step.
        if self.schedule.last_epoch + 1 < self.steps:
            self.schedule.step()
        loss, accuracy = totals.unbind()
        return Step(loss, accuracy, rate, *tokens)

    def check_scale(self, number: int) -> None:
        """Check, after step `number`, that fp16 can hold the gradients.

        Raises:
            DivergedError: it cannot, at any scale.
        """
        if self.scaler.is_enabled() and self.scaler.get_scale() < LEAST_SCALE:
            raise DivergedError(
                f"The gradients are not finite in fp16 at any scale, at step {number}. "
                "Try trainer.precision=bf16 or fp32."
            )

    def state_dict(self) -> dict[str, Any]:
        """Return what the next step depends on, random numbers aside."""
        parts = {name: getattr(self, name).state_dict() for name in ("model", "optimizer", "schedule", "scaler")}
        return {**parts, "size": self.size}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there; before `prepare`."""
        for name in ("model", "optimizer", "schedule", "scaler"):
            getattr(self, name).load_state_dict(state[name])
        self.size = state["size"]

    def _gradients_that_fit(
        self, share: NDArray[np.int64], batch_size: int, mark: Mark
    ) -> tuple[Tensor, tuple[int, int]]:
        """Add up gradients, with fewer examples at once where micro_batch is "auto" and memory has become scarce."""
        while True:
            try:
                return self._gradients(share, batch_size, mark)
            except RuntimeError as error:
                size = self.size
                if self.micro_batch != "auto" or not is_out_of_memory(error) or size is None or size == 1:
                    raise
            self.size = size // 2
            log.warning("Out of memory with %d examples at once; going on with %d.", size, self.size)

    def _gradients(
        self, share: NDArray[np.int64], batch_size: int, mark: Mark = unmarked
    ) -> tuple[Tensor, tuple[int, int]]:
        """Add up the gradients of this process's share of a batch.

        Returns:
            The share's part of the batch's mean loss and accuracy, (2,), on the device; real and padded tokens.
        """
        size = self.size or len(share)
        if size < len(share):  # parts of about equally long examples have less padding
            share = share[np.argsort(lengths(self.split, share), kind="stable")]
        self.optimizer.zero_grad(set_to_none=True)
        totals = torch.zeros(2, device=self.device)
        real = padded = 0
        with mark("data"):
            starts = range(0, len(share), size)
            batches = [self.batching.gather(self.split, share[i : i + size], self.max_len) for i in starts]
        # Sums over the whole batch's number, not means over the part's: the gradient is that of the undivided batch.
        number = self.objective.expected(batches, batch_size)
        for batch in batches:
            with mark("forward"):
                score = self.objective.score(self.forward, batch, self.device, self.precision)
                loss = score.loss / number
            with mark("backward"):
                self.scaler.scale(loss).backward()
            totals += torch.stack([loss.detach(), score.hits / number])
            real, padded = real + int(batch.mask.sum()), padded + batch.mask.numel()
        return totals, (real, padded)

    def _update(self) -> float:
        """Change the weights by the gradients; return the learning rate."""
        if self.optimization.clip_norm is not None:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.model.parameters(), self.optimization.clip_norm)
        rate = self.optimizer.param_groups[0]["lr"]
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return rate

    def _choose_size(self) -> int:
        """Return how many examples a forward pass of this process takes."""
        largest = -(-self.batch_size // self.world.size)
        if self.micro_batch != "auto":
            return min(self.micro_batch or largest, largest)
        by_length = np.argsort(lengths(self.split, np.arange(len(self.split.labels))), kind="stable")

        def attempt(size: int) -> None:
            with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
                self.size = size
                self._gradients(by_length[-size:], size)

        chosen = min(self.world.gather(largest_micro_batch(attempt, largest, self.device)))
        self.optimizer.zero_grad(set_to_none=True)
        log.info("trainer.micro_batch=auto: %d of %d examples at once.", chosen, largest)
        return chosen

    def _compile(self, size: int) -> float:
        """Compile the training step for the shapes of this process's share of a batch; return the seconds it took."""
        share = -(-self.batch_size // self.world.size)
        sizes = {min(size, share), share % size or size}
        self.batching = compilation.bounded(self.batching, self.max_len)
        self.forward, seconds = compilation.compiled(
            self.model, self.split, self.batching, sizes, self.max_len, self.device, self.precision, self.objective
        )
        log.info("Compiled in %.1f s.", seconds)
        return seconds
