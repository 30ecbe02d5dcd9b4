"""A convolution of bounded range: what a model reaches that sees nothing far away, as the control of those that do.

Miralles-Gonzalez et al. 2025, arXiv 2501.14850, train stacks of free convolutions of 5 to 61 taps. What is around the
convolution here is as in LongConv (arXiv 2302.06646, see `models.mixers.long_conv`), so that beside that one the kernel
alone differs: its range, and that its taps are neither squashed nor dropped.
"""

from __future__ import annotations

from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from models.checks import MOST_ROUNDS, odd
from models.dropout import Dropout
from models.mechanism import Card
from models.mixers import Mixer
from models.ops.short_convolution import ShortConvolution


class ShortConvMixer(Mixer):
    """GLU(W gelu(k * x)) with a kernel of K taps for each channel, in both directions.

    A token sees K // 2 tokens on either side, and through N layers N times as many, and never farther.

    Args:
        kernel_size: K, odd.
        dim, max_len, dropout: see `Mixer`; `dropout` acts before W.

    Raises:
        ValueError: `kernel_size` is even, or out of its range.
    """

    card: ClassVar[Card] = Card(
        what="Short convolution: K taps around each token, the control that sees nothing far",
        family="convolution",
        time="O(L K) for K taps",
        memory="O(L)",
        paper="2501.14850",
        oracle="none found; the explicit sum over taps stands in",
    )

    def __init__(self, *, kernel_size: int, dim: int, max_len: int, dropout: float) -> None:
        super().__init__(dim=dim, max_len=max_len, dropout=dropout)
        odd(MOST_ROUNDS, kernel_size=kernel_size)
        self.convolution = ShortConvolution(dim, kernel_size)
        self.drop = Dropout(dropout)
        self.out = nn.Linear(dim, 2 * dim)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """See the contract."""
        mixed = self.drop(F.gelu(self.convolution(x, mask)))
        return F.glu(self.out(mixed), -1).masked_fill(~mask[..., None], 0)
