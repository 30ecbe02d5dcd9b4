"""Normalisation of rows (B, L, C) that leaves padding out."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class LayerNorm(nn.LayerNorm):
    """Every row by its own mean and variance (Ba, Kiros, Hinton 2016, arXiv 1607.06450)."""

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Normalise (B, L, C); `mask` does not matter, as no row sees another."""
        return super().forward(x)


class ScaleNorm(nn.Module):
    """Every row brought to one length, which is learned (Nguyen, Salazar 2019, arXiv 1910.05895, Section 3.2).

    The length is counted in root mean squares, as MEGA's code does: a row of ones has length 1.

    Args:
        dim: C; the same for rows of any width.
        eps: added to the mean square.
    """

    def __init__(self, dim: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.eps = eps
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Normalise (B, L, C), at least in float32; `mask` does not matter, as no row sees another."""
        rows = x.to(torch.promote_types(x.dtype, torch.float32))
        return rows * torch.rsqrt(rows.square().mean(-1, keepdim=True) + self.eps) * self.scale


class BatchNorm(nn.Module):
    """Every channel by its mean and variance over all real tokens of a batch (Ioffe, Szegedy 2015, arXiv 1502.03167).

    In evaluation mode it uses the running statistics, so that batch mates do not matter. As in torch's own, the running
    variance is the unbiased one.

    Args:
        dim: C.
        momentum: the weight of a new batch in the running statistics.
        eps: added to the variance.
    """

    mean: Tensor
    variance: Tensor

    def __init__(self, dim: int, momentum: float = 0.1, eps: float = 1e-5) -> None:
        super().__init__()
        self.momentum = momentum
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(dim))
        self.bias = nn.Parameter(torch.zeros(dim))
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("variance", torch.ones(dim))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Normalise (B, L, C) by the rows where `mask` (B, L) is True; at least in float32."""
        with torch.autocast(x.device.type, enabled=False):
            rows = x.to(torch.promote_types(x.dtype, torch.float32))
            mean, variance = self._measured(rows, mask) if self.training else (self.mean, self.variance)
            return (rows - mean) * torch.rsqrt(variance + self.eps) * self.weight + self.bias

    def _measured(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and variance (C,) of the real rows, and move the running ones towards them."""
        padding, count = ~mask[..., None], mask.sum()
        mean = x.masked_fill(padding, 0).sum((0, 1)) / count.clamp_min(1)
        squares = (x - mean).masked_fill(padding, 0).square().sum((0, 1))
        with torch.no_grad():
            # A batch without a real row changes nothing; a batch of one has a mean, but no variance.
            self.mean.lerp_(mean.to(self.mean.dtype), self.momentum * (count > 0))
            unbiased = squares / (count - 1).clamp_min(1)
            self.variance.lerp_(unbiased.to(self.variance.dtype), self.momentum * (count > 1))
        return mean, squares / count.clamp_min(1)


NORMS = {"layer": LayerNorm, "batch": BatchNorm, "scale": ScaleNorm}
