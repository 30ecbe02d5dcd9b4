"""The one encoder of the harness: embeddings, positions, blocks around any mixer.

Its defaults are the small Transformer of the Nystromformer, YOSO and Skeinformer code bases. Its options are what these
code bases and google-research/long-range-arena do differently. The mixers come from a factory, so that this file knows
none of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.block import TRANSFORMER, Block, BlockShape
from models.checks import MOST_ROUNDS, at_least, finite, not_negative, positive, rate
from models.dropout import Dropout
from models.mechanism import Mechanism
from models.mixers import Mixer, StreamMixer
from models.norms import NORMS
from models.positions.added import LEARNED_STD, positions_of
from models.reducer import Reducer
from models.stem import NO_STEM, StemShape

MixerFactory = Callable[..., Mixer]

WHOLE = Reducer()


class Encoded(NamedTuple):
    """Rows (B, L, C) behind the last block, and which of them are real, (B, L) bool.

    Rows of padding depend on their own tokens alone. A reducer leaves fewer than L; a learned vector's is first.
    """

    rows: Tensor
    mask: Tensor


class Encoder(nn.Module):
    """Token and position embeddings, a stem between the two, blocks, and, if they are pre-norm, a norm behind the last.

    Args:
        mixer: makes the mixer of a block from `dim`, `max_len` and `dropout`.
        vocab_size: of the task.
        max_len: the longest sequence to build for.
        dim, depth, mlp_dim: C, blocks, and the hidden width of a block's perceptron.
        dropout, mixer_dropout: rates in the encoder, and in the mixers.
        embedding_std: of the tokens' initial embeddings.
        positions: "learned" or "sinusoidal" are added to the rows, and nothing is with the others of
            `models.positions.KINDS`: "rotary" and "alibi" act in an attention, which is made with them.
        with_cls: put a learned vector in front of the sequence, at position 0 and never masked; it is no token.
        real_valued: None where a token is a symbol. Where it is a number, the `mean` and the `std` of the tokens: the
            number is standardised and enters through a linear layer, as S4's pixels (arXiv 2111.00396).
        block: what stands around the mixers.
        reducer: what shortens the sequence from block to block.
        stem: what makes local features in front of the mixers.

    Raises:
        ValueError: an option has a value it cannot have.
    """

    def __init__(
        self,
        mixer: MixerFactory,
        *,
        vocab_size: int,
        max_len: int,
        dim: int,
        depth: int,
        mlp_dim: int,
        dropout: float,
        mixer_dropout: float,
        embedding_std: float = 0.02,
        positions: str = "learned",
        with_cls: bool = False,
        real_valued: Mapping[str, float] | None = None,
        block: BlockShape = TRANSFORMER,
        reducer: Reducer = WHOLE,
        stem: StemShape = NO_STEM,
    ) -> None:
        super().__init__()
        at_least(1, **{"model.dim": dim, "model.mlp_dim": mlp_dim})
        at_least(1, MOST_ROUNDS, **{"model.depth": depth})
        rate(**{"model.dropout": dropout, "model.attention_dropout": mixer_dropout})
        not_negative(**{"model.embedding_std": embedding_std})
        if real_valued is not None:
            _check_real_valued(real_valued)
        self.dim = dim
        self.max_len = max_len
        self.real_valued = real_valued
        self.reducer = reducer
        num_positions = max_len + with_cls
        self.token = nn.Embedding(vocab_size, dim) if real_valued is None else nn.Linear(1, dim)
        self.position = positions_of(positions, num_positions, dim)
        for module, std in ((self.token, embedding_std), (self.position, LEARNED_STD)):
            if isinstance(module, nn.Embedding):
                nn.init.normal_(module.weight, std=std)
        self.cls = nn.Parameter(torch.zeros(dim)) if with_cls else None  # 0 at first, as in LRA's code
        self.dropout = Dropout(dropout)
        self.stem = stem.of_embedding(dim)
        make_block = partial(Block, shape=block, dim=dim, mlp_dim=mlp_dim, dropout=dropout)
        sizes = {"dim": dim, "max_len": num_positions, "dropout": mixer_dropout}
        self.blocks = nn.ModuleList(
            make_block(mixer(**sizes), stem=stem.of_block(dim, with_cls=with_cls)) for _ in range(depth)
        )
        _share(self.blocks)
        self.norm = NORMS[block.norm](dim) if block.place == "pre" else None

    def forward(self, tokens: Tensor, mask: Tensor) -> Encoded:
        """Encode.

        Args:
            tokens: (B, L) ids, of any integer type.
            mask: (B, L) bool, True on real tokens.

        Raises:
            ValueError: the sequences are longer than `max_len`.
        """
        return self.encode(self.embed(tokens), mask)

    def embed(self, tokens: Tensor) -> Tensor:
        """Make a row of every token alone, (B, L, C), of ids (B, L).

        Raises:
            ValueError: the sequences are longer than `max_len`.
        """
        length = tokens.shape[-1]
        if length > self.max_len:
            raise ValueError(
                f"The sequences are {length} tokens long, but the model was built for max_len={self.max_len}. "
                "Build it for longer ones, or shorten the sequences."
            )
        return self.token(self._symbols(tokens))

    def encode(self, x: Tensor, mask: Tensor) -> Encoded:
        """Encode what `embed` gives, of which some rows may have been replaced."""
        if self.stem is not None:
            x = self.stem(x, mask)
        if self.cls is not None:
            x = torch.cat([self.cls.to(x.dtype).expand(len(x), 1, -1), x], 1)
            mask = F.pad(mask, (1, 0), value=True)
        if self.position is not None:
            x = x + self.position(torch.arange(x.shape[1], device=x.device))
        encoded = self._mix(self.dropout(x), mask)
        return encoded if self.norm is None else Encoded(self.norm(*encoded), encoded.mask)

    def _mix(self, x: Tensor, mask: Tensor) -> Encoded:
        """Pass rows through all blocks."""
        whole, mixer = mask, self.blocks[0].mixer
        stream = mixer.first.to(x.dtype).expand(len(x), -1, -1) if isinstance(mixer, StreamMixer) else None
        for layer, block in enumerate(self.blocks):
            if layer and self.reducer.shortens:
                x, mask, _ = self.reducer.shorten(x, mask, whole, layer)
            x, stream = block(x, mask, stream)
        return Encoded(x, mask)

    def _symbols(self, tokens: Tensor) -> Tensor:
        if self.real_valued is None:
            return tokens.int()
        numbers = tokens[..., None].to(self.token.weight.dtype)
        return (numbers - self.real_valued["mean"]) / self.real_valued["std"]


def _check_real_valued(statistics: Mapping[str, float]) -> None:
    """Check that there are a finite mean and a positive standard deviation, and nothing else."""
    if set(statistics) != {"mean", "std"}:
        raise ValueError(f"model.real_valued must have mean and std, and nothing else. Got {dict(statistics)}.")
    finite(**{"model.real_valued.mean": statistics["mean"]})
    positive(**{"model.real_valued.std": statistics["std"]})


def _share(blocks: nn.ModuleList) -> None:
    """Give all blocks those parameters of the first one that its mechanism shares between layers."""
    for name, part in blocks[0].named_modules():
        for parameter in part.shared if isinstance(part, Mechanism) else ():
            for block in blocks[1:]:
                setattr(block.get_submodule(name), parameter, getattr(part, parameter))
