"""The one Transformer of the harness: embeddings, pre-norm blocks, masked mean pooling, a classifier head.

Its defaults are the small encoder of the Nystromformer, YOSO and Skeinformer code bases. The attention mechanism is
handed in as a factory, so that this file knows none of them. Shape letters: B batch, I inputs, L length, C width,
H heads, D width of a head.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from models.attention import Attention
from models.dropout import Dropout

AttentionFactory = Callable[..., Attention]


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
    """Token and learned position embeddings, `depth` blocks, a final norm.

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
        real_valued: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__()
        self.max_len = max_len
        self.real_valued = real_valued
        self.token = nn.Embedding(vocab_size, dim) if real_valued is None else nn.Linear(1, dim)
        self.position = nn.Embedding(max_len, dim)
        for module in (self.token, self.position):
            if isinstance(module, nn.Embedding):
                nn.init.normal_(module.weight, std=0.02)
        self.dropout = Dropout(dropout)
        self.blocks = nn.ModuleList(
            Block(
                attention(num_heads=num_heads, head_dim=head_dim, max_len=max_len, dropout=attention_dropout),
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
            (B, L, C); rows of padded positions are finite but unspecified.

        Raises:
            ValueError: the sequences are longer than `max_len`.
        """
        length = tokens.shape[-1]
        if length > self.max_len:
            raise ValueError(
                f"The sequences are {length} tokens long, but the model was built for max_len={self.max_len}. "
                "Build it for longer ones, or shorten the sequences."
            )
        positions = torch.arange(length, device=tokens.device)
        x = self.dropout(self.token(self._symbols(tokens)) + self.position(positions))
        for block in self.blocks:
            x = block(x, mask)
        return self.norm(x)

    def _symbols(self, tokens: Tensor) -> Tensor:
        if self.real_valued is None:
            return tokens.int()
        numbers = tokens[..., None].to(self.position.weight.dtype)
        return (numbers - self.real_valued["mean"]) / self.real_valued["std"]


def masked_mean(x: Tensor, mask: Tensor) -> Tensor:
    """Average (B, L, C) over the real positions of `mask` (B, L); 0 where a row has none."""
    return x.masked_fill(~mask[..., None], 0).sum(-2) / mask.sum(-1, keepdim=True).clamp_min(1)


class Classifier(nn.Module):
    """Encode every input with the same encoder, pool each, and classify them together.

    Two inputs x and y enter the head as [x, y, x * y, x - y], as in Nystromformer's and Skeinformer's Retrieval.
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
        real_valued: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__()
        if num_inputs not in (1, 2):
            raise ValueError(f"num_inputs must be 1 or 2. Got {num_inputs}.")
        self.encoder = Encoder(
            attention,
            vocab_size=vocab_size,
            max_len=max_len,
            dim=dim,
            depth=depth,
            num_heads=num_heads,
            head_dim=head_dim,
            mlp_dim=mlp_dim,
            dropout=dropout,
            attention_dropout=attention_dropout,
            real_valued=real_valued,
        )
        self.head = nn.Sequential(
            nn.Linear(dim if num_inputs == 1 else 4 * dim, mlp_dim), nn.ReLU(), nn.Linear(mlp_dim, num_classes)
        )

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """Classify.

        Args:
            tokens: (B, I, L) ids, of any integer type.
            mask: (B, I, L) bool, True on real tokens.

        Returns:
            (B, num_classes) logits.
        """
        encoded = self.encoder(tokens.flatten(0, 1), mask.flatten(0, 1))  # (B * I, L, C)
        pooled = masked_mean(encoded, mask.flatten(0, 1)).unflatten(0, tokens.shape[:2])  # (B, I, C)
        if pooled.shape[1] == 1:
            features = pooled[:, 0]
        else:
            x, y = pooled.unbind(1)
            features = torch.cat([x, y, x * y, x - y], dim=-1)
        return self.head(features)
