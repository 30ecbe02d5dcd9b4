"""Linear Transformer: attention through the feature map elu(x) + 1.

Katharopoulos et al. 2020, "Transformers are RNNs", arXiv 2006.16236, Eq. 5 and 7, without causal mask. It
is not softmax attention; it equals its own explicit form, weights phi(q_i) . phi(k_j) over their row sum.

Departures from the code of Long Range Arena (github.com/google-research/long-range-arena): padding is masked, which it
is not there, and there is no 1e-6 in the denominator, which cannot vanish here.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from models.attention import Attention
from models.mechanism import Card
from models.ops.feature_sums import attend_features, exponential_keys, exponential_queries


class LinearTransformerAttention(Attention):
    """phi(Q) (phi(K)^T V) / phi(Q) (phi(K)^T 1) with phi = elu + 1."""

    card: ClassVar[Card] = Card(
        what="Linear Transformer: attention through the feature map elu(x) + 1",
        family="feature maps",
        time="O(L)",
        memory="O(L)",
        paper="2006.16236",
        oracle="none found for its features; a twin of the explicit form stands in, and linear-attention-transformer "
        "checks the sums with features of its own",
    )

    def forward(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
        """See the contract."""
        return attend_features(_Elu(), self.head_dim, q, k, v, mask)


class _Elu:
    """elu(x) + 1, that is x + 1 above zero and exp(x) below."""

    def keys(self, k: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        return exponential_keys(_log_elu(k).masked_fill(~mask, -torch.inf))

    def queries(self, q: Tensor, shift: Tensor) -> Tensor:
        return exponential_queries(_log_elu(q) + shift)


def _log_elu(x: Tensor) -> Tensor:
    """log(elu(x) + 1)."""
    return x.relu().log1p() + x.clamp(max=0)
