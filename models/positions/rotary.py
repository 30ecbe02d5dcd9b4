"""Rotary positions: queries and keys are turned by angles in proportion to their places, so that products see offsets.

Su et al. 2021, "RoFormer: Enhanced Transformer with Rotary Position Embedding", arXiv 2104.09864, Section 3.2.2, Eq. 14
to 16. Entry d of a head is turned with entry d + D / 2, and not with its neighbour as in the paper: the order of the
entries of a head has no meaning, and this one is that of most code today (Llama's in transformers, for one).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.positions import PERIOD


class Rotary(nn.Module):
    """Turns the row at place t of every head: the pair (d, d + D / 2) by the angle t / 10000^(2 d / D).

    A product of two turned rows depends on their places by the offset alone. Places count all rows of a sequence from
    0, that of a learned vector in front included, which is therefore never turned; padding behind a sequence moves
    nothing.

    Args:
        head_dim: D.
        max_len: the longest sequence.

    Raises:
        ValueError: `head_dim` is odd.
    """

    cosines: Tensor
    sines: Tensor

    def __init__(self, head_dim: int, max_len: int) -> None:
        super().__init__()
        if head_dim % 2:
            raise ValueError(f"model.head_dim must be even for model.positions=rotary. Got {head_dim}.")
        # In float64: in float32 the angle of a place in the ten thousands is off by a thousandth.
        frequencies = PERIOD ** -(torch.arange(0, head_dim, 2, dtype=torch.float64) / head_dim)
        angles = torch.arange(max_len, dtype=torch.float64)[:, None] * frequencies  # (L, D / 2)
        for name, table in (("cosines", angles.cos()), ("sines", angles.sin())):
            self.register_buffer(name, table.to(torch.get_default_dtype()), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Turn queries or keys (B, H, L, D), in float32 at least."""
        length = x.shape[2]
        dtype = torch.promote_types(x.dtype, torch.float32)
        first, second = x.to(dtype).chunk(2, -1)
        cosines, sines = self.cosines[:length].to(dtype), self.sines[:length].to(dtype)
        turned = [first * cosines - second * sines, second * cosines + first * sines]
        return torch.cat(turned, -1).to(x.dtype)
