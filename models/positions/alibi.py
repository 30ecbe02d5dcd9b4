"""ALiBi: the score of a query and a key loses in proportion to their distance, by another slope in every head.

Press, Smith, Lewis 2022, "Train Short, Test Long: Attention with Linear Biases Enables Input Length Extrapolation",
arXiv 2108.12409, Section 3, with the slopes of the authors' code (github.com/ofirpress/attention_with_linear_biases).
The paper's model is causal. An encoder sees both sides, and here the bias is the same on both: -slope * |i - j|.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


def slopes_of(num_heads: int) -> list[float]:
    """Return the slope of each head.

    For a power of two H they are 2^(-8 h / H), h = 1 ... H. For another number they are those of the power of two P
    below it, and then the odd ones (h = 1, 3, ...) of 2 P.
    """
    power = 2 ** (num_heads.bit_length() - 1)
    slopes = [2 ** (-8 * h / power) for h in range(1, power + 1)]
    return slopes + [2 ** (-4 * h / power) for h in range(1, 2 * (num_heads - power), 2)]


class Alibi(nn.Module):
    """What is added to the scores of queries and keys at given places.

    Args:
        num_heads: H.
        with_cls: the row at place 0 is a learned vector, which stands nowhere: no score of or with it loses anything.
    """

    slopes: Tensor

    def __init__(self, num_heads: int, *, with_cls: bool = False) -> None:
        super().__init__()
        self.with_cls = with_cls
        self.register_buffer("slopes", torch.tensor(slopes_of(num_heads)), persistent=False)

    def forward(self, queries: Tensor, keys: Tensor) -> Tensor:
        """Return the biases (..., H, M, N) of queries at places (..., M) and keys at places (..., N)."""
        rows, columns = queries[..., None, :, None], keys[..., None, None, :]
        distances = (rows - columns).abs()
        if self.with_cls:
            distances = distances.masked_fill((rows == 0) | (columns == 0), 0)
        return -self.slopes[:, None, None] * distances
