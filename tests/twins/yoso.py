"""YOSO step by step (arXiv 2111.09714): weights of pairs, codes bit by bit, and the surrogate gradients."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def collision_probability(q: Tensor, k: Tensor, num_bits: int) -> Tensor:
    """P (..., L, L) for vectors of any length."""
    q, k = (x / x.norm(dim=-1, keepdim=True) for x in (q, k))
    return (1 - torch.arccos((q @ k.mT).clamp(-1, 1)) / math.pi) ** num_bits


def collisions(codes_q: Tensor, codes_k: Tensor) -> Tensor:
    """The share of hashes under which each pair agrees, (N, L, L), from codes (N, m, L)."""
    return (codes_q[..., :, None] == codes_k[..., None, :]).double().mean(1)


def gaussian_codes(x: Tensor, planes: Tensor, num_bits: int) -> list[list[int]]:
    """Codes [hash][token] of x (L, D), bit t of hash h from column h tau + t of planes (D, m tau)."""
    codes = []
    for h in range(planes.shape[1] // num_bits):
        bits = [x @ planes[:, h * num_bits + t] > 0 for t in range(num_bits)]
        codes.append([sum(int(bit[i]) << t for t, bit in enumerate(bits)) for i in range(len(x))])
    return codes


def hadamard_codes(x: Tensor, signs: Tensor, num_bits: int, num_hashes: int) -> list[list[int]]:
    """Codes [hash][token] of x (L, D) by rotations `signs` (r, 3, P): pad, flip signs and transform three times."""
    codes = []
    for rotation in signs:
        y = torch.cat([x, x.new_zeros(len(x), signs.shape[-1] - x.shape[1])], 1)
        for flip in rotation:
            y = walsh_hadamard(y * flip)
        starts = range(0, signs.shape[-1] - num_bits + 1, num_bits)
        codes += [[sum(int(row[first + t] > 0) << t for t in range(num_bits)) for row in y] for first in starts]
    return codes[:num_hashes]


def walsh_hadamard(x: Tensor) -> Tensor:
    """Transform the last axis by halves, without normalisation."""
    if x.shape[-1] == 1:
        return x
    left, right = (walsh_hadamard(half) for half in x.chunk(2, -1))
    return torch.cat([left + right, left - right], -1)


def lower_bound_gradients(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, weights: Tensor, num_bits: int
) -> tuple[Tensor, Tensor, Tensor]:
    """dq, dk, dv of Y = weights v, pair by pair, for one head (L, D)."""
    dq, dk, dv = torch.zeros_like(q), torch.zeros_like(k), torch.zeros_like(v)
    for i in range(len(q)):
        for j in range(len(k)):
            slope = num_bits / 2 * weights[i, j] * (grad[i] @ v[j])
            dq[i] += slope * k[j]
            dk[j] += slope * q[i]
            dv[j] += weights[i, j] * grad[i]
    return dq, dk, dv
