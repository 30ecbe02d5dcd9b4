"""Every token receives the mean of the values: attention without queries or keys.

The "V-Mean" floor of Chen et al. 2022 ("Sketching as a Tool for Understanding and Accelerating Self-attention for Long
Sequences", arXiv 2112.05359). No gradient reaches queries or keys.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from models.attention import Attention
from models.mechanism import Card
from models.ops.precision import accumulation_dtype, without_autocast


class VmeanAttention(Attention):
    """Mean of V over the real tokens, in every row."""

    unread: ClassVar[tuple[str, ...]] = ("query", "key")

    card: ClassVar[Card] = Card(
        what="Every token receives the mean of the values: attention without queries or keys",
        family="floors",
        time="O(L)",
        memory="O(L)",
        paper="2112.05359",
        oracle="none found; the explicit mean stands in",
    )

    @without_autocast
    def forward(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
        """See the contract."""
        dtype = accumulation_dtype(v)
        total = mask[:, None, None].to(dtype) @ v.to(dtype)  # (B, H, 1, D)
        count = mask.sum(-1).clamp(min=1)[:, None, None, None]
        return (total / count).to(v.dtype).expand_as(v)
