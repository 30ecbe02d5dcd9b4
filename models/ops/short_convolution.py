"""Short depthwise convolutions over the real rows of sequences, in both directions."""

from __future__ import annotations

from torch import Tensor, nn


class ShortConvolution(nn.Module):
    """y_t = b + sum_k w_k * x_{t + k} for |k| <= K // 2, with weights and a bias of each channel's own.

    A row of padding counts as 0 wherever it stands, and comes out 0.

    Args:
        dim: C.
        width: K, odd: how many rows one row sees, itself included.
    """

    def __init__(self, dim: int, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(dim, dim, width, padding=width // 2, groups=dim)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Convolve rows (B, L, C), of which `mask` (B, L) is True on the real ones."""
        padding = ~mask[..., None]
        return self.conv(x.masked_fill(padding, 0).transpose(1, 2)).transpose(1, 2).masked_fill(padding, 0)
