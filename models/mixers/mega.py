"""MEGA: gated attention of a single head whose queries, keys and gates read a damped exponential moving average.

Ma, Zhou, Kong, He, Gui, Neubig, May, Zettlemoyer 2022, "Mega: Moving Average Equipped Gated Attention", arXiv
2209.10655, after the released code (github.com/facebookresearch/mega).

Departures from that code:
- its dropout of the candidate before the gate is the block's dropout of the gated sum;
- a chunk's last, shorter rest is a chunk, too: there a length must be a multiple of the chunk;
- the positional bias is its "simple" one, a learned number for every offset; "rotary", its other one, no task of the
  Long Range Arena has.
"""

from __future__ import annotations

from typing import ClassVar, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.checks import at_least, one_of
from models.dropout import Dropout
from models.mechanism import Card
from models.mixers import Mixer
from models.ops.block_attention import PUBLISHED_BUDGET, in_proportion
from models.ops.chunked_attention import Function, attend_in_chunks
from models.ops.fft_convolution import convolve
from models.ops.geometric_taps import geometric_taps
from models.ops.precision import accumulation_dtype

STD = 0.02  # of the initial weights of projections, of the scales of queries and keys, and of the positional bias


class DampedEma(nn.Module):
    """Moving averages of every channel in both directions, and the channel itself (Section 3.1, Eq. 4 to 6).

    In each direction a channel u has N averages h_t = alpha * beta u_t + (1 - alpha * delta) * h_{t-1}, which eta
    reads: y_t = eta . h_t / sqrt(N). The row itself counts in both directions.

    Args:
        dim: C.
        ema_dim: N.
        truncation: offsets of this size and above count for nothing; None for no limit.
    """

    def __init__(self, dim: int, ema_dim: int, truncation: int | None) -> None:
        super().__init__()
        self.truncation = truncation
        shape = (2, dim, ema_dim)  # forwards, backwards
        self.alpha = nn.Parameter(0.2 * torch.randn(shape))  # through a sigmoid, like delta
        self.delta = nn.Parameter(0.2 * torch.randn(shape))
        signs = 1.0 - 2.0 * (torch.arange(ema_dim) % 2)
        self.beta = nn.Parameter(signs + 0.02 * torch.randn(shape))
        self.eta = nn.Parameter(torch.randn(shape))
        self.residual = nn.Parameter(torch.randn(dim))

    def forward(self, x: Tensor) -> Tensor:
        """Average rows (B, L, C), 0 where padded."""
        with torch.autocast(x.device.type, enabled=False):
            forwards, backwards = self.taps(x.shape[1])
            own = forwards[:, :1] + backwards[:, :1]
            averages = convolve(x, torch.cat([own, forwards[:, 1:]], 1), backwards[:, 1:])
            return averages + x * self.residual.to(x.dtype)

    def taps(self, length: int) -> tuple[Tensor, Tensor]:
        """Return the taps (C, K) of lags 0 to K - 1 forwards, and of lags 0 to 1 - K backwards."""
        dtype = accumulation_dtype(self.alpha)
        alpha, delta = self.alpha.to(dtype).sigmoid(), self.delta.to(dtype).sigmoid()
        weights = self.eta * alpha * self.beta * self.eta.shape[-1] ** -0.5
        size = length if self.truncation is None else min(length, self.truncation)
        taps = geometric_taps(weights.flatten(0, 1), torch.log1p(-alpha * delta).flatten(0, 1), size)
        forwards, backwards = taps.unflatten(0, (2, -1)).unbind()
        return forwards, backwards


class Mega(Mixer):
    """Moving average equipped gated attention (Section 3.2 and 3.3, Eq. 7 to 15).

    With m the dropped-out silu of the averages: queries and keys are two scaled and shifted copies of z = silu(W_z m),
    values are v = silu(W_v x), the attention's result o is gated by r = silu(W_r m), the candidate is
    c = silu(W_h m + U_h (o * r)), and the update gate phi = sigmoid(W_phi m) mixes it with the residual x: the block
    gets phi * (c - x), which makes (1 - phi) * x + phi * c of its sum.

    Args:
        function: "softmax", or "laplace", whose weights are not normalised, for the pixel tasks in the paper.
        shared_dim: Z, the width of z.
        expansion: the width of values and of their gate, in multiples of C.
        ema_dim: N, averages of a channel.
        truncation: offsets from which the averages see nothing; None for no limit, as in the paper. The released
            configurations have 1,024, and 4,096 on Path-X.
        chunk: attention is within chunks of so many tokens at a budget of 256, changed in proportion to the budget;
            None for the whole sequence.
        budget: the budget.
    """

    reads_residual: ClassVar[bool] = True
    card: ClassVar[Card] = Card(
        what="MEGA: gated attention of one head on a damped exponential moving average",
        family="gated",
        time="O(L^2), or O(L log L + L c) in chunks of c tokens",
        memory="O(L), since scores are made a block of rows at a time",
        paper="2209.10655",
        oracle="none found; loops over tokens stand in, for averages and attention. Compared once by hand with "
        "MegaMovingAverageGatedAttention, which transformers had until version 5, outputs and gradients",
    )

    def __init__(
        self,
        *,
        function: Function = "softmax",
        shared_dim: int = 64,
        expansion: int = 2,
        ema_dim: int = 16,
        truncation: int | None = None,
        chunk: int | None = None,
        budget: int = PUBLISHED_BUDGET,
        dim: int,
        max_len: int,
        dropout: float,
    ) -> None:
        super().__init__(dim=dim, max_len=max_len, dropout=dropout)
        one_of(get_args(Function), function=function)
        at_least(1, shared_dim=shared_dim, expansion=expansion, ema_dim=ema_dim)
        if truncation is not None:
            at_least(1, truncation=truncation)
        self.function = function
        at_least(1, budget=budget)
        self.chunk = None if chunk is None else in_proportion(budget, chunk=chunk)
        width = expansion * dim
        self.widths = (dim, shared_dim, width, dim)  # of update gate, z, gate of the values, candidate
        self.ema = DampedEma(dim, ema_dim, truncation)
        self.drop = Dropout(dropout)
        self.value = nn.Linear(dim, width)
        self.project = nn.Linear(dim, sum(self.widths))
        self.out = nn.Linear(width, dim)
        for layer in (self.value, self.project, self.out):
            nn.init.normal_(layer.weight, std=STD)
            nn.init.zeros_(layer.bias)
        self.scale = nn.Parameter(STD * torch.randn(2, shared_dim))  # of queries, of keys
        self.shift = nn.Parameter(torch.zeros(2, shared_dim))
        reach = max_len if self.chunk is None else min(self.chunk, max_len)
        self.bias = nn.Parameter(STD * torch.randn(2 * reach - 1))

    def forward(self, x: Tensor, mask: Tensor, residual: Tensor | None = None) -> Tensor:
        """See the contract."""
        padding = ~mask[..., None]
        rows = x.masked_fill(padding, 0)
        v = F.silu(self.value(rows))
        m = self.drop(F.silu(self.ema(rows)))
        update, z, gate, candidate = self.project(m).split(self.widths, -1)
        q, k = (F.silu(z)[..., None, :] * self.scale + self.shift).unbind(-2)
        o = self.attend(q, k, v, mask)
        candidate = F.silu(candidate + self.out(o * F.silu(gate)))
        mixed = update.sigmoid() * (candidate - (x if residual is None else residual))
        return mixed.to(x.dtype).masked_fill(padding, 0)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
        """Attend with queries and keys (B, L, Z) to values (B, L, E), giving (B, L, E)."""
        return attend_in_chunks(q, k, v, mask, self.bias, chunk=self.chunk, function=self.function)
