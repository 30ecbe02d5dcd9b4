"""Draws that depend only on their coordinates, so that runs of different shapes can be compared."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor

from models.mechanism import Mechanism

M = TypeVar("M", bound=Mechanism)


def freeze_draws(module: M, seed: int = 0) -> M:
    """Replace `draw` in a mechanism and in those inside it.

    Number (i, j, ...) of the c-th draw of a forward pass is a hash of (seed, c, i, j, ...): the same (sequence, head,
    position) receives the same number in every batch and at every padded length.
    """
    for part in module.modules():
        if isinstance(part, Mechanism):
            _freeze(part, seed)
    return module


def _freeze(module: Mechanism, seed: int) -> None:
    calls = 0

    def restart(*_: object) -> None:
        nonlocal calls
        calls = 0

    def draw(distribution: str, shape: tuple[int, ...], device: torch.device) -> Tensor:
        nonlocal calls
        calls += 1
        uniform = _hash(shape, 1_000 * seed + calls).to(device)
        if distribution == "uniform":
            return uniform
        if distribution == "exponential":
            return -torch.log1p(-uniform)
        return torch.special.ndtri((uniform + 2**-25).double()).float()

    module.draw = draw  # type: ignore[method-assign, assignment]
    module.register_forward_pre_hook(restart)


def _hash(shape: tuple[int, ...], seed: int) -> Tensor:
    """Hash coordinates to float32 numbers on [0, 1), by rounds of a 64-bit multiplicative mix."""
    state = torch.full((1,) * len(shape), seed, dtype=torch.int64)
    for axis, size in enumerate(shape):
        coordinate = torch.arange(1, size + 1).view(-1, *[1] * (len(shape) - axis - 1))
        state = (state + coordinate) * -7046029254386353131
        state = (state ^ (state >> 29)) * -4658895280553007687
        state = state ^ (state >> 32)
    return ((state >> 20) & 0xFFFFFF).float() / 2**24
