"""Rows of tensors, gathered by their positions."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def take_rows(x: Tensor, index: Tensor) -> Tensor:
    """Gather rows (B, H, M, D) of x (B, H, L, D) at positions (B, H, M), or (B, 1, M) for all heads."""
    return x.gather(2, index[..., None].expand(-1, x.shape[1], -1, x.shape[3]))


def take_tokens(x: Tensor, index: Tensor) -> Tensor:
    """Gather tokens (B, M, C) of x (B, L, C) at positions (B, M)."""
    first = torch.arange(len(x), device=x.device)[:, None] * x.shape[1]
    # An embedding is a gather of rows whose backward pass adds in a fixed order, on every device.
    return F.embedding(index + first, x.flatten(0, 1))
