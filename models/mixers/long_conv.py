"""Long convolutions whose taps are learned one by one, kept simple by squashing.

Fu et al. 2023, "Simple Hardware-Efficient Long Convolutions for Sequence Modeling", arXiv 2302.06646. Initial values
and what is around the convolution are as in the authors' code (github.com/HazyResearch/safari, `long_conv`).
"""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.checks import not_negative, positive, rate
from models.dropout import Dropout
from models.mechanism import ONE_WAY, Card
from models.mixers import Mixer
from models.ops.fft_convolution import convolve

STD = 0.002  # of the initial taps


class LongConvMixer(Mixer):
    """GLU(W gelu(k * x + D x)): a convolution with a kernel as long as the sequence, one for each channel.

    In every pass the taps are squashed, k <- sign(k) max(|k| - squash, 0), and in training some are dropped. A tap that
    is squashed to 0 gets no gradient. Weight decay leaves the kernels alone.

    Args:
        bidirectional: whether a token also receives from those after it, by a second kernel.
        squash: what every tap loses of its size, the paper's lambda.
        kernel_dropout: the share of taps that are dropped in training, the same for all sequences of a pass.
        kernel_learning_rate: the peak learning rate of the kernels.
        dim, max_len, dropout: see `Mixer`; `dropout` acts before W.

    Raises:
        ValueError: an option is out of its range.
    """

    undecayed = ("kernels",)
    causal_settings = ONE_WAY
    card: ClassVar[Card] = Card(
        what="LongConv: a convolution as long as the sequence, its taps learned one by one and squashed",
        family="convolution",
        time="O(L log L)",
        memory="O(L)",
        paper="2302.06646",
        oracle="none found; the explicit sum over lags stands in",
    )

    def __init__(
        self,
        *,
        bidirectional: bool = False,
        squash: float = 0.003,
        kernel_dropout: float = 0.2,
        kernel_learning_rate: float = 1e-3,
        dim: int,
        max_len: int,
        dropout: float,
    ) -> None:
        super().__init__(dim=dim, max_len=max_len, dropout=dropout)
        not_negative(squash=squash)
        rate(kernel_dropout=kernel_dropout)
        positive(kernel_learning_rate=kernel_learning_rate)
        self.squash = squash
        self.kernel_dropout = kernel_dropout
        self.learning_rates = {"kernels": kernel_learning_rate}
        self.kernels = nn.Parameter(STD * torch.randn(2 if bidirectional else 1, dim, max_len))
        self.skip = nn.Parameter(torch.randn(dim))
        self.drop = Dropout(dropout)
        self.out = nn.Linear(dim, 2 * dim)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """See the contract."""
        padding = ~mask[..., None]
        x = x.masked_fill(padding, 0)
        mixed = convolve(x, *self._taps(x.shape[1])) + self.skip * x
        return F.glu(self.out(self.drop(F.gelu(mixed))), -1).masked_fill(padding, 0)

    def _taps(self, length: int) -> Tensor:
        """Return the taps (directions, C, L) of lags 0, 1, ... and, if there are two directions, of -1, -2, ..."""
        taps = F.softshrink(self.kernels[..., :length], self.squash)
        if self.training and self.kernel_dropout > 0:
            kept = self.draw("uniform", tuple(taps.shape), taps.device) >= self.kernel_dropout
            taps = taps * kept / (1 - self.kernel_dropout)
        return taps
