"""Exact softmax attention with the whole score matrix stored, and dropout on the attention weights.

Vaswani et al. 2017, arXiv 1706.03762, Eq. 1, as written before fused kernels: the memory baseline, and the "Standard"
row of most tables. All of it is in float32 at least, as in the published code even where that trains in fp16; before
2026-11-28 a run in bf16 or fp16 made its scores in that precision. In fp32 no number has changed.
"""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from models.attention import Attention
from models.mechanism import Card
from models.ops.biased_attention import Bias
from models.ops.masks import real_keys
from models.ops.precision import accumulation_dtype, without_autocast


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
    takes_bias: ClassVar[bool] = True

    @without_autocast
    def forward(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor, bias: Bias | None = None) -> Tensor:
        """See the contract."""
        dtype = accumulation_dtype(q)
        scores = (q.to(dtype) * self.head_dim**-0.5) @ k.to(dtype).mT  # (B, H, L, L)
        if bias is not None:
            places = torch.arange(q.shape[2], device=q.device)
            scores = scores + bias(places, places).to(dtype)
        weights = scores.masked_fill(~real_keys(mask), -torch.inf).softmax(-1)
        return (F.dropout(weights, self.dropout, self.training) @ v.to(dtype)).to(q.dtype)
