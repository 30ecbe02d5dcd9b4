"""The recurrence of a selective state space model, a few channels at a time."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from models.ops.scan import CHUNK, scan


class Portion(NamedTuple):
    """How much is worked on at once: numbers in the states of a batch, and steps of `scan` one after the other."""

    states: int
    chunk: int


# On a CPU what is worked on at once stays near the processor; a GPU wants few and large operations.
ON_CPU, ON_GPU = Portion(2**22, 64), Portion(2**25, CHUNK)


def selective_scan(
    x: Tensor, step: Tensor, poles: Tensor, entry: Tensor, readout: Tensor, entry_bias: Tensor | None = None
) -> Tensor:
    """Run every channel's N states over the sequence, all that they meet depending on the inputs.

    For channel i of block j, with the Euler step of Mamba (arXiv 2312.00752, Algorithm 2) for what enters:

        h_t = exp(step_t poles) * h_{t-1} + step_t (entry_t + entry_bias) x_t,    y_t = Re(readout_t . h_t)

    All (B, L, H, P, N) states at once would need most of a GPU's memory: they are made for a few of the P channels of
    every block at a time, and made again in the backward pass.

    Args:
        x: channels (B, L, H, P), P in each of H blocks; 0 where padded.
        step: the steps of time (B, L, H, P), positive.
        poles: (H, P, N), real or complex, of negative real part; H and P may be 1.
        entry: (B, L, H, N), real or complex, "B" in the papers.
        readout: (B, L, H, N), real or complex, "C" in the papers.
        entry_bias: (H, P, N), the same at every token, or None.

    Returns:
        (B, L, H, P), real.
    """
    batch, length, blocks, channels = x.shape
    portion = ON_CPU if x.device.type == "cpu" else ON_GPU
    width = max(1, portion.states // (batch * length * blocks * poles.shape[-1]))
    poles = poles.expand(blocks, channels, -1)
    parts = []
    for first in range(0, channels, width):
        own = slice(first, first + width)
        bias = None if entry_bias is None else entry_bias[:, own]
        of_channels = (x[..., own], step[..., own], poles[:, own], entry, readout, bias, portion.chunk)
        parts.append(checkpoint(_scan_channels, *of_channels, use_reentrant=False, preserve_rng_state=False))
    return torch.cat(parts, -1)


def _scan_channels(
    x: Tensor, step: Tensor, poles: Tensor, entry: Tensor, readout: Tensor, entry_bias: Tensor | None, chunk: int
) -> Tensor:
    decay = (step[..., None] * poles).exp()  # (B, L, H, P, N)
    entering = entry[..., None, :] if entry_bias is None else entry[..., None, :] + entry_bias
    states = scan(decay, (step * x)[..., None] * entering, chunk=chunk)
    dtype = torch.promote_types(states.dtype, readout.dtype)
    read = (states.to(dtype) @ readout[..., None].to(dtype))[..., 0]  # (B, L, H, P)
    return read.real if read.is_complex() else read
