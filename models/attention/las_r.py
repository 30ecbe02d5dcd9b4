"""LaS attention, reconstructed: causal softmax of scores that fade with distance, smoothed along the keys.

Zimerman, Wolf 2024, "Viewing Transformers Through the Lens of Long Convolutions Layers", ICML 2024. Neither the paper
nor code of the authors was at hand, but others' descriptions and reviews, so this is a reconstruction, and its numbers
say nothing about those of the paper.

Theirs: head c computes AvgPool_P(softmax(exp(-alpha_c (i - j)) q_i . k_j / sqrt(D) for j <= i)) V. The decay multiplies
a score, so that far keys have scores near 0, not near -infinity; one head has alpha = 0, and those of the others lie
between 0 and B; the mean over P neighbouring weights keeps a row's length; nothing is learned or dropped.

Ours:
- B = `decay` and P = `pool_size`, which they choose for each task; the defaults are ours;
- the alphas: 0, B 2^-(H - 2), ..., B / 4, B / 2, B for the heads in order, so that a single head has none. Descriptions
  have "exponential-uniform". With B = 1/2, nine heads have 0 and the slopes of ALiBi (arXiv 2108.12409) for eight;
- the mean is of weights, after the softmax; in one review the figure has it so and an equation the other way round;
- it is centred, so that a weight reaches (P - 1) / 2 keys ahead. Beyond both ends, on padding and in holes there is no
  value, and what falls there is lost: rows near the end sum to less than 1.

The mean over neighbouring weights is the mean over neighbouring values instead, which is the same. Rows are computed in
blocks, again in the backward pass, so that memory stays O(L) where time is O(L^2). Distances count padding and holes.
All of it is in float32 at least.
"""

from __future__ import annotations

from typing import ClassVar, Unpack

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from models.attention import Attention, Sizes
from models.checks import not_negative, odd
from models.mechanism import Card
from models.ops.precision import accumulation_dtype, without_autocast

BLOCK = 2**18  # scores of a block of rows, for each sequence and head


class LaSReconstructedAttention(Attention):
    """softmax(exp(-alpha (i - j)) Q K^T / sqrt(D)) over the keys up to each token, times locally averaged values.

    Args:
        decay: B, the fastest decay of a head, for each token of distance.
        pool_size: P, odd; how many neighbouring values are averaged. 1 for none.

    Raises:
        ValueError: an option has a value it cannot have.
    """

    identity_on_one: ClassVar[bool] = False  # the mean of its value and of nothing around it

    card: ClassVar[Card] = Card(
        what="LaS attention, reconstructed: causal softmax of scores that fade with distance, smoothed along the keys",
        family="distance bias",
        time="O(L^2)",
        memory="O(L), rows in blocks",
        paper="ICML 2024, Viewing Transformers Through the Lens of Long Convolutions Layers",
        oracle="none found; the explicit weights, averaged over neighbours, stand in",
    )

    def __init__(self, *, decay: float = 0.5, pool_size: int = 3, **sizes: Unpack[Sizes]) -> None:
        super().__init__(**sizes)
        not_negative(decay=decay)
        odd(pool_size=pool_size)
        self.decay = decay
        self.pool_size = pool_size

    @without_autocast
    def forward(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
        """See the contract."""
        dtype = accumulation_dtype(q)
        values = v.to(dtype).masked_fill(~mask[:, None, :, None], 0)
        # Zeros beyond the ends count.
        pooled = F.avg_pool1d(values.mT.flatten(0, 1), self.pool_size, stride=1, padding=self.pool_size // 2)
        values = pooled.unflatten(0, values.shape[:2]).mT
        queries, keys = q.to(dtype) * self.head_dim**-0.5, k.to(dtype)
        L = q.shape[2]
        size = max(1, BLOCK // L)
        blocks = []
        for start in range(0, L, size):
            end = min(start + size, L)
            block = queries[:, :, start:end], keys[:, :, :end], values[:, :, :end], mask[:, :end]
            blocks.append(checkpoint(self._rows, *block, use_reentrant=False, preserve_rng_state=False))
        return torch.cat(blocks, 2).to(q.dtype)

    def alphas(self, like: Tensor) -> Tensor:
        """Return the decay of each head, (H,), in the precision of a tensor and where it is."""
        head = torch.arange(self.num_heads, device=like.device, dtype=like.dtype)
        return torch.where(head > 0, self.decay * 2.0 ** (head - (self.num_heads - 1)), 0.0)

    def _rows(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
        """Attend from the last rows of a sequence to all its tokens: k, v (B, H, L, D), mask (B, L)."""
        L = k.shape[2]
        keys = torch.arange(L, device=q.device)
        distance = keys[L - q.shape[2] :, None] - keys
        decay = (-self.alphas(q)[:, None, None] * distance.clamp(min=0)).exp()
        # A token always sees itself: rows of padding are finite, and nothing reads them.
        visible = (mask[:, None, None] & (distance > 0)) | (distance == 0)
        return ((q @ k.mT) * decay).masked_fill(~visible, -torch.inf).softmax(-1) @ v
