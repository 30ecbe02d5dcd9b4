"""Exact softmax attention in one fused kernel.

Vaswani et al. 2017, arXiv 1706.03762, Eq. 1. No dropout on the attention weights (Skeinformer's "Standard
without dropout").
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar, Unpack

import torch
import torch.nn.functional as F
from torch import Tensor

from models.attention import Attention, Sizes
from models.mechanism import Card
from models.ops.biased_attention import Bias, attend_with_bias, looking_back
from models.ops.masks import real_keys


class SoftmaxAttention(Attention):
    """softmax(Q K^T / sqrt(D)) V over the real keys.

    Args:
        causal: over those of them that do not stand behind the query.
    """

    causal_settings: ClassVar[Mapping[str, bool] | None] = MappingProxyType({"causal": True})
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

    def __init__(self, *, causal: bool = False, **sizes: Unpack[Sizes]) -> None:
        super().__init__(**sizes)
        self.causal = causal
        if causal:
            self.exact = False  # type: ignore[misc]  # it is softmax attention of another mask

    def forward(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor, bias: Bias | None = None) -> Tensor:
        """See the contract. With a bias, too, memory is linear in the length: a block of rows at a time."""
        if bias is not None:
            return attend_with_bias(q, k, v, mask, looking_back(bias) if self.causal else bias)
        if self.causal:
            return attend_back(q, k, v, mask)
        return F.scaled_dot_product_attention(q, k, v, attn_mask=real_keys(mask))


def attend_back(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    """Attend to the real keys up to each query, in a fused kernel, with memory O(L).

    Such a kernel takes a mask or causality, not both. So padding is shut out by one more channel: 1 in every query, and
    in the keys of padding a number so low that their weight is 0. Seven channels of zeros keep the rows aligned.
    """
    padding = ~mask[:, None, :, None]
    shut = padding.to(k.dtype) * (torch.finfo(k.dtype).min / 4)
    k = torch.cat([k.masked_fill(padding, 0), shut.expand(-1, k.shape[1], -1, -1)], -1)
    q = torch.cat([q, torch.ones_like(q[..., :1])], -1)
    v = v.masked_fill(padding, 0)
    dim = v.shape[-1]
    q, k, v = F.pad(q, (0, 7)), F.pad(k, (0, 7)), F.pad(v, (0, 8))
    return F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=dim**-0.5)[..., :dim]
