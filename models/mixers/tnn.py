"""TNN: a Toeplitz matrix mixes the tokens, its coefficients being a small network's function of the distance.

Qin et al. 2023, "Toeplitz Neural Network for Sequence Modeling", arXiv 2305.04749. The coefficients, the initial values
and `max_offset` are those of the authors' Long Range Arena code (github.com/OpenNLPLab/lra, `tnn_draft`), with which
their numbers were made; their later package has other norms in the network of the coefficients. The gated perceptron
behind it belongs to the block: `model.block.mlp=glu`.

Departure from that code, which masks no padding: rows of padding give nothing and get nothing.
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.checks import at_least, not_negative, positive
from models.dropout import Dropout
from models.mechanism import Card
from models.mixers import Mixer
from models.ops.fft_convolution import convolve
from models.ops.precision import accumulation_dtype, linear

STD = 0.02  # of the initial projections


class OffsetNetwork(nn.Module):
    """The coefficients of all channels as a function of the offset i - j, which enters as it is.

    Args:
        width: of the hidden layers.
        channels: C.
    """

    def __init__(self, width: int, channels: int) -> None:
        super().__init__()
        self.first = nn.Linear(1, width)
        self.second = nn.Linear(width, width)
        self.third = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width)
        self.out = nn.Linear(width, channels)

    def forward(self, offsets: Tensor) -> Tensor:
        """Map offsets (K) to coefficients (K, C), in the precision of the offsets."""
        dtype = offsets.dtype
        # In half precision neighbouring offsets would be one number.
        with torch.autocast(offsets.device.type, enabled=False):
            x = linear(self.second, linear(self.first, offsets[:, None]).relu())
            x = linear(self.third, x.relu())
            x = F.layer_norm(x, self.norm.normalized_shape, self.norm.weight.to(dtype), self.norm.bias.to(dtype))
            return linear(self.out, x.relu())


class ToeplitzOperator(nn.Module):
    """y_i = sum_j gamma^|i-j| t_{i-j} v_j, in every channel, over |i - j| < `max_offset`.

    Args:
        channels: C.
        width: of the hidden layers of the network that gives t.
        gamma: how much a coefficient shrinks with every step away, from 0 to 1; it is not learned.
        max_offset: see `TNNMixer`.
    """

    def __init__(self, channels: int, *, width: int, gamma: float, max_offset: int | None) -> None:
        super().__init__()
        self.gamma = gamma
        self.max_offset = max_offset
        self.network = OffsetNetwork(width, channels)

    def coefficients(self, length: int, like: Tensor) -> tuple[Tensor, Tensor]:
        """Return gamma^|i-j| t_{i-j} for i - j = 0, 1, ... and for -1, -2, ..., (C, K) and (C, K - 1), K <= length."""
        K = length if self.max_offset is None else min(length, self.max_offset)
        offsets = torch.arange(1 - K, K, dtype=accumulation_dtype(like), device=like.device)
        taps = (self.network(offsets) * (self.gamma ** offsets.abs())[:, None]).T
        return taps[:, K - 1 :], taps[:, : K - 1].flip(1)

    def forward(self, v: Tensor) -> Tensor:
        """Map (B, L, C) to (B, L, C); rows of padding must be 0."""
        return convolve(v, *self.coefficients(v.shape[1], v))


class TNNMixer(Mixer):
    """W_o (u * T v) with u = silu(W_u x), v = silu(W_v x) and T a Toeplitz matrix for each channel.

    Args:
        expand: width of u and v as a multiple of that of x, rounded down.
        rpe_dim: width of the network that gives the coefficients, the paper's relative position encoder.
        gamma: how much a coefficient shrinks with every step away, from 0 to 1.
        max_offset: coefficients of tokens this far apart or further are 0; None for none.
        dim, max_len, dropout: see `Mixer`; TNN drops nothing here, TNN in two dimensions its mixed rows.

    Raises:
        ValueError: an option is out of its range.
    """

    card: ClassVar[Card] = Card(
        what="TNN: a Toeplitz matrix whose coefficients are a small network's function of the distance",
        family="convolution",
        time="O(L log L)",
        memory="O(L)",
        paper="2305.04749",
        oracle="none found; the explicit Toeplitz matrices stand in",
    )
    num_operators: ClassVar[int] = 1

    def __init__(
        self,
        *,
        expand: float = 1.0,
        rpe_dim: int = 32,
        gamma: float = 0.99,
        max_offset: int | None = 1024,
        dim: int,
        max_len: int,
        dropout: float,
    ) -> None:
        super().__init__(dim=dim, max_len=max_len, dropout=dropout)
        positive(expand=expand)
        at_least(1, rpe_dim=rpe_dim)
        not_negative(gamma=gamma)
        if gamma > 1:
            raise ValueError(f"gamma must be at most 1. Got {gamma!r}.")
        if max_offset is not None:
            at_least(1, max_offset=max_offset)
        inner = int(expand * dim)
        at_least(1, **{"expand times model.dim": inner})
        self.gate = nn.Linear(dim, inner)
        self.value = nn.Linear(dim, inner)
        self.out = nn.Linear(inner, dim)
        for layer in (self.gate, self.value, self.out):
            nn.init.normal_(layer.weight, std=STD)
            nn.init.normal_(layer.bias, std=STD)
        self.drop = Dropout(dropout)
        self.operators = nn.ModuleList(
            ToeplitzOperator(inner, width=rpe_dim, gamma=gamma, max_offset=max_offset)
            for _ in range(self.num_operators)
        )

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """See the contract."""
        padding = ~mask[..., None]
        u = F.silu(self.gate(x))
        v = F.silu(self.value(x)).masked_fill(padding, 0)
        return self.out(u * self.mix(v)).masked_fill(padding, 0)

    def mix(self, v: Tensor) -> Tensor:
        """Let the rows (B, L, C) see one another."""
        return self.operators[0](v)


class TNN2DMixer(TNNMixer):
    """TNN on an image: out = A_h(B_w(v)) + B_w(A_h(v)), with one operator along the columns and one along the rows.

    The sequence is read as the rows of a square image whose side is the root of `max_len`, rounded up; pixels that are
    not there are 0. So it is told which pixels are above and below one another, which mechanisms of sequences have to
    find out: its numbers do not compare with theirs. A learned vector in front of the sequence would skew the image.

    Args:
        expand, rpe_dim, gamma, max_offset, dim, max_len, dropout: see `TNNMixer`; `dropout` acts on `out`.
    """

    card: ClassVar[Card] = Card(
        what="TNN with a 2-D prior: Toeplitz matrices along the rows and the columns of the image that the sequence is",
        family="convolution",
        time="O(L log L)",
        memory="O(L)",
        paper="2305.04749",
        oracle="none found; the explicit Toeplitz matrices stand in",
    )
    num_operators: ClassVar[int] = 2

    def mix(self, v: Tensor) -> Tensor:
        """Let the rows (B, L, C) see one another, along both sides of the image."""
        length, side = v.shape[1], math.isqrt(self.max_len - 1) + 1
        height = -(-length // side)
        image = F.pad(v, (0, 0, 0, height * side - length)).unflatten(1, (height, side))
        down, across = self.operators
        out = _down(down, _across(across, image)) + _across(across, _down(down, image))
        return self.drop(out.flatten(1, 2)[:, :length])


def _across(operator: nn.Module, image: Tensor) -> Tensor:
    """Apply an operator to every row of pixels of an image (B, H, W, C)."""
    return operator(image.flatten(0, 1)).unflatten(0, image.shape[:2])


def _down(operator: nn.Module, image: Tensor) -> Tensor:
    """Apply an operator to every column of pixels."""
    return _across(operator, image.transpose(1, 2)).transpose(1, 2)
