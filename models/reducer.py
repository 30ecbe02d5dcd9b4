"""Shortens the sequence between the layers of an encoder, whatever mixes its tokens, as Pyramid-BERT does.

Huang et al. 2022, "Pyramid-BERT: Reducing Complexity via Successive Core-set based Token Selection", arXiv 2203.14380.
Behind every layer but the last, the tokens that a greedy k-centre algorithm chooses by their rows go on to the next
layer; the share of tokens that are left decays exponentially with depth. It is a reconstruction from the paper's
abstract and from what others say of it, as there is no public code: hence the `_r` in its name. The paper shortens a
trained model while it is fine-tuned; here the model is trained so from the start.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from models.checks import one_of, positive
from models.ops.precision import accumulation_dtype
from models.ops.rows import take_tokens

KINDS = ("none", "k_centre_r")
ROUNDING = 1e-9  # of a count: 0.8 of 25, and 0.8 of that, is 16 tokens, although floating point has it a little above


class Shortened(NamedTuple):
    """What is left of sequences.

    Attributes:
        rows: (B, K, C), those of a sequence in their old order, then zeros.
        mask: (B, K) bool, True on rows that were kept.
        positions: (B, K) places of the rows in the longer sequences; that of the last one where none was kept.
    """

    rows: Tensor
    mask: Tensor
    positions: Tensor


@dataclass(frozen=True)
class Reducer:
    """How many tokens go on to the next layer, and which.

    Args:
        kind: "none", or "k_centre_r": the first token, and then again and again the one farthest from all that are
            kept, by the Euclidean distance of their rows.
        retention: the share of its real tokens that a sequence has left behind each layer, rounded up.

    Raises:
        ValueError: an option has a value it cannot have.
    """

    kind: Literal["none", "k_centre_r"] = "none"
    retention: float = 0.8

    def __post_init__(self) -> None:
        one_of(KINDS, **{"model.reducer.kind": self.kind})
        positive(**{"model.reducer.retention": self.retention})
        if self.retention > 1:
            raise ValueError(f"model.reducer.retention must be at most 1. Got {self.retention!r}.")

    @property
    def shortens(self) -> bool:
        """Whether it ever leaves a token out."""
        return self.kind != "none" and self.retention < 1

    def shorten(self, x: Tensor, mask: Tensor, whole: Tensor, layer: int) -> Shortened:
        """Keep the tokens that go on behind a layer, counted from 1.

        Args:
            x: rows (B, L, C) behind the layer.
            mask: (B, L) bool, True on real tokens.
            whole: (B, L0) bool, the mask in front of the first layer. A sequence keeps a share of its own tokens, so
                that neither padding nor batch mates count; the length of the result depends on L0 alone.
            layer: the number of layers that x has gone through.

        Returns:
            What is left. Gradients reach kept rows only.
        """
        share = self.retention**layer
        tokens = whole.sum(-1)
        counts = torch.minimum((tokens.double() * share - ROUNDING).ceil().long().clamp(min=1), tokens)
        size = max(1, math.ceil(whole.shape[1] * share - ROUNDING))
        order = farthest_first(x.detach(), mask, size)
        length = x.shape[1]
        dropped = torch.arange(size, device=x.device) >= counts[:, None]
        positions = order.masked_fill(dropped, length).sort(-1).values
        kept = positions < length
        positions = positions.clamp(max=length - 1)
        return Shortened(take_tokens(x, positions).masked_fill(~kept[..., None], 0), kept, positions)


@torch.compiler.disable  # a graph of thousands of steps would take the compiler hours
def farthest_first(x: Tensor, mask: Tensor, size: int) -> Tensor:
    """Choose tokens by greedy k-centre: O(L) time for each, one after the other.

    Args:
        x: rows (B, L, C).
        mask: (B, L) bool, True on real tokens.
        size: how many to choose.

    Returns:
        (B, size) positions in the order of choice: the first real token, then always the one farthest from the nearest
        of those chosen, the first among equals. Where all real ones are chosen, the rest is unspecified.
    """
    x = x.to(accumulation_dtype(x))
    # To the nearest chosen token, squared; -1 where a token cannot be chosen, or is already.
    distance = torch.full_like(mask, torch.inf, dtype=x.dtype).masked_fill_(~mask, -1)
    chosen = []
    for _ in range(size):
        farthest = distance.argmax(-1, keepdim=True)
        chosen.append(farthest)
        apart = (x - take_tokens(x, farthest)).square().sum(-1)
        distance = torch.minimum(distance, apart).scatter(1, farthest, -1)
    return torch.cat(chosen, 1)
