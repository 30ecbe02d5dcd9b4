"""Local attention: a band around each token, or the token's own block.

The baseline of Tay et al. 2020, "Long Range Arena" (arXiv 2011.04006), after Parmar et al. 2018 (arXiv 1802.05751).
Time and memory O(L w). Exact softmax attention when the band, or one block, covers the sequence.

Departures from the LRA code: no dropout on the attention weights; padded keys are masked out where they stand; and its
groups of tokens i mod (number of blocks), the result of a reshape, are the option `strided_groups`.

Oracle: local-attention LocalAttention, outputs and gradients of the band and of the blocks.
"""

from __future__ import annotations

import torch
from torch import Tensor

from models.attention import Attention
from models.ops.block_attention import attend_band, attend_blocks, in_proportion, window_table


class LocalAttention(Attention):
    """Softmax attention of token i to tokens j with |i - j| <= w.

    Args:
        budget: number of keys a token sees, itself not counted: w is half of it.
    """

    def __init__(self, *, num_heads: int, head_dim: int, max_len: int, dropout: float, budget: int) -> None:
        super().__init__(num_heads=num_heads, head_dim=head_dim, max_len=max_len, dropout=dropout)
        if budget < 0:
            raise ValueError(f"budget must not be negative, got {budget}")
        self.window = budget // 2

    def forward(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
        """See the contract."""
        return attend_band(q, k, v, mask, self.window)


class LocalBlockAttention(Attention):
    """Softmax attention within blocks.

    Args:
        block_size: tokens of a block at a budget of 256, changed in proportion to the budget.
        budget: the budget.
        strided_groups: attend within groups of tokens i mod (number of blocks), as the LRA code does. The groups
            then depend on the padded length.
    """

    def __init__(
        self,
        *,
        num_heads: int,
        head_dim: int,
        max_len: int,
        dropout: float,
        block_size: int,
        budget: int,
        strided_groups: bool = False,
    ) -> None:
        super().__init__(num_heads=num_heads, head_dim=head_dim, max_len=max_len, dropout=dropout)
        self.block_size = in_proportion(block_size, budget)
        self.strided_groups = strided_groups

    def forward(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
        """See the contract."""
        L = q.shape[2]
        b = min(self.block_size, L)
        nb = -(-L // b)
        own = window_table(nb, 0, q.device)
        if not self.strided_groups:
            return attend_blocks(q, k, v, mask, own, b)
        # Row g of the transposed (b, nb) grid holds the tokens i with i mod nb = g; it is padded where i >= L.
        order = torch.arange(nb * b, device=q.device).view(b, nb).mT.flatten()
        inside = order < L
        place = order.clamp(max=L - 1)
        q, k, v = (x.index_select(2, place) for x in (q, k, v))
        out = attend_blocks(q, k, v, mask[:, place] & inside, own, b)
        return out.index_select(2, order.argsort()[:L])
