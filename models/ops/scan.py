"""A linear recurrence along the sequence, h_t = a_t h_{t-1} + x_t, as an associative scan.

Two neighbouring steps are one of the same form, (a, x) then (b, y) being (a b, b x + y). So the sequence is cut into
chunks; all chunks are run through at once, step by step; their ends form a sequence that is shorter by the length of a
chunk, which is solved in the same way; and every chunk receives what came before it. That is O(L) work in O(log L)
rounds of few large operations (Blelloch 1990, "Prefix sums and their applications", Section 1.4).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from models.ops import fused
from models.ops.precision import accumulation_dtype

CHUNK = 16  # steps that are run through one after the other: few operations, and few numbers passed over twice


def scan(decay: Tensor, inputs: Tensor, reverse: bool = False, chunk: int = CHUNK) -> Tensor:
    """Return h of h_t = decay_t * h_{t-1} + inputs_t along dimension 1, h before the first being 0.

    The backward pass is a scan in the other direction; it keeps `decay` and h, so memory is O(L).

    Args:
        decay: (B, L, ...), real or complex; any dimension may have size 1, that of time too.
        inputs: (B, L, ...), real or complex.
        reverse: run from the last step to the first.
        chunk: steps that are run through one after the other. More of them are more operations, of fewer numbers in
            all: on a CPU that is quicker where each has thousands of numbers.

    Returns:
        (B, L, ...), in float32 or complex64 at least, complex if one of both is.
    """
    with torch.autocast(inputs.device.type, enabled=False):
        dtype = torch.promote_types(_precise(decay), _precise(inputs))
        decay, inputs = decay.to(_precise(decay)), inputs.to(dtype)
        if not reverse:
            return _Scan.apply(decay, inputs, chunk)
        return _Scan.apply(_flipped(decay), inputs.flip(1), chunk).flip(1)


class _Scan(torch.autograd.Function):
    """The recurrence with its own backward pass: that of the operations of the forward one would keep every round."""

    @staticmethod
    def forward(ctx: Any, decay: Tensor, inputs: Tensor, chunk: int) -> Tensor:
        states = _solve(decay, inputs, chunk)
        ctx.chunk = chunk
        ctx.save_for_backward(decay, states)
        return states

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor, None]:
        decay, states = ctx.saved_tensors
        # What reaches h_t is its own gradient, and a_{t+1} times what reaches h_{t+1}. No state follows the last one:
        # the a_1 that is rolled there multiplies nothing.
        reaching = _solve(_flipped(decay.roll(-1, 1)).conj(), grad.flip(1), ctx.chunk).flip(1)
        if not ctx.needs_input_grad[0]:
            return None, reaching, None
        before = states.roll(1, 1)
        before[:, 0].zero_()
        of_decay = before.conj().mul(reaching).sum_to_size(decay.shape)
        return of_decay if decay.is_complex() else of_decay.real, reaching, None


def _solve(decay: Tensor, inputs: Tensor, chunk: int) -> Tensor:
    """Run the recurrence; a single step of `decay` stands for all."""
    if fused(inputs):
        from models.ops.triton.scan import solve

        return solve(decay, inputs)
    return _solve_in_rounds(decay, inputs, chunk)


def _solve_in_rounds(decay: Tensor, inputs: Tensor, chunk: int) -> Tensor:
    length = inputs.shape[1]
    if length <= chunk:
        return torch.stack(_run(decay, inputs, 1), 1) if length else inputs
    steady = decay.shape[1] == 1
    x = _chunked(inputs, chunk)
    a = decay[:, :, None] if steady else _chunked(decay, chunk)
    states = torch.stack(_run(a, x, 2), 2)  # (B, L / chunk, chunk, ...), each chunk as if nothing were before it
    # What a chunk's steps leave of the state before it.
    kept = a.expand(-1, -1, chunk, *a.shape[3:]).cumprod(2)
    ends = _solve_in_rounds(kept[:, :, -1], states[:, :, -1], chunk)
    states[:, 1:] += (kept if steady else kept[:, 1:]) * ends[:, :-1, None]
    return states.flatten(1, 2)[:, :length]


def _run(decay: Tensor, inputs: Tensor, dim: int) -> list[Tensor]:
    """Return the states of every step of a dimension, one after the other."""
    states: list[Tensor] = []
    decays = decay.expand(*[-1] * dim, inputs.shape[dim], *[-1] * (decay.ndim - dim - 1)).unbind(dim)
    for a, x in zip(decays, inputs.unbind(dim), strict=True):
        states.append(torch.addcmul(x, a, states[-1]) if states else x)
    return states


def _chunked(x: Tensor, chunk: int) -> Tensor:
    """Cut (B, L, ...) into (B, chunks, chunk, ...), with zeros at the end."""
    lacking = -x.shape[1] % chunk
    if lacking:
        x = torch.cat([x, x.new_zeros(x.shape[0], lacking, *x.shape[2:])], 1)
    return x.unflatten(1, (-1, chunk))


def _flipped(decay: Tensor) -> Tensor:
    return decay if decay.shape[1] == 1 else decay.flip(1)


def _precise(x: Tensor) -> torch.dtype:
    return x.dtype if x.is_complex() else accumulation_dtype(x)
