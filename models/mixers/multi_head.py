"""An attention as a mixer: projections, heads, the attention, output projection."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from models.attention import Attention
from models.checks import at_least
from models.mixers import Mixer

AttentionFactory = Callable[..., Attention]


class MultiHead(Mixer):
    """Projects every row to queries, keys and values of several heads, attends, and projects the heads together.

    Args:
        attention: makes the attention from `num_heads`, `head_dim`, `max_len` and `dropout`.
        num_heads: H.
        head_dim: D, the width of a head.
        dim: C.
        max_len: the longest sequence.
        dropout: the rate on the attention weights, where an attention has them.

    Raises:
        ValueError: `num_heads` or `head_dim` is not a positive integer.
    """

    def __init__(
        self, attention: AttentionFactory, *, num_heads: int, head_dim: int, dim: int, max_len: int, dropout: float
    ) -> None:
        super().__init__(dim=dim, max_len=max_len, dropout=dropout)
        at_least(1, **{"model.num_heads": num_heads, "model.head_dim": head_dim})
        self.num_heads = num_heads
        # First, since the order in which parameters are drawn decides what a seed gives.
        mechanism = attention(num_heads=num_heads, head_dim=head_dim, max_len=max_len, dropout=dropout)
        width, bias = num_heads * head_dim, mechanism.projection_bias
        self.query = nn.Linear(dim, width, bias)
        # One projection for both where the attention asks for it, so that query i and key i are the same vector.
        self.key = self.query if mechanism.shared_qk else nn.Linear(dim, width, bias)
        self.value = nn.Linear(dim, width, bias)
        self.attention = mechanism
        self.out = nn.Linear(width, dim)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """See the contract."""
        # What turns or scales the heads of any attention, such as rotary positions, belongs between these two lines.
        q, k, v = (self._heads(project(x)) for project in (self.query, self.key, self.value))
        heads = self.attention(q, k, v, mask).transpose(1, 2).flatten(2)
        # Attentions leave padded rows unspecified; here, once for all of them, they become 0.
        return self.out(heads).masked_fill(~mask[..., None], 0)

    def _heads(self, rows: Tensor) -> Tensor:
        """Split (B, L, H * D) into (B, H, L, D)."""
        return rows.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
