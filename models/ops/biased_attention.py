"""Softmax attention with a bias on its scores, a block of rows at a time.

A fused kernel would need the bias of all pairs at once. Blocks of rows are made again in the backward pass, so that
memory stays linear in the length; time does not.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from models.ops.masks import real_keys

# Maps places of queries (..., M) and of keys (..., N) to what their scores gain, (..., H, M, N).
Bias = Callable[[Tensor, Tensor], Tensor]

SHUT_OUT = -1e4  # a score that leaves no weight in any precision, and is finite in all
MOST_SCORES = 2**25  # held at once, in all heads of a batch together


def attend_with_bias(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, bias: Bias) -> Tensor:
    """Attend to the real keys with scores q_i . k_j / sqrt(D) + bias_ij; the bias is rounded to the precision of q.

    Args:
        q: queries (B, H, L, D).
        k: keys (B, H, L, D).
        v: values (B, H, L, D).
        mask: (B, L) bool, True on real tokens.
        bias: what is added to the scores, by places 0 to L - 1.

    Returns:
        (B, H, L, D).
    """
    B, H, L, _ = q.shape
    places = torch.arange(L, device=q.device)
    rows = max(1, MOST_SCORES // (B * H * L))
    parts = [
        checkpoint(_attend_rows, of_block, k, v, mask, bias, own, use_reentrant=False, preserve_rng_state=False)
        for of_block, own in zip(q.split(rows, 2), places.split(rows), strict=True)
    ]
    return torch.cat(parts, 2)


def looking_back(bias: Bias) -> Bias:
    """Shut out the keys behind each query, too; a query without any key keeps a finite score."""

    def of(queries: Tensor, keys: Tensor) -> Tensor:
        behind = keys[..., None, None, :] > queries[..., None, :, None]
        return bias(queries, keys).masked_fill(behind, SHUT_OUT)

    return of


def _attend_rows(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, bias: Bias, places: Tensor) -> Tensor:
    """Attend for a block of rows (B, H, M, D) at the given places (M,)."""
    gained = bias(places, torch.arange(k.shape[2], device=k.device)).to(q.dtype)
    gained = gained.expand(len(mask), -1, -1, -1).masked_fill(~real_keys(mask), -torch.inf)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=gained)
