"""The optimiser and its schedule of learning rates."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn
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
            LRA's code, see `inverse_sqrt` and `cosine`; for that of S4's, `cosine_to_zero`.
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

    def build(self, model: nn.Module, steps: int) -> tuple[torch.optim.Optimizer, LRScheduler]:
        """Make the optimiser of a model and the schedule of a training of `steps` steps.

        The state of both, restored into a pair built alike, goes on as if there had been no interruption. A parameter
        with a learning rate of its own follows the same schedule to another peak.
        """
        groups = self.groups(model)
        beta1, beta2 = self.adam_betas
        optimizer = torch.optim.AdamW(groups, betas=(beta1, beta2), eps=self.adam_eps, fused=True)
        if self.schedule == "inverse_sqrt":
            return optimizer, LambdaLR(optimizer, partial(inverse_sqrt, warmup_steps=self.warmup_steps))
        if self.schedule in COSINES:
            share = partial(COSINES[self.schedule], warmup_steps=self.warmup_steps, steps=steps)
            return optimizer, LambdaLR(optimizer, share)
        return optimizer, OneCycleLR(
            optimizer,
            max_lr=[group["lr"] for group in groups],
            total_steps=steps,
            pct_start=self.warmup_steps / steps,
            anneal_strategy="linear",
            cycle_momentum=self.cycle_momentum,
        )

    def groups(self, model: nn.Module) -> list[dict[str, Any]]:
        """Sort a model's parameters by learning rate and weight decay.

        A module may name parameters of its own that weight decay leaves alone, `undecayed`, and give some a peak
        learning rate of their own, `learning_rates`, as `models.mechanism.Mechanism` does.

        Returns:
            Groups as torch's optimisers take them; first the one that follows the configuration alone.
        """
        usual = (self.learning_rate, self.weight_decay)
        groups: dict[tuple[float, float], list[nn.Parameter]] = {usual: []}
        seen: set[nn.Parameter] = set()  # layers may share one
        for module in model.modules():
            rates, undecayed = getattr(module, "learning_rates", {}), getattr(module, "undecayed", ())
            for name, parameter in module.named_parameters(recurse=False):
                if parameter not in seen:
                    seen.add(parameter)
                    rate = rates.get(name, self.learning_rate)
                    decay = 0.0 if name in undecayed else self.weight_decay
                    groups.setdefault((rate, decay), []).append(parameter)
        return [
            {"params": parameters, "lr": rate, "weight_decay": decay} for (rate, decay), parameters in groups.items()
        ]


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


def cosine_to_zero(step: int, *, warmup_steps: int, steps: int) -> float:
    """Return the share of the peak at a step, the first being 0: linear up, then half a cosine that ends at 0.

    The "cosine_warmup" of github.com/state-spaces/s4, whose first step has 1 / warmup_steps of the peak, not 0.
    """
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    return 0.5 * (1 + math.cos(math.pi * (step - warmup_steps) / max(steps - warmup_steps, 1)))


COSINES = {"cosine": cosine, "cosine_to_zero": cosine_to_zero}
