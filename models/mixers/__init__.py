"""The contract of everything that mixes the tokens of a layer, and nothing else."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from models.mechanism import Mechanism


class Mixer(Mechanism):
    """Base class of all mixers: a map from (x, mask) to x, (B, L, C).

    The block around it owns the norms, the residual, the dropout behind it and the perceptron; a mixer owns the rest,
    its projections included. It promises:

    - padded content (where `mask` is False) never reaches a real row, not even by a rounding error;
    - a sequence's result depends neither on its batch mates nor on how much padding follows it, draws held fixed;
    - any mask is accepted: holes, a single real token, none at all; rows of padding come out 0;
    - any length up to `max_len` is accepted: a mixer that needs a divisible length pads and crops inside;
    - randomness comes only from `draw`, and from dropout; the shapes drawn depend only on the shapes of the inputs;
    - no value is read back from the device, and no device is named.

    A function of projected heads (q, k, v) is an `Attention` instead, of which `MultiHead` makes a mixer. What hands
    rows of its own from layer to layer is a `StreamMixer`.

    Attributes:
        reads_residual: True if `forward` takes as `residual` what the block adds its result to, for a gate between the
            two. It is x itself, unless a norm stands before the mixer.

    Args:
        dim: C, the width of a row.
        max_len: the longest sequence.
        dropout: the rate inside the mixer, where it has a use for one.
    """

    reads_residual: ClassVar[bool] = False

    def __init__(self, *, dim: int, max_len: int, dropout: float) -> None:
        super().__init__()
        self.dim = dim
        self.max_len = max_len
        self.dropout = dropout

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Mix.

        Args:
            x: rows (B, L, C).
            mask: (B, L) bool, True on real tokens.

        Returns:
            (B, L, C); rows of padded positions are 0.
        """
        raise NotImplementedError

    def diagnostics(self, x: Tensor, mask: Tensor) -> dict[str, Tensor]:
        """Measure what the mixer does on inputs of `forward`, at any cost; scalars by name, no gradient."""
        return {}


class StreamMixer(Mixer):
    """A mixer with a stream: rows (B, R, C) beside the sequence, which the encoder hands from layer to layer.

    The stream begins as learned rows, the same for every sequence. In each layer the block norms it, the mixer says
    what to add to it, as it does for the sequence, and the sum goes to the next layer; the perceptron leaves it alone.
    What a mixer promises of its rows holds for the stream: neither padding nor batch mates change it.

    Attributes:
        first: the rows (R, C) that the stream begins with. All layers share them, and the encoder reads them once.
    """

    shared: tuple[str, ...] = ("first",)
    first: nn.Parameter

    def forward(self, x: Tensor, mask: Tensor, stream: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """Mix.

        Args:
            x: rows (B, L, C).
            mask: (B, L) bool, True on real tokens.
            stream: rows (B, R, C), all of them real.

        Returns:
            (B, L, C), 0 in rows of padded positions, and (B, R, C): what is added to the rows and to the stream.
        """
        raise NotImplementedError

    def diagnostics(self, x: Tensor, mask: Tensor, stream: Tensor) -> dict[str, Tensor]:  # type: ignore[override]
        """See `Mixer.diagnostics`."""
        return {}
