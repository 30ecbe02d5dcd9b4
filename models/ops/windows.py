"""Blocks of tokens with those around them, as views that copy nothing."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def blocks_of(x: Tensor, block_size: int) -> Tensor:
    """Cut (B, H, L, D) into (B, H, blocks, block_size, D), the last block padded with zeros."""
    return F.pad(x, (0, 0, 0, -x.shape[2] % block_size)).unflatten(2, (-1, block_size))


def windows_of(x: Tensor, block_size: int, left: int, right: int) -> Tensor:
    """Give block i of (B, H, L, D) the tokens of the blocks i - left to i + right - 1, zeros beyond the ends.

    Returns:
        (B, H, blocks, (left + right) block_size, D); left + right is at least 1.
    """
    extra = -x.shape[2] % block_size
    padded = F.pad(x, (0, 0, left * block_size, extra + (right - 1) * block_size))
    return padded.unfold(2, (left + right) * block_size, block_size).mT
