"""Nystromformer: softmax attention through landmarks, the means of consecutive segments of queries and keys.

Xiong et al. 2021, "Nyströmformer: A Nyström-Based Algorithm for Approximating Self-Attention", arXiv 2102.03902.

Departures from the authors' code (github.com/mlpen/Nystromformer), whose formula it is otherwise:
- segments divide the real tokens of a sequence, not its padded length: the length need not be a multiple of M, no
  padding enters a mean, and a sequence shorter than M has one landmark for each token;
- the pseudo-inverse starts from a scale of each matrix; theirs, one maximum over batch and heads, couples sequences;
- Z, the pseudo-inverse, is not formed: only Z (F3 V) is needed. With A = F2, an iteration multiplies Z by a polynomial
  of P = A Z, and P by the same. So P follows from itself by two products instead of four, and the polynomials are
  applied to the (M, D) block F3 V. Rounding grows by up to 13/4 an iteration, to 1e-5 in float32 after six; iterations
  before the last six, if any, therefore form Z.

All of it runs in float32 or better, the fused calls included, since the pseudo-inverse amplifies rounding.
"""

from __future__ import annotations

from typing import ClassVar, Unpack

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.attention import Attention, Sizes
from models.checks import MOST_ROUNDS, at_least, odd
from models.mechanism import Card
from models.ops.masks import real_keys
from models.ops.precision import accumulation_dtype, without_autocast

APPLIED = 6  # iterations of the pseudo-inverse that need not form it
CONV_BLOCK = 64  # rows of a banded matrix: about twice the filter's width wastes the least work


class NystromformerAttention(Attention):
    """softmax(Q K~^T) pinv(softmax(Q~ K~^T)) softmax(Q~ K^T) V, all logits over sqrt(D), Q~ and K~ the landmarks.

    Args:
        num_landmarks: M.
        pinv_iterations: steps of the iterative pseudo-inverse.
        conv_size: odd width of a depthwise convolution of V along the length that is added, one filter for each head;
            padding enters it as zeros. None for none.
    """

    card: ClassVar[Card] = Card(
        what="Nystromformer: softmax attention through landmarks, the means of consecutive segments of queries and "
        "keys",
        family="low rank",
        time="O(L M + M^3) for M = `num_landmarks`",
        memory="O(L + M^2)",
        paper="2102.03902",
        exact="every token is a landmark (M >= L) and the pseudo-inverse has converged (`pinv_iterations` 6 leave "
        "about 1 %)",
        oracle="transformers NystromformerSelfAttention, outputs and gradients with and without the convolution; with "
        "padding nystrom-attention NystromAttention",
    )

    def __init__(
        self,
        *,
        num_landmarks: int,
        pinv_iterations: int = 6,
        conv_size: int | None = None,
        **sizes: Unpack[Sizes],
    ) -> None:
        super().__init__(**sizes)
        at_least(1, num_landmarks=num_landmarks)
        at_least(1, MOST_ROUNDS, pinv_iterations=pinv_iterations)
        if conv_size is not None:
            odd(conv_size=conv_size)
        self.num_landmarks = num_landmarks
        self.pinv_iterations = pinv_iterations
        self.filters: nn.Parameter | None = None
        if conv_size is not None:
            bound = conv_size**-0.5  # torch's own for a convolution
            self.filters = nn.Parameter(torch.empty(self.num_heads, conv_size).uniform_(-bound, bound))
            self.identity_on_one = False  # type: ignore[misc]  # the convolution adds its own multiple of a lone value

    @without_autocast
    def forward(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
        """See the contract."""
        dtype = accumulation_dtype(q)
        return self._attend(q.to(dtype), k.to(dtype), v.to(dtype), mask).to(q.dtype)

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
        (q_landmarks, k_landmarks), used = segment_means((q, k), mask, self.num_landmarks)
        used_keys, used_queries = used[:, None, None], used[:, None, :, None]

        F3_V = F.scaled_dot_product_attention(q_landmarks, k, v, attn_mask=real_keys(mask))
        A = (q_landmarks * self.head_dim**-0.5) @ k_landmarks.mT
        A = A.masked_fill(~used_keys, -torch.inf).softmax(-1).masked_fill(~used_queries, 0)
        values = apply_pinv(A, F3_V.masked_fill(~used_queries, 0), self.pinv_iterations)
        out = F.scaled_dot_product_attention(q, k_landmarks, values, attn_mask=used_keys)
        if self.filters is None:
            return out
        return out + depthwise_conv(v.masked_fill(~mask[:, None, :, None], 0), self.filters.to(v.dtype))


def depthwise_conv(x: Tensor, filters: Tensor) -> Tensor:
    """Convolve x (B, H, L, D) along L with one filter (H, W) for each head, zeros beyond the ends.

    A block of the output is a banded matrix times a window of x, which is faster than torch's convolution.
    """
    L, W = x.shape[2], filters.shape[1]
    num_blocks = -(-L // CONV_BLOCK)
    window = CONV_BLOCK + W - 1
    windows = F.pad(x, (0, 0, W // 2, num_blocks * CONV_BLOCK - L + W // 2)).unfold(2, window, CONV_BLOCK)
    band = F.pad(filters, (CONV_BLOCK - 1, CONV_BLOCK - 1)).unfold(-1, window, 1).flip(1)  # (H, CONV_BLOCK, window)
    return torch.einsum("hij,bhndj->bhnid", band, windows).flatten(2, 3)[:, :, :L]


def segment_means(xs: tuple[Tensor, ...], mask: Tensor, num_segments: int) -> tuple[list[Tensor], Tensor]:
    """Average consecutive segments of the real tokens, as equal in size as they can be.

    The real token of rank r among m belongs to segment floor(r e / m), where e = min(num_segments, m) are in use, or
    one, of mean zero, if m is 0.

    Returns:
        Means (B, H, M, D) of each x (B, H, L, D), and the segments in use (B, M); M is min(num_segments, L).
    """
    B, L = mask.shape
    M = min(num_segments, L)
    m = mask.sum(-1, keepdim=True)
    e = m.clamp(max=M)
    rank = mask.cumsum(-1) - 1
    # Padding contributes zeros to the segment of the real token before it.
    segment = (rank * e).clamp(min=0).div(m.clamp(min=1), rounding_mode="floor")  # (B, L), never falling
    ones = torch.ones_like(segment)
    tokens, lengths = (segment.new_zeros(B, M).scatter_add(-1, segment, count) for count in (mask.long(), ones))
    means = []
    for x in xs:
        rows = torch.where(mask[..., None, None], x.transpose(1, 2), 0).flatten(2)
        # Unlike adding into an index, this sums in one order on every device. Unsafe only skips checks of the lengths.
        sums = torch.segment_reduce(rows, "sum", lengths=lengths, axis=1, unsafe=True)
        means.append((sums / tokens.clamp(min=1)[..., None]).unflatten(-1, (x.shape[1], x.shape[3])).transpose(1, 2))
    return means, torch.arange(M, device=mask.device) < e.clamp(min=1)


def apply_pinv(A: Tensor, u: Tensor, iterations: int) -> Tensor:
    """Multiply u (..., M, D) by the iterative pseudo-inverse of A (..., M, M), non-negative with row sums 1 or 0.

    Eq. 14 of the paper: Z <- Z (13 I - A Z (15 I - A Z (7 I - A Z))) / 4 from Z = A^T / c, c the largest column sum.
    """
    shape = u.shape
    A, u = A.flatten(0, -3), u.flatten(0, -3)
    Z = (A / A.sum(-2).amax(-1)[:, None, None]).mT
    for _ in range(iterations - APPLIED):
        P = A @ Z
        Z = (13 * Z - Z @ (15 * P - P @ (7 * P - P @ P))) / 4
    P = A @ Z
    for left in reversed(range(min(iterations, APPLIED))):
        Pu = P @ u
        u, w = 13 * u - 15 * Pu, 7 * u - Pu
        if left == 0:
            u = (u + P @ (P @ w)) / 4
        else:
            P2 = P @ P
            u = (u + P2 @ w) / 4
            # (13 P - 15 P^2 + P^2 (7 P - P^2)) / 4 with as few passes over (M, M) as can be.
            base, factor = torch.sub(P, P2, alpha=15 / 13), torch.sub(P, P2, alpha=1 / 7)
            P = torch.baddbmm(base, P2, factor, beta=13 / 4, alpha=7 / 4)
    return (Z @ u).view(shape)
