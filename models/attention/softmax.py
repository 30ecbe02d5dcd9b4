"""Exact softmax attention in one fused kernel.

Vaswani et al. 2017, arXiv 1706.03762, Eq. 1. No dropout on the attention weights (Skeinformer's "Standard
without dropout").
"""

from __future__ import annotations

from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from models.attention import Attention
from models.mechanism import Card
from models.ops.biased_attention import Bias, attend_with_bias
from models.ops.masks import real_keys


class SoftmaxAttention(Attention):
    """softmax(Q K^T / sqrt(D)) V over the real keys."""

    card: ClassVar[Card] = Card(
        what="Exact softmax attention in one fused kernel",
        family="exact softmax",
        time="O(L^2)",
        memory="O(L) where the kernel is fused, since the scores are never stored",
        paper="1706.03762",
        exact="always",
        oracle="torch softmax, outputs against explicit scores in float64",
    )

    exact: ClassVar[bool] = True
    takes_bias: ClassVar[bool] = True

    def forward(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor, bias: Bias | None = None) -> Tensor:
        """See the contract. With a bias, too, memory is linear in the length: a block of rows at a time."""
        if bias is not None:
            return attend_with_bias(q, k, v, mask, bias)
        return F.scaled_dot_product_attention(q, k, v, attn_mask=real_keys(mask))
