"""LSH attention step by step (arXiv 2001.04451): one sequence, one head and one query at a time."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def reformer(
    q: Tensor,
    v: Tensor,
    mask: Tensor,
    rotations: Tensor,
    *,
    chunk_size: int,
    num_buckets: int | None = None,
    same_bucket: bool = True,
    count_once: bool = True,
) -> Tensor:
    """Attend, given `rotations` (H, R, D, columns). Padded rows are zero."""
    out = torch.zeros_like(v)
    for b in range(q.shape[0]):
        valid = mask[b].nonzero().flatten().tolist()
        for h in range(q.shape[1]):
            rounds = [_reach(q[b, h], valid, r, chunk_size, num_buckets, same_bucket) for r in rotations[h]]
            for i in valid:
                out[b, h, i] = _row(q[b, h], v[b, h], i, [reach[i] for reach in rounds], count_once)
    return out


def _reach(q, valid, rotation, chunk_size, num_buckets, same_bucket) -> dict[int, list[int]]:
    """The keys that each query reaches in one round."""
    m = len(valid)
    half = max(1, m // chunk_size) if num_buckets is None else num_buckets // 2
    bucket = {}
    for i in valid:
        sides = q[i] @ rotation[:, :half]
        bucket[i] = 0 if m <= chunk_size else int(torch.cat([sides, -sides]).argmax())
    order = sorted(valid, key=lambda i: (bucket[i], i))
    chunk = {i: rank // chunk_size for rank, i in enumerate(order)}
    return {
        i: [j for j in valid if chunk[i] - chunk[j] in (0, 1) and (bucket[i] == bucket[j] or not same_bucket)]
        for i in valid
    }


def _row(q: Tensor, v: Tensor, i: int, reaches: list[list[int]], count_once: bool) -> Tensor:
    """Softmax over the union of the rounds; the token itself only if there is nothing else."""
    terms = [(j, sum(j in reach for reach in reaches)) for reach in reaches for j in reach if j != i]
    if not terms:
        return v[i]
    logits = torch.stack([q[i] @ q[j] / q[j].norm() - (math.log(N) if count_once else 0) for j, N in terms])
    return sum(w * v[j] for w, (j, _) in zip(logits.softmax(0), terms, strict=True))
