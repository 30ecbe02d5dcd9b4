"""Taps of a convolution kernel that is a sum of geometric series: the kernel of a diagonal linear recurrence."""

from __future__ import annotations

import torch
from torch import Tensor


def geometric_taps(weights: Tensor, log_ratios: Tensor, length: int) -> Tensor:
    """Return t_l = Re sum over n of weights_n exp(l log_ratios_n) for l = 0 to length - 1.

    The lags are those of a table of about sqrt(length) rows, l = row + column, so that an exponential is a product and
    the sum one of matrices; the exponentials of all lags, N times as many numbers as there are taps, are never stored.

    Args:
        weights: (..., N), real or complex, as the logarithms are.
        log_ratios: (..., N), of real part at most 0.
        length: K, the number of taps.

    Returns:
        (..., K), real.
    """
    num_columns = 1 << (max(length - 1, 0).bit_length() + 1) // 2
    num_rows = -(-length // num_columns)
    rows = torch.arange(num_rows, device=weights.device) * num_columns
    columns = torch.arange(num_columns, device=weights.device)
    left = weights[..., None, :] * torch.exp(log_ratios[..., None, :] * rows[:, None])  # (..., rows, N)
    right = torch.exp(log_ratios[..., None] * columns)  # (..., N, columns)
    if weights.is_complex():
        left, right = torch.cat([left.real, -left.imag], -1), torch.cat([right.real, right.imag], -2)
    return (left @ right).flatten(-2)[..., :length]
