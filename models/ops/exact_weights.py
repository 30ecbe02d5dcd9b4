"""How much of exact softmax attention a set of keys holds, and which set of a given size holds the most.

Quadratic in time on purpose: it is the yardstick of sparse mechanisms, not a part of them. Only a block of queries has
its weights in memory at once.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

NUMBERS = 2**22  # weights held at once


def weights_of(q: Tensor, k: Tensor, mask: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Yield exact softmax weights (B, H, C, L) of blocks of queries, with the slice of each block.

    Args:
        q: queries (B, H, L, D).
        k: keys (B, H, L, D).
        mask: (B, L) bool, True on real keys; the others have weight 0.
    """
    B, H, L, D = q.shape
    step = max(1, NUMBERS // (B * H * L))
    keys = mask[:, None, None]
    for begin in range(0, L, step):
        rows = slice(begin, begin + step)
        scores = (q[:, :, rows] @ k.mT).mul_(D**-0.5).masked_fill_(~keys, torch.finfo(q.dtype).min)
        yield rows, scores.softmax(-1).masked_fill_(~keys, 0)


@torch.no_grad()
def captured_mass(q: Tensor, k: Tensor, mask: Tensor, index: Tensor, seen: Tensor) -> Tensor:
    """Sum each row's exact softmax weights over a set of keys.

    Args:
        q: queries (B, H, L, D).
        k: keys (B, H, L, D).
        mask: (B, L) bool, True on real keys.
        index: (B, H, L, S), the positions of the keys.
        seen: (B, H, L, S) bool, True on the members of the set; none of them is named twice.

    Returns:
        (B, H, L), between 0 and 1.
    """
    return torch.cat(
        [
            weights.gather(-1, index[:, :, rows]).masked_fill_(~seen[:, :, rows], 0).sum(-1)
            for rows, weights in weights_of(q, k, mask)
        ],
        2,
    )


@torch.no_grad()
def largest_mass(q: Tensor, k: Tensor, mask: Tensor, size: Tensor) -> Tensor:
    """Return the largest mass (B, H, L) of any set of `size` (B, H, L) keys."""
    masses = []
    for rows, weights in weights_of(q, k, mask):
        totals = weights.sort(dim=-1, descending=True).values.cumsum(-1)
        last = (size[:, :, rows, None] - 1).clamp(0, totals.shape[-1] - 1)
        masses.append(totals.gather(-1, last)[..., 0].masked_fill(size[:, :, rows] == 0, 0))
    return torch.cat(masses, 2)


@torch.no_grad()
def heaviest_keys(q: Tensor, k: Tensor, mask: Tensor, size: int) -> Tensor:
    """Return the positions (B, H, L, S) of the S <= L keys of most weight, real ones first."""
    # A real key's weight may underflow to 0, and must still come before a padded one.
    return torch.cat(
        [weights.masked_fill_(~mask[:, None, None], -1).topk(size).indices for _, weights in weights_of(q, k, mask)],
        2,
    )
