"""Exact softmax attention with the whole score matrix stored, and dropout on the attention weights.

Vaswani et al. 2017, arXiv 1706.03762, Eq. 1, as written before fused kernels: the memory baseline, and the "Standard"
row of most tables.
"""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from models.attention import Attention
from models.mechanism import Card
from models.ops.masks import real_keys
from models.ops.precision import accumulation_dtype


class SoftmaxMaterialisedAttention(Attention):
    """dropout(softmax(Q K^T / sqrt(D))) V over the real keys."""

    card: ClassVar[Card] = Card(
        what="Exact softmax attention with the whole score matrix stored, and dropout on the attention weights",
        family="exact softmax",
        time="O(L^2)",
        memory="O(L^2)",
        paper="1706.03762",
        exact="always",
        oracle="torch softmax, outputs against explicit scores in float64",
    )

    exact: ClassVar[bool] = True

    def forward(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
        """See the contract."""
        scores = (q * self.head_dim**-0.5) @ k.mT  # (B, H, L, L)
        scores = scores.masked_fill(~real_keys(mask), -torch.inf)
        weights = scores.softmax(-1, dtype=accumulation_dtype(scores)).to(v.dtype)
        return F.dropout(weights, self.dropout, self.training) @ v
