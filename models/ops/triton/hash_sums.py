"""Sums over colliding tokens of `models.ops.hash_sums`, in which collisions are counted where they are used.

A program has a tile of tokens and goes along all others, tile after tile. The form in torch counts the collisions of a
block of pairs in a launch or two for every hash, and writes them to memory.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

ROWS, COLUMNS = 64, 64  # tokens of a tile; powers of two, from 16 on a GPU


def sampled_sum(codes_q: Tensor, codes_k: Tensor, v: Tensor) -> Tensor:
    """Return C V (N, L, D), where C_ij is the share of the hashes (N, m, L) under which query i and key j collide."""
    return _sum(codes_q, codes_k, v).div_(codes_q.shape[1])


def sampled_gradients(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, codes_q: Tensor, codes_k: Tensor, num_bits: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of q, k and v; see `models.ops.hash_sums`."""
    m = codes_q.shape[1]
    scale = num_bits / (2 * m)
    dq = _sum(codes_q, codes_k, k, (grad, v)).mul_(scale)
    dk = _sum(codes_k, codes_q, q, (v, grad)).mul_(scale)
    return dq, dk, _sum(codes_k, codes_q, grad).div_(m)


def _sum(own: Tensor, others: Tensor, x: Tensor, factors: tuple[Tensor, Tensor] | None = None) -> Tensor:
    """Sum the rows of x (N, L, D) of all others, each as often as it collides with a row of its own.

    With factors (N, L, D), a of the own row and b of the other, likewise times a . b.
    """
    (N, m, L), D = own.shape, x.shape[-1]
    out = torch.empty(N, L, D, dtype=x.dtype, device=x.device)
    if not out.numel():
        return out
    own, others, x = own.contiguous(), others.contiguous(), x.contiguous()
    a, b = (x, x) if factors is None else (one.contiguous() for one in factors)
    _sum_colliding[(triton.cdiv(L, ROWS), N)](
        own, others, x, a, b, out, L, m, D,
        WIDTH=max(16, triton.next_power_of_2(D)), WITH_FACTORS=factors is not None, ROWS=ROWS, COLUMNS=COLUMNS,
    )  # fmt: skip
    return out


@triton.jit
def _sum_colliding(
    own, others, x, a, b, out, length, hashes, dim,
    WIDTH: tl.constexpr, WITH_FACTORS: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Sum for a tile of rows; codes are (N, m, L), all else (N, L, D), contiguous."""
    head = tl.program_id(1).to(tl.int64)
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    channels = tl.arange(0, WIDTH)[None, :]
    at_rows = head * length * dim + rows[:, None] * dim + channels
    in_rows = (rows[:, None] < length) & (channels < dim)
    total = tl.zeros((ROWS, WIDTH), out.dtype.element_ty)
    factor = tl.load(a + at_rows, in_rows, other=0.0) if WITH_FACTORS else total
    for first in range(0, length, COLUMNS):
        columns = first + tl.arange(0, COLUMNS)
        at_columns = head * length * dim + columns[:, None] * dim + channels
        in_columns = (columns[:, None] < length) & (channels < dim)
        collisions = tl.zeros((ROWS, COLUMNS), tl.int32)
        for h in range(hashes):
            codes = (head * hashes + h) * length
            own_codes = tl.load(own + codes + rows, rows < length, other=-1)
            other_codes = tl.load(others + codes + columns, columns < length, other=-2)
            collisions += (own_codes[:, None] == other_codes[None, :]).to(tl.int32)
        weights = collisions.to(out.dtype.element_ty)
        if WITH_FACTORS:
            other_factor = tl.load(b + at_columns, in_columns, other=0.0)
            weights *= tl.dot(factor, tl.trans(other_factor), input_precision="ieee")
        total += tl.dot(weights, tl.load(x + at_columns, in_columns, other=0.0), input_precision="ieee")
    tl.store(out + at_rows, total, in_rows)
