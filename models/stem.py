"""A short convolution that makes local features, the same for every mixer, so that mixers differ on what is far.

Convolutions in front of a mixer are common (Mamba's, Hyena's); a stack of them alone comes close to long-range models
on several tasks of the benchmark (Miralles-Gonzalez et al. 2025, arXiv 2501.14850).

The convolution is depthwise: each channel has K weights. For pixels as numbers that is already any map from K pixels to
C features, since each channel of the linear embedding is the pixel times a weight of its own. For symbols a dense one
would mix channels too, which the next projection does; it has C times as many parameters, more than a small encoder.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from models.checks import MOST_ROUNDS, odd, one_of
from models.ops.short_convolution import ShortConvolution

KINDS = ("none", "conv")
PLACES = ("embedding", "blocks", "both")


@dataclass(frozen=True)
class StemShape:
    """Whether there is a stem, how wide, and where.

    Args:
        kind: "none" or "conv".
        width: how many tokens one row sees, odd.
        place: "embedding": once, between tokens and positions; "blocks": in every layer, in front of the mixer and
            behind a norm that stands there; "both".

    Raises:
        ValueError: an option has a value it cannot have.
    """

    kind: Literal["none", "conv"] = "none"
    width: int = 3
    place: Literal["embedding", "blocks", "both"] = "embedding"

    def __post_init__(self) -> None:
        one_of(KINDS, **{"model.stem.kind": self.kind})
        one_of(PLACES, **{"model.stem.place": self.place})
        odd(MOST_ROUNDS, **{"model.stem.width": self.width})

    def of_embedding(self, dim: int) -> Stem | None:
        """Make the stem behind the embedding, None where there is none."""
        return Stem(dim, self.width) if self.kind == "conv" and self.place != "blocks" else None

    def of_block(self, dim: int, *, with_cls: bool) -> Stem | None:
        """Make the stem of a block, None where there is none."""
        return Stem(dim, self.width, with_cls=with_cls) if self.kind == "conv" and self.place != "embedding" else None


NO_STEM = StemShape()


class Stem(nn.Module):
    """x + gelu(conv(x)) over the real tokens; rows of padding stay as they are.

    Args:
        dim: C.
        width: K, the width of the convolution in tokens.
        with_cls: the first row is a learned vector, which is no token: it stays as it is, and no token sees it.
    """

    def __init__(self, dim: int, width: int, *, with_cls: bool = False) -> None:
        super().__init__()
        self.with_cls = with_cls
        self.convolution = ShortConvolution(dim, width)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Map rows (B, L, C), of which `mask` (B, L) is True on the real ones."""
        first = int(self.with_cls)
        local = F.gelu(self.convolution(x[:, first:], mask[:, first:]))
        return x + F.pad(local, (0, 0, first, 0))
