"""Every token receives the mean of the values: attention without queries or keys.

The "V-Mean" floor of Chen et al. 2022 ("Sketching as a Tool for Understanding and Accelerating Self-attention for Long
Sequences", arXiv 2112.05359). Time and memory O(L). No gradient reaches queries or keys.

Oracle: none found; the explicit mean stands in.
"""

from __future__ import annotations

import torch
from torch import Tensor

from models.attention import Attention


class VmeanAttention(Attention):
    """Mean of V over the real tokens, in every row."""

    def forward(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
        """See the contract."""
        dtype = torch.promote_types(v.dtype, torch.float32)
        with torch.autocast(q.device.type, enabled=False):
            total = mask[:, None, None].to(dtype) @ v.to(dtype)  # (B, H, 1, D)
        count = mask.sum(-1).clamp(min=1)[:, None, None, None]
        return (total / count).to(v.dtype).expand_as(v)
