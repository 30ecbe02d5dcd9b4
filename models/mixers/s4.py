"""S4: for every channel a state space model whose matrix is diagonal plus one of rank one, as a convolution.

Gu, Goel, Re 2021, "Efficiently Modeling Long Sequences with Structured State Spaces", arXiv 2111.00396.
A = Lambda - p p* starts as HiPPO-LegS (Theorem 1), discretised by the bilinear transform with a step of its own for
every channel. The kernel's Fourier transform is a sum of Cauchy terms 1 / (g - lambda) and, for the part of rank one,
Woodbury's identity (Section 3.3, Algorithm 1); with z = exp(-2 i phi) at the roots of unity,

    K(z) = exp(i phi) (S_cb - cos(phi) S_cp S_pb / (1 + cos(phi) S_pp)),
    S_xy = sum_n x_n y_n (step / 2) / (i sin(phi) - (step / 2) cos(phi) lambda_n),

which divides by nothing that vanishes, neither at z = -1 nor, in float32, near z = 1. As there, the output that is
learned is C (I - A_bar^period), of a period that the longest sequence fits in; so no power is needed in training.

Behind it come GELU, dropout and a gated linear layer (github.com/state-spaces/s4, as are the learning rates of Lambda,
p, B and the step). Departures from that code: dropout is not tied along the sequence; the step is exp(.), as in the
paper, not softplus(.); B is the paper's, without the clip at 2.
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from models.checks import ordered
from models.mechanism import ONE_WAY, Card
from models.mixers.state_space import ConvolutionMixer, check_states, rates_of
from models.ops.fft_convolution import fast_size
from models.ops.state_space import as_complex, complex_normal, hippo_legs, log_uniform

OF_STATE = ("log_decay", "frequency", "low_rank", "input")


class S4(ConvolutionMixer):
    """S4 with HiPPO-LegS.

    Args:
        num_states: N, even.
        tied: whether all channels have the same A and B; steps and C are their own in any case.
        bidirectional: whether a second output reads a model that runs backwards.
        dt_min, dt_max: the range of the initial steps.
        ssm_learning_rate: the peak rate of A and B; None for the optimiser's.
        dt_learning_rate: that of the steps.
    """

    causal_settings = ONE_WAY
    card: ClassVar[Card] = Card(
        what="S4: a state space model for every channel that starts as HiPPO-LegS, as a convolution",
        family="state space",
        time="O(L log L + N L)",
        memory="O(L), and O(N L) for one layer at a time, which the backward pass computes again",
        paper="2111.00396",
        oracle="none found; the dense HiPPO-LegS matrix, discretised and raised to powers, stands in for one",
    )
    undecayed = ("log_step", *OF_STATE)

    def __init__(
        self,
        *,
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
        check_states(num_states)
        ordered(dt_min=dt_min, dt_max=dt_max)
        self.period = fast_size(max_len)
        frequencies, weights = (x.float() for x in hippo_legs(num_states))
        shape = (1 if tied else dim, num_states // 2)
        real = torch.stack([weights, torch.zeros_like(weights)], -1).expand(*shape, 2)
        self.log_step = nn.Parameter(log_uniform((dim, 1), dt_min, dt_max))
        self.log_decay = nn.Parameter(torch.full(shape, 0.5).log())
        self.frequency = nn.Parameter(frequencies.expand(shape).clone())
        self.low_rank = nn.Parameter(real.clone())  # p
        self.input = nn.Parameter(math.sqrt(2) * real)
        outputs = torch.view_as_complex(complex_normal(self.num_directions, dim, num_states // 2))
        self.output = nn.Parameter(torch.view_as_real(self.within_period(outputs)))
        self.learning_rates = rates_of(
            ssm_learning_rate=(ssm_learning_rate, OF_STATE), dt_learning_rate=(dt_learning_rate, ("log_step",))
        )

    @torch.no_grad()
    def within_period(self, outputs: Tensor) -> Tensor:
        """Return C (I - A_bar^period) for C (directions, C, N / 2), complex: half of each conjugate pair of both."""
        poles, weights = self._poles(torch.float64), _paired(as_complex(self.low_rank, torch.float64))
        A = torch.diag_embed(_paired(poles)) - weights[..., :, None] * weights[..., None, :].conj()
        half = self.log_step.double().exp()[..., None] / 2
        identity = torch.eye(A.shape[-1], dtype=A.dtype)
        A_bar = torch.linalg.solve(identity - half * A, identity + half * A)  # (C, N, N)
        both = _paired(outputs.to(A.dtype))[..., None, :]
        kept = both - both @ torch.linalg.matrix_power(A_bar, self.period)
        return kept[..., 0, : outputs.shape[-1]].to(outputs.dtype)

    def kernels(self, length: int, dtype: torch.dtype) -> Tensor:
        """See the base class; the whole period is computed, however short the sequences are here."""
        half = self.log_step.to(dtype).exp() / 2
        outputs, inputs, weights = (as_complex(x, dtype) for x in (self.output, self.input, self.low_rank))
        # Every channel's terms, N for each angle, are large: they are not kept for the backward pass.
        spectrum = checkpoint(
            _spectrum, half, self._poles(dtype), outputs, inputs, weights, self.period,
            use_reentrant=False, preserve_rng_state=False,
        )  # fmt: skip
        return torch.fft.irfft(spectrum, self.period)[..., :length].transpose(0, 1)

    def _poles(self, dtype: torch.dtype) -> Tensor:
        return torch.complex(-self.log_decay.to(dtype).exp(), self.frequency.to(dtype))


def _paired(half: Tensor) -> Tensor:
    """Put the conjugates behind complex numbers (..., N / 2)."""
    return torch.cat([half, half.conj()], -1)


def _spectrum(half: Tensor, poles: Tensor, outputs: Tensor, inputs: Tensor, weights: Tensor, period: int) -> Tensor:
    """Compute the Fourier transform of the kernels.

    Args:
        half: half of the step, (C, 1).
        poles: lambda (C or 1, N / 2), complex, as are the following.
        outputs: C (I - A_bar^period), (directions, C, N / 2).
        inputs: B (C or 1, N / 2).
        weights: p (C or 1, N / 2).
        period: the number of taps, and of the roots of unity.

    Returns:
        (C, directions, period / 2 + 1), complex.
    """
    angles = torch.arange(period // 2 + 1, dtype=half.dtype, device=half.device) * (math.pi / period)
    sine, cosine = angles.sin(), angles.cos()
    scaled = _paired(half * poles)[..., None]  # (C, N, 1)
    terms = half[..., None] / torch.complex(-cosine * scaled.real, sine - cosine * scaled.imag)  # (C, N, angles)
    left = torch.cat([outputs.transpose(0, 1), weights.conj().expand(len(half), -1)[:, None]], 1)
    right = torch.stack([inputs, weights], -2)  # (C or 1, 2, N / 2)
    sums = _paired(left[:, :, None] * right[:, None]).flatten(1, 2) @ terms
    of_inputs, of_weights = sums.unflatten(1, (-1, 2)).unbind(2)  # S_xb and S_xp; the last x is p*
    correction = of_weights[:, :-1] * of_inputs[:, -1:] / (1 + cosine * of_weights[:, -1:])
    return torch.polar(torch.ones_like(angles), angles) * (of_inputs[:, :-1] - cosine * correction)
