"""Mechanisms written down as their formulas read: padded, eager, every score stored. What fast paths are compared with.

Sources: Vaswani et al. 2017 (arXiv 1706.03762) Eq. 1; Chen et al. 2022 (arXiv 2112.05359) Algorithm 1; Xiong et al.
2021 (arXiv 2102.03902) Eq. 13 and 14; Wang et al. 2020 (arXiv 2006.04768) Eq. 7; Choromanski et al. 2021 (arXiv
2009.14794) Eq. 5 and 13. As in their released codes, a budget and a padding to the longest sequence serve the whole
batch, and padding is masked in the scores. They are no backbones: padding may reach real rows.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from models.attention import Attention
from models.attention.softmax_materialised import SoftmaxMaterialisedAttention


class _Transcription(Attention):
    def __init__(self, *, num_heads: int, head_dim: int, max_len: int, dropout: float, budget: int) -> None:
        super().__init__(num_heads=num_heads, head_dim=head_dim, max_len=max_len, dropout=dropout)
        self.budget = min(budget, max_len)


class Skeinformer(_Transcription):
    """Algorithm 1: pilots, importance, columns, adaptive row normalisation, pilot reuse."""

    def forward(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
        """See the contract."""
        d = min(self.budget, q.shape[2])
        hidden = ~mask[:, None, None]
        pilots = torch.multinomial(mask.float(), d, replacement=True)[:, None, :, None].expand(-1, q.shape[1], -1, -1)
        B = _scores(q.gather(2, pilots.expand(-1, -1, -1, q.shape[-1])), k).masked_fill(hidden, -torch.inf).softmax(-1)
        weights = B.square().sum(-2).sqrt() * v.norm(dim=-1) * mask[:, None] + 1e-20 * mask[:, None]
        columns = torch.multinomial(weights.detach().flatten(0, 1), d).view(*weights.shape[:2], d, 1)
        columns = columns.expand(-1, -1, -1, v.shape[-1])
        K, V = k.gather(2, columns), v.gather(2, columns)
        logits = _scores(q, K)
        A = (logits - logits.amax(-1, keepdim=True)).exp()  # (B, H, L, d)
        g = (logits.mean(-1, keepdim=True) - logits.amax(-1, keepdim=True)).exp()
        rest = (v * mask[:, None, :, None]).sum(2, keepdim=True) - V.sum(2, keepdim=True)
        others = (mask.sum(-1) - d).clamp(min=0)[:, None, None, None]
        out = (A @ V + g * rest) / (A.sum(-1, keepdim=True) + others * g)
        return out.scatter(2, pilots.expand(-1, -1, -1, v.shape[-1]), B @ v)


class Nystromformer(_Transcription):
    """Landmarks by segment means, the pseudo-inverse formed by six iterations."""

    def forward(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
        """See the contract."""
        segments = min(self.budget, q.shape[2])
        hidden = ~mask[:, None, None]
        landmarks = [
            torch.stack([part.mean(2) for part in (x * mask[:, None, :, None]).tensor_split(segments, 2)], 2)
            for x in (q, k)
        ]
        F1, F2 = (_scores(x, landmarks[1]).softmax(-1) for x in (q, landmarks[0]))
        F3 = _scores(landmarks[0], k).masked_fill(hidden, -torch.inf).softmax(-1)
        identity = torch.eye(segments, device=q.device)
        Z = F2.mT / F2.sum(-2).amax()
        for _ in range(6):
            P = F2 @ Z
            Z = Z @ (13 * identity - P @ (15 * identity - P @ (7 * identity - P))) / 4
        return F1 @ Z @ (F3 @ v)


class Linformer(_Transcription):
    """Keys and values projected along the length."""

    def __init__(self, *, num_heads: int, head_dim: int, max_len: int, dropout: float, budget: int) -> None:
        super().__init__(num_heads=num_heads, head_dim=head_dim, max_len=max_len, dropout=dropout, budget=budget)
        self.E = nn.Parameter(0.02 * torch.randn(num_heads, self.budget, max_len))

    def forward(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
        """See the contract."""
        K, V = (self.E[..., : q.shape[2]] @ (x * mask[:, None, :, None]) for x in (k, v))
        return _scores(q, K).softmax(-1) @ V


class Performer(_Transcription):
    """Positive random features of queries and keys, with orthogonal directions."""

    def forward(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
        """See the contract."""
        D = q.shape[-1]
        factors = [torch.linalg.qr(torch.randn(D, D, device=q.device)) for _ in range(-(-self.budget // D))]
        blocks = [(Q * R.diagonal().sign()).T for Q, R in factors]  # directions uniform over all orthogonal ones
        norms = torch.randn(self.budget, D, device=q.device).norm(dim=-1, keepdim=True)
        W = torch.cat(blocks)[: self.budget] * norms
        logits = [x @ W.T / D**0.25 - x.square().sum(-1, keepdim=True) / (2 * D**0.5) for x in (q, k)]
        phi_q = (logits[0] - logits[0].amax(-1, keepdim=True)).exp() + 1e-4
        phi_k = ((logits[1] - logits[1].amax((-2, -1), keepdim=True)).exp() + 1e-4) * mask[:, None, :, None]
        return phi_q @ (phi_k.mT @ v) / (phi_q @ phi_k.sum(2)[..., None])


class LinearTransformer(Attention):
    """Katharopoulos et al. 2020 (arXiv 2006.16236), Eq. 5."""

    def forward(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
        """See the contract."""
        phi_q, phi_k = (nn.functional.elu(x) + 1 for x in (q, k))
        phi_k = phi_k * mask[:, None, :, None]
        return phi_q @ (phi_k.mT @ v) / (phi_q @ phi_k.sum(2)[..., None])


def _scores(q: Tensor, k: Tensor) -> Tensor:
    return q @ k.mT / q.shape[-1] ** 0.5


WITH_BUDGET: dict[str, type[_Transcription]] = {
    "skeinformer": Skeinformer,
    "nystromformer": Nystromformer,
    "linformer": Linformer,
    "performer": Performer,
}


def transcription(name: str, budget: int) -> Callable[..., Attention] | None:
    """Return what makes the transcription of a backbone; None where there is none."""
    if name in WITH_BUDGET:
        return partial(WITH_BUDGET[name], budget=budget)
    return {"softmax": SoftmaxMaterialisedAttention, "linear_transformer": LinearTransformer}.get(name)
