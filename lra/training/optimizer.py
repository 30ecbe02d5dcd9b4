"""The optimiser and its schedule of learning rates."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, OneCycleLR

from lra.errors import InputError


@dataclass(frozen=True)
class Optimization:
    """How weights are updated; the fields are the `optimizer` node of the configuration.

    What a single field takes is said, and checked, in `lra.runs.schema`; here is only how they go together.
    The optimiser is AdamW. It is also the Adam of LRA's code, flax.deprecated's, whose decay is decoupled too.

    Attributes:
        learning_rate: the schedule's peak.
        warmup_steps: steps until the rate reaches it.
        weight_decay, adam_eps: of AdamW.
        cycle_momentum: cycle beta1 between 0.95 and 0.85 against the learning rate, as OneCycleLR does by default.
        clip_norm: largest norm of the gradient, None for no clipping.
        schedule: "one_cycle" rises linearly from 1/25 of the peak and falls linearly to 1/250,000 of it; for the two of
            LRA's code, see `inverse_sqrt` and `cosine`.
        adam_betas: of AdamW; with `cycle_momentum` the first is not used.
    """

    learning_rate: float
    warmup_steps: int
    weight_decay: float
    adam_eps: float
    cycle_momentum: bool
    clip_norm: float | None
    schedule: str = "one_cycle"
    adam_betas: Sequence[float] = (0.9, 0.999)

    def __post_init__(self) -> None:
        if self.cycle_momentum and self.schedule != "one_cycle":
            raise InputError(
                "optimizer.cycle_momentum belongs to optimizer.schedule=one_cycle: set it to false. "
                f"Got true, with {self.schedule}."
            )

    def check(self, steps: int) -> None:
        """Refuse what does not fit a training of `steps` steps.

        Raises:
            InputError: the warm-up is longer than the training (with "inverse_sqrt" it may be, as on LRA's Retrieval),
                or it is a single step of "one_cycle", for which torch's OneCycleLR divides by 0.
        """
        if self.warmup_steps > steps and self.schedule != "inverse_sqrt":
            raise InputError(
                f"optimizer.warmup_steps must lie between 0 and trainer.steps={steps}. Got {self.warmup_steps}."
            )
        if self.warmup_steps == 1 and self.schedule == "one_cycle":
            raise InputError(
                "optimizer.warmup_steps must be 0, or at least 2, for optimizer.schedule=one_cycle. Got 1."
            )

    def build(self, parameters: Iterable[Tensor], steps: int) -> tuple[torch.optim.Optimizer, LRScheduler]:
        """Make the optimiser of some parameters and the schedule of a training of `steps` steps.

        The state of both, restored into a pair built alike, goes on as if there had been no interruption.
        """
        beta1, beta2 = self.adam_betas
        optimizer = torch.optim.AdamW(
            parameters,
            lr=self.learning_rate,
            betas=(beta1, beta2),
            eps=self.adam_eps,
            weight_decay=self.weight_decay,
            fused=True,
        )
        if self.schedule == "inverse_sqrt":
            return optimizer, LambdaLR(optimizer, partial(inverse_sqrt, warmup_steps=self.warmup_steps))
        if self.schedule == "cosine":
            return optimizer, LambdaLR(optimizer, partial(cosine, warmup_steps=self.warmup_steps, steps=steps))
        return optimizer, OneCycleLR(
            optimizer,
            max_lr=self.learning_rate,
            total_steps=steps,
            pct_start=self.warmup_steps / steps,
            anneal_strategy="linear",
            cycle_momentum=self.cycle_momentum,
        )


def inverse_sqrt(step: int, *, warmup_steps: int) -> float:
    """Return the share of the peak at a step, the first being 0: linear up, then as 1 / sqrt(step).

    LRA's "constant * linear_warmup * rsqrt_decay", whose constant is the peak times sqrt(warmup_steps).
    """
    warmup_steps = max(warmup_steps, 1)
    return min(1.0, step / warmup_steps) * math.sqrt(warmup_steps / max(step, warmup_steps))


def cosine(step: int, *, warmup_steps: int, steps: int) -> float:
    """Return the share of the peak at a step, the first being 0: linear up, then half a cosine.

    LRA's "constant * linear_warmup * cosine_decay". Its half period, steps_per_cycle, is the whole training in every
    released configuration and begins after the warm-up, so that the rate ends just short of 0.
    """
    rise = min(1.0, step / max(warmup_steps, 1))
    return rise * 0.5 * (1 + math.cos(math.pi * max(0, step - warmup_steps) / steps))
