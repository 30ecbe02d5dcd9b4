"""Softmax attention to keys that are few different vectors, the codes: weights are made for each code, not each key.

All keys of one code have one weight, so that sums over keys are sums over codes of what their keys add up to (Lingle
2023, "Transformer-VQ", arXiv 2309.16354, Section 3): O(L S) for S codes. Keys in a window around a row have more
weight, by a factor that depends on the offset; what it adds is summed over the window.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from models.ops.windows import blocks_of, windows_of


def attend_to_codes(
    q: Tensor, k: Tensor, v: Tensor, assigned: Tensor, codes: Tensor, gain: Tensor, mask: Tensor
) -> Tensor:
    """Attend with weights (1 + gain_{i - j}) exp(q_i . k_j / sqrt(Z)), divided by their sum.

    Args:
        q: queries (B, L, Z).
        k: keys (B, L, Z), each its code in value; a gradient through them is that of the window alone.
        v: values (B, L, E); rows of padding must be 0.
        assigned: (B, L, S), 1 where a key is of a code, 0 elsewhere and in rows of padding.
        codes: (S, Z).
        gain: (2 w - 1), at least 0, of the offsets i - j from 1 - w to w - 1; it is 0 beyond them.
        mask: (B, L) bool, True on real keys.

    Returns:
        (B, L, E); 0 where there is no key.
    """
    q = q * q.shape[-1] ** -0.5
    counts, totals = assigned.sum(1), assigned.mT @ v  # (B, S), (B, S, E)
    lowest = torch.finfo(q.dtype).min
    # A code without keys must not set the scale: all others could vanish beside it.
    scores = (q @ codes.T).masked_fill((counts == 0)[:, None], lowest)  # (B, L, S)
    largest = scores.detach().amax(-1, keepdim=True)
    weights = (scores - largest).exp()
    near, near_total = _window(q, k, v, gain, largest, mask)
    total = weights @ counts[..., None] + near_total
    return (weights @ totals + near) / total.masked_fill(total == 0, 1)


def _window(q: Tensor, k: Tensor, v: Tensor, gain: Tensor, largest: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Return the sums over a row's window of gain exp(q . k - largest) v, and without v, (B, L, E) and (B, L, 1)."""
    length, w = q.shape[1], (len(gain) + 1) // 2
    # Row a of a block sees its own block and those beside it, 3 w keys; key c of them at the offset a + w - c.
    gains = F.pad(gain.flip(0), (w, w)).unfold(0, 3 * w, 1).flip(0)  # (w, 3 w)
    queries, scale = (blocks_of(x[:, None], w) for x in (q, largest))
    keys, values, real = (windows_of(x[:, None], w, 1, 2) for x in (k, v, mask[..., None].to(q.dtype)))
    # The code of a key of padding may be one without keys, whose score is above the largest.
    scores = (queries @ keys.mT - scale).masked_fill(real.mT == 0, torch.finfo(q.dtype).min)
    weights = scores.exp() * gains
    sums = (weights @ values, weights.sum(-1, keepdim=True))
    near, total = (x[:, 0].flatten(1, 2)[:, :length] for x in sums)
    return near, total
