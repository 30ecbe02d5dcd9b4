"""Features from all pairs of tokens: every product a_i b_j, pooled by the sum i + j or the distance j - i.

Our reading of the "FFT-based hidden-state cross" in the abstract of Zhuang, Zhang, Tu 2022 (see `fsat_r.py`): a product
of two Fourier transforms is that of a convolution, whose entry s sums the products with i + j = s. Time O(L log L),
memory O(L).
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.ops.precision import linear

Kind = Literal["convolution", "correlation"]


def cross(a: Tensor, b: Tensor, kind: Kind) -> Tensor:
    """Sum products of a and b (B, L, C) into 2 L bins, channel by channel.

    Returns:
        (B, L, 2 C), two bins a token. "convolution": token t has the sums of a_i b_j over i + j = 2 t and
        i + j = 2 t + 1. "correlation": over j - i = t and j - i = -t.
    """
    L = a.shape[1]
    N = 1 << (2 * L - 1).bit_length()  # at least 2 L: nothing wraps around from the end to the beginning
    A, B = (torch.fft.rfft(x.mT.contiguous(), N) for x in (a, b))  # (B, C, N / 2 + 1)
    if kind == "convolution":
        bins = torch.fft.irfft(A * B, N)[..., : 2 * L]
        return bins.unflatten(-1, (L, 2)).permute(0, 2, 3, 1).flatten(2)
    bins = torch.fft.irfft(A.conj() * B, N)  # distance -t is at N - t
    after, before = bins[..., :L], torch.cat([bins[..., :1], bins[..., N - L + 1 :].flip(-1)], -1)
    return torch.cat([after, before], 1).mT


class FourierCross(nn.Module):
    """GELU(fold(cross(X W_a, Y W_b) / sqrt(m))) W_u: features of every token from all pairs of tokens.

    Args:
        dim: C, the width of X, of Y and of the features.
        kind: what is pooled together.
    """

    def __init__(self, dim: int, kind: Kind) -> None:
        super().__init__()
        self.kind = kind
        self.a, self.b = nn.Linear(dim, dim, bias=False), nn.Linear(dim, dim, bias=False)
        self.fold = nn.Linear(2 * dim, dim)
        self.update = nn.Linear(dim, dim)

    def forward(self, x: Tensor, y: Tensor, m: Tensor) -> Tensor:
        """Return the features (B, L, C).

        Args:
            x: (B, L, C), float32 or float64, the real tokens first and 0 behind them.
            y: (B, L, C) likewise.
            m: (B,), the number of real tokens.
        """
        scale = m.clamp(min=1).to(x.dtype).rsqrt()[:, None, None]
        pooled = cross(linear(self.a, x * scale), linear(self.b, y), self.kind)
        return linear(self.update, F.gelu(linear(self.fold, pooled)))
