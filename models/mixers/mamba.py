"""Mamba in both directions: short convolutions and selective state spaces, gated.

Gu, Dao 2023, "Mamba: Linear-Time Sequence Modeling with Selective State Spaces", arXiv 2312.00752. One direction is its
block (Section 3.4, Algorithm 2). The second one, which an encoder needs, is made as in Vision Mamba (Zhu et al. 2024,
arXiv 2401.09417, Algorithm 1): a convolution and a state space of its own over the reversed sequence; projections and
gate are shared by both.

A step of time that is no token leaves the states of a sequence's beginning at 0, in either direction: what enters a
state is masked behind the convolution, whose bias would else make something of nothing.
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.checks import at_least
from models.mechanism import ONE_WAY, Card
from models.mixers import Mixer
from models.ops.precision import accumulation_dtype
from models.ops.selective_scan import selective_scan

LEAST_STEP, LONGEST_STEP = 1e-3, 0.1  # of the initial steps of time, drawn uniformly in their logarithm


def initial_steps(shape: tuple[int, ...]) -> Tensor:
    """Draw biases whose softplus are initial steps of time (Section 3.6)."""
    logs = math.log(LEAST_STEP) + torch.rand(shape) * math.log(LONGEST_STEP / LEAST_STEP)
    steps = logs.exp()
    return steps + (-torch.expm1(-steps)).log()  # the inverse of softplus


class SelectiveBranch(nn.Module):
    """One direction: a causal depthwise convolution, silu, and the S6 of Algorithm 2 with its skip connection.

    Args:
        width: E, the number of channels.
        state_dim: N, states of a channel.
        conv_size: taps of the convolution.
        step_rank: the rank of the map from channels to steps of time.
    """

    undecayed: tuple[str, ...] = ("log_poles", "skip")

    def __init__(self, width: int, state_dim: int, conv_size: int, step_rank: int) -> None:
        super().__init__()
        self.widths = (step_rank, state_dim, state_dim)
        self.conv = nn.Conv1d(width, width, conv_size, groups=width)
        self.project = nn.Linear(width, sum(self.widths), bias=False)
        self.step = nn.Linear(step_rank, width)
        nn.init.uniform_(self.step.weight, -(step_rank**-0.5), step_rank**-0.5)
        self.step.bias = nn.Parameter(initial_steps((width,)))
        self.log_poles = nn.Parameter(torch.arange(1.0, state_dim + 1).log().repeat(width, 1))  # S4D-Real
        self.skip = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Map channels (B, L, E), 0 where padded, in the order of the sequence as it is given."""
        before = self.conv.kernel_size[0] - 1
        u = F.silu(self.conv(F.pad(x.transpose(1, 2), (before, 0))).transpose(1, 2))
        u = u.masked_fill(~mask[..., None], 0)
        step, entry, readout = self.project(u).split(self.widths, -1)
        step = self.step(step)
        with torch.autocast(x.device.type, enabled=False):
            dtype = accumulation_dtype(self.log_poles)
            poles = -self.log_poles.to(dtype).exp()
            # One block of all channels, which share what enters and what is read.
            channels, steps, entry, readout = (
                part.to(dtype)[:, :, None] for part in (u, F.softplus(step.to(dtype)), entry, readout)
            )
            y = selective_scan(channels, steps, poles[None], entry, readout)[:, :, 0]
            return (y + self.skip.to(dtype) * u).to(u.dtype)


class Mamba(Mixer):
    """Gated selective state spaces: W_out((S6(conv(a)) + reversed) * silu(b)), with a, b = W_in x.

    Args:
        expansion: channels, in multiples of C.
        state_dim: N, states of a channel.
        conv_size: taps of the convolutions.
        step_rank: the rank of the map to steps of time; None for C / 16, rounded up, as in the paper.
        bidirectional: run over the reversed sequence, too; without it the block is the paper's, and no token sees a
            later one.
        tied: one set of weights for both directions.
    """

    causal_settings = ONE_WAY
    card: ClassVar[Card] = Card(
        what="Mamba in both directions: selective state spaces, gated",
        family="selective state space",
        time="O(L N) for N states of a channel",
        memory="O(L), as states are made for a few channels at a time",
        paper="2312.00752",
        oracle="transformers MambaMixer and mambapy MambaBlock, outputs and gradients of one direction",
    )

    def __init__(
        self,
        *,
        expansion: int = 2,
        state_dim: int = 16,
        conv_size: int = 4,
        step_rank: int | None = None,
        bidirectional: bool = True,
        tied: bool = False,
        dim: int,
        max_len: int,
        dropout: float,
    ) -> None:
        super().__init__(dim=dim, max_len=max_len, dropout=dropout)
        at_least(1, expansion=expansion, state_dim=state_dim, conv_size=conv_size)
        rank = -(-dim // 16) if step_rank is None else step_rank
        at_least(1, step_rank=rank)
        if tied and not bidirectional:
            raise ValueError("tied must be false where bidirectional is: there is one direction. Got true.")
        width = expansion * dim
        self.enter = nn.Linear(dim, 2 * width, bias=False)
        self.forwards = SelectiveBranch(width, state_dim, conv_size, rank)
        self.backwards: SelectiveBranch | None = None
        if bidirectional:
            self.backwards = self.forwards if tied else SelectiveBranch(width, state_dim, conv_size, rank)
        self.out = nn.Linear(width, dim, bias=False)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """See the contract."""
        padding = ~mask[..., None]
        channels, gate = self.enter(x.masked_fill(padding, 0)).chunk(2, -1)
        y = self.forwards(channels, mask)
        if self.backwards is not None:
            y = y + self.backwards(channels.flip(1), mask.flip(1)).flip(1)
        return self.out(y * F.silu(gate)).to(x.dtype).masked_fill(padding, 0)
