"""The optimiser and its schedule of learning rates."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.optim.lr_scheduler import LRScheduler, OneCycleLR

from lra.errors import InputError


@dataclass(frozen=True)
class Optimization:
    """How weights are updated; the fields are the `optimizer` node of the configuration.

    Attributes:
        learning_rate: the peak of the one-cycle schedule: linear from 1/25 of it up, then down to 1/250,000.
        warmup_steps: steps of the way up.
        weight_decay, adam_eps: of AdamW, whose betas are (0.9, 0.999).
        cycle_momentum: cycle beta1 between 0.95 and 0.85 against the learning rate, as OneCycleLR does by default.
        clip_norm: largest norm of the gradient, None for no clipping.
    """

    learning_rate: float
    warmup_steps: int
    weight_decay: float
    adam_eps: float
    cycle_momentum: bool
    clip_norm: float | None

    def check(self, steps: int) -> None:
        """Refuse what does not fit a training of `steps` steps.

        Raises:
            InputError: the warm-up is longer than the training.
        """
        if not 0 <= self.warmup_steps <= steps:
            raise InputError(
                f"optimizer.warmup_steps must lie between 0 and trainer.steps={steps}. Got {self.warmup_steps}."
            )

    def build(self, parameters: Iterable[Tensor], steps: int) -> tuple[torch.optim.Optimizer, LRScheduler]:
        """Make the optimiser of some parameters and the schedule of a training of `steps` steps."""
        optimizer = torch.optim.AdamW(
            parameters, lr=self.learning_rate, eps=self.adam_eps, weight_decay=self.weight_decay, fused=True
        )
        schedule = OneCycleLR(
            optimizer,
            max_lr=self.learning_rate,
            total_steps=steps,
            pct_start=self.warmup_steps / steps,
            anneal_strategy="linear",
            cycle_momentum=self.cycle_momentum,
        )
        return optimizer, schedule
