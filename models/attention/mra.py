"""MRA-2: exact attention between the blocks that score highest, and means of blocks everywhere else, or nothing.

Zeng, Pal, Kline, Fung, Singh 2022, "Multi Resolution Analysis (MRA) for Approximate Self-Attention", arXiv 2207.10284,
with the two resolutions of its experiments, b = 32 tokens and one.

A pair of blocks has the score exp(mean of queries . mean of keys / sqrt(D)). For every head, the highest-scoring pairs
are refined: their tokens attend to one another with the weights of softmax attention. In MRA-2 every other pair of
tokens has the score of its blocks as its weight, in MRA-2-s none; one normaliser for both. Scores are compared after a
division by the largest of their row of blocks, so that every row has a best one.

As in the authors' code (github.com/mlpen/mra-attention), priors put the diagonal and the blocks of the first tokens
before all other pairs. Departures from it:
- the mean of a block is that of its real tokens, the largest score of a row that of blocks with real tokens, and
  padding has no weight at all;
- the number of pairs that are refined grows with the blocks that have real tokens; there it is that of the longest
  sequence for all, so that short ones are refined completely;
- where these are fewer than the priors ask for, the diagonal comes first;
- no grid of blocks of 4 x 8 pixels on images, and no dropout on the attention weights.
"""

from __future__ import annotations

from typing import ClassVar, Unpack

import torch
import torch.nn.functional as F
from torch import Tensor

from models.attention import Attention, Sizes
from models.checks import at_least
from models.mechanism import Card
from models.ops.block_attention import in_proportion
from models.ops.precision import accumulation_dtype, without_autocast
from models.ops.shifted_sums import ShiftedSums
from models.ops.windows import blocks_of


class MRAAttention(Attention):
    """Attention at two resolutions.

    Args:
        block_size: b at a budget of 256, changed in proportion to the budget.
        budget: the budget; at the published sizes it is the number of keys that a query is compared with one by one.
        coarse: whether pairs that are not refined have the weight of their blocks; False for none (MRA-2-s).
        pairs_per_block: how many pairs are refined for every block of queries, on average.
        first_blocks: so many blocks at the beginning of the sequence are refined before others, with everything.
        diagonal: whether a block with itself is refined before all others. Without it a token may see nothing in
            MRA-2-s, and its result is then 0.
    """

    card: ClassVar[Card] = Card(
        what="MRA-2: exact attention between the blocks that score highest, elsewhere means of blocks or nothing",
        family="multilevel",
        time="O(L m b + (L / b)^2) for blocks of b tokens, m of which a query is compared with one by one",
        memory="O(L m b + (L / b)^2), the latter for the scores of all pairs of blocks",
        paper="2207.10284",
        exact="the sequence has at most m blocks",
        oracle="none found; the dense form stands in, and softmax attention where all pairs are refined. Compared once "
        "by hand with the authors' code, torch in the place of its CUDA kernels, outputs and gradients",
    )

    def __init__(
        self,
        *,
        block_size: int,
        budget: int,
        coarse: bool,
        pairs_per_block: int = 8,
        first_blocks: int = 1,
        diagonal: bool = True,
        **sizes: Unpack[Sizes],
    ) -> None:
        super().__init__(**sizes)
        at_least(1, pairs_per_block=pairs_per_block)
        at_least(0, first_blocks=first_blocks)
        self.block_size = in_proportion(budget, block_size=block_size)
        self.pairs_per_block = pairs_per_block
        self.coarse = coarse
        self.first_blocks = first_blocks
        self.diagonal = diagonal

    @without_autocast
    def forward(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
        """See the contract."""
        L, dtype = q.shape[2], q.dtype
        b = min(self.block_size, L)
        real = mask[:, None, :, None].to(accumulation_dtype(q))
        q, k, v = (x.masked_fill(~mask[:, None, :, None], 0).to(real.dtype) for x in (q, k, v))
        v = torch.cat([v, real.expand(-1, v.shape[1], -1, -1)], -1)
        q, k, v = (blocks_of(x, b) for x in (q * self.head_dim**-0.5, k, v))  # (B, H, blocks, b, D or D + 1)

        totals = v.sum(3)
        count = totals[..., -1:]
        queries, keys = (x.sum(3) / count.clamp(min=1) for x in (q, k))
        scores = queries @ keys.mT  # logarithms, (B, H, blocks, blocks)
        pairs, refined = self._choose(scores.detach(), count > 0)
        sums = _attend_pairs(q, k, v, pairs, refined)
        if self.coarse:
            sums = sums.plus(_attend_means(scores, totals, pairs, refined))
        weight = sums.values[..., -1:]
        out = sums.values[..., :-1] / weight.masked_fill(weight == 0, 1)
        return out.flatten(2, 3)[:, :, :L].to(dtype)

    def _choose(self, scores: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
        """Choose the pairs to refine.

        Args:
            scores: logarithms of the scores (B, H, n, n) of n blocks with n blocks.
            real: (B, H, n, 1) bool, True on blocks with real tokens.

        Returns:
            Pairs (B, H, M), row n + column, and which of them are refined (B, H, M) bool; the others are not real,
            or are too many.
        """
        n = scores.shape[-1]
        both = real & real.mT
        scores = scores.masked_fill(~both, torch.finfo(scores.dtype).min)
        rank = 1 / (1 + (scores.amax(-1, keepdim=True) - scores))  # from 0 to 1; priors are whole numbers
        block = torch.arange(n, device=scores.device)
        first = block < self.first_blocks
        rank = rank + (first[:, None] | first)
        if self.diagonal:
            rank = rank + 2 * (block[:, None] == block)
        # Stable: the best pairs of all rows have the same rank, and padding must not change which of them come first.
        ranks, pairs = rank.masked_fill(~both, -1).flatten(2).sort(dim=-1, descending=True, stable=True)
        ranks, pairs = (x[..., : self.pairs_per_block * n] for x in (ranks, pairs))
        most = self.pairs_per_block * real.sum(2)  # (B, H, 1)
        return pairs, (ranks >= 0) & (torch.arange(pairs.shape[-1], device=scores.device) < most)


def _attend_pairs(q: Tensor, k: Tensor, v: Tensor, pairs: Tensor, refined: Tensor) -> ShiftedSums:
    """Sum what the tokens of refined pairs of blocks get from one another.

    Args:
        q: queries (B, H, n, b, D), divided by sqrt(D).
        k: keys (B, H, n, b, D).
        v: values and 1, or 0 at padding (B, H, n, b, D + 1).
        pairs: (B, H, M).
        refined: (B, H, M) bool.

    Returns:
        Sums (B, H, n, b, D + 1).
    """
    B, H, n, b, _ = q.shape
    first = (torch.arange(B * H, device=q.device) * n).view(B, H, 1)
    rows = (pairs.div(n, rounding_mode="floor") + first).flatten()
    columns = (pairs % n + first).flatten()
    keys, values = _blocks_at(k, columns), _blocks_at(v, columns)
    logits = _blocks_at(q, rows) @ keys.mT  # (B H M, b, b)
    seen = (values[..., -1] > 0)[:, None] & refined.flatten()[:, None, None]
    logits = logits.masked_fill(~seen, torch.finfo(q.dtype).min)
    top = logits.detach().amax(-1)
    shift = top.new_full((B * H * n, b), torch.finfo(q.dtype).min / 2)
    shift = shift.scatter_reduce(0, rows[:, None].expand_as(top), top, "amax")
    weights = (logits - shift[rows][..., None]).exp().masked_fill(~seen, 0)
    sums = torch.zeros_like(v).flatten(0, 2).index_add(0, rows, weights @ values)
    return ShiftedSums(sums.view_as(v), shift.view(B, H, n, b, 1))


def _attend_means(scores: Tensor, totals: Tensor, pairs: Tensor, refined: Tensor) -> ShiftedSums:
    """Sum what blocks get from those that they are not refined with.

    Args:
        scores: logarithms of the scores (B, H, n, n).
        totals: sums of values and the number of real tokens (B, H, n, D + 1).
        pairs: (B, H, M).
        refined: (B, H, M) bool.

    Returns:
        Sums (B, H, n, 1, D + 1).
    """
    seen = ~torch.zeros_like(scores, dtype=torch.bool).flatten(2).scatter(2, pairs, refined).view_as(scores)
    seen = seen & (totals[..., -1:] > 0).mT
    scores = scores.masked_fill(~seen, torch.finfo(scores.dtype).min)
    shift = scores.detach().amax(-1, keepdim=True).clamp(min=torch.finfo(scores.dtype).min / 2)
    weights = (scores - shift).exp().masked_fill(~seen, 0)
    return ShiftedSums((weights @ totals)[..., None, :], shift[..., None])


def _blocks_at(x: Tensor, index: Tensor) -> Tensor:
    """Take blocks (B, H, n, b, D) by their numbers (N) in that order, to (N, b, D)."""
    # An embedding is a gather of rows whose backward pass adds in a fixed order, on every device.
    return F.embedding(index, x.flatten(3).flatten(0, 2)).unflatten(-1, x.shape[3:])
