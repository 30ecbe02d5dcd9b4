"""Blocked sparsity as dense attention under an explicit matrix of who sees whom, one pair of tokens at a time."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Rule = Callable[[int, int], bool]


def matrix(length: int, sees: Rule) -> Tensor:
    """Write down whether token i sees token j, as (L, L)."""
    return torch.tensor([[bool(sees(i, j)) for j in range(length)] for i in range(length)])


def band(window: int) -> Rule:
    return lambda i, j: abs(i - j) <= window


def band_of(width: int) -> Rule:
    """The band of the LRA code, which counts the token itself: `width` tokens, one more behind it than before it."""
    right = width // 2
    return lambda i, j: i - j < width - right and j - i <= right


def same_block(block_size: int) -> Rule:
    return lambda i, j: i // block_size == j // block_size


def same_residue(num_groups: int) -> Rule:
    return lambda i, j: i % num_groups == j % num_groups


def strided(stride: int, causal: bool = False) -> Rule:
    """Arxiv 1904.10509, Section 4.3."""
    return lambda i, j: (abs(i - j) < stride or (i - j) % stride == 0) and (j <= i or not causal)


def fixed(block_size: int, summary_size: int, causal: bool = False, first_column: bool = False) -> Rule:
    """Arxiv 1904.10509, Section 4.3."""

    def sees(i: int, j: int) -> bool:
        place = j % block_size
        summary = place >= block_size - summary_size or (first_column and place == 0)
        return (i // block_size == j // block_size or summary) and (j <= i or not causal)

    return sees


def global_band(window: int, num_global: int) -> Rule:
    return lambda i, j: abs(i - j) <= window or i < num_global or j < num_global


def bigbird(block_size: int, last: int, random_blocks: list[list[int]]) -> Rule:
    """Blocks see the first, the last, their neighbours and the random ones; the first and the last see everything."""

    def sees(i: int, j: int) -> bool:
        a, b = i // block_size, j // block_size
        return a in (0, last) or b in (0, last) or abs(a - b) <= 1 or b in random_blocks[a]

    return sees


def attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, sees: Tensor) -> Tensor:
    """Softmax attention of (B, H, L, D) under `sees`, broadcast to (B, H, L, L); rows that see nothing are 0."""
    seen = sees & mask[:, None, None]
    scores = (q @ k.mT / q.shape[-1] ** 0.5).masked_fill(~seen, -torch.inf)
    weights = torch.where(seen.any(-1, keepdim=True), scores, 0).softmax(-1)
    return torch.where(seen.any(-1, keepdim=True), weights @ v, 0)


def with_fill(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, sees: Rule, block_size: int) -> Tensor:
    """Softmax attention where zeros that count as tokens follow, as many as the LRA code appends: at least one."""
    L = q.shape[2]
    longer = L + block_size - L % block_size
    out = torch.zeros_like(q)
    for b in range(q.shape[0]):
        for h in range(q.shape[1]):
            for i in range(L):
                seen = [j for j in range(longer) if sees(i, j) and (j >= L or mask[b, j])]
                zero = torch.zeros_like(q[b, h, i])
                keys, values = (torch.stack([x[b, h, j] if j < L else zero for j in seen or [i]]) for x in (k, v))
                out[b, h, i] = (keys @ q[b, h, i] / q.shape[-1] ** 0.5).softmax(0) @ values
    return out


def sinkhorn(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor, weight: Tensor, block_size: int, temperature: float, rounds: int
) -> Tensor:
    """Sinkhorn attention (arXiv 2002.11296) without noise: one sequence, one head and one block at a time."""
    out = torch.zeros_like(q)
    for b in range(q.shape[0]):
        for h in range(q.shape[1]):
            blocks = [
                list(range(begin, min(begin + block_size, q.shape[2]))) for begin in range(0, q.shape[2], block_size)
            ]
            filled = [s for s, block in enumerate(blocks) if any(mask[b, i] for i in block)]
            if not filled:
                continue
            pooled = [torch.stack([k[b, h, i] for i in blocks[s] if mask[b, i]]).sum(0) for s in filled]
            P = torch.stack([torch.stack([x @ weight[t] for t in filled]) for x in pooled]).div(temperature).exp()
            for _ in range(rounds):
                P = P / P.sum(1, keepdim=True)
                P = P / P.sum(0, keepdim=True)
            for slot, t in enumerate(filled):
                keys, values = [], []
                for i in blocks[t]:
                    if mask[b, i]:
                        keys.append(k[b, h, i])
                        values.append(v[b, h, i])
                for place in range(block_size):
                    sources = [
                        (P[n, slot], blocks[s][place])
                        for n, s in enumerate(filled)
                        if place < len(blocks[s]) and mask[b, blocks[s][place]]
                    ]
                    if sources:
                        keys.append(sum(p * k[b, h, i] for p, i in sources))
                        values.append(sum(p * v[b, h, i] for p, i in sources))
                weights = (q[b, h, blocks[t]] @ torch.stack(keys).T / q.shape[-1] ** 0.5).softmax(-1)
                out[b, h, blocks[t]] = weights @ torch.stack(values)
    return out
