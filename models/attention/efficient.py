"""Efficient attention: a softmax over the features of each query and one over the keys of each feature.

Shen, Zhang, Zhao, Yi, Li 2021, "Efficient Attention: Attention with Linear Complexities", arXiv 1812.01243, with the
softmax normalisation: rho_q(Q) (rho_k(K)^T V). Each of the D features gathers a mean of the values, and a query mixes
these D means. Weights of a query are positive and sum to 1; they are not softmax attention. As in the paper, there is
no 1 / sqrt(D).

Both softmaxes are in float32 at least.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from models.attention import Attention
from models.mechanism import Card
from models.ops.masks import real_keys
from models.ops.precision import accumulation_dtype, without_autocast


class EfficientAttention(Attention):
    """softmax(Q) over the width times softmax(K)^T V over the real keys."""

    card: ClassVar[Card] = Card(
        what="Efficient attention: a softmax over the features of each query and one over the keys of each feature",
        family="feature maps",
        time="O(L)",
        memory="O(L)",
        paper="1812.01243",
        oracle="linear-attention-transformer linear_attn, outputs and gradients, without its second scaling of queries",
    )

    @without_autocast
    def forward(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
        """See the contract."""
        dtype = accumulation_dtype(q)
        keys = k.to(dtype).masked_fill(~real_keys(mask).mT, -torch.inf).softmax(2)
        means = keys.mT @ v.to(dtype)  # (B, H, D, D): a mean of the values for each feature
        return (q.to(dtype).softmax(-1) @ means).to(q.dtype)
