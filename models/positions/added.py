"""Positions that the encoder adds to the rows of tokens: learned vectors, or sinusoids."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from models.checks import one_of
from models.positions import KINDS, PERIOD

LEARNED_STD = 0.02  # of the initial vectors, in every code base followed here


def positions_of(kind: str, max_len: int, dim: int) -> nn.Module | None:
    """Make the module that maps places (L,) to vectors (L, C), None where nothing is added to rows.

    Raises:
        ValueError: `kind` is none of `KINDS`, or `dim` is odd and sinusoids are asked for.
    """
    one_of(KINDS, **{"model.positions": kind})
    if kind == "learned":
        return nn.Embedding(max_len, dim)
    if kind == "sinusoidal":
        return Sinusoids(max_len, dim)
    return None


class Sinusoids(nn.Module):
    """Fixed vectors of Vaswani et al. 2017 (arXiv 1706.03762), Section 3.5: sine and cosine in turn."""

    table: Tensor

    def __init__(self, max_len: int, dim: int) -> None:
        super().__init__()
        if dim % 2:
            raise ValueError(f"model.dim must be even for model.positions=sinusoidal. Got {dim}.")
        frequencies = torch.exp(torch.arange(0, dim, 2) * (-math.log(PERIOD) / dim))
        angles = torch.arange(max_len)[:, None] * frequencies  # (L, C / 2)
        self.register_buffer("table", torch.stack([angles.sin(), angles.cos()], -1).flatten(1), persistent=False)

    def forward(self, places: Tensor) -> Tensor:
        """Return the vectors (L, C) of places (L,)."""
        return self.table[places]
