"""Sums over colliding tokens for YOSO (`models.attention.yoso`): hash codes, tables and the two gradients.

All tensors are flattened over sequences and heads: queries, keys and values (N, L, D), codes (N, m, L). The weight of
a pair is (1 - arccos(q . k) / pi)^tau where it is computed, and the share of the m hashes under which the two collide
where it is sampled. A table has 2^tau rows; keys are added into it and queries read from it by `embedding_bag`, over
keys sorted by code, so that no atomics are needed and a GPU's sums are as repeatable as a CPU's. Hashes are taken a
few at a time: the tables held at once are no larger than an input, or 2 MiB.

No shape depends on what collides, so the gradients cost the same for flat and for peaked attention. A list of the
colliding pairs would be far shorter than what is counted here (of random vectors, about 2 keys in 4,096 for each query
and hash). But its length would have to be read back from the device, and its only bound is L^2 m.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from models.ops import fused

PAIRS = 2**19  # weights held at once, or a quarter of the numbers of an input: blocks that fit a cache
MIN_ROWS, MAX_ROWS = 16, 128  # queries of a head in a block; no more than a signed byte can name
COUNT_UP_TO = 256  # times D: the length up to which counting collisions beats tables, on a GPU forward too
NUMBERS = 2**19  # numbers in the tables held at once, or as many as an input has
COLUMNS = 2  # columns of an outer product that are summed at once


def hyperplane_codes(x: Tensor, planes: Tensor, num_bits: int) -> Tensor:
    """Hash x (N, L, D) by the sides of the hyperplanes `planes` (N, D, m tau): codes (N, m, L), int32."""
    (N, L, _), m = x.shape, planes.shape[-1] // num_bits
    planes = planes.to(x.dtype).mT.unflatten(1, (m, num_bits))
    powers = 2.0 ** torch.arange(num_bits, dtype=x.dtype, device=x.device)[None]
    codes = torch.empty(N, m, L, dtype=torch.int32, device=x.device)
    for heads, chunks in _chunks(N, m, num_bits * L, x.numel() // 2):
        for hashes in chunks:
            sides = planes[heads, hashes].flatten(1, 2) @ x[heads].mT
            bits = sides.gt_(0).unflatten(1, (-1, num_bits))
            codes[heads, hashes] = (powers @ bits)[:, :, 0]
    return codes


def hadamard_planes(signs: Tensor, dim: int, num_bits: int, num_hashes: int) -> Tensor:
    """Return the hyperplanes (N, D, m tau) of fast hashing, as columns, for `hyperplane_codes`.

    They are those of r rotations of three rounds of sign flip and Walsh-Hadamard transform, `signs` (N, r, 3, P): the
    first (P // tau) tau columns of each; the surplus of the last is dropped. Vectors are padded to P with zeros.
    Multiplying by the matrix, made once for all tokens, beats transforming each of them by butterflies.
    """
    P = signs.shape[-1]
    H = torch.ones(1, 1, device=signs.device)
    while len(H) < P:
        H = torch.cat([torch.cat([H, H], 1), torch.cat([H, -H], 1)])
    first, second, third = signs.float().unbind(2)
    rotations = ((first[..., :dim, None] * H[:dim] * second[:, :, None]) @ H * third[:, :, None]) @ H  # (N, r, D, P)
    columns = rotations[..., : P // num_bits * num_bits].transpose(1, 2).flatten(2)
    return columns[..., : num_hashes * num_bits]


def expected_sum(q: Tensor, k: Tensor, v: Tensor, num_bits: int) -> Tensor:
    """Return P V for unit vectors q and k, a block of P at a time."""
    out = torch.empty_like(v)
    for heads, rows in _blocks(q):
        angle, _ = _angle(q[heads, rows], k[heads])
        torch.bmm(_power(angle, num_bits), v[heads], out=out[heads, rows])
    return out


def expected_gradients(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, num_bits: int, true_derivative: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of P V for q, k and v, with f' replaced by its lower bound (tau / 2) f unless told not to.

    The true derivative tau f^((tau-1)/tau) / (pi sqrt(1 - x^2)) is taken as at 1 - x^2 = 2e-6 where it is steeper.
    """

    def weights(heads: slice, rows: slice) -> tuple[Tensor, Tensor]:
        angle, x = _angle(q[heads, rows], k[heads], keep=true_derivative)
        P = _power(angle, num_bits)
        if x is None:
            return P, P
        if num_bits == 0:
            return P, torch.zeros_like(P)
        slope = _power(angle, num_bits - 1).mul_(2 / math.pi)  # in units of tau / 2, as the lower bound is
        return P, slope.mul_((1 - x.square()).clamp_(min=2e-6).rsqrt_())

    return _pair_gradients(weights, grad, q, k, v, num_bits)


def _pair_gradients(
    weights: Callable[[slice, slice], tuple[Tensor, Tensor]], grad: Tensor, q: Tensor, k: Tensor, v: Tensor, tau: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return dq, dk, dv from blocks of weights P and of their slopes S: dv = P^T G, dq = (tau / 2) (S * G V^T) k."""
    dq, dk, dv = torch.empty_like(q), torch.zeros_like(k), torch.zeros_like(v)
    for heads, rows in _blocks(q):
        P, S = weights(heads, rows)
        G = grad[heads, rows]
        dv[heads].baddbmm_(P.mT, G)
        W = S.mul_(G @ v[heads].mT)
        torch.bmm(W, k[heads], out=dq[heads, rows])
        dk[heads].baddbmm_(W.mT, q[heads, rows])
    return dq.mul_(tau / 2), dk.mul_(tau / 2), dv


def _blocks(q: Tensor) -> Iterator[tuple[slice, slice]]:
    """Cut the pairs of tokens into blocks of some heads and some queries."""
    N, L, _ = q.shape
    pairs = max(PAIRS, q.numel() // 4)
    rows = min(MAX_ROWS, max(MIN_ROWS, pairs // max(1, L)))
    heads = max(1, pairs // max(1, L * min(rows, L)))
    for n in range(0, N, heads):
        for begin in range(0, L, rows):
            yield slice(n, n + heads), slice(begin, begin + rows)


def _angle(q: Tensor, k: Tensor, keep: bool = False) -> tuple[Tensor, Tensor | None]:
    """Return 1 - arccos(q . k) / pi, and q . k if it is to be kept."""
    x = (q @ k.mT).clamp_(-1, 1)
    # arccos(x) = pi / 2 - arcsin(x), and torch's arcsin is the faster.
    return (x.asin() if keep else x.asin_()).mul_(1 / math.pi).add_(0.5), x if keep else None


def _power(base: Tensor, exponent: int) -> Tensor:
    """Return base ** exponent by repeated squaring, far faster than pow; `base` is not overwritten."""
    if exponent == 0:
        return torch.ones_like(base)
    result = base
    for bit in bin(exponent)[3:]:
        result = result * result if result is base else result.mul_(result)
        if bit == "1":
            result.mul_(base)
    return result.clone() if result is base else result


def sampled_sum(codes_q: Tensor, codes_k: Tensor, v: Tensor, num_bits: int) -> Tensor:
    """Return C V, where C_ij is the share of the hashes under which query i and key j collide."""
    if fused(v) and _is_counted(v):
        from models.ops.triton import hash_sums

        return hash_sums.sampled_sum(codes_q, codes_k, v)
    N, m, _ = codes_q.shape
    out = torch.zeros_like(v)
    for heads, chunks in _chunks(N, m, v.shape[-1] * 2**num_bits, v.numel()):
        for hashes in chunks:
            queries, keys = (_Buckets(codes[heads, hashes], num_bits) for codes in (codes_q, codes_k))
            out[heads] += queries.read(keys.sort().add(v[heads]))
    return out.div_(m)


def sampled_gradients(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, codes_q: Tensor, codes_k: Tensor, num_bits: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return version 1 of the authors' sampled gradients: the lower bound's, with C in the place of P.

    Tables cost O(L m D^2): they hold sums of outer products v_j k_j^T, so that no pair is formed. Counting the
    collisions of all pairs costs O(L^2 m) of far cheaper operations, and is the way of shorter sequences.
    """
    if not _is_counted(q):
        return table_gradients(grad, q, k, v, codes_q, codes_k, num_bits)
    if fused(q):
        from models.ops.triton import hash_sums

        return hash_sums.sampled_gradients(grad, q, k, v, codes_q, codes_k, num_bits)
    return counted_gradients(grad, q, k, v, codes_q, codes_k, num_bits)


def _is_counted(x: Tensor) -> bool:
    """Say whether sequences are short enough to count the collisions of all their pairs."""
    return x.shape[1] <= COUNT_UP_TO * x.shape[2]


def counted_gradients(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, codes_q: Tensor, codes_k: Tensor, num_bits: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the sampled gradients from a block of C at a time."""
    m = codes_q.shape[1]

    def weights(heads: slice, rows: slice) -> tuple[Tensor, Tensor]:
        query_codes, key_codes = codes_q[heads, :, rows].long(), codes_k[heads].long()
        # A block's few codes get names of a byte each: comparisons are as fast as their operands are short.
        names = torch.full((*query_codes.shape[:2], 2**num_bits), -1, dtype=torch.int8, device=q.device)
        slots = torch.arange(query_codes.shape[2], dtype=torch.int8, device=q.device)
        names.scatter_(2, query_codes, slots.expand_as(query_codes))
        queries, keys = names.gather(2, query_codes)[..., None], names.gather(2, key_codes)[:, :, None]
        shape = (len(query_codes), query_codes.shape[2], key_codes.shape[2])
        equal = torch.empty(shape, dtype=torch.int8, device=q.device)
        count = torch.zeros_like(equal, dtype=torch.int8 if m < 128 else torch.int32)
        for h in range(m):
            # A comparison is vectorised where its result has the type of its operands.
            count += torch.eq(queries[:, h], keys[:, h], out=equal)
        C = count.to(q.dtype).mul_(1 / m)
        return C, C

    return _pair_gradients(weights, grad, q, k, v, num_bits)


def table_gradients(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, codes_q: Tensor, codes_k: Tensor, num_bits: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the sampled gradients without forming a pair: dq_i = (tau / 2) sum_l G_il sum_j C_ij v_jl k_j."""
    (N, m, _), D = codes_q.shape, v.shape[-1]
    dq, dk, dv = torch.zeros_like(q), torch.zeros_like(k), torch.zeros_like(v)
    for heads, chunks in _chunks(N, m, COLUMNS * D * 2**num_bits, v.numel()):
        G, Q, K, V = (x[heads] for x in (grad, q, k, v))
        sides = [[_Buckets(codes[heads, h], num_bits).sort() for h in chunks] for codes in (codes_q, codes_k)]
        for queries, keys in zip(*sides, strict=True):
            dv[heads] += keys.read(queries.add(G))
        for gradient, (readers, writers), left, right, rows in ((dq, sides, G, V, K), (dk, sides[::-1], V, G, Q)):
            for first in range(0, D, COLUMNS):
                columns = slice(first, first + COLUMNS)
                products = right[..., columns, None] * rows[..., None, :]  # (heads, L, COLUMNS, D)
                sums = torch.zeros_like(products).flatten(2)
                for reader, writer in zip(readers, writers, strict=True):
                    sums += reader.read(writer.add(products.flatten(2)))
                gradient[heads] += (left[..., columns, None] * sums.view_as(products)).sum(-2)
    scale = num_bits / (2 * m)
    return dq.mul_(scale), dk.mul_(scale), dv.div_(m)


def _chunks(N: int, m: int, numbers: int, limit: int) -> Iterator[tuple[slice, list[slice]]]:
    """Cut hashes of `numbers` each into chunks of at most `limit`, or what fits a cache: few heads, many hashes."""
    capacity = max(1, max(NUMBERS, limit) // max(1, numbers))
    heads = max(1, capacity // m)
    for n in range(0, N, heads):
        yield slice(n, n + heads), [slice(h, h + capacity) for h in range(0, m, capacity)]


class _Buckets:
    """Buckets of tokens with codes (N, m, L), and tables (N m 2^tau, E) of a row each: what `embedding_bag` needs."""

    def __init__(self, codes: Tensor, num_bits: int) -> None:
        N, m, _ = codes.shape
        tables = torch.arange(N * m, dtype=torch.int32, device=codes.device).view(N, m, 1)
        self.rows = codes + tables * 2**num_bits
        self.num_rows = N * m * 2**num_bits

    def sort(self) -> _Buckets:
        """Find the tokens of each bucket."""
        _, m, L = self.rows.shape
        rows = self.rows.flatten()
        # One long sort of integers goes by radix, many short ones do not.
        order = rows.sort(stable=True).indices.to(torch.int32)
        self.tokens = order // (m * L) * L + order % L
        sizes = torch.zeros(self.num_rows, dtype=torch.int32, device=rows.device)
        sizes.scatter_add_(0, rows.long(), torch.ones_like(rows))
        self.begins = sizes.cumsum(0, dtype=torch.int32) - sizes
        return self

    def add(self, x: Tensor) -> Tensor:
        """Sum the rows of x (N, L, E) over each bucket, which makes the tables."""
        return F.embedding_bag(self.tokens, x.flatten(0, 1), self.begins, mode="sum")

    def read(self, tables: Tensor) -> Tensor:
        """Sum for each token the rows of its m buckets: (N, L, E)."""
        N, m, L = self.rows.shape
        return F.embedding_bag(self.rows.mT.reshape(N * L, m), tables, mode="sum").view(N, L, -1)
