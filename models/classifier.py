"""A classifier around the encoder: it pools the rows of each input and classifies the inputs of an example together."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.checks import MOST_ROUNDS, at_least, one_of
from models.encoder import Encoder
from models.ops.precision import accumulation_dtype

POOLINGS = ("mean", "max", "cls")
PADDINGS_IN_MEAN = ("none", "zeros", "rows")
SHORTEST = 1e-4  # length of a vector that is scaled to 1: the gradient of an empty input, which is 0, stays finite
PAIR_FEATURES = ("nli", "concat", "cosine")


def masked_mean(x: Tensor, mask: Tensor, padding: str = "none", padded_length: int | None = None) -> Tensor:
    """Average (B, L, C) over the real positions of `mask` (B, L); 0 where a row has none.

    Args:
        x: the rows.
        mask: True on real positions.
        padding: "none"; "zeros" divides the same sum by the padded length, as Nystromformer's and Skeinformer's code
            does; "rows" averages all L rows as they are, as LRA's does: the result then depends on the padding.
        padded_length: what "zeros" divides by, however long the rows are here; None for L.
    """
    if padding == "rows":
        return x.mean(-2)
    total = x.masked_fill(~mask[..., None], 0).sum(-2)
    if padding == "zeros":
        return total / (x.shape[-2] if padded_length is None else padded_length)
    return total / mask.sum(-1, keepdim=True).clamp_min(1)


def masked_max(x: Tensor, mask: Tensor) -> Tensor:
    """Take the maximum of (B, L, C) over the real positions of `mask` (B, L); 0 where a row has none."""
    real = mask[..., None]
    return x.masked_fill(~real, -torch.inf).amax(-2).masked_fill(~real.any(-2), 0)


def cosine_features(x: Tensor, y: Tensor) -> Tensor:
    """Join x, y (B, C), a * b and |a - b| to (B, 4 C), with a and b the two scaled to length 1: in float32 at least."""
    a, b = (F.normalize(pooled.to(accumulation_dtype(pooled)), dim=-1, eps=SHORTEST) for pooled in (x, y))
    return torch.cat([x, y, (a * b).to(x.dtype), (a - b).abs().to(x.dtype)], -1)


class Classifier(nn.Module):
    """Encode every input with the same encoder, pool each, and classify them together.

    Args:
        encoder: maps tokens (B, L) and mask (B, L) to rows (B, L, C) and their mask.
        num_classes, num_inputs: of the task.
        mlp_dim: the width of the head's first hidden layer.
        pooling: "mean" or "max" of the real rows, or "cls", the row of the encoder's learned vector in front of them.
        padding_in_mean: of the mean alone: "none", "zeros" or "rows", see `masked_mean`.
        padded_length: what "zeros" divides by; None for the encoder's `max_len`.
        pair_features: two inputs x and y enter the head as [x, y, x * y, x - y], "nli", as in Nystromformer's and
            Skeinformer's Retrieval; as [x, y], "concat", as in LRA's; or as [x, y, a * b, |a - b|], "cosine", where a
            and b are x and y scaled to length 1, so that their sizes do not hide what they share.
        head_depth: linear layers of the head; hidden ones are `mlp_dim` wide, then half of it, and so on.

    Raises:
        ValueError: an option has a value it cannot have; or `pooling` is "cls" and the encoder has no learned vector in
            front, or the other way round; or padding counts in a mean of rows that the encoder has shortened.
    """

    def __init__(
        self,
        encoder: Encoder,
        *,
        num_classes: int,
        num_inputs: int,
        mlp_dim: int,
        pooling: str = "mean",
        padding_in_mean: str = "none",
        padded_length: int | None = None,
        pair_features: str = "nli",
        head_depth: int = 2,
    ) -> None:
        super().__init__()
        if num_inputs not in (1, 2):
            raise ValueError(f"num_inputs must be 1 or 2. Got {num_inputs}.")
        one_of(POOLINGS, **{"model.pooling": pooling})
        one_of(PADDINGS_IN_MEAN, **{"model.padding_in_mean": padding_in_mean})
        one_of(PAIR_FEATURES, **{"model.pair_features": pair_features})
        at_least(1, MOST_ROUNDS, **{"model.head_depth": head_depth})
        if head_depth > 1:  # the last hidden layer is one wide at least
            at_least(2 ** (head_depth - 2), **{"model.mlp_dim": mlp_dim})
        if (pooling == "cls") != (encoder.cls is not None):
            with_cls = pooling == "cls"
            raise ValueError(f"model.pooling={pooling} needs an encoder with with_cls={with_cls}. Got {not with_cls}.")
        if encoder.reducer.shortens and padding_in_mean != "none":
            raise ValueError(
                "model.padding_in_mean must be none where model.reducer shortens the sequences, whose padding is not "
                f"that of the data. Got {padding_in_mean}."
            )
        self.pooling = pooling
        self.padding_in_mean = padding_in_mean
        self.padded_length = encoder.max_len if padded_length is None else padded_length
        self.pair_features = pair_features
        self.encoder = encoder
        features = encoder.dim * (1 if num_inputs == 1 else 2 if pair_features == "concat" else 4)
        widths = [features, *(mlp_dim // 2**i for i in range(head_depth - 1)), num_classes]
        layers = [module for pair in pairwise(widths) for module in (nn.Linear(*pair), nn.ReLU())]
        self.head = nn.Sequential(*layers[:-1])

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """Classify.

        Args:
            tokens: (B, I, L) ids, of any integer type.
            mask: (B, I, L) bool, True on real tokens.

        Returns:
            (B, num_classes) logits.
        """
        encoded = self.encoder(tokens.flatten(0, 1), mask.flatten(0, 1))  # (B * I, L, C) and (B * I, L)
        pooled = self._pool(*encoded)
        if tokens.shape[1] == 1:
            return self.head(pooled)
        x, y = pooled.unflatten(0, (-1, 2)).unbind(1)  # (B, C) each
        if self.pair_features == "cosine":
            return self.head(cosine_features(x, y))
        features = [x, y, x * y, x - y] if self.pair_features == "nli" else [x, y]
        return self.head(torch.cat(features, dim=-1))

    def _pool(self, encoded: Tensor, mask: Tensor) -> Tensor:
        """Make one vector (B, C) of the rows (B, L, C) of each input."""
        if self.pooling == "cls":
            return encoded[:, 0]
        if self.pooling == "max":
            return masked_max(encoded, mask)
        return masked_mean(encoded, mask, self.padding_in_mean, self.padded_length)
