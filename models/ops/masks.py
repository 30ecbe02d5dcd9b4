"""Masks of keys."""

from __future__ import annotations

from torch import Tensor


def real_keys(mask: Tensor) -> Tensor:
    """Return which keys every row may see, (B, 1, 1, L), from the real tokens (B, L)."""
    # A sequence without a real token attends to its padding: the result is finite, and nothing reads it.
    return (mask | ~mask.any(-1, keepdim=True))[:, None, None]
