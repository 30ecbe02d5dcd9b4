"""LRU: a linear recurrence of complex numbers with a diagonal matrix, computed as a scan.

Orvieto, Smith, Gu, Fernando, Gulcehre, Pascanu, De 2023, "Resurrecting Recurrent Neural Networks for Long Sequences",
arXiv 2303.06349: h_t = lambda h_{t-1} + gamma B u_t, y_t = Re(C h_t) + D u_t. lambda = exp(-exp(nu) + i exp(theta))
is drawn evenly from a ring of the complex plane, and gamma starts as sqrt(1 - |lambda|^2), which gives every state the
variance of its input. Unlike in S4 and S5 the states have no conjugates: the real part is taken once. There is no step.

Departure: the paper's listing runs forwards only; `bidirectional` adds a second C that reads a state running backwards,
as in S5.
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor, nn

from models.checks import at_least, positive, rate
from models.mechanism import ONE_WAY, Card
from models.mixers.state_space import MOST_STATES, ScanMixer, rates_of
from models.ops.state_space import as_complex, complex_normal

LEAST = 1e-6  # of a uniform draw and of its distance from 1, so that no logarithm is infinite


class LRU(ScanMixer):
    """Linear recurrent unit.

    Args:
        num_states: N, complex ones.
        r_min, r_max: the range of |lambda| at first.
        max_phase: the largest angle of lambda at first, in radians.
        bidirectional: whether a second output reads states that run backwards.
        ssm_learning_rate: the peak rate of lambda, gamma and B; None for the optimiser's.
    """

    causal_settings = ONE_WAY
    card: ClassVar[Card] = Card(
        what="LRU: a linear recurrence with complex eigenvalues in a ring, as a scan",
        family="state space",
        time="O(L N C)",
        memory="O(L N)",
        paper="2303.06349",
        oracle="none found; the recurrence as a loop stands in for one",
    )
    undecayed = ("nu", "theta", "log_gamma", "input")

    def __init__(
        self,
        *,
        num_states: int = 64,
        r_min: float = 0.0,
        r_max: float = 1.0,
        max_phase: float = 2 * math.pi,
        bidirectional: bool = True,
        ssm_learning_rate: float | None = 1e-3,
        dim: int,
        max_len: int,
        dropout: float,
    ) -> None:
        super().__init__(dim=dim, max_len=max_len, dropout=dropout)
        at_least(1, MOST_STATES, num_states=num_states)
        rate(r_min=r_min)
        positive(r_max=r_max, max_phase=max_phase)
        if not r_min <= r_max <= 1:
            raise ValueError(f"r_max must lie between r_min={r_min} and 1. Got {r_max}.")
        radii, phases = torch.empty(2, num_states).uniform_(LEAST, 1 - LEAST)
        log_radius = 0.5 * (radii * (r_max**2 - r_min**2) + r_min**2).log()
        self.nu = nn.Parameter((-log_radius).log())
        self.theta = nn.Parameter((max_phase * phases).log())
        self.log_gamma = nn.Parameter(0.5 * (-torch.expm1(2 * log_radius)).log())
        self.input = nn.Parameter(complex_normal(num_states, dim) * dim**-0.5)
        self.output = nn.Parameter(complex_normal(2 if bidirectional else 1, dim, num_states) * (2 / num_states) ** 0.5)
        self.learning_rates = rates_of(ssm_learning_rate=(ssm_learning_rate, self.undecayed))

    def matrices(self, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
        """See the base class."""
        decay = torch.complex(-self.nu.to(dtype).exp(), self.theta.to(dtype).exp()).exp()
        gamma = self.log_gamma.to(dtype).exp()[:, None]
        return decay, gamma * as_complex(self.input, dtype), as_complex(self.output, dtype)
