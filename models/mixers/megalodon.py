"""Megalodon: MEGA with complex moving averages and normalised attention with rotary positions.

Ma, Yang, Xiong, Chen, Yu, Zhang, May, Zettlemoyer, Levy, Zhou 2024, "Megalodon: Efficient LLM Pretraining and Inference
with Unlimited Context Length", arXiv 2404.08801, after the released code (github.com/XuezheMax/megalodon), which is a
causal language model. What its Long Range Arena has else is not released.

Departures:
- averages run in both directions, as MEGA's do there, each with weights of its own; attention is not causal;
- what stands around the mixer is left out: the norm over groups of channels and of earlier tokens, and the perceptron's
  residual that goes past the mixer, to the layer's input ("two-hop"). model.block has others;
- values read the mixer's input, as in the code; the norm of queries and keys is by root mean squares, as in the code,
  which only a constant tells from the paper's unit length.
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.checks import at_least
from models.dropout import Dropout
from models.mechanism import Card
from models.mixers import Mixer
from models.ops.block_attention import PUBLISHED_BUDGET, in_proportion
from models.ops.chunked_attention import attend_in_chunks
from models.ops.fft_convolution import convolve
from models.ops.geometric_taps import geometric_taps
from models.ops.precision import accumulation_dtype

PERIOD = 10_000.0  # of the slowest rotation
EPS = 1e-5  # added to mean squares


class ComplexEma(nn.Module):
    """Moving averages that turn as they decay, of every channel, in both directions, and the channel itself (Eq. 2).

    In each direction a channel u has N averages h_t = alpha * u_t + (1 - alpha * delta) exp(i theta) * h_{t-1} with
    theta_n = 2 pi n omega / N for n from 1 to N, which complex eta reads: y_t = Re(eta . h_t) / sqrt(N).

    Args:
        dim: C.
        ema_dim: N.
    """

    def __init__(self, dim: int, ema_dim: int) -> None:
        super().__init__()
        shape = (2, dim, ema_dim)  # forwards, backwards
        self.alpha = nn.Parameter(0.2 * torch.randn(shape))  # through a sigmoid, like delta and omega
        self.delta = nn.Parameter(0.2 * torch.randn(shape))
        # The base frequencies of channels, from 1 / C to nearly 1, in a random order.
        orders = torch.stack([torch.randperm(dim), torch.randperm(dim)]) + 1
        self.omega = nn.Parameter(torch.special.logit((-orders * math.log(dim) / dim).exp(), 1e-3)[..., None])
        eta = torch.randn(*shape, 2)  # real, imaginary
        eta[..., 1] = 0
        self.eta = nn.Parameter(eta)
        self.residual = nn.Parameter((0.25 * torch.randn(dim)).clamp(-1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Average rows (B, L, C), 0 where padded."""
        with torch.autocast(x.device.type, enabled=False):
            dtype = accumulation_dtype(self.alpha)
            alpha, delta, omega = (part.to(dtype).sigmoid() for part in (self.alpha, self.delta, self.omega))
            count = alpha.shape[-1]
            orders = torch.arange(1, count + 1, device=x.device, dtype=dtype)
            log_ratios = torch.complex(torch.log1p(-alpha * delta), 2 * torch.pi / count * orders * omega)
            weights = torch.view_as_complex(self.eta.to(dtype)) * (alpha * count**-0.5)
            taps = geometric_taps(weights.flatten(0, 1), log_ratios.flatten(0, 1), x.shape[1])
            forwards, backwards = taps.unflatten(0, (2, -1)).unbind()
            own = forwards[:, :1] + backwards[:, :1]
            averages = convolve(x, torch.cat([own, forwards[:, 1:]], 1), backwards[:, 1:])
            return averages + x * self.residual.to(x.dtype)


class Megalodon(Mixer):
    """Gated attention of one head that reads complex moving averages (Section 3.1 and 3.3).

    With m the averages, brought to a root mean square of 1 and scaled: queries and keys are two scaled and shifted
    copies of z = W_z m at a root mean square of 1, turned by their positions; values are v = silu(W_v x); the block
    gets W_h m + U_h (o * silu(W_r m)), with o the result of softmax attention.

    Args:
        shared_dim: Z, the width of z; even.
        expansion: the width of values and of their gate, in multiples of C.
        ema_dim: N, averages of a channel.
        chunk: attention is within chunks of so many tokens at a budget of 256, changed in proportion to the budget;
            None for the whole sequence.
        budget: the budget.

    Raises:
        ValueError: an option is out of range.
    """

    card: ClassVar[Card] = Card(
        what="Megalodon's mixer: MEGA with complex averages and normalised attention, without its two-hop residual",
        family="gated",
        time="O(L^2), or O(L log L + L c) in chunks of c tokens",
        memory="O(L), since scores are made a block of rows at a time",
        paper="2404.08801",
        oracle="none found; loops over tokens stand in, for averages and attention. One direction of the averages was "
        "compared once by hand with the ComplexEMA of megalodon-hf",
    )

    def __init__(
        self,
        *,
        shared_dim: int = 64,
        expansion: int = 2,
        ema_dim: int = 16,
        chunk: int | None = None,
        budget: int = PUBLISHED_BUDGET,
        dim: int,
        max_len: int,
        dropout: float,
    ) -> None:
        super().__init__(dim=dim, max_len=max_len, dropout=dropout)
        at_least(1, shared_dim=shared_dim, expansion=expansion, ema_dim=ema_dim)
        if shared_dim % 2:
            raise ValueError(f"shared_dim must be even. Got {shared_dim}.")
        at_least(1, budget=budget)
        self.chunk = None if chunk is None else in_proportion(budget, chunk=chunk)
        width = expansion * dim
        self.widths = (shared_dim, width, dim)  # of z, gate of the values, candidate
        self.ema = ComplexEma(dim, ema_dim)
        self.norm = nn.RMSNorm(dim, EPS)
        self.drop = Dropout(dropout)
        self.value = nn.Linear(dim, width)
        self.project = nn.Linear(dim, sum(self.widths))
        self.out = nn.Linear(width, dim, bias=False)
        for layer in (self.value, self.project, self.out):
            nn.init.kaiming_normal_(layer.weight, a=math.sqrt(5.0))
        for layer in (self.value, self.project):
            nn.init.zeros_(layer.bias)
        self.scale = nn.Parameter(torch.zeros(2, shared_dim))  # of queries, of keys; 1 is added
        self.shift = nn.Parameter(torch.zeros(2, shared_dim))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """See the contract."""
        padding = ~mask[..., None]
        rows = x.masked_fill(padding, 0)
        v = F.silu(self.value(rows))
        m = self.drop(self.norm(self.ema(rows)))
        z, gate, candidate = self.project(m).split(self.widths, -1)
        z = F.rms_norm(z, z.shape[-1:], eps=EPS)
        q, k = (z[..., None, :] * ((self.scale + 1) * z.shape[-1] ** -0.5) + self.shift).unbind(-2)
        gated = self.drop(self._attend(q, k, v, mask) * F.silu(gate))
        return (candidate + self.out(gated)).to(x.dtype).masked_fill(padding, 0)

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
        """Attend by softmax(q k) within chunks, from rows (B, L, Z), (B, L, Z) and (B, L, E)."""
        unscaled = rotate(q) * q.shape[-1] ** 0.5  # the operation divides by it
        return attend_in_chunks(unscaled, rotate(k), v, mask, None, chunk=self.chunk, function="softmax")


def rotate(x: Tensor) -> Tensor:
    """Turn pairs of neighbouring numbers of rows (B, L, Z) by angles that grow with the position (arXiv 2104.09864)."""
    dtype = accumulation_dtype(x)
    with torch.autocast(x.device.type, enabled=False):
        places = torch.arange(x.shape[1], device=x.device, dtype=dtype)
        frequencies = PERIOD ** (-torch.arange(0, x.shape[2], 2, device=x.device, dtype=dtype) / x.shape[2])
        angles = places[:, None] * frequencies
        sine, cosine = angles.sin(), angles.cos()
        real, imaginary = x.to(dtype).unflatten(-1, (-1, 2)).unbind(-1)
        turned = torch.stack([real * cosine - imaginary * sine, real * sine + imaginary * cosine], -1)
        return turned.flatten(-2).to(x.dtype)
