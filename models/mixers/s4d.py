"""S4D: for every channel a diagonal state space model, computed as a convolution with a sum of exponentials.

Gu, Gupta, Goel, Re 2022, "On the Parameterization and Initialization of Diagonal State Space Models", arXiv 2206.11893:
x' = A x + B u, y = 2 Re(C x) + D u over N / 2 conjugate pairs, discretised by a zero-order hold of a step of its own
for every channel; Re A = -exp(.) stays negative. Behind it come GELU, dropout and a gated linear layer
(github.com/state-spaces/s4, as are C, D of variance 1 and the learning rates of A, B and the step).

Departures from that code: dropout is not tied along the sequence; the step is exp(.), as in the paper, not softplus(.);
S4D-LegS has the paper's B without the clip at 2.

`S4DFourier` has its poles in the discrete plane instead, without A and step: Solozabal et al. 2025, arXiv 2508.20441,
"S4D-DFouT". Not known from the paper are the initial damping and B: here xi is spread as S4D's steps are, and B = xi,
the size that a zero-order hold over such a step has.
"""

from __future__ import annotations

import math
from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor, nn

from models.checks import one_of, ordered
from models.mechanism import ONE_WAY, Card
from models.mixers.state_space import ConvolutionMixer, check_states, rates_of
from models.ops.geometric_taps import geometric_taps
from models.ops.state_space import (
    as_complex,
    complex_normal,
    hippo_legs,
    log_uniform,
    zero_order_hold,
)

Initialization = Literal["lin", "inv", "legs"]


def initial_poles(initialization: Initialization, num_states: int) -> tuple[Tensor, Tensor]:
    """Return Im A and B (N / 2) of an initialisation (arXiv 2206.11893, Section 4); Re A is -1/2 in all of them."""
    n = torch.arange(num_states // 2)
    if initialization == "legs":
        frequencies, weights = hippo_legs(num_states)
        return frequencies.float(), math.sqrt(2) * weights.float()
    if initialization == "inv":
        return num_states / math.pi * (num_states / (2 * n + 1) - 1), torch.ones(num_states // 2)
    return math.pi * n, torch.ones(num_states // 2)


class S4D(ConvolutionMixer):
    """S4D-Lin, S4D-Inv and S4D-LegS.

    Args:
        initialization: of A and B: "lin" and "inv" are approximations of "legs", HiPPO-LegS without its low-rank part.
        num_states: N, even.
        tied: whether all channels have the same A and B; steps and C are their own in any case.
        bidirectional: whether a second output reads a model that runs backwards.
        dt_min, dt_max: the range of the initial steps.
        ssm_learning_rate: the peak rate of A and B; None for the optimiser's.
        dt_learning_rate: that of the steps.
    """

    causal_settings = ONE_WAY
    card: ClassVar[Card] = Card(
        what="S4D: a diagonal state space model for every channel, as a convolution",
        family="state space",
        time="O(L log L + N L)",
        memory="O(L)",
        paper="2206.11893",
        oracle="none found; the recurrence and explicit powers of the discretised matrix stand in for one",
    )
    undecayed = ("log_step", "log_decay", "frequency", "input")

    def __init__(
        self,
        *,
        initialization: Initialization = "lin",
        num_states: int = 64,
        tied: bool = False,
        bidirectional: bool = True,
        dt_min: float = 1e-3,
        dt_max: float = 0.1,
        ssm_learning_rate: float | None = 1e-3,
        dt_learning_rate: float | None = 1e-3,
        dim: int,
        max_len: int,
        dropout: float,
    ) -> None:
        super().__init__(bidirectional=bidirectional, dim=dim, max_len=max_len, dropout=dropout)
        one_of(get_args(Initialization), initialization=initialization)
        check_states(num_states)
        ordered(dt_min=dt_min, dt_max=dt_max)
        frequency, weight = initial_poles(initialization, num_states)
        shape = (1 if tied else dim, num_states // 2)
        self.log_step = nn.Parameter(log_uniform((dim, 1), dt_min, dt_max))
        self.log_decay = nn.Parameter(torch.full(shape, 0.5).log())
        self.frequency = nn.Parameter(frequency.expand(shape).clone())
        self.input = nn.Parameter(torch.stack([weight, torch.zeros_like(weight)], -1).expand(*shape, 2).clone())
        self.output = nn.Parameter(complex_normal(self.num_directions, dim, num_states // 2))
        self.learning_rates = rates_of(
            ssm_learning_rate=(ssm_learning_rate, ("log_decay", "frequency", "input")),
            dt_learning_rate=(dt_learning_rate, ("log_step",)),
        )

    def kernels(self, length: int, dtype: torch.dtype) -> Tensor:
        """See the base class."""
        poles = torch.complex(-self.log_decay.to(dtype).exp(), self.frequency.to(dtype))
        exponents, gain = zero_order_hold(poles, self.log_step.to(dtype).exp())
        weights = as_complex(self.output, dtype) * (as_complex(self.input, dtype) * gain)
        return 2 * geometric_taps(weights, exponents, length)


class S4DFourier(ConvolutionMixer):
    """S4D-DFouT: poles exp(-xi / 2 + i theta), whose angles share the half circle evenly among states and channels.

    Args:
        num_states: N, even.
        bidirectional: whether a second output reads a model that runs backwards.
        damping_min, damping_max: the range of the initial xi, one a channel.
        ssm_learning_rate: the peak rate of poles and B; None for the optimiser's.
    """

    causal_settings = ONE_WAY
    card: ClassVar[Card] = Card(
        what="S4D-DFouT: diagonal state space models whose discrete poles start evenly spread over the frequencies",
        family="state space",
        time="O(L log L + N L)",
        memory="O(L)",
        paper="2508.20441",
        oracle="none found; the recurrence and explicit powers of the matrix stand in for one",
    )
    undecayed = ("log_damping", "angle", "input")

    def __init__(
        self,
        *,
        num_states: int = 64,
        bidirectional: bool = True,
        damping_min: float = 1e-3,
        damping_max: float = 0.1,
        ssm_learning_rate: float | None = 1e-3,
        dim: int,
        max_len: int,
        dropout: float,
    ) -> None:
        super().__init__(bidirectional=bidirectional, dim=dim, max_len=max_len, dropout=dropout)
        check_states(num_states)
        ordered(damping_min=damping_min, damping_max=damping_max)
        log_damping = log_uniform((dim, 1), damping_min, damping_max).expand(dim, num_states // 2)
        self.log_damping = nn.Parameter(log_damping.clone())
        turns = torch.arange(num_states // 2) / num_states + torch.arange(dim)[:, None] / (num_states * dim)
        self.angle = nn.Parameter(2 * math.pi * turns)  # (C, N / 2), from 0 to pi
        self.input = nn.Parameter(torch.stack([log_damping.exp(), torch.zeros_like(log_damping)], -1))
        self.output = nn.Parameter(complex_normal(self.num_directions, dim, num_states // 2))
        self.learning_rates = rates_of(ssm_learning_rate=(ssm_learning_rate, self.undecayed))

    def kernels(self, length: int, dtype: torch.dtype) -> Tensor:
        """See the base class."""
        exponents = torch.complex(-self.log_damping.to(dtype).exp() / 2, self.angle.to(dtype))
        weights = as_complex(self.output, dtype) * as_complex(self.input, dtype)
        return 2 * geometric_taps(weights, exponents, length)
