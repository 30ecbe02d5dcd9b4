"""Taps of a convolution kernel that is a sum of geometric series: the kernel of a diagonal linear recurrence."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint


def geometric_taps(weights: Tensor, log_ratios: Tensor, length: int) -> Tensor:
    """Return t_l = Re sum over n of weights_n exp(l log_ratios_n) for l = 0 to length - 1.

    The (C, N, length) terms are made again in the backward pass instead of stored.

    Args:
        weights: (C, N), real or complex.
        log_ratios: (C, N), real or complex, of real part at most 0.
        length: K, the number of taps.

    Returns:
        (C, K), real.
    """
    return checkpoint(_taps, weights, log_ratios, length, use_reentrant=False, preserve_rng_state=False)


def _taps(weights: Tensor, log_ratios: Tensor, length: int) -> Tensor:
    lags = torch.arange(length, device=weights.device, dtype=weights.real.dtype)
    taps = torch.einsum("cn,cnl->cl", weights, (log_ratios[..., None] * lags).exp())
    return taps.real if taps.is_complex() else taps
