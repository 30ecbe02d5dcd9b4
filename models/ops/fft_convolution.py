"""Convolution along the sequence by fast Fourier transforms, in time O(L log L) for kernels of any length."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from models.ops.precision import accumulation_dtype


def convolve(x: Tensor, kernel: Tensor, reverse: Tensor | None = None) -> Tensor:
    """Convolve every channel with a kernel of its own: y_i = sum over lags l of t_l x_{i-l}, x being 0 outside.

    Nothing wraps round: the transforms are as long as the sequence and the kernel together.

    Args:
        x: rows (B, L, C), real or complex; rows of padding must be 0.
        kernel: (C, K), t_0 to t_{K-1}: what a row receives from itself and from those before it. Taps beyond the
            sequence do not matter.
        reverse: (C, K'), t_{-1}, t_{-2} and so on: what it receives from those after it; None for nothing.

    Returns:
        (B, L, C); complex if x or a kernel is, else of the dtype of x. All is computed in float32 at least.
    """
    with torch.autocast(x.device.type, enabled=False):
        length = x.shape[1]
        forward = kernel[:, :length]
        backward = kernel[:, :0] if reverse is None else reverse[:, : length - 1]
        size = fast_size(length + max(forward.shape[1], 1 + backward.shape[1]) - 1)
        # A tap of lag -l stands at place size - l, where a circular convolution finds it.
        gap = size - forward.shape[1] - backward.shape[1]
        taps = torch.cat([F.pad(_precise(forward), (0, gap)), _precise(backward).flip(1)], 1)
        rows = _precise(x).transpose(1, 2)
        out = _circular(rows, taps, size)[..., :length].transpose(1, 2)
        return out if out.is_complex() else out.to(x.dtype)


def fast_size(least: int) -> int:
    """Return the smallest of 2^a, 3 * 2^a and 5 * 2^a that is at least `least`: such transforms are quick."""
    bits = max(least - 1, 0).bit_length()
    return min(size for size in (2**bits, 3 * 2 ** max(bits - 2, 0), 5 * 2 ** max(bits - 3, 0)) if size >= least)


def _precise(x: Tensor) -> Tensor:
    return x if x.is_complex() else x.to(accumulation_dtype(x))


def _circular(x: Tensor, taps: Tensor, size: int) -> Tensor:
    """Convolve x (B, C, L) with taps (C, size) round a circle of that size."""
    if x.is_complex() or taps.is_complex():
        return torch.fft.ifft(torch.fft.fft(x, size) * torch.fft.fft(taps, size))
    return torch.fft.irfft(torch.fft.rfft(x, size) * torch.fft.rfft(taps, size), size)
