"""H-Transformer-1D: exact attention nearby, and the farther away a key, the coarser the cells that are compared.

Zhu, Soricut 2021, "H-Transformer-1D: Fast One-Dimensional Hierarchical Attention for Sequences", arXiv 2107.11906.

At level l a cell is 2^l consecutive tokens, with the means of their queries and keys and the sum of their values, and a
block is b cells. A pair of tokens is attended to at the first level at which their blocks are the same or neighbours:
at level 0 exactly, and at level l with the weight exp(q . k / sqrt(D)) of their cells' means. All levels share one
normaliser. Levels beyond the first therefore see the two neighbours of a block, without the corner that is nearest,
which the level before has seen.

Departures from the authors' code (google/flaxformer), whose partition it is:
- the mean of a cell is that of its real tokens, and the normaliser counts real tokens alone;
- the length need not be b times a power of two: cells begin at the first position, and where no token is, nothing is
  added, so that padding changes nothing;
- logits are shifted by the largest of each row, not of each sequence and head;
- no relative position bias, and no dropout on the attention weights.
h-transformer-1d (github.com/lucidrains/h-transformer-1d) is another method: its blocks pair up with one sibling at each
level instead of two neighbours, the two halves of the sequence never meet, each level has a shift of its own that is
not undone, and a coarse cell counts once in the normaliser, however many tokens it has.
"""

from __future__ import annotations

from typing import ClassVar, NamedTuple, Unpack

import torch
import torch.nn.functional as F
from torch import Tensor

from models.attention import Attention, Sizes
from models.mechanism import Card
from models.ops.block_attention import in_proportion
from models.ops.precision import accumulation_dtype, without_autocast
from models.ops.windows import blocks_of, windows_of


class HTransformer1DAttention(Attention):
    """Softmax attention whose far logits are those of means.

    Args:
        block_size: b at a budget of 256, changed in proportion to the budget and rounded up to an even number.
        budget: the budget.
    """

    card: ClassVar[Card] = Card(
        what="H-Transformer-1D: exact attention nearby, and means of more and more queries and keys farther away",
        family="multilevel",
        time="O(L b) for blocks of b tokens",
        memory="O(L b)",
        paper="2107.11906",
        exact="the sequence has at most two blocks, or queries and keys are constant in the coarsest cells",
        oracle="h-transformer-1d HAttention1D, outputs and gradients of the dense form on the blocks that it pairs",
    )

    def __init__(self, *, block_size: int, budget: int, **sizes: Unpack[Sizes]) -> None:
        super().__init__(**sizes)
        size = in_proportion(budget, block_size=block_size)
        self.block_size = size + size % 2

    @without_autocast
    def forward(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
        """See the contract."""
        L, dtype = q.shape[2], q.dtype
        b = min(self.block_size, L + L % 2)
        real = mask[:, None, :, None].to(accumulation_dtype(q))
        q, k, v = (x.masked_fill(~mask[:, None, :, None], 0).to(real.dtype) for x in (q, k, v))
        levels = [_Cells(q * self.head_dim**-0.5, k, torch.cat([v, real.expand(-1, v.shape[1], -1, -1)], -1))]
        while levels[-1].q.shape[2] > 2 * b:
            levels.append(levels[-1].merged())
        sums = _attend(levels[-1], b, first=len(levels) == 1)
        for level in reversed(range(len(levels) - 1)):
            cells = levels[level]
            sums = _attend(cells, b, first=level == 0).plus(sums.refined(cells.q.shape[2]))
        total = sums.values[..., -1:]
        return (sums.values[..., :-1] / total.masked_fill(total == 0, 1)).to(dtype)


class _Cells(NamedTuple):
    """Sums over the real tokens of each cell: queries and keys (B, H, n, D), values and 1 (B, H, n, D + 1)."""

    q: Tensor
    k: Tensor
    v: Tensor

    def merged(self) -> _Cells:
        """Join neighbouring cells, the last one with nothing if their number is odd."""
        return _Cells(*(F.pad(x, (0, 0, 0, x.shape[2] % 2)).unflatten(2, (-1, 2)).sum(3) for x in self))


class _Sums(NamedTuple):
    """Sums of weights times values and 1, (B, H, n, D + 1), the weights divided by exp(shift), (B, H, n, 1)."""

    values: Tensor
    shift: Tensor

    def plus(self, other: _Sums) -> _Sums:
        """Add the sums of other keys."""
        shift = torch.maximum(self.shift, other.shift)
        values = (x.values * (x.shift - shift).exp() for x in (self, other))
        return _Sums(torch.add(*values), shift)

    def refined(self, length: int) -> _Sums:
        """Give each half of a cell, of which there are `length`, the sums of the whole."""
        return _Sums(*(x[:, :, :, None].expand(-1, -1, -1, 2, -1).flatten(2, 3)[:, :, :length] for x in self))


def _attend(cells: _Cells, block_size: int, first: bool) -> _Sums:
    """Sum what the cells of a block see at their level."""
    n, count = cells.q.shape[2], cells.v[..., -1:]
    queries = blocks_of(cells.q / count.clamp(min=1), block_size)
    keys = windows_of(cells.k / count.clamp(min=1), block_size, 1, 2)
    values = windows_of(cells.v, block_size, 1, 2)
    scores = queries @ keys.mT  # (B, H, blocks, b, 3 b)
    seen = values[..., -1][:, :, :, None] > 0
    if not first:
        seen = seen & _far(block_size, scores.device)
    scores = scores.masked_fill(~seen, torch.finfo(scores.dtype).min)
    shift = scores.detach().amax(-1, keepdim=True)
    weights = (scores - shift).exp().masked_fill(~seen, 0)
    return _Sums(*(x.flatten(2, 3)[:, :, :n] for x in (weights @ values, shift)))


def _far(block_size: int, device: torch.device) -> Tensor:
    """Which cells of three blocks (3 b) the cells of the middle one (b) see beyond the first level."""
    half = block_size // 2
    rows = torch.arange(block_size, device=device)[:, None] // half  # 0 or 1
    columns = torch.arange(-block_size, 2 * block_size, device=device).div(half, rounding_mode="floor")
    return (columns - rows).abs() >= 2
