"""The one Transformer of the harness: embeddings, pre-norm blocks, pooling, a classifier head.

Its defaults are the small encoder of the Nystromformer, YOSO and Skeinformer code bases, with padding left out of the
mean; its options are what they and google-research/long-range-arena have otherwise. The attention mechanism is handed
in as a factory, so that this file knows none of them. Shape letters: B batch, I inputs, L length, C width, H heads,
D width of a head.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.attention import Attention
from models.dropout import Dropout
from models.positions.added import LEARNED_STD, positions_of

AttentionFactory = Callable[..., Attention]

POOLINGS = ("mean", "cls")
PADDINGS_IN_MEAN = ("none", "zeros", "rows")
PAIR_FEATURES = ("nli", "concat")


class MultiHeadAttention(nn.Module):
    """Projections, split into heads, a mechanism, merge, output projection."""

    def __init__(self, attention: Attention, *, dim: int, num_heads: int, head_dim: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.query = nn.Linear(dim, num_heads * head_dim)
        # One projection for both where the mechanism asks for it, so that query i and key i are the same vector.
        self.key = self.query if attention.shared_qk else nn.Linear(dim, num_heads * head_dim)
        self.value = nn.Linear(dim, num_heads * head_dim)
        self.attention = attention
        self.out = nn.Linear(num_heads * head_dim, dim)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Map (B, L, C) to (B, L, C); rows of padded positions are 0."""
        q, k, v = (
            project(x).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)  # (B, H, L, D)
            for project in (self.query, self.key, self.value)
        )
        heads = self.attention(q, k, v, mask).transpose(1, 2).flatten(2)
        # The mechanisms leave padded rows unspecified; here, once for all of them, they become 0.
        return self.out(heads).masked_fill(~mask[..., None], 0)


class Block(nn.Module):
    """One pre-norm Transformer layer: attention and a two-layer perceptron, each with dropout and a residual."""

    def __init__(
        self, attention: Attention, *, dim: int, num_heads: int, head_dim: int, mlp_dim: int, dropout: float
    ) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(dim)
        self.attention = MultiHeadAttention(attention, dim=dim, num_heads=num_heads, head_dim=head_dim)
        self.mlp_norm = nn.LayerNorm(dim)
        self.mlp = nn.Sequential(
            nn.Linear(dim, mlp_dim), nn.GELU(), Dropout(dropout), nn.Linear(mlp_dim, dim), Dropout(dropout)
        )
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Map (B, L, C) to (B, L, C)."""
        x = x + self.dropout(self.attention(self.attention_norm(x), mask))
        return x + self.mlp(self.mlp_norm(x))


class Encoder(nn.Module):
    """Token and position embeddings, `depth` blocks, a final norm.

    With `with_cls` a learned vector stands in front of the sequence, at position 0 and never masked; it is no token.
    With `real_valued`, the mean and the standard deviation of the tokens, a token is no symbol but a number: it is
    standardised and enters through a linear layer, as in S4 (Gu, Goel, Re 2022, arXiv 2111.00396) on pixels.
    """

    def __init__(
        self,
        attention: AttentionFactory,
        *,
        vocab_size: int,
        max_len: int,
        dim: int,
        depth: int,
        num_heads: int,
        head_dim: int,
        mlp_dim: int,
        dropout: float,
        attention_dropout: float,
        embedding_std: float,
        positions: str,
        with_cls: bool,
        real_valued: Mapping[str, float] | None,
    ) -> None:
        super().__init__()
        self.max_len = max_len
        self.real_valued = real_valued
        num_positions = max_len + with_cls
        self.token = nn.Embedding(vocab_size, dim) if real_valued is None else nn.Linear(1, dim)
        self.position = positions_of(positions, num_positions, dim)
        for module, std in ((self.token, embedding_std), (self.position, LEARNED_STD)):
            if isinstance(module, nn.Embedding):
                nn.init.normal_(module.weight, std=std)
        self.cls = nn.Parameter(torch.zeros(dim)) if with_cls else None  # 0 at first, as in LRA's code
        self.dropout = Dropout(dropout)
        self.blocks = nn.ModuleList(
            Block(
                attention(num_heads=num_heads, head_dim=head_dim, max_len=num_positions, dropout=attention_dropout),
                dim=dim,
                num_heads=num_heads,
                head_dim=head_dim,
                mlp_dim=mlp_dim,
                dropout=dropout,
            )
            for _ in range(depth)
        )
        self.norm = nn.LayerNorm(dim)

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """Encode.

        Args:
            tokens: (B, L) ids, of any integer type.
            mask: (B, L) bool, True on real tokens.

        Returns:
            (B, L, C), or (B, 1 + L, C) with the learned vector's row first. Rows of padded positions are what becomes
            of their tokens without attention.

        Raises:
            ValueError: the sequences are longer than `max_len`.
        """
        length = tokens.shape[-1]
        if length > self.max_len:
            raise ValueError(
                f"The sequences are {length} tokens long, but the model was built for max_len={self.max_len}. "
                "Build it for longer ones, or shorten the sequences."
            )
        x = self.token(self._symbols(tokens))
        if self.cls is not None:
            x = torch.cat([self.cls.to(x.dtype).expand(len(x), 1, -1), x], 1)
            mask = F.pad(mask, (1, 0), value=True)
        if self.position is not None:
            x = x + self.position(torch.arange(x.shape[1], device=tokens.device))
        x = self.dropout(x)
        for block in self.blocks:
            x = block(x, mask)
        return self.norm(x)

    def _symbols(self, tokens: Tensor) -> Tensor:
        if self.real_valued is None:
            return tokens.int()
        numbers = tokens[..., None].to(self.token.weight.dtype)
        return (numbers - self.real_valued["mean"]) / self.real_valued["std"]


def masked_mean(x: Tensor, mask: Tensor, padding: str = "none", padded_length: int | None = None) -> Tensor:
    """Average (B, L, C) over the real positions of `mask` (B, L); 0 where a row has none.

    Args:
        x: the rows.
        mask: True on real positions.
        padding: "none"; "zeros" divides the same sum by the padded length, as Nystromformer's and Skeinformer's code;
            "rows" averages all L rows as they are, as LRA's: then the result depends on how much padding there is.
        padded_length: that "zeros" divides by, however long the rows here are; None for L.
    """
    if padding == "rows":
        return x.mean(-2)
    total = x.masked_fill(~mask[..., None], 0).sum(-2)
    if padding == "zeros":
        return total / (x.shape[-2] if padded_length is None else padded_length)
    return total / mask.sum(-1, keepdim=True).clamp_min(1)


class Classifier(nn.Module):
    """Encode every input with the same encoder, pool each, and classify them together.

    Args:
        attention: makes the mechanism of a block from `num_heads`, `head_dim`, `max_len` and `dropout`.
        vocab_size, max_len, num_classes, num_inputs: of the task.
        dim, depth, num_heads, head_dim, mlp_dim: C, blocks, H, D, and the hidden width of blocks and head.
        dropout, attention_dropout: rates in the encoder, and on the attention weights where a mechanism has them.
        embedding_std: of the tokens' initial embeddings.
        positions: "learned", "sinusoidal" or "none".
        num_positions: longest sequence to build for, if it is to be longer than `max_len`.
        pooling: "mean" of the rows, or "cls", the row of a learned vector in front of the sequence.
        padding_in_mean: "none", "zeros" or "rows", see `masked_mean`.
        padded_length: what "zeros" divides by; None for `max_len`.
        pair_features: two inputs x and y enter the head as [x, y, x * y, x - y], "nli", as in Nystromformer's and
            Skeinformer's Retrieval, or as [x, y], "concat", as in LRA's.
        head_depth: linear layers of the head; hidden ones are `mlp_dim` wide, then half of it, and so on.
        real_valued: see `Encoder`.

    Raises:
        ValueError: an option has no such value.
    """

    def __init__(
        self,
        attention: AttentionFactory,
        *,
        vocab_size: int,
        max_len: int,
        num_classes: int,
        num_inputs: int,
        dim: int,
        depth: int,
        num_heads: int,
        head_dim: int,
        mlp_dim: int,
        dropout: float,
        attention_dropout: float,
        embedding_std: float = 0.02,
        positions: str = "learned",
        num_positions: int | None = None,
        pooling: str = "mean",
        padding_in_mean: str = "none",
        padded_length: int | None = None,
        pair_features: str = "nli",
        head_depth: int = 2,
        real_valued: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__()
        if num_inputs not in (1, 2):
            raise ValueError(f"num_inputs must be 1 or 2. Got {num_inputs}.")
        _check_choice("pooling", pooling, POOLINGS)
        _check_choice("padding_in_mean", padding_in_mean, PADDINGS_IN_MEAN)
        _check_choice("pair_features", pair_features, PAIR_FEATURES)
        sizes = {
            "dim": dim, "depth": depth, "num_heads": num_heads, "head_dim": head_dim, "mlp_dim": mlp_dim,
            "head_depth": head_depth,
        }  # fmt: skip
        for name, size in sizes.items():
            if not isinstance(size, int) or size < 1:
                raise ValueError(f"model.{name} must be an integer, at least 1. Got {size!r}.")
        if num_positions is not None and num_positions < max_len:
            raise ValueError(
                f"model.num_positions must be at least {max_len}, the task's longest sequence. Got {num_positions}."
            )
        if padded_length is not None and padded_length < max_len:
            raise ValueError(
                f"data.padded_length must be at least {max_len}, the task's longest sequence. Got {padded_length}."
            )
        self.pooling = pooling
        self.padding_in_mean = padding_in_mean
        self.padded_length = max_len if padded_length is None else padded_length
        self.pair_features = pair_features
        self.encoder = Encoder(
            attention,
            vocab_size=vocab_size,
            max_len=num_positions or max_len,
            dim=dim,
            depth=depth,
            num_heads=num_heads,
            head_dim=head_dim,
            mlp_dim=mlp_dim,
            dropout=dropout,
            attention_dropout=attention_dropout,
            embedding_std=embedding_std,
            positions=positions,
            with_cls=pooling == "cls",
            real_valued=real_valued,
        )
        features = dim * (1 if num_inputs == 1 else 4 if pair_features == "nli" else 2)
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
        rows = mask.flatten(0, 1)
        encoded = self.encoder(tokens.flatten(0, 1), rows)  # (B * I, L, C)
        pooled = encoded[:, 0] if self.pooling == "cls" else self._mean(encoded, rows)
        if tokens.shape[1] == 1:
            return self.head(pooled)
        x, y = pooled.unflatten(0, (-1, 2)).unbind(1)  # (B, C) each
        features = [x, y, x * y, x - y] if self.pair_features == "nli" else [x, y]
        return self.head(torch.cat(features, dim=-1))

    def _mean(self, encoded: Tensor, mask: Tensor) -> Tensor:
        return masked_mean(encoded, mask, self.padding_in_mean, self.padded_length)


def _check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    if value not in choices:
        raise ValueError(f"model.{name} must be one of {', '.join(choices)}. Got {value!r}.")
