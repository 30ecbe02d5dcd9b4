"""Skeinformer step by step, as in the paper (arXiv 2112.05359): one sequence, one head and one row at a time."""

from __future__ import annotations

import torch
from torch import Tensor


def skeinformer(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor,
    uniform: Tensor,
    exponential: Tensor,
    *,
    num_samples: int,
    columns: str = "importance",
    normalization: str = "adaptive",
    reuse_pilot: bool = True,
) -> Tensor:
    """Attend, given the draws: `uniform` (B, 1 or H, num_samples), `exponential` (B, H, L). Padded rows are zero."""
    batches = []
    for b in range(q.shape[0]):
        valid = mask[b].nonzero().flatten().tolist()
        heads = []
        for h in range(q.shape[1]):
            pilots = uniform[b, h if uniform.shape[1] > 1 else 0]
            head = (q[b, h], k[b, h], v[b, h])
            heads.append(
                _head(*head, valid, pilots, exponential[b, h], num_samples, columns, normalization, reuse_pilot)
            )
        batches.append(torch.stack(heads))
    return torch.stack(batches)


def importance(q: Tensor, k: Tensor, v: Tensor, valid: list[int], J: list[int]) -> list[Tensor]:
    """Steps 2 and 3: the normalised sampling probabilities, given pilot rows J."""
    B_J = [_softmax_row(q[j], k, valid) for j in J]
    w = [torch.stack([row[i] ** 2 for row in B_J]).sum().sqrt() * v[valid[i]].norm() for i in range(len(valid))]
    total = torch.stack(w).sum()
    return [x / total for x in w]


def _head(q, k, v, valid, uniform, exponential, num_samples, columns, normalization, reuse_pilot) -> Tensor:
    m = len(valid)
    e = min(num_samples, m)
    out = [torch.zeros_like(row) for row in q]
    if m == 0:
        return torch.stack(out)

    # Step 1: pilots.
    J = [valid[min(int(u * m), m - 1)] for u in uniform[:e]]

    # Steps 2 to 4: columns without replacement, in the order of their perturbed log weights.
    gumbel = [-exponential[i].log() for i in valid]
    if columns == "importance":
        with torch.no_grad():
            gumbel = [g + p.log() for g, p in zip(gumbel, importance(q, k, v, valid, J), strict=True)]
    order = sorted(range(m), key=lambda i: -float(gumbel[i]))
    selected = [valid[i] for i in order[:e]]

    # Step 8.
    rest = torch.stack([v[i] for i in valid]).sum(0) - torch.stack([v[i] for i in selected]).sum(0)

    for i in valid:
        # Steps 5 and 6, every term divided by exp(c).
        L = torch.stack([q[i] @ k[j] for j in selected]) / len(q[i]) ** 0.5
        c = L.max().detach()
        A = (L - c).exp()
        g = (L.mean() - c).exp()
        R = sum(a * v[j] for a, j in zip(A, selected, strict=True))
        # Steps 7 and 9, or their ablations.
        if normalization == "adaptive":
            out[i] = (R + g * rest) / (A.sum() + (m - e) * g)
        elif normalization == "simple":
            out[i] = R / A.sum()
        else:
            out[i] = R / torch.stack([(q[i] @ k[j] / len(q[i]) ** 0.5 - c).exp() for j in valid]).sum()

    # Step 10.
    if reuse_pilot:
        for j in set(J):
            out[j] = sum(p * v[i] for p, i in zip(_softmax_row(q[j], k, valid), valid, strict=True))
    return torch.stack(out)


def _softmax_row(q: Tensor, k: Tensor, valid: list[int]) -> Tensor:
    return torch.stack([q @ k[i] / len(q) ** 0.5 for i in valid]).softmax(0)
