"""Flowformer: linear attention in which keys compete for what flows into the queries, and flows are conserved.

Wu, Wu, Xu, Wang, Long 2022, "Flowformer: Linearizing Transformers with Conservation Flows", arXiv 2202.06258, without
causal mask. With phi = sigmoid, query i takes in I_i = phi(q_i) . sum_j phi(k_j) and key j gives O_j = phi(k_j) .
sum_i phi(q_i). Once each key gives 1 in all, query i takes in I'_i = phi(q_i) . sum_j phi(k_j) / O_j; once each query
takes in 1, key j gives O'_j = phi(k_j) . sum_i phi(q_i) / I_i. Then, for m tokens,
    values compete:    V'_j = m softmax(O')_j V_j, the softmax over the keys,
    they aggregate:    A_i = phi(q_i) / I_i . sum_j phi(k_j) V'_j,
    queries allocate:  sigmoid(I'_i) A_i.
It is not softmax attention, and rows of weights do not sum to 1.

As in the authors' code (github.com/thuml/Flowformer, Flow_Attention.py), 1e-6 is added to both factors of each of the
four products that are flows, and O' is clamped to [-1, 1]. It has a mean of 1, so that the clamp makes equals of the
keys that give more than the mean.

That repository's code of Long Range Arena, the origin of its published numbers, differs, and is not followed:
competition over heads in place of keys, no clamp, phi = relu + 1e-6, and no mask. Here padding takes part in no sum,
and m counts the real tokens.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from models.attention import Attention
from models.mechanism import Card
from models.ops.masks import real_keys
from models.ops.precision import accumulation_dtype, without_autocast

EPSILON = 1e-6


class FlowformerAttention(Attention):
    """sigmoid(I') phi(Q) / I (phi(K)^T (m softmax(O') V)) with phi = sigmoid."""

    identity_on_one: ClassVar[bool] = False  # a lone token receives sigmoid(1) of its value

    card: ClassVar[Card] = Card(
        what="Flowformer: linear attention in which keys compete for what flows into the queries, and flows are "
        "conserved",
        family="feature maps",
        time="O(L)",
        memory="O(L)",
        paper="2202.06258",
        oracle="none found; the flows over all pairs, one by one, stand in",
    )

    @without_autocast
    def forward(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
        """See the contract."""
        dtype, padding = accumulation_dtype(q), ~mask[:, None, :, None]
        phi_q, phi_k = (x.to(dtype).sigmoid().masked_fill(padding, 0) for x in (q, k))
        incoming = _flow(phi_q, phi_k).masked_fill(padding, torch.inf)  # (B, H, L, 1), as all flows
        outgoing = _flow(phi_k, phi_q).masked_fill(padding, torch.inf)
        conserved_incoming = _flow(phi_q, phi_k / outgoing)
        conserved_outgoing = _flow(phi_k, phi_q / incoming).clamp(-1, 1)
        competition = conserved_outgoing.masked_fill(~real_keys(mask).mT, -torch.inf).softmax(2)
        values = v.to(dtype) * competition * mask.sum(-1)[:, None, None, None]
        out = (phi_q / incoming) @ (phi_k.mT @ values)
        return (conserved_incoming.sigmoid() * out).to(q.dtype)


def _flow(x: Tensor, y: Tensor) -> Tensor:
    """Return how much each row of x (B, H, L, D) exchanges with all rows of y together, (B, H, L, 1)."""
    return ((x + EPSILON) * (y.sum(2, keepdim=True) + EPSILON)).sum(-1, keepdim=True)
