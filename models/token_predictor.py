"""The encoder with a linear layer behind it that predicts tokens: what is pre-trained, before a classifier is trained.

Amos, Berant, Gupta 2024, "Never Train from Scratch", arXiv 2310.02980. The row that stands for a hidden token belongs
to the predictor, so that the encoder is the classifier's to the last weight.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.encoder import Encoder


class TokenPredictor(nn.Module):
    """Predict every token from what the encoder makes of the others, or of those before it.

    A hidden symbol has the embedding of a further one, `<mask>`, whose id is `vocab_size`. A hidden number enters as
    its mean, 0, with a further input channel that is 1 there and 0 elsewhere.

    Args:
        encoder: maps rows (B, L, C) to rows, and has no reducer.
        num_outputs: the size of the vocabulary, or 1 where a number is predicted.
        hides: whether tokens may be hidden.
        embedding_std: of the initial row of `<mask>`.

    Raises:
        ValueError: the encoder shortens the sequence.
    """

    def __init__(self, encoder: Encoder, *, num_outputs: int, hides: bool, embedding_std: float = 0.02) -> None:
        super().__init__()
        if encoder.reducer.shortens:
            raise ValueError("A token predictor needs a row of every token. Set model.reducer.kind=none.")
        self.encoder = encoder
        self.hidden = nn.Parameter(embedding_std * torch.randn(encoder.dim)) if hides else None
        self.decoder = nn.Linear(encoder.dim, num_outputs)

    def forward(self, tokens: Tensor, mask: Tensor, hidden: Tensor | None = None) -> Tensor:
        """Predict.

        Args:
            tokens: (B, L) ids, of any integer type.
            mask: (B, L) bool, True on real tokens.
            hidden: (B, L) bool, True on tokens that the encoder must not see; None for none.

        Returns:
            (B, L, num_outputs), read off the row of each token.
        """
        x = self.encoder.embed(tokens)
        if hidden is not None:
            x = torch.where(hidden[..., None], self._hidden_row().to(x.dtype), x)
        rows = self.encoder.encode(x, mask).rows
        return self.decoder(rows if self.encoder.cls is None else rows[:, 1:])

    def _hidden_row(self) -> Tensor:
        """Return what stands for a hidden token, (C)."""
        assert self.hidden is not None
        token = self.encoder.token
        # 0 times the first channel's weights, 1 times the second's.
        return self.hidden + token.bias if isinstance(token, nn.Linear) else self.hidden
