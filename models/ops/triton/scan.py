"""The linear recurrence of `models.ops.scan` in one pass over memory.

A program has a few channels of one sequence. It goes along the sequence, tile after tile: all steps of a tile are
combined at once by an associative scan, and what came before the tile is added, times what the tile's decays leave of
it. The torch form reads and writes the states once in every round instead.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

STEPS, CHANNELS = 64, 32  # of a tile; powers of two


def solve(decay: Tensor, inputs: Tensor) -> Tensor:
    """Return h of h_t = decay_t * h_{t-1} + inputs_t along dimension 1, h before the first being 0.

    Args:
        decay: (B, L, ...), any dimension of size 1 standing for all of the inputs'; real or complex.
        inputs: (B, L, ...) of at least float32; complex if `decay` is.

    Returns:
        (B, L, ...), of the dtype of the inputs.
    """
    batch, length, *rest = inputs.shape
    states = torch.empty_like(inputs, memory_format=torch.contiguous_format)
    if not inputs.numel():
        return states
    # Channels in a row; where one decay stands for all steps or sequences, it is read again and again.
    decay = decay.to(inputs.dtype).expand(-1, -1, *rest).reshape(*decay.shape[:2], -1).expand(batch, length, -1)
    given, out = inputs.reshape(batch, length, -1), states.view(batch, length, -1)
    channels = out.shape[2]
    kernel = _real
    if out.is_complex():
        kernel = _complex
        decay, given, out = (torch.view_as_real(x.resolve_conj()) for x in (decay, given, out))
    grid = (triton.cdiv(channels, CHANNELS), batch)
    strides = [stride for x in (decay, given, out) for stride in x.stride()[:3]]
    kernel[grid](decay, given, out, length, channels, *strides, STEPS=STEPS, CHANNELS=CHANNELS)
    return states


@triton.jit
def _after(a, x, b, y):
    """Combine steps (a, x) and the steps (b, y) after them."""
    return a * b, b * x + y


@triton.jit
def _after_complex(a_re, a_im, x_re, x_im, b_re, b_im, y_re, y_im):
    """Combine likewise, with real and imaginary parts."""
    return (
        a_re * b_re - a_im * b_im,
        a_re * b_im + a_im * b_re,
        b_re * x_re - b_im * x_im + y_re,
        b_re * x_im + b_im * x_re + y_im,
    )


@triton.jit
def _real(
    decay, inputs, out, length, channels,
    decay_b, decay_l, decay_c, inputs_b, inputs_l, inputs_c, out_b, out_l, out_c,
    STEPS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """Run the recurrence of real numbers; the strides are those of sequences, steps and channels."""
    sequence = tl.program_id(1).to(tl.int64)
    steps = tl.arange(0, STEPS).to(tl.int64)[:, None]
    columns = (tl.program_id(0) * CHANNELS + tl.arange(0, CHANNELS))[None, :]
    decay += sequence * decay_b + steps * decay_l + columns * decay_c
    inputs += sequence * inputs_b + steps * inputs_l + columns * inputs_c
    out += sequence * out_b + steps * out_l + columns * out_c
    before = tl.zeros((1, CHANNELS), out.dtype.element_ty)
    for first in range(0, length, STEPS):
        inside = (first + steps < length) & (columns < channels)
        a, x = tl.load(decay, inside, other=1.0), tl.load(inputs, inside, other=0.0)
        kept, states = tl.associative_scan((a, x), 0, _after)
        states += kept * before
        tl.store(out, states, inside)
        before = tl.sum(tl.where(steps == STEPS - 1, states, 0.0), 0, keep_dims=True)
        decay += STEPS * decay_l
        inputs += STEPS * inputs_l
        out += STEPS * out_l


@triton.jit
def _complex(
    decay, inputs, out, length, channels,
    decay_b, decay_l, decay_c, inputs_b, inputs_l, inputs_c, out_b, out_l, out_c,
    STEPS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """Run that of complex numbers, whose imaginary part follows the real one in memory."""
    sequence = tl.program_id(1).to(tl.int64)
    steps = tl.arange(0, STEPS).to(tl.int64)[:, None]
    columns = (tl.program_id(0) * CHANNELS + tl.arange(0, CHANNELS))[None, :]
    decay += sequence * decay_b + steps * decay_l + columns * decay_c
    inputs += sequence * inputs_b + steps * inputs_l + columns * inputs_c
    out += sequence * out_b + steps * out_l + columns * out_c
    before_re = tl.zeros((1, CHANNELS), out.dtype.element_ty)
    before_im = tl.zeros((1, CHANNELS), out.dtype.element_ty)
    for first in range(0, length, STEPS):
        inside = (first + steps < length) & (columns < channels)
        a_re, a_im = tl.load(decay, inside, other=1.0), tl.load(decay + 1, inside, other=0.0)
        x_re, x_im = tl.load(inputs, inside, other=0.0), tl.load(inputs + 1, inside, other=0.0)
        kept_re, kept_im, re, im = tl.associative_scan((a_re, a_im, x_re, x_im), 0, _after_complex)
        re += kept_re * before_re - kept_im * before_im
        im += kept_re * before_im + kept_im * before_re
        tl.store(out, re, inside)
        tl.store(out + 1, im, inside)
        before_re = tl.sum(tl.where(steps == STEPS - 1, re, 0.0), 0, keep_dims=True)
        before_im = tl.sum(tl.where(steps == STEPS - 1, im, 0.0), 0, keep_dims=True)
        decay += STEPS * decay_l
        inputs += STEPS * inputs_l
        out += STEPS * out_l
