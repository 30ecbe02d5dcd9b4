"""Exact softmax attention with the whole score matrix stored, and dropout on the attention weights.

Vaswani et al. 2017, arXiv 1706.03762, Eq. 1, as written before fused kernels: the memory baseline, and the "Standard"
row of most tables. Time and memory O(L^2).

Oracle: torch softmax, outputs against explicit scores in float64.
"""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from models.attention import Attention


class SoftmaxMaterialisedAttention(Attention):
    """dropout(softmax(Q K^T / sqrt(D))) V over the real keys."""

    exact: ClassVar[bool] = True

    def forward(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
        """See the contract."""
        # A sequence without a real token attends to its padding: finite, and read by nobody.
        keys = mask | ~mask.any(-1, keepdim=True)
        scores = (q * self.head_dim**-0.5) @ k.mT  # (B, H, L, L)
        scores = scores.masked_fill(~keys[:, None, None], -torch.inf)
        weights = scores.softmax(-1, dtype=torch.promote_types(scores.dtype, torch.float32)).to(v.dtype)
        return F.dropout(weights, self.dropout, self.training) @ v
