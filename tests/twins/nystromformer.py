"""Nystromformer step by step, as in the paper (arXiv 2102.03902): one sequence and one head at a time."""

from __future__ import annotations

import torch
from torch import Tensor


def nystromformer(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor, *, num_landmarks: int, pinv_iterations: int | None = 6
) -> Tensor:
    """Attend; no number of iterations asks for the exact pseudo-inverse. Padded rows are zero."""
    out = torch.zeros_like(v)
    for b in range(q.shape[0]):
        valid = mask[b].nonzero().flatten()
        if len(valid) == 0:
            continue
        for h in range(q.shape[1]):
            Q, K, V = q[b, h, valid] / q.shape[-1] ** 0.25, k[b, h, valid] / q.shape[-1] ** 0.25, v[b, h, valid]
            segments = landmark_segments(len(valid), num_landmarks)
            Q_landmarks, K_landmarks = (torch.stack([x[s].mean(0) for s in segments]) for x in (Q, K))
            F1, F2, F3 = (
                (x @ y.T).softmax(-1) for x, y in ((Q, K_landmarks), (Q_landmarks, K_landmarks), (Q_landmarks, K))
            )
            Z = torch.linalg.pinv(F2) if pinv_iterations is None else iterative_pinv(F2, pinv_iterations)
            out = out.index_put((torch.tensor(b), torch.tensor(h), valid), F1 @ Z @ (F3 @ V))
    return out


def landmark_segments(num_tokens: int, num_landmarks: int) -> list[list[int]]:
    """Share tokens out in order: token r goes to segment floor(r e / num_tokens)."""
    e = min(num_landmarks, num_tokens)
    return [[r for r in range(num_tokens) if r * e // num_tokens == j] for j in range(e)]


def iterative_pinv(A: Tensor, iterations: int) -> Tensor:
    """Eq. 14."""
    identity = torch.eye(len(A), dtype=A.dtype)
    Z = A.T / A.sum(0).max() / A.sum(1).max()
    for _ in range(iterations):
        AZ = A @ Z
        Z = Z @ (13 * identity - AZ @ (15 * identity - AZ @ (7 * identity - AZ))) / 4
    return Z
