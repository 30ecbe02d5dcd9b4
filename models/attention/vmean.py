"""Every token receives the mean of the values: attention without queries or keys.

The "V-Mean" floor of Chen et al. 2022 ("Sketching as a Tool for Understanding and Accelerating Self-attention for Long
Sequences", arXiv 2112.05359). Time and memory O(L). No gradient reaches queries or keys.

Oracle: none found; the explicit mean stands in.
"""

from __future__ import annotations

from torch import Tensor

from models.attention import Attention
from models.ops.precision import accumulation_dtype, without_autocast


class VmeanAttention(Attention):
    """Mean of V over the real tokens, in every row."""

    @without_autocast
    def forward(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
        """See the contract."""
        dtype = accumulation_dtype(v)
        total = mask[:, None, None].to(dtype) @ v.to(dtype)  # (B, H, 1, D)
        count = mask.sum(-1).clamp(min=1)[:, None, None, None]
        return (total / count).to(v.dtype).expand_as(v)
