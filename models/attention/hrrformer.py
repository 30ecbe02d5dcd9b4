"""Hrrformer: values weighted by how well a superposition of all bound pairs of keys and values brings them back.

Alam, Raff, Biderman, Oates, Holt 2023, "Recasting Self-Attention with Holographic Reduced Representations", arXiv
2305.19534. Binding is circular convolution along the head's width: S = sum_j k_j (*) v_j. Query i unbinds
u_i = q_i^-1 (*) S, where q^-1 is q with its coordinates 1 to D - 1 in the reverse order, the usual stand-in for an
inverse. Token i receives w_i v_i, where w is the softmax over all tokens of the cosine of v_i and u_i.

So a token receives its own value only, weighted: other tokens show in its weight alone. Cosines are at most 1, so that
a weight is at most e^2 times another, and about 1 / L.

Departures from the authors' code (github.com/FutureComputing4AI/Hrrformer): padding is left out of S, and out of the
softmax everywhere, not on the tasks of text alone; a vector of zeros has a cosine of 0 and not of 0 / 0.

Fourier transforms of keys, values and queries make it O(L D log D). All of it is in float32 at least.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from models.attention import Attention
from models.mechanism import Card
from models.ops.masks import real_keys
from models.ops.precision import accumulation_dtype, without_autocast


class HrrformerAttention(Attention):
    """softmax_i(cos(v_i, q_i^-1 (*) sum_j k_j (*) v_j)) v_i."""

    card: ClassVar[Card] = Card(
        what="Hrrformer: values weighted by how well a superposition of all bound pairs of keys and values brings them "
        "back",
        family="Fourier",
        time="O(L)",
        memory="O(L)",
        paper="2305.19534",
        oracle="none found; loops over the circular convolutions stand in",
    )

    @without_autocast
    def forward(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
        """See the contract."""
        dtype = accumulation_dtype(q)
        values = v.to(dtype).masked_fill(~mask[:, None, :, None], 0)
        waves_q, waves_k, waves_v = (torch.fft.rfft(x.to(dtype)) for x in (q, k, values))
        superposition = (waves_k * waves_v).sum(2, keepdim=True)  # (B, H, 1, D / 2 + 1)
        unbound = torch.fft.irfft(waves_q.conj() * superposition, n=self.head_dim)
        similarity = torch.cosine_similarity(values, unbound, dim=-1)[..., None]  # (B, H, L, 1)
        weights = similarity.masked_fill(~real_keys(mask).mT, -torch.inf).softmax(2)
        return (weights * values).to(q.dtype)
