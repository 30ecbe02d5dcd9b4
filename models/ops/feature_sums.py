"""Attention through feature maps: phi(Q) (phi(K)^T V) over phi(Q) (phi(K)^T 1), in time and memory O(L).

Shared by Performer, Linear Transformer, cosFormer and Random Feature Attention. Features are made for a block of tokens
at a time and made again in the backward pass, so no (L, M) array of features lives through a step.

Features may be exponentials, with exponents of any size. Two shifts keep them in range: a factor exp(c) of one feature
may move from all keys to all queries, and a factor of one query cancels. So every feature of keys and of queries is at
most 1, at least one of a query's is exactly 1 where a key's reaches 1 too, and no denominator is below 1. No epsilon is
needed, and no shift depends on other sequences.

Features that may be negative, or all 0, need no shift, but their denominators may be near 0: `least` is for them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from models.ops.precision import accumulation_dtype

BLOCK = 2**18  # numbers of a block of features, for each sequence and head


class FeatureMap(Protocol):
    """A map from D numbers to M features, which are positive where no `least` is given."""

    def keys(self, k: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return features (B, H, L, M) of keys (B, H, L, D) divided by exp(shift), and shift (B, H, 1, M), detached.

        Features of padding, mask (B, 1, L, 1), must be finite.
        """

    def queries(self, q: Tensor, shift: Tensor) -> Tensor:
        """Return features (B, H, L, M) of queries (B, H, L, D), times exp(shift), up to a factor for each query."""


def attend_features(
    features: FeatureMap, num_features: int, q: Tensor, k: Tensor, v: Tensor, mask: Tensor, least: float = 0.0
) -> Tensor:
    """Attend with weights phi(q_i) . phi(k_j), normalised in each row, in float32 or better.

    Args:
        features: phi.
        num_features: M.
        q: queries (B, H, L, D).
        k: keys (B, H, L, D).
        v: values (B, H, L, D).
        mask: (B, L) bool, True on the keys to attend to.
        least: the least magnitude of a denominator, whose sign stays.

    Returns:
        (B, H, L, D), in the precision of q; 0 where a sequence has no key.
    """
    with torch.autocast(q.device.type, enabled=False):
        dtype = accumulation_dtype(q)
        real = mask[:, None, :, None]
        values = torch.cat([v, torch.ones_like(v[..., :1])], -1).masked_fill(~real, 0).to(dtype)
        size = max(1, BLOCK // num_features)
        blocks = zip(k.split(size, 2), values.split(size, 2), real.split(size, 2), strict=True)
        sums, shift = _recomputed(_sum_keys, features, *next(blocks))
        for block in blocks:
            part, part_shift = _recomputed(_sum_keys, features, *block)
            last_shift, shift = shift, torch.maximum(shift, part_shift)
            sums = sums * (last_shift - shift).exp().mT + part * (part_shift - shift).exp().mT
        rows = [_recomputed(_read, features, block, sums, shift, least) for block in q.split(size, 2)]
        return torch.cat(rows, 2).to(q.dtype)


def _recomputed(function: Callable[..., Any], features: FeatureMap, *args: Any) -> Any:
    """Call, and call again in the backward pass instead of storing what is computed in between."""
    return checkpoint(function, features, *args, use_reentrant=False, preserve_rng_state=False)


def _sum_keys(features: FeatureMap, k: Tensor, values: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    phi, shift = features.keys(k.to(values.dtype), mask)
    return phi.mT @ values, shift  # (B, H, M, D + 1)


def _read(features: FeatureMap, q: Tensor, sums: Tensor, shift: Tensor, least: float) -> Tensor:
    out = features.queries(q.to(sums.dtype), shift) @ sums
    total = out[..., -1:]
    if least == 0:
        return out[..., :-1] / total.masked_fill(total == 0, 1)  # zero only where there is no key
    return out[..., :-1] / torch.where(total < 0, total.clamp(max=-least), total.clamp(min=least))


def exponential_keys(exponent: Tensor) -> tuple[Tensor, Tensor]:
    """Exponentiate exponents (B, H, L, M) of keys, -inf for padding; the argument is overwritten."""
    shift = exponent.detach().amax(2, keepdim=True).clamp(min=torch.finfo(exponent.dtype).min / 2)
    return exponent.sub_(shift).exp_(), shift


def exponential_queries(exponent: Tensor) -> Tensor:
    """Exponentiate exponents (B, H, L, M) of queries, the shift added; the argument is overwritten."""
    return exponent.sub_(exponent.detach().amax(-1, keepdim=True)).exp_()
