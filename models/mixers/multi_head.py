"""An attention as a mixer: projections, heads, positions inside the attention, the attention, output projection."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from models.attention import Attention
from models.checks import UnsuitedError, at_least, one_of
from models.mixers import Mixer
from models.positions import KINDS
from models.positions.alibi import Alibi
from models.positions.rotary import Rotary

AttentionFactory = Callable[..., Attention]


class MultiHead(Mixer):
    """Projects every row to queries, keys and values of several heads, attends, and projects the heads together.

    Args:
        attention: makes the attention from `num_heads`, `head_dim`, `max_len` and `dropout`.
        num_heads: H.
        head_dim: D, the width of a head.
        positions: "rotary" turns queries and keys in front of the attention, whatever it makes of them; "alibi" adds to
            its scores. The others are the encoder's, which adds them to rows.
        with_cls: the first row is a learned vector, which is no token. Rotary positions leave it as it is, since it is
            at place 0, and ALiBi takes nothing from its scores.
        dim: C.
        max_len: the longest sequence, such a vector included.
        dropout: the rate on the attention weights, where an attention has them.

    Raises:
        ValueError: `num_heads` or `head_dim` is not a positive integer, or the attention cannot take the positions.
    """

    def __init__(
        self,
        attention: AttentionFactory,
        *,
        num_heads: int,
        head_dim: int,
        positions: str = "none",
        with_cls: bool = False,
        dim: int,
        max_len: int,
        dropout: float,
    ) -> None:
        super().__init__(dim=dim, max_len=max_len, dropout=dropout)
        at_least(1, **{"model.num_heads": num_heads, "model.head_dim": head_dim})
        one_of(KINDS, **{"model.positions": positions})
        self.num_heads = num_heads
        # First, since the order in which parameters are drawn decides what a seed gives.
        mechanism = attention(num_heads=num_heads, head_dim=head_dim, max_len=max_len, dropout=dropout)
        _check_positions(positions, mechanism)
        width, bias = num_heads * head_dim, mechanism.projection_bias
        self.query = nn.Linear(dim, width, bias)
        # One projection for both where the attention asks for it, so that query i and key i are the same vector.
        self.key = self.query if mechanism.shared_qk else nn.Linear(dim, width, bias)
        self.value = nn.Linear(dim, width, bias)
        self.attention = mechanism
        self.out = nn.Linear(width, dim)
        self.rotary = Rotary(head_dim, max_len) if positions == "rotary" else None
        self.alibi = Alibi(num_heads, with_cls=with_cls) if positions == "alibi" else None

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """See the contract."""
        q, k, v = (self._heads(project(x)) for project in (self.query, self.key, self.value))
        if self.rotary is not None:
            q, k = self.rotary(q), self.rotary(k)
        more: dict[str, Any] = {} if self.alibi is None else {"bias": self.alibi}
        heads = self.attention(q, k, v, mask, **more).transpose(1, 2).flatten(2)
        # Attentions leave padded rows unspecified; here, once for all of them, they become 0.
        return self.out(heads).masked_fill(~mask[..., None], 0)

    def _heads(self, rows: Tensor) -> Tensor:
        """Split (B, L, H * D) into (B, H, L, D)."""
        return rows.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)


def _check_positions(positions: str, attention: Attention) -> None:
    """Refuse positions that an attention would not see."""
    name = type(attention).__name__
    if positions == "rotary" and attention.unread:
        raise UnsuitedError(
            f"model.positions=rotary turns queries and keys, and {name} never reads its "
            f"{' and '.join(attention.unread)}. Choose learned, sinusoidal or none."
        )
    if positions == "alibi" and not attention.takes_bias:
        others = "learned, sinusoidal or none" if attention.unread else "rotary, learned, sinusoidal or none"
        raise UnsuitedError(
            f"model.positions=alibi needs scores that a bias can be added to, and {name} has none. Choose {others}."
        )
