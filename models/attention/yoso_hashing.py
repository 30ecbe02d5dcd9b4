"""Sums over colliding tokens for YOSO (`models.attention.yoso`): hash codes, tables and the two gradients.

All tensors are flattened over sequences and heads: queries, keys and values (N, L, D), codes (N, m, L). The weight of
a pair is (1 - arccos(q . k) / pi)^tau where it is computed, and the share of the m hashes under which the two collide
where it is sampled. A table has 2^tau rows; keys are added into it and queries read from it by `embedding_bag`, over
keys sorted by code, so that no atomics are needed and a GPU's sums are as repeatable as a CPU's. Hashes are taken a
few at a time: the tables held at once are no larger than an input, or 2 MiB.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

PAIRS = 2**19  # weights held at once, or a quarter of the numbers of an input: blocks that fit a cache
MIN_ROWS, MAX_ROWS = 16, 128  # queries of a head in a block
COUNT_UP_TO = 128  # times D: the length up to which counting collisions beats tables in the backward pass
TABLE_NUMBERS = 2**19  # numbers in the tables held at once, or those of an input


def gaussian_codes(x: Tensor, planes: Tensor, num_bits: int) -> Tensor:
    """Hash x (N, L, D) by the sides of the hyperplanes `planes` (N, D, m tau): codes (N, m, L), int32."""
    powers = 2.0 ** torch.arange(num_bits, device=x.device)
    codes = []
    for some in planes.to(x.dtype).split(8 * max(num_bits, 1), -1) if num_bits else ():
        bits = (x @ some > 0).to(powers.dtype).unflatten(-1, (-1, num_bits))
        codes.append((bits @ powers).to(torch.int32))
    return torch.cat(codes, -1).mT.contiguous()


def hadamard_codes(x: Tensor, signs: Tensor, num_bits: int, num_hashes: int) -> Tensor:
    """Hash by `signs` (N, r, 3, P), r rotations of three (sign flip, Walsh-Hadamard transform) rounds: (N, m, L).

    Each rotation gives P // tau hashes; the surplus of the last is dropped, and D is padded to P with zeros.
    """
    codes = []
    for rotation in signs.to(x.dtype).unbind(1):
        y = F.pad(x, (0, signs.shape[-1] - x.shape[-1]))
        for flip in rotation.unbind(1):
            y = _walsh_hadamard(y * flip[:, None])
        width = signs.shape[-1] // num_bits
        bits = (y[..., : width * num_bits] > 0).unflatten(-1, (width, num_bits)).to(torch.float32)
        codes.append((bits @ 2.0 ** torch.arange(num_bits, device=x.device)).to(torch.int32))
    return torch.cat(codes, -1)[..., :num_hashes].mT.contiguous()


def _walsh_hadamard(x: Tensor) -> Tensor:
    """Transform the last axis, a power of two wide, without normalisation."""
    width, size = x.shape[-1], 1
    while size < width:
        x = x.unflatten(-1, (-1, 2, size))
        x = torch.stack([x[..., 0, :] + x[..., 1, :], x[..., 0, :] - x[..., 1, :]], -2).flatten(-3)
        size *= 2
    return x


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
    """Return base ** exponent by repeated squaring, far faster than pow; it may overwrite nothing but its own."""
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
    out = torch.zeros_like(v).flatten(0, 1)
    for hashes in _hash_chunks(codes_k, v, num_bits):
        keys, reads = _Buckets(codes_k[:, hashes], num_bits), _reads(codes_q[:, hashes], num_bits)
        out += F.embedding_bag(reads, keys.add(v.flatten(0, 1)), mode="sum")
    return out.view_as(v) / codes_q.shape[1]


def sampled_gradients(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, codes_q: Tensor, codes_k: Tensor, num_bits: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return version 1 of the authors' sampled gradients: the lower bound's, with C in the place of P.

    Tables cost O(L m D^2): the inner product G_i . v_j is taken one coordinate at a time, so that no pair is formed.
    Counting the collisions of all pairs costs O(L^2 m) of far cheaper operations, and is the way of shorter sequences.
    """
    if q.shape[1] <= COUNT_UP_TO * q.shape[2]:
        return counted_gradients(grad, q, k, v, codes_q, codes_k, num_bits)
    return table_gradients(grad, q, k, v, codes_q, codes_k, num_bits)


def counted_gradients(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, codes_q: Tensor, codes_k: Tensor, num_bits: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the sampled gradients from a block of C at a time."""
    m, width = codes_q.shape[1], torch.int16 if num_bits < 16 else torch.int32
    codes_q, codes_k = codes_q.to(width), codes_k.to(width)

    def weights(heads: slice, rows: slice) -> tuple[Tensor, Tensor]:
        queries, keys = codes_q[heads, :, rows, None], codes_k[heads, :, None]
        # Integer minima are vectorised where comparisons of integers are not.
        differ = (queries[:, 0] ^ keys[:, 0]).clamp_(max=1)
        other = torch.empty_like(differ)
        for h in range(1, m):
            differ += torch.bitwise_xor(queries[:, h], keys[:, h], out=other).clamp_(max=1)
        C = differ.to(q.dtype).mul_(-1 / m).add_(1)
        return C, C

    return _pair_gradients(weights, grad, q, k, v, num_bits)


def table_gradients(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, codes_q: Tensor, codes_k: Tensor, num_bits: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the sampled gradients without forming a pair: dq_i = (tau / 2) sum_l G_il sum_j C_ij v_jl k_j."""
    G, Q, K, V = (x.flatten(0, 1) for x in (grad, q, k, v))  # (N L, D)
    G_columns, V_columns = G.mT.contiguous(), V.mT.contiguous()  # (D, N L)
    dq, dk, dv = torch.zeros_like(Q), torch.zeros_like(K), torch.zeros_like(V)
    for hashes in _hash_chunks(codes_k, v, num_bits):
        keys, queries = _Buckets(codes_k[:, hashes], num_bits), _Buckets(codes_q[:, hashes], num_bits)
        key_reads, query_reads = (_reads(codes[:, hashes], num_bits) for codes in (codes_k, codes_q))
        dv += F.embedding_bag(key_reads, queries.add(G), mode="sum")
        for g, x in zip(G_columns, V_columns, strict=True):
            dq.addcmul_(g[:, None], F.embedding_bag(query_reads, keys.add(K, x), mode="sum"))
            dk.addcmul_(x[:, None], F.embedding_bag(key_reads, queries.add(Q, g), mode="sum"))
    m = codes_q.shape[1]
    scale = num_bits / (2 * m)
    return (dq * scale).view_as(q), (dk * scale).view_as(k), (dv / m).view_as(v)


def _hash_chunks(codes: Tensor, x: Tensor, num_bits: int) -> Iterator[slice]:
    hashes = max(1, max(TABLE_NUMBERS, x.numel()) // max(1, x.shape[0] * x.shape[2] * 2**num_bits))
    return (slice(begin, begin + hashes) for begin in range(0, codes.shape[1], hashes))


def _reads(codes: Tensor, num_bits: int) -> Tensor:
    """Return (N L, m) rows of tables stacked as (N, m, 2^tau)."""
    N, m, _ = codes.shape
    tables = torch.arange(N * m, dtype=torch.int32, device=codes.device).view(N, m, 1)
    return (codes + tables * 2**num_bits).mT.flatten(0, 1).contiguous()


class _Buckets:
    """Tokens sorted by code: what `embedding_bag` needs to add their rows up, bucket by bucket."""

    def __init__(self, codes: Tensor, num_bits: int) -> None:
        N, m, L = codes.shape
        values, order = codes.sort(dim=-1, stable=True)
        every = torch.arange(2**num_bits, dtype=torch.int32, device=codes.device).expand(N, m, -1).contiguous()
        begins = torch.searchsorted(values, every, out_int32=True)
        rows = torch.arange(N * m, dtype=torch.int32, device=codes.device).view(N, m, 1)
        self.tokens = (order.to(torch.int32) + rows // m * L).flatten()
        self.begins = (begins + rows * L).flatten()

    def add(self, x: Tensor, weights: Tensor | None = None) -> Tensor:
        """Sum rows of x (N L, D), times `weights` (N L) if given, over each bucket: tables (N m 2^tau, D)."""
        picked = None if weights is None else weights[self.tokens]
        return F.embedding_bag(self.tokens, x, self.begins, mode="sum", per_sample_weights=picked)
