"""B2S6: Mamba's selective state spaces in blocks of channels, with complex poles and a bias on what enters.

Yu, Erichson 2025, "Block-Biased Mamba for Long-Range Sequence Processing", arXiv 2505.09022, Section 6 and Algorithm 2.
Its S6, a special case, is Mamba's: one block, real poles, no bias.

The unit is the paper's. What is not known of it from public text is chosen here: the initial values, those of S4D-Lin
for poles and bias; how much lower the learning rate of the steps is; and what stands around the unit on the Long Range
Arena, which is what S4's code has there: both directions, a skip connection, GELU, and a gated linear map. Behind it
belongs no perceptron: model.block.mlp=false.
"""

from __future__ import annotations

import math
from functools import partial
from types import MappingProxyType
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.checks import at_least, positive
from models.dropout import Dropout
from models.mechanism import ONE_WAY, Card
from models.mixers import Mixer
from models.mixers.mamba import initial_steps
from models.ops.precision import accumulation_dtype
from models.ops.selective_scan import selective_scan


class BlockBiasedS6(nn.Module):
    """One direction of Algorithm 2: blocks of P channels, each with N states, that select by their own block's inputs.

    With u the inputs of block j at a token, and i one of its channels: the step of time is
    softplus(w_j . u + b_i), what enters the states of channel i is (Bw_j u + Bb_i) u_i, and C_j u reads them.

    Args:
        blocks: H.
        channels: P.
        state_dim: N.
        complex_poles: poles, entries and readouts are complex; else real, as Mamba's.
        biased: whether Bb is there.
        step_learning_rate: the peak learning rate of w and b, or None for the common one.
    """

    undecayed: tuple[str, ...] = ("log_decay", "frequency", "step_weight", "step_bias")

    def __init__(
        self,
        blocks: int,
        channels: int,
        state_dim: int,
        *,
        complex_poles: bool,
        biased: bool,
        step_learning_rate: float | None,
    ) -> None:
        super().__init__()
        rates = {} if step_learning_rate is None else dict.fromkeys(("step_weight", "step_bias"), step_learning_rate)
        self.learning_rates = MappingProxyType(rates)
        parts = (2,) if complex_poles else ()  # real and imaginary
        scale = (channels * (2 if complex_poles else 1)) ** -0.5
        self.step_weight = nn.Parameter((2 * torch.rand(blocks, channels) - 1) * channels**-0.5)
        self.step_bias = nn.Parameter(initial_steps((blocks, channels)))
        self.entry = nn.Parameter(scale * torch.randn(blocks, channels, state_dim, *parts))
        self.readout = nn.Parameter(scale * torch.randn(blocks, channels, state_dim, *parts))
        ones = torch.zeros(blocks, channels, state_dim, *parts)
        ones[..., 0] = 1.0
        self.entry_bias = nn.Parameter(ones if complex_poles else torch.ones_like(ones)) if biased else None
        orders = torch.arange(0.0, state_dim)
        self.log_decay = nn.Parameter(torch.full_like(orders, 0.5).log() if complex_poles else (orders + 1).log())
        self.frequency = nn.Parameter(math.pi * orders) if complex_poles else None

    def forward(self, u: Tensor) -> Tensor:
        """Map channels (B, L, H, P), 0 where padded, in float32 at least, to as many."""
        step = F.softplus(torch.einsum("blhp,hp->blh", u, self.step_weight.to(u.dtype))[..., None] + self.step_bias)
        poles = -self.log_decay.to(u.dtype).exp()
        if self.frequency is not None:
            poles = torch.complex(poles, self.frequency.to(u.dtype))
        entry, readout = self._of_inputs(u, self.entry), self._of_inputs(u, self.readout)
        bias = None if self.entry_bias is None else self._joined(self.entry_bias.to(u.dtype))
        return selective_scan(u, step, poles[None, None], entry, readout, bias)

    def _of_inputs(self, u: Tensor, weight: Tensor) -> Tensor:
        """Map every block (B, L, H, P) with weights of its own to (B, L, H, N)."""
        weight = weight.to(u.dtype)
        if self.frequency is None:
            return torch.einsum("blhp,hpn->blhn", u, weight)
        return self._joined(torch.einsum("blhp,hpnz->blhnz", u, weight))

    def _joined(self, x: Tensor) -> Tensor:
        """Make complex numbers of real and imaginary parts, where there are two."""
        return x if self.frequency is None else torch.view_as_complex(x.contiguous())


class B2S6(Mixer):
    """W_out GLU(GELU(units of both directions + skip * x)).

    Args:
        num_blocks: H; where C is no multiple, blocks have C / H channels, rounded up, and zeros fill the last one.
        state_dim: N, states of a channel.
        complex_poles: False for real ones, as Mamba's.
        biased: add Bb, a bias of every channel on what enters its states.
        bidirectional: run over the reversed sequence, too, with weights of its own.
        step_learning_rate: the peak learning rate of the maps to steps of time; None for the common one.
    """

    undecayed: tuple[str, ...] = ("skip",)
    causal_settings = ONE_WAY
    card: ClassVar[Card] = Card(
        what="B2S6, Block-Biased Mamba: selective state spaces in blocks, with complex poles and a bias",
        family="selective state space",
        time="O(L N) for N states of a channel",
        memory="O(L), as states are made for a few channels at a time",
        paper="2505.09022",
        oracle="none found; a loop over tokens stands in, and Mamba's S6 with one block, real poles and no bias",
    )

    def __init__(
        self,
        *,
        num_blocks: int = 8,
        state_dim: int = 16,
        complex_poles: bool = True,
        biased: bool = True,
        bidirectional: bool = True,
        step_learning_rate: float | None = None,
        dim: int,
        max_len: int,
        dropout: float,
    ) -> None:
        super().__init__(dim=dim, max_len=max_len, dropout=dropout)
        at_least(1, num_blocks=num_blocks, state_dim=state_dim)
        if step_learning_rate is not None:
            positive(step_learning_rate=step_learning_rate)
        self.channels = -(-dim // num_blocks)
        sizes = (-(-dim // self.channels), self.channels, state_dim)
        unit = partial(
            BlockBiasedS6, *sizes, complex_poles=complex_poles, biased=biased, step_learning_rate=step_learning_rate
        )
        self.forwards = unit()
        self.backwards = unit() if bidirectional else None
        self.skip = nn.Parameter(torch.ones(dim))
        self.drop = Dropout(dropout)
        self.out = nn.Linear(dim, 2 * dim)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """See the contract."""
        padding = ~mask[..., None]
        rows = x.masked_fill(padding, 0)
        with torch.autocast(x.device.type, enabled=False):
            u = rows.to(accumulation_dtype(x))
            y = self.units(u) + self.skip.to(u.dtype) * u
        value, gate = self.out(self.drop(F.gelu(y.to(x.dtype)))).chunk(2, -1)
        return (value * gate.sigmoid()).to(x.dtype).masked_fill(padding, 0)

    def units(self, u: Tensor) -> Tensor:
        """Run the units of every direction over rows (B, L, C), 0 where padded, and add them up."""
        blocks = F.pad(u, (0, -self.dim % self.channels)).unflatten(-1, (-1, self.channels))
        y = self.forwards(blocks)
        if self.backwards is not None:
            y = y + self.backwards(blocks.flip(1)).flip(1)
        return y.flatten(2)[..., : self.dim]
