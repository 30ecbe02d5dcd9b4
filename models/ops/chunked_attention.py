"""Single-headed attention within chunks of the sequence, its scores made a block of rows at a time, for any weights.

Chunks begin at fixed places, so that padding appended to a sequence moves none. A chunk as long as the sequence is
ordinary attention. Blocks of rows are made again in the backward pass: memory is linear in the length, time is not.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from models.ops.precision import accumulation_dtype

Function = Literal["softmax", "laplace"]

MOST_SCORES = 2**25  # held at once, in all chunks of a batch together

# Of the Laplace function, which stands in for a squared relu: it has the value and the slope of that one at sqrt(1/2).
LAPLACE_MEAN = 0.5**0.5
LAPLACE_STD = (0.25 / torch.pi) ** 0.5


def to_chunks(x: Tensor, chunk: int) -> Tensor:
    """Cut (B, L, ...) into (B, chunks, chunk, ...), the last one padded with zeros."""
    padding = [0, 0] * (x.ndim - 2) + [0, -x.shape[1] % chunk]
    return F.pad(x, padding).unflatten(1, (-1, chunk))


def attend_in_chunks(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor, bias: Tensor | None, *, chunk: int | None, function: Function
) -> Tensor:
    """Attend with weights function(q_i . k_j + bias_{i - j}) to the real tokens of a row's chunk.

    "softmax" divides the product by sqrt(Z). "laplace" (arXiv 2209.10655, Eq. 17) divides it by the number of the
    chunk's real tokens, and its weights are not normalised: a row's weights are each between 0 and 1.

    Args:
        q: queries (B, L, Z).
        k: keys (B, L, Z).
        v: values (B, L, E).
        mask: (B, L) bool, True on the keys to attend to.
        bias: (2 M - 1,), of the offsets i - j from 1 - M to M - 1; M is at least the length of a chunk;
            None for no bias.
        chunk: the length of a chunk; None for one that is the whole sequence.
        function: what makes weights of scores.

    Returns:
        (B, L, E); 0 in chunks without a real token, where the function is "laplace", and finite with the other.
    """
    length = q.shape[1]
    size = length if chunk is None else min(chunk, length)
    q, k, v = (to_chunks(x, size) for x in (q, k, v))
    keys = to_chunks(mask, size)[:, :, None]  # (B, chunks, 1, size)
    rows = max(1, MOST_SCORES // (keys.shape[0] * keys.shape[1] * size))
    parts = []
    for first in range(0, size, rows):
        block = q[:, :, first : first + rows]
        windows = None
        if bias is not None:  # row i sees the offsets i to i + 1 - size: the last row of a block has the last window
            zero = len(bias) // 2
            windows = bias[zero + first + 1 - size : zero + first + block.shape[2]]
        of_block = (block, k, v, keys, windows, function)
        parts.append(checkpoint(_attend_rows, *of_block, use_reentrant=False, preserve_rng_state=False))
    return torch.cat(parts, 2).flatten(1, 2)[:, :length]


def _attend_rows(q: Tensor, k: Tensor, v: Tensor, keys: Tensor, bias: Tensor | None, function: Function) -> Tensor:
    """Attend for a block of rows (B, chunks, rows, Z) of every chunk, whose offsets have the given biases."""
    dtype = accumulation_dtype(q)
    scores = (q @ k.mT).to(dtype)
    # (rows, size), from i to i + 1 - size
    offsets = 0 if bias is None else bias.to(dtype).unfold(0, k.shape[2], 1).flip(1)
    if function == "softmax":
        scores = scores * q.shape[-1] ** -0.5 + offsets
        seen = keys | ~keys.any(-1, keepdim=True)  # a chunk without a real token sees its padding: finite, and unread
        weights = scores.masked_fill(~seen, -torch.inf).softmax(-1)
    else:
        scores = scores / keys.sum(-1, keepdim=True).clamp_min(1) + offsets
        weights = laplace(scores).masked_fill(~keys, 0)
    return weights.to(v.dtype) @ v


def laplace(scores: Tensor) -> Tensor:
    """Return the normal distribution function of mean sqrt(1/2) and variance 1 / (4 pi)."""
    return 0.5 * (1 + torch.erf((scores - LAPLACE_MEAN) / (LAPLACE_STD * 2**0.5)))
