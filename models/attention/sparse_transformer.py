"""Sparse Transformer: the strided and the fixed pattern, each the union of a local and a far-reaching part.

Child, Gray, Radford, Sutskever 2019, "Generating Long Sequences with Sparse Transformers", arXiv 1904.10509. Time and
memory grow as L sqrt(L) if strides or blocks grow as sqrt(L), as L^2 with a small constant if they do not.

The fixed pattern gathers its blocks and runs in one fused call. In the strided one neighbouring queries have no blocks
of keys in common, so that its scores, L (3 s + L / s) of them, are stored.

Departures from the paper, whose models generate: tokens attend in both directions (`causal` restores the triangle), and
one softmax runs over both parts (its "merged heads"). Departure from its kernels: no dropout on the weights.
The LRA code (arXiv 2011.04006) is causal and adds the first column of every block to the fixed part; both are options.
"""

from __future__ import annotations

from typing import ClassVar, Unpack

import torch
import torch.nn.functional as F
from torch import Tensor

from models.attention import Attention, Sizes
from models.mechanism import Card
from models.ops.block_attention import (
    Shared,
    attend_blocks,
    from_blocks,
    in_proportion,
    mask_to_blocks,
    to_blocks,
    window_table,
)
from models.ops.precision import accumulation_dtype, without_autocast

QUERY_BLOCKS = 4  # blocks of the fixed pattern that share one copy of the far keys


class SparseStridedAttention(Attention):
    """Token i sees token j if |i - j| < s or (i - j) mod s = 0.

    Args:
        stride: s at a budget of 256, changed in proportion to the budget; best near the square root of the length.
        budget: the budget.
        causal: see no later token.
    """

    card: ClassVar[Card] = Card(
        what="Sparse Transformer: the strided pattern, a band and every s-th token",
        family="sparse patterns",
        time="O(L (s + L / s)) for a stride of s, that is O(L sqrt(L)) if s grows as sqrt(L)",
        memory="O(L (s + L / s))",
        paper="1904.10509",
        exact="s = 1",
        oracle="none found; a twin with the whole mask stands in, and exact softmax attention where the pattern is "
        "full",
    )

    def __init__(
        self,
        *,
        stride: int,
        budget: int,
        causal: bool = False,
        **sizes: Unpack[Sizes],
    ) -> None:
        super().__init__(**sizes)
        self.stride = in_proportion(budget, stride=stride)
        self.causal = causal

    @without_autocast
    def forward(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
        """See the contract."""
        dtype = accumulation_dtype(q)
        return self._attend(q.to(dtype), k.to(dtype), v.to(dtype), mask).to(q.dtype)

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
        L = q.shape[2]
        s = min(self.stride, L)
        queries, keys, values = (to_blocks(x, s).transpose(2, 3) for x in (q * self.head_dim**-0.5, k, v))
        real = mask_to_blocks(mask, s)  # (B, nb, s); the others are (B, nb, H, s, D)

        # The band lies in three blocks; the stride joins tokens at the same position r of their blocks.
        rows, columns = torch.arange(s, device=q.device)[:, None], torch.arange(-s, 2 * s, device=q.device)
        band = (rows - columns).abs() < s
        block = torch.arange(real.shape[1], device=q.device)
        other = block[:, None] != block  # (nb, nb): the own block is in the band already
        if self.causal:
            band, other = band & (columns <= rows), block[:, None] > block
        near_seen = band & _neighbours(real, 2)[:, :, None, None]  # (B, nb, 1, s, 3 s)
        far_seen = other[:, None, None] & real.mT[:, None, None]  # (B, nb, 1, s, nb)

        near = queries @ _neighbours(keys, 3).mT  # (B, nb, H, s, 3 s)
        far = torch.einsum("bihrd,bjhrd->bihrj", queries, keys)
        scores = torch.cat([near, far], -1)
        seen = torch.cat([near_seen, far_seen], -1)
        weights = scores.masked_fill(~seen, torch.finfo(scores.dtype).min / 4).softmax(-1)
        near, far = weights.split([3 * s, len(block)], -1)
        out = near @ _neighbours(values, 3) + torch.einsum("bihrj,bjhrd->bihrd", far, values)
        return from_blocks(out.transpose(2, 3), L)


class SparseFixedAttention(Attention):
    """Token i sees token j if both are in one block, or if j is one of the last c tokens of its block.

    Args:
        block_size: b at a budget of 256, changed in proportion to the budget.
        summary_size: c, likewise.
        budget: the budget.
        causal: see no later token.
        first_column: every token also sees the first token of every block, as in the LRA code.
    """

    card: ClassVar[Card] = Card(
        what="Sparse Transformer: the fixed pattern, the own block and the last c tokens of every block",
        family="sparse patterns",
        time="O(L (b + c L / b)) for blocks of b tokens, that is O(L sqrt(L)) if b grows as sqrt(L)",
        memory="O(L (b + c L / b))",
        paper="1904.10509",
        exact="one block covers the sequence",
        oracle="none found; a twin with the whole mask stands in, and exact softmax attention where the pattern is "
        "full",
    )

    def __init__(
        self,
        *,
        block_size: int,
        summary_size: int,
        budget: int,
        causal: bool = False,
        first_column: bool = False,
        **sizes: Unpack[Sizes],
    ) -> None:
        super().__init__(**sizes)
        self.block_size = min(in_proportion(budget, block_size=block_size), self.max_len)
        self.summary_size = in_proportion(budget, summary_size=summary_size)
        self.causal = causal
        self.first_column = first_column

    def forward(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
        """See the contract."""
        L, b = q.shape[2], self.block_size
        nb = -(-L // b)
        first = b - min(self.summary_size, b)
        columns = torch.arange(first, b, device=q.device)
        if self.first_column and first > 0:
            columns = torch.cat([columns[:1] * 0, columns])
        # The last block may be cut short: only its columns within the length count.
        num_whole, remainder = divmod(L, b)
        count = num_whole * len(columns) + max(remainder - first, 0) + (self.first_column and min(first, remainder) > 0)
        far = (torch.arange(nb, device=q.device)[:, None] * b + columns).flatten()[:count]
        # The own block leaves the far keys out, so that none is counted twice.
        column = torch.arange(L, device=q.device) % b
        near = mask & (column < first) & ~((column == 0) & self.first_column)
        shared = Shared(k[:, :, far], v[:, :, far], mask[:, far])
        # Blocks share a group of queries, so that the far keys are copied less often; each sees its own block there.
        group = b * min(QUERY_BLOCKS, nb)
        row = torch.arange(-(-L // group) * group, device=q.device).view(-1, 1, group, 1)  # (groups, 1, group, 1)
        pattern = F.pad(row[0, 0] // b == row[0, 0].mT // b, (0, len(far)), value=True)
        if self.causal:
            pattern = pattern & (torch.cat([row.mT, far.expand(len(row), 1, 1, -1)], -1) <= row)
        return attend_blocks(q, k, v, near, window_table(len(row), 0, q.device), group, pattern, shared)


def _neighbours(blocks: Tensor, axis: int) -> Tensor:
    """Join every block (along dimension 1) with the ones before and after it, along `axis`."""
    ends = torch.zeros_like(blocks[:, :1])
    padded = torch.cat([ends, blocks, ends], 1)
    return torch.cat([padded[:, :-2], blocks, padded[:, 2:]], axis)
