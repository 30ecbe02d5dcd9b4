"""ProbSparse attention step by step (arXiv 2012.07436): one sequence, one head and one query at a time."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def informer(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor, uniform: Tensor, *, num_samples: int, factor: int | None
) -> Tensor:
    """Attend, given the draw `uniform` (L, U). Padded rows are zero."""
    out = torch.zeros_like(q)
    for b in range(q.shape[0]):
        valid = mask[b].nonzero().flatten().tolist()
        m = len(valid)
        if m == 0:
            continue
        u = min(num_samples if factor is None else factor * math.ceil(math.log(m)), m)
        for h in range(q.shape[1]):
            measure = {}
            for i in valid:
                scores = [
                    float(q[b, h, i].detach() @ k[b, h, valid[min(int(x * m), m - 1)]].detach()) for x in uniform[i, :u]
                ]
                measure[i] = max(scores, default=0.0) - sum(scores) / m
            chosen = sorted(valid, key=lambda i: -measure[i])[:u]
            for i in valid:
                logits = torch.stack([q[b, h, i] @ k[b, h, j] / q.shape[-1] ** 0.5 for j in valid])
                weights = logits.softmax(0) if i in chosen else torch.full_like(logits, 1 / m)
                out[b, h, i] = sum(w * v[b, h, j] for w, j in zip(weights, valid, strict=True))
    return out
