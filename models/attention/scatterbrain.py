"""Scatterbrain: exact attention nearby, random features of the softmax kernel for everything else, one normaliser.

Chen, Dao, Winsor, Song, Rudra, Re 2021, "Scatterbrain: Unifying Sparse and Low-rank Attention Approximation", arXiv
2110.15343.

The weight of a pair is phi(q) . phi(k), Performer's estimate of exp(q . k / sqrt(D)), and on a sparse support also what
that lacks, exp(q . k / sqrt(D)) - phi(q) . phi(k): there the weight is exact. The support is here the blocks around a
query's own, the local one of the authors' code (github.com/HazyResearch/fly); the one that hashing finds, which the
paper has besides, is left out.

Since the difference may be far smaller than its terms, it is not computed: the features of a query meet the sums over
all blocks but those of its support, which are running sums from both ends. These have a shift of each feature and
block, as in `models.ops.feature_sums`, and the sums of features and of exact weights have one of each row.

Random vectors are drawn as by `models.attention.performer`: anew at every call in training.

Departures from the authors' code: the support is made of whole blocks, theirs is a band; nothing is clamped, since
nothing can cancel or underflow; no dropout on the attention weights.
"""

from __future__ import annotations

import math
from typing import ClassVar, Unpack

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from models.attention import Attention, Sizes
from models.checks import at_least
from models.mechanism import Card
from models.ops.block_attention import in_proportion
from models.ops.feature_sums import exponential_keys
from models.ops.precision import accumulation_dtype, without_autocast
from models.ops.random_vectors import orthogonal_vectors
from models.ops.shifted_sums import ShiftedSums
from models.ops.windows import blocks_of, windows_of


class ScatterbrainAttention(Attention):
    """Softmax attention on the blocks around a query, and random features elsewhere.

    Args:
        num_features: M.
        block_size: b at a budget of 256, changed in proportion to the budget.
        budget: the budget.
        num_blocks: blocks of keys that a block of queries sees exactly, its own in the middle; of an even number, one
            more before it than behind; 0 for random features alone.
    """

    card: ClassVar[Card] = Card(
        what="Scatterbrain: exact attention nearby, and random features of the softmax kernel for everything else",
        family="multilevel",
        time="O(L (b + M)) for blocks of b tokens and M = `num_features`",
        memory="O(L (b + M))",
        paper="2110.15343",
        exact="the support covers the sequence",
        oracle="none found; the dense form, softmax attention on a full support and Performer on an empty one stand in",
    )

    projection: Tensor

    def __init__(
        self, *, num_features: int, block_size: int, budget: int, num_blocks: int = 3, **sizes: Unpack[Sizes]
    ) -> None:
        super().__init__(**sizes)
        at_least(1, num_features=num_features)
        at_least(0, num_blocks=num_blocks)
        self.block_size = in_proportion(budget, block_size=block_size)
        self.left, self.right = num_blocks // 2, -(-num_blocks // 2)
        self.num_features = num_features
        self.register_buffer("projection", self._draw_projection(torch.empty(0).device))

    @without_autocast
    def forward(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
        """See the contract."""
        (L, D), dtype, real = q.shape[2:], q.dtype, mask[:, None, :, None]
        b = min(self.block_size, L)
        reach = [min(x, -(-L // b)) for x in (self.left, self.right)]
        W = self._draw_projection(q.device) if self.training else self.projection
        if self.training:
            self.projection.copy_(W)
        W = W.to(accumulation_dtype(q)) * D**-0.25
        q, k, v = (x.masked_fill(~real, 0).to(W.dtype) for x in (q, k, v))
        queries, ones = blocks_of(q, b), real.to(v.dtype).expand(-1, v.shape[1], -1, -1)
        values, logit = checkpoint(
            _elsewhere,
            queries,
            blocks_of(k, b),
            blocks_of(torch.cat([v, ones], -1), b),
            W,
            *reach,
            use_reentrant=False,
            preserve_rng_state=False,
        )
        if sum(reach):
            keys, nearby, seen = (windows_of(x, b, *reach) for x in (k, v, ones))
            scores = (queries * D**-0.5) @ keys.mT  # (B, H, blocks, b, num_blocks b)
            scores = scores.masked_fill(seen.mT == 0, torch.finfo(scores.dtype).min)
            weights = torch.cat([logit, scores], -1).softmax(-1)
            values = weights[..., :1] * values + weights[..., 1:] @ nearby
        return values.flatten(2, 3)[:, :, :L].to(dtype)

    def _draw_projection(self, device: torch.device) -> Tensor:
        return orthogonal_vectors(self.draw, self.num_features, self.head_dim, device)


def _elsewhere(q: Tensor, k: Tensor, v: Tensor, W: Tensor, left: int, right: int) -> tuple[Tensor, Tensor]:
    """Attend by features to all blocks but those from `left` before a query's own to `right` - 1 behind it.

    Args:
        q: blocks of queries (B, H, blocks, b, D).
        k: blocks of keys (B, H, blocks, b, D).
        v: blocks of values and 1, or of 0 at padding, (B, H, blocks, b, D + 1).
        W: random vectors (M, D), divided by D^(1/4).
        left: blocks.
        right: blocks.

    Returns:
        Means of values (B, H, blocks, b, D), and the logarithm of the sum of their weights (B, H, blocks, b, 1).
    """
    half = 0.5 * q.shape[-1] ** -0.5
    exponent = k @ W.mT - half * k.square().sum(-1, keepdim=True)
    phi, shift = exponential_keys(exponent.masked_fill(v[..., -1:] == 0, -torch.inf).flatten(1, 2))
    own = ShiftedSums(phi.mT @ v.flatten(1, 2), shift.mT)  # (B, H blocks, M, D + 1)
    own = ShiftedSums(*(x.unflatten(1, k.shape[1:3]) for x in own))
    nb = k.shape[2]
    before = _moved(_running(own), left + 1, nb)
    behind = _moved(_running(_reversed(own)), right, nb)
    sums = before.plus(_reversed(behind))

    exponent = q @ W.mT + sums.shift.mT
    top = exponent.detach().amax(-1, keepdim=True)
    out = (exponent - top).exp() @ sums.values
    total = out[..., -1:]
    nothing = total == 0
    total = total.masked_fill(nothing, 1)
    logit = total.log() + top - half * q.square().sum(-1, keepdim=True) - math.log(len(W))
    return out[..., :-1] / total, logit.masked_fill(nothing, torch.finfo(logit.dtype).min)


def _running(sums: ShiftedSums) -> ShiftedSums:
    """Add to each block's sums (B, H, blocks, M, D + 1) those of all blocks before it."""
    n = sums.values.shape[2]
    if n == 1:
        return sums
    # Pairs of blocks have running sums; those of the first of a pair are one block more than those of the pairs before.
    pairs = [x.unflatten(2, (-1, 2)).unbind(3) for x in _moved(sums, 0, n + n % 2)]
    first, second = (ShiftedSums(*x) for x in zip(*pairs, strict=True))
    both = _running(first.plus(second))
    first = first.plus(_moved(both, 1, both.shift.shape[2]))
    return ShiftedSums(*(torch.stack(x, 3).flatten(2, 3)[:, :, :n] for x in zip(first, both, strict=True)))


def _moved(sums: ShiftedSums, step: int, length: int) -> ShiftedSums:
    """Give each of `length` blocks the sums of the one that is `step` before it, or none."""
    step = min(step, length)
    around = (0, 0, 0, 0, step, length - step - sums.values.shape[2])  # negative where blocks fall out
    none = torch.finfo(sums.shift.dtype).min / 2
    return ShiftedSums(F.pad(sums.values, around), F.pad(sums.shift, around, value=none))


def _reversed(sums: ShiftedSums) -> ShiftedSums:
    return ShiftedSums(*(x.flip(2) for x in sums))
