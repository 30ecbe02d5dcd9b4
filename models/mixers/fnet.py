"""FNet: a Fourier transform over length and width in place of attention.

Lee-Thorp et al. 2021, "FNet: Mixing Tokens with Fourier Transforms", arXiv 2105.03824, Eq. 3. There are no parameters,
and no projection behind the transform.

Every sequence is transformed as if zeros filled it up to `max_len`, so that the amount of padding in a batch changes
nothing. This is the paper's own form where its code pads all examples to one length, as Long Range Arena's does. What
stood in the padding is zeroed before; the paper's code transforms the embeddings of padding, too.

The transform as the paper has it makes rows sqrt(L C) times as large. The paper normalises behind the residual's sum
(`model.block.place=post`), before the perceptron reads it. Where blocks normalise their inputs alone, rows so large
would drown the residual and the perceptron, so that `scaled` is needed there.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from models.mechanism import Card
from models.mixers import Mixer
from models.ops.precision import accumulation_dtype, without_autocast


class FNet(Mixer):
    """The real part of the two-dimensional discrete Fourier transform of the rows.

    Args:
        scaled: divide by sqrt(n C), with n the number of real tokens: rows stay about as large as they were.
    """

    card: ClassVar[Card] = Card(
        what="FNet: the real part of a Fourier transform over length and width, without parameters",
        family="Fourier",
        time="O(L log L) for L = `max_len`",
        memory="O(L)",
        paper="2105.03824",
        oracle="transformers FNetBasicFourierTransform, outputs on sequences of full length",
    )

    def __init__(self, *, scaled: bool = False, **sizes: Any) -> None:
        super().__init__(**sizes)
        self.scaled = scaled

    @without_autocast
    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """See the contract."""
        padding = ~mask[..., None]
        rows = x.masked_fill(padding, 0).to(accumulation_dtype(x))
        mixed = torch.fft.fftn(rows, s=(self.max_len, self.dim), dim=(1, 2)).real[:, : x.shape[1]]
        if self.scaled:
            mixed = mixed * (self.dim * mask.sum(-1).clamp(min=1)).to(mixed.dtype).rsqrt()[:, None, None]
        return mixed.to(x.dtype).masked_fill(padding, 0)
