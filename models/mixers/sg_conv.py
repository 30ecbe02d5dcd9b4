"""SGConv: a convolution as long as the sequence, made of a few short kernels, the further away the coarser and weaker.

Li et al. 2022, "What Makes Convolutional Models Great on Long Sequence Modeling?", arXiv 2210.09298; all else is as in
the authors' code (github.com/ctlllll/SGConv, `gconv_standalone.py`).

Departures from that code: the kernel has the length of `max_len` from the first pass on, not that of the first batch;
interpolation near the end of a shorter sequence sees the taps behind it.
"""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.checks import at_least, positive
from models.dropout import Dropout
from models.mechanism import ONE_WAY, Card
from models.mixers import Mixer
from models.ops.fft_convolution import convolve
from models.ops.precision import accumulation_dtype


class SGConvMixer(Mixer):
    """W gelu(k * x + D x): a convolution with a kernel of sub-kernels of one size K, one kernel for each channel.

    Sub-kernels 0 and 1 are taken as they are, sub-kernel i is stretched 2^(i - 1) times; one after the other they cover
    `max_len`, each `decay` times weaker than the one before it. The kernel is divided by the norm that it has at first.

    Args:
        bidirectional: whether a token also receives from those after it, by a second kernel.
        kernel_size: K.
        decay: how many times weaker a sub-kernel is than the one before it.
        kernel_learning_rate: the peak learning rate of the sub-kernels.
        dim, max_len, dropout: see `Mixer`; `dropout` acts before W.

    Raises:
        ValueError: an option is out of its range.
    """

    norm: Tensor
    causal_settings = ONE_WAY
    card: ClassVar[Card] = Card(
        what="SGConv: a convolution as long as the sequence, of short kernels that are coarser and weaker further away",
        family="convolution",
        time="O(L log L)",
        memory="O(L)",
        paper="2210.09298",
        oracle="none found; torch's own interpolation and the explicit sum over lags stand in",
    )

    def __init__(
        self,
        *,
        bidirectional: bool = False,
        kernel_size: int = 64,
        decay: float = 2.0,
        kernel_learning_rate: float = 1e-3,
        dim: int,
        max_len: int,
        dropout: float,
    ) -> None:
        super().__init__(dim=dim, max_len=max_len, dropout=dropout)
        at_least(1, kernel_size=kernel_size)
        positive(decay=decay, kernel_learning_rate=kernel_learning_rate)
        self.decay = decay
        self.learning_rates = {"kernels": kernel_learning_rate}
        # 1 + ceil(log2(max_len / kernel_size)), by whole numbers.
        num_scales = 1 + (-(-max_len // kernel_size) - 1).bit_length()
        self.kernels = nn.Parameter(torch.randn(num_scales, 2 if bidirectional else 1, dim, kernel_size))
        with torch.no_grad():
            self.register_buffer("norm", self._whole(self.kernels).norm(dim=-1, keepdim=True))
        self.skip = nn.Parameter(torch.randn(dim))
        self.drop = Dropout(dropout)
        self.out = nn.Linear(dim, dim)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """See the contract."""
        padding = ~mask[..., None]
        x = x.masked_fill(padding, 0)
        mixed = convolve(x, *self.taps(x.shape[1])) + self.skip * x
        return self.out(self.drop(F.gelu(mixed))).masked_fill(padding, 0)

    def taps(self, length: int) -> Tensor:
        """Return the taps (directions, C, L) of lags 0, 1, ... and, if there are two directions, of -1, -2, ..."""
        dtype = accumulation_dtype(self.kernels)
        return self._whole(self.kernels.to(dtype))[..., :length] / self.norm.to(dtype)

    def _whole(self, kernels: Tensor) -> Tensor:
        """Join stretched and weakened sub-kernels to kernels that cover `max_len`, not normalised."""
        last = len(kernels) - 1
        parts = (
            stretched(kernel * self.decay ** (last - scale), 2 ** max(scale - 1, 0))
            for scale, kernel in enumerate(kernels.unbind())
        )
        return torch.cat(list(parts), -1)


def stretched(x: Tensor, factor: int) -> Tensor:
    """Interpolate the last dimension linearly to `factor` times as many numbers, as torch does without aligned corners.

    Torch's own has no deterministic backward pass on a GPU.
    """
    # How far each of the numbers that come of one is from it, in steps of x, from -1/2 to 1/2.
    way = (torch.arange(factor, dtype=x.dtype, device=x.device) + 0.5) / factor - 0.5
    before, after = (torch.cat([x[..., :1], x[..., :-1]], -1), torch.cat([x[..., 1:], x[..., -1:]], -1))
    x, before, after = x[..., None], before[..., None], after[..., None]
    return (x + (after - x) * way.clamp(min=0) - (before - x) * way.clamp(max=0)).flatten(-2)
