"""What everything that mixes tokens has, attention or not: a card, a version, one source of randomness."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

Distribution = Literal["uniform", "exponential", "normal"]

# The causal settings of mechanisms that run along the sequence in two directions, or in one.
ONE_WAY: Mapping[str, bool] = MappingProxyType({"bidirectional": False})


@dataclass(frozen=True)
class Card:
    """What tables, pages and figures say of a mechanism.

    Attributes:
        what: what it is, in one phrase.
        family: the group of mechanisms that it is shown with; an existing name, or a new one.
        time: how its time grows with the length L, in a phrase that starts with O(...).
        memory: how its memory grows, likewise.
        paper: what defines it: an arXiv number, or where else it appeared.
        exact: when it equals softmax attention; "" for never.
        oracle: the independent implementation that tests compare it with, as "package Class, what is compared"; or
            "none found; " and what stands in for one.
    """

    what: str
    family: str
    time: str
    memory: str
    paper: str = ""
    exact: str = ""
    oracle: str = ""


class Mechanism(nn.Module):
    """Base class of whatever lets the tokens of a layer see one another.

    Attributes:
        version: raised by hand when a change of code changes the numbers; part of every run's key.
        card: what tables say of it.
        surrogate_gradient: True if the backward pass is not the derivative of the forward one, on purpose.
        shared: names of its parameters that all layers of an encoder have in common: those of the first layer.
        undecayed: names of its parameters that weight decay leaves alone.
        learning_rates: the peak learning rates of those of its parameters that have one of their own, by name.
        causal_settings: the options with which no token sees a later one; None where there are none.
    """

    version: ClassVar[int] = 1
    card: ClassVar[Card]
    surrogate_gradient: ClassVar[bool] = False
    causal_settings: ClassVar[Mapping[str, bool] | None] = None
    shared: tuple[str, ...] = ()
    undecayed: tuple[str, ...] = ()
    learning_rates: Mapping[str, float] = MappingProxyType({})

    def draw(self, distribution: Distribution, shape: tuple[int, ...], device: torch.device) -> Tensor:
        """Draw float32 numbers from torch's default generator: the only source of randomness, overridable in tests.

        Args:
            distribution: "uniform" on [0, 1), "exponential" with rate 1, or standard "normal".
            shape: the shape of the draw; it may depend on the shapes of the inputs, never on their values.
            device: where the numbers are made.
        """
        numbers = torch.empty(shape, dtype=torch.float32, device=device)
        if distribution == "uniform":
            return numbers.uniform_()
        if distribution == "exponential":
            return numbers.exponential_()
        return numbers.normal_()
