"""What stands around a state space model in its layer: padding in front of it, skip connection and gate behind it."""

from __future__ import annotations

from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.checks import even, not_negative, one_of
from models.dropout import Dropout
from models.mixers import Mixer
from models.ops.fft_convolution import convolve
from models.ops.precision import accumulation_dtype, without_autocast
from models.ops.scan import scan

Gating = Literal["full", "half", "raw"]

MOST_STATES = 1024  # far above every published model, and their initial matrices are dense


def check_states(num_states: int) -> None:
    """Check a number of states in conjugate pairs.

    Raises:
        ValueError: it is not positive and even, or beyond every sensible one.
    """
    even(MOST_STATES, num_states=num_states)


def rates_of(**groups: tuple[float | None, tuple[str, ...]]) -> dict[str, float]:
    """Return the learning rates of parameters by name.

    Args:
        groups: by the name of an option, its value, a peak rate or None for the optimiser's, and its parameters.

    Raises:
        ValueError: a rate is negative or infinite.
    """
    given = {option: group for option, group in groups.items() if group[0] is not None}
    not_negative(**{option: rate for option, (rate, _) in given.items()})
    return {name: float(rate) for rate, names in given.values() if rate is not None for name in names}


class Gate(nn.Module):
    """Mix the channels of a state space model's outputs y (B, L, C), which so far know nothing of one another.

    With z = dropout(GELU(y)), one of S5's forms (github.com/lindermanlab/S5): "full", W1 z * sigmoid(W2 z), as S4, LRU
    and others have it too; "half", z * sigmoid(W2 z), its "half_glu1"; "raw", y * sigmoid(W2 z), its "half_glu2".
    """

    def __init__(self, dim: int, dropout: float, gating: Gating = "full") -> None:
        super().__init__()
        one_of(get_args(Gating), gating=gating)
        self.gating = gating
        self.linear = nn.Linear(dim, 2 * dim if gating == "full" else dim)
        self.dropout = Dropout(dropout)

    def forward(self, y: Tensor) -> Tensor:
        """Map (B, L, C) to (B, L, C)."""
        z = self.dropout(F.gelu(y))
        if self.gating == "full":
            return F.glu(self.linear(z))
        return (z if self.gating == "half" else y) * self.linear(z).sigmoid()


class StateSpaceMixer(Mixer):
    """A linear map along the sequence, a skip connection, and a gate: subclasses give the first as `respond`.

    Padding enters as zeros, and a state that zeros enter stays 0: a backward direction starts inside the sequence.

    Args:
        gating: see `Gate`.
    """

    def __init__(self, *, gating: Gating = "full", dim: int, max_len: int, dropout: float) -> None:
        super().__init__(dim=dim, max_len=max_len, dropout=dropout)
        self.skip = nn.Parameter(torch.randn(dim))  # D
        self.gate = Gate(dim, dropout, gating)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """See the contract."""
        padding = ~mask[..., None]
        inputs = x.masked_fill(padding, 0).to(accumulation_dtype(x))
        return self.gate(self._outputs(inputs).to(x.dtype)).masked_fill(padding, 0)

    @without_autocast
    def _outputs(self, u: Tensor) -> Tensor:
        return self.respond(u) + self.skip * u

    def respond(self, u: Tensor) -> Tensor:
        """Map inputs (B, L, C), float32 or float64 and 0 on padding, to outputs of the same shape, autocast off."""
        raise NotImplementedError


class ConvolutionMixer(StateSpaceMixer):
    """A state space model of one input and one output for every channel, computed as a convolution.

    Args:
        bidirectional: whether a second output C reads a model that runs backwards; its first tap is at lag -1, so that
            the token itself is counted once.
    """

    def __init__(self, *, bidirectional: bool, dim: int, max_len: int, dropout: float) -> None:
        super().__init__(dim=dim, max_len=max_len, dropout=dropout)
        self.num_directions = 2 if bidirectional else 1

    def respond(self, u: Tensor) -> Tensor:
        """See the base class."""
        forward, *backward = self.kernels(u.shape[1], u.dtype)
        return convolve(u, forward, *backward)

    def kernels(self, length: int, dtype: torch.dtype) -> Tensor:
        """Compute the taps (directions, C, length) in a precision, that of each direction's own next token last."""
        raise NotImplementedError


class ScanMixer(StateSpaceMixer):
    """One diagonal state space model of all channels together, computed as a scan over its states.

    h_t = a h_{t-1} + B u_t, y_t = Re(C h_t), and with a second C from a state that runs backwards; both have seen u_t.
    """

    def respond(self, u: Tensor) -> Tensor:
        """See the base class."""
        decay, inputs, outputs = self.matrices(u.dtype)
        entering = torch.complex(u @ inputs.real.mT, u @ inputs.imag.mT)  # (B, L, M)
        directions = []
        for matrix, reverse in zip(outputs, (False, True), strict=False):
            states = scan(decay[None, None], entering, reverse)
            directions.append(states.real @ matrix.real.mT - states.imag @ matrix.imag.mT)
        return sum(directions[1:], start=directions[0])

    def matrices(self, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
        """Compute a (M), B (M, C) and C (directions, C, M), complex, their parts in a precision."""
        raise NotImplementedError
