"""cosFormer: attention through relu features, with weights that fall off with distance as a cosine.

Qin et al. 2022, "cosFormer: Rethinking Softmax in Attention", arXiv 2202.08791. The weight of key j for query i is
relu(q_i) . relu(k_j) cos(pi (i - j) / (2 M)) over the sum of its row. The cosine of a difference is a sum of two
products, so the weights are products of 2 D features: relu(x) sin(pi i / (2 M)) and relu(x) cos(pi i / (2 M)). There is
no 1 / sqrt(D). Without the cosine, M to infinity, it is linear attention with relu features.

Positions count padding and holes, and no two are further apart than M = `max_len`, so that no weight is negative. A
row's sum is at least 1e-6, as in the authors' code (github.com/OpenNLPLab/cosFormer): a query with no key of a positive
weight receives 0.

Departures from that code: M is the longest length that the model is made for, not that of the batch at hand, on which
a sequence's result would depend; padding is masked.
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor

from models.attention import Attention
from models.mechanism import Card
from models.ops.feature_sums import attend_features
from models.ops.precision import accumulation_dtype, without_autocast

LEAST_SUM = 1e-6  # of a row's weights


class CosformerAttention(Attention):
    """phi(Q) (phi(K)^T V) / phi(Q) (phi(K)^T 1) with phi = relu times the sine and the cosine of the position."""

    identity_on_one: ClassVar[bool] = False  # its own weight for a lone token may be 0

    card: ClassVar[Card] = Card(
        what="cosFormer: attention through relu features, with weights that fall off with distance as a cosine",
        family="feature maps",
        time="O(L)",
        memory="O(L)",
        paper="2202.08791",
        oracle="none found; the explicit weights over all pairs stand in",
    )

    @without_autocast
    def forward(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
        """See the contract."""
        dtype = accumulation_dtype(q)
        angle = torch.arange(q.shape[2], device=q.device, dtype=dtype)[:, None] * (math.pi / 2 / self.max_len)
        # A column more tells each token's features its position.
        Q, K = (torch.cat([x.to(dtype), angle.expand(*x.shape[:-1], 1)], -1) for x in (q, k))
        return attend_features(_Cosine(), 2 * self.head_dim, Q, K, v, mask, least=LEAST_SUM).to(q.dtype)


class _Cosine:
    """relu(x) sin(a) and relu(x) cos(a), of x with its angle a in one column more."""

    def keys(self, k: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        phi = self.queries(k, k)
        return phi, phi.new_zeros(1, 1, 1, phi.shape[-1])

    def queries(self, q: Tensor, shift: Tensor) -> Tensor:
        x, angle = q[..., :-1].relu(), q[..., -1:]
        return torch.cat([x * angle.sin(), x * angle.cos()], -1)
