"""What stands around a mixer in every layer: norms, residuals, dropout, and a perceptron behind it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.checks import one_of
from models.dropout import Dropout
from models.mixers import Mixer, StreamMixer
from models.norms import NORMS
from models.stem import Stem

PLACES = ("pre", "post")


@dataclass(frozen=True)
class BlockShape:
    """What stands around the mixer of a block. The default is the pre-norm Transformer's.

    Args:
        norm: "layer"; "batch" over the real tokens of a batch, as S4 has it on some tasks; "scale", as MEGA has it.
        place: "pre" normalises the inputs of mixer and perceptron, and once more behind the last block; "post"
            normalises each sum with the residual, as in Vaswani et al. 2017.
        mlp: whether a perceptron follows the mixer: True for the Transformer's, of two layers; "glu" for a gated one,
            as TNN has it.

    Raises:
        ValueError: an option has a value it cannot have.
    """

    norm: Literal["layer", "batch", "scale"] = "layer"
    place: Literal["pre", "post"] = "pre"
    mlp: bool | Literal["glu"] = True

    def __post_init__(self) -> None:
        one_of(tuple(NORMS), **{"model.block.norm": self.norm})
        one_of(PLACES, **{"model.block.place": self.place})
        if not isinstance(self.mlp, bool) and self.mlp != "glu":
            raise ValueError(f"model.block.mlp must be true, false or glu. Got {self.mlp!r}.")


TRANSFORMER = BlockShape()


class GatedLinear(nn.Module):
    """A linear map whose results are gated by silu of another one (Shazeer 2020, arXiv 2002.05202, "SwiGLU")."""

    def __init__(self, dim: int, out_dim: int) -> None:
        super().__init__()
        self.gate = nn.Linear(dim, out_dim)
        self.value = nn.Linear(dim, out_dim)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, L, C) to (B, L, out_dim)."""
        return F.silu(self.gate(x)) * self.value(x)


class Block(nn.Module):
    """One layer: a mixer and, if the shape has it, a perceptron, each with norm, dropout and a residual.

    A stem, if there is one, makes local features of what the mixer reads, and of nothing else.
    """

    def __init__(
        self, mixer: Mixer, shape: BlockShape, *, dim: int, mlp_dim: int, dropout: float, stem: Stem | None = None
    ) -> None:
        super().__init__()
        self.place = shape.place
        self.mixer_norm = NORMS[shape.norm](dim)
        self.mixer = mixer
        self.stream_norm = NORMS[shape.norm](dim) if isinstance(mixer, StreamMixer) else None
        self.mlp: nn.Module | None = None
        if shape.mlp:
            self.mlp_norm = NORMS[shape.norm](dim)
            hidden = [GatedLinear(dim, mlp_dim)] if shape.mlp == "glu" else [nn.Linear(dim, mlp_dim), nn.GELU()]
            self.mlp = nn.Sequential(*hidden, Dropout(dropout), nn.Linear(mlp_dim, dim), Dropout(dropout))
        self.dropout = Dropout(dropout)
        self.stem = stem

    def forward(self, x: Tensor, mask: Tensor, stream: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Map rows (B, L, C) to rows, and the stream (B, R, C) of a `StreamMixer` to the next layer's."""
        if self.place == "pre":
            mixed, stream = self._mix(self.mixer_norm(x, mask), mask, x, stream)
            x = x + mixed
            return (x if self.mlp is None else x + self.mlp(self.mlp_norm(x, mask))), stream
        mixed, stream = self._mix(x, mask, x, stream)
        x = self.mixer_norm(x + mixed, mask)
        return (x if self.mlp is None else self.mlp_norm(x + self.mlp(x), mask)), stream

    def _mix(self, x: Tensor, mask: Tensor, residual: Tensor, stream: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Return what the mixer adds to the rows, and the stream with what it adds to that."""
        if self.stem is not None:
            x = self.stem(x, mask)
        if self.stream_norm is None or stream is None:
            more = {"residual": residual} if self.mixer.reads_residual else {}
            return self.dropout(self.mixer(x, mask, **more)), None
        # In post-norm blocks, too, it is normed where it comes in: nothing would read a norm behind the last layer.
        normed = self.stream_norm(stream, torch.ones(stream.shape[:2], dtype=torch.bool, device=stream.device))
        mixed, change = self.mixer(x, mask, normed)
        return self.dropout(mixed), (stream if self.place == "pre" else normed) + self.dropout(change)
