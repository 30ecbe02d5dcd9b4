"""Reformer's LSH attention: tokens sorted by hash attend within their bucket, in chunks that look one chunk back.

Kitaev, Kaiser, Levskaya 2020, "Reformer: The Efficient Transformer", arXiv 2001.04451. Queries are the keys before
normalisation (`shared_qk`), logits are q_i . q_j / |q_j|, and a token attends to itself only where it has nothing else.
Scores are recomputed in the backward pass.

Each round keeps, for every query, the tokens of its bucket in its own and in the previous chunk. Rounds are joined by
their normalisers, so the result is one softmax over the union of their sets; a key found in N rounds has log N taken
off its logit (the paper's N_ij), so it counts once.

Departures from the authors' code (trax) and from the transformers class that Chen et al. 2022 (arXiv 2112.05359) ran:
- buckets are 2 (m // C) for a sequence of m real tokens, not a number for the batch's padded length, and padding is
  sorted behind all of them; a sequence that fits one chunk is one bucket, as transformers has it for short inputs;
- the first chunk of a round does not look back at the last one of another round, where nothing shares its bucket;
- transformers neither checks the bucket nor corrects for N, and its queries and values have no bias:
  `same_bucket: false`, `count_once: false`, `projection_bias: false`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar, Unpack

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from models.attention import Attention, Sizes
from models.checks import MOST_ROUNDS, at_least
from models.mechanism import Card
from models.ops.precision import accumulation_dtype, without_autocast

PAIRS = 2**18  # scores held at once, or a quarter of the numbers of an input: blocks that fit a cache
SELF_PENALTY = -1e5  # on a token's logit with itself: far below any other, far above none


class ReformerAttention(Attention):
    """Attention among tokens of like hash; `k` is not read, since it is `q`.

    Args:
        num_hashes: R, rounds of hashing.
        chunk_size: C, tokens of a chunk.
        num_buckets: of every sequence longer than a chunk, even; None for 2 (m // C).
        same_bucket: attend only to tokens of the same bucket; otherwise to both chunks whole.
        count_once: count a key found in several rounds once.
        projection_bias: queries and values are projections with a bias.
    """

    card: ClassVar[Card] = Card(
        what="Reformer's LSH attention: tokens sorted by hash attend within their bucket, in chunks that look one "
        "chunk back",
        family="hashing",
        time="O(L log L + L R C D) for R = `num_hashes` rounds and chunks of C = `chunk_size`, besides the hashes' L R "
        "D m / C",
        memory="O(L R)",
        paper="2001.04451",
        exact="the sequence fits one chunk; that is with shared queries and keys, a token's own left out",
        oracle="reformer-pytorch LSHAttention and, across buckets, transformers LSHSelfAttention, outputs and "
        "gradients on the same rotations",
    )

    shared_qk: ClassVar[bool] = True

    def __init__(
        self,
        *,
        num_hashes: int = 2,
        chunk_size: int = 64,
        num_buckets: int | None = None,
        same_bucket: bool = True,
        count_once: bool = True,
        projection_bias: bool = True,
        **sizes: Unpack[Sizes],
    ) -> None:
        super().__init__(**sizes)
        at_least(1, MOST_ROUNDS, num_hashes=num_hashes)
        at_least(1, chunk_size=chunk_size)
        if num_buckets is not None:
            at_least(2, num_buckets=num_buckets)
            if num_buckets % 2:
                raise ValueError(f"num_buckets must be even. Got {num_buckets}.")
        self.num_hashes = num_hashes
        self.chunk_size = min(chunk_size, self.max_len)
        self.num_buckets = num_buckets
        self.same_bucket = same_bucket
        self.count_once = count_once
        self.projection_bias = projection_bias

    @without_autocast
    def forward(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
        """See the contract."""
        dtype, real = accumulation_dtype(q), mask[:, None, :, None]
        Q, V = (torch.where(real, x, 0).to(dtype) for x in (q, v))
        extra = -q.shape[2] % self.chunk_size
        Q, V, mask = F.pad(Q, (0, 0, 0, extra)), F.pad(V, (0, 0, 0, extra)), F.pad(mask, (0, extra))
        buckets = self._buckets(Q, mask, q.shape[2])
        return self._attend(Q, V, mask, buckets)[:, :, : q.shape[2]].to(q.dtype)

    @torch.no_grad()
    def _buckets(self, q: Tensor, mask: Tensor, length: int) -> Tensor:
        """Hash to (B, H, R, L): the nearest of the first m // C random directions or of their opposites."""
        m = mask.sum(-1)[:, None, None]  # (B, 1, 1)
        most = max(1, length // self.chunk_size) if self.num_buckets is None else self.num_buckets // 2
        half = (m // self.chunk_size).clamp(min=1) if self.num_buckets is None else torch.full_like(m, most)
        rotations = self.draw("normal", (self.num_heads, self.num_hashes, q.shape[-1], most), q.device).to(q.dtype)
        unused = torch.arange(most, device=q.device) >= half[..., None]  # (B, 1, 1, most)
        rounds = []
        for rotation in rotations.unbind(1):
            sides = q @ rotation
            nearest = sides.abs().masked_fill(unused, -1).argmax(-1, keepdim=True)
            opposite = sides.gather(-1, nearest) < 0
            rounds.append(torch.where(opposite, nearest + half[..., None], nearest)[..., 0])
        buckets = torch.stack(rounds, 2)
        buckets = torch.where((m <= self.chunk_size)[..., None], 0, buckets)
        return buckets.masked_fill(~mask[:, None, None], 2 * most)  # padding comes last

    def _attend(self, q: Tensor, v: Tensor, mask: Tensor, buckets: Tensor) -> Tensor:
        (B, H, L, D), C, R = q.shape, self.chunk_size, self.num_hashes
        chunks = L // C
        with torch.no_grad():
            order = buckets.sort(dim=-1, stable=True).indices  # (B, H, R, L)
            ranks = torch.arange(L, device=q.device).expand_as(order)
            rank = torch.empty_like(order).scatter_(-1, order, ranks)
            # Query i reaches key j in a round if chunk_i - chunk_j is 0 (own chunk) or 1 (the one before). The
            # numbers of two buckets are so far apart that no chunk of one reaches a chunk of the other. Half steps
            # between them are exact in float32 below 2^23, and beyond in float64.
            most = (chunks + 2) * (1 + (2 * chunks if self.num_buckets is None else self.num_buckets))
            number = q.dtype if most < 2**23 else torch.float64
            group = buckets if self.same_bucket else ~mask[:, None, None].expand_as(buckets)
            chunk_of = (rank // C + group * (chunks + 2)).to(number)
            first = torch.arange(B * H, device=q.device).view(B, H, 1) * L

        rows = torch.cat([q, F.normalize(q, dim=-1), v], -1).flatten(0, 2)  # (B H L, 3 D)
        outs, normalisers = [], []
        for r in range(R):
            permutation, inverse = ((index[:, :, r] + first).flatten() for index in (order, rank))
            Q, K, V = _Permute.apply(rows, permutation, inverse).view(B * H, chunks, C, -1).split(D, -1)
            rounds = [r] + ([s for s in range(R) if s != r] if self.count_once else [])
            # Stacked, since an index of a Python list would be uploaded to the device at every call.
            numbers = torch.stack([chunk_of[:, :, s] for s in rounds], -1).flatten(0, 2)  # (B H L, P)
            query_chunks = key_chunks = numbers[permutation].view(B * H, chunks, C, -1)
            if chunks > 1:
                K, V, key_chunks = (torch.cat([x, x.roll(1, 1)], 2) for x in (K, V, query_chunks))
            out, normaliser = _ChunkAttention.apply(*(x.flatten(0, 1) for x in (Q, K, V, query_chunks, key_chunks)))
            joined = torch.cat([out, normaliser[..., None]], -1).flatten(0, 1)
            out, normaliser = _Permute.apply(joined, inverse, permutation).view(B, H, L, D + 1).split([D, 1], -1)
            outs.append(out)
            normalisers.append(normaliser)
        shares = torch.cat(normalisers, -1).softmax(-1)
        return torch.stack([share[..., None] * out for share, out in zip(shares.unbind(-1), outs, strict=True)]).sum(0)


class _Permute(torch.autograd.Function):
    """Rows of x (N, D) by a permutation; the gradient is permuted by its inverse, which adds no rows up."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, permutation: Tensor, inverse: Tensor) -> Tensor:
        ctx.save_for_backward(inverse)
        return x.index_select(0, permutation)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (inverse,) = ctx.saved_tensors
        return grad.index_select(0, inverse), None, None


class _ChunkAttention(torch.autograd.Function):
    """Masked attention of chunks (N, C, D) over (N, S, D), and the rows' log-normalisers; scores are never kept.

    `query_chunks` (N, C, P) and `key_chunks` (N, S, P) number the chunks in this round, then in the others. A chunk's
    own keys come first.
    """

    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, query_chunks: Tensor, key_chunks: Tensor
    ) -> tuple[Tensor, Tensor]:
        out, normaliser = torch.empty_like(q), q.new_empty(q.shape[:2])
        for block in _blocks(q, k):
            scores = _scores(q[block], k[block], query_chunks[block], key_chunks[block])
            P = scores.softmax(-1)
            normaliser[block] = scores.amax(-1) - P.amax(-1).log()
            torch.bmm(P, v[block], out=out[block])
        ctx.save_for_backward(q, k, v, query_chunks, key_chunks, out)
        return out, normaliser

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, grad_normaliser: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, query_chunks, key_chunks, out = ctx.saved_tensors
        dq, dk, dv = (torch.empty_like(x) for x in (q, k, v))
        shift = grad_normaliser - (grad * out).sum(-1)
        for block in _blocks(q, k):
            P = _scores(q[block], k[block], query_chunks[block], key_chunks[block]).softmax(-1)
            torch.bmm(P.mT, grad[block], out=dv[block])
            dS = P.mul_((grad[block] @ v[block].mT).add_(shift[block, :, None]))
            torch.bmm(dS, k[block], out=dq[block])
            torch.bmm(dS.mT, q[block], out=dk[block])
        return dq, dk, dv, None, None


def _blocks(q: Tensor, k: Tensor) -> Iterator[slice]:
    step = max(1, max(PAIRS, q.numel() // 4) // (q.shape[1] * k.shape[1]))
    return (slice(begin, begin + step) for begin in range(0, len(q), step))


def _scores(q: Tensor, k: Tensor, query_chunks: Tensor, key_chunks: Tensor) -> Tensor:
    """Return the scores (N, C, S) with what is added to them: the exclusions, the self penalty, and minus log N."""
    # Chunk numbers differ by 0 or 1 exactly if |difference - 1/2| - 1/2 is 0; otherwise it is at least 1.
    pairs = zip(query_chunks.sub(0.5).unbind(-1), key_chunks.unbind(-1), strict=True)
    distances = [(a[..., None] - b[:, None]).abs_().sub_(0.5) for a, b in pairs]
    bias = distances[0].mul_(-1e30)  # instead of minus infinity: every row holds itself at least
    if len(distances) > 1:
        misses = sum((x.clamp_(max=1) for x in distances[2:]), distances[1].clamp_(max=1))
        bias -= misses.neg_().add_(len(distances)).log_()
    bias[..., : query_chunks.shape[1]].diagonal(dim1=1, dim2=2).add_(SELF_PENALTY)
    return bias.to(q.dtype).baddbmm_(q, k.mT)
