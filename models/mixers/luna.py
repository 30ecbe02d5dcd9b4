"""Luna: attention by way of a few rows that every layer packs the sequence into, and hands to the next layer.

Ma et al. 2021, "Luna: Linear Unified Nested Attention", arXiv 2106.01540, Section 3. Heads, tied keys and values, and
what has a projection behind it are as in its code (github.com/XuezheMax/fairseq-apollo).

Departures from that code: no dropout on the attention weights; with `model.block.place=post` the rows are normed as
they come into a layer, so that the learned ones are normed, too, and the last layer has no norm that nothing reads;
projections start as torch's linear layers do, not scaled.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.checks import at_least
from models.mechanism import Card
from models.mixers import StreamMixer
from models.ops.masks import real_keys


class Luna(StreamMixer):
    """P' = Attn(P, X, X) packs the sequence X into the rows of P; Y = Attn(X, P', P') unpacks them.

    Args:
        num_heads: of both attentions; it divides C.
        num_rows: l, the rows of P.
        tied: keys and values are one projection, in either attention.

    Raises:
        ValueError: an option has a value it cannot have.
    """

    card: ClassVar[Card] = Card(
        what="Luna: the sequence is packed into a few rows by attention, and unpacked from them by another",
        family="low rank",
        time="O(L l) for l = `num_rows`",
        memory="O(L + l)",
        paper="2106.01540",
        oracle="none found; two explicit softmax attentions in float64 stand in",
    )

    def __init__(self, *, num_heads: int, num_rows: int, tied: bool = True, **sizes: Any) -> None:
        super().__init__(**sizes)
        at_least(1, num_heads=num_heads, num_rows=num_rows)
        if self.dim % num_heads:
            raise ValueError(f"num_heads must divide model.dim={self.dim}. Got {num_heads}.")
        self.num_heads = num_heads
        self.first = nn.Parameter(torch.empty(num_rows, self.dim))
        nn.init.normal_(self.first, std=self.dim**-0.5)
        self.pack_query = nn.Linear(self.dim, self.dim)
        self.pack_value = nn.Linear(self.dim, self.dim)
        self.pack_key = self.pack_value if tied else nn.Linear(self.dim, self.dim)
        self.query = nn.Linear(self.dim, self.dim)
        self.value = nn.Linear(self.dim, self.dim)
        self.key = self.value if tied else nn.Linear(self.dim, self.dim)
        self.out = nn.Linear(self.dim, self.dim)

    def forward(self, x: Tensor, mask: Tensor, stream: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """See the contract."""
        k, v = self.pack_key(x), self.pack_value(x)
        packed = self._attend(self.pack_query(stream), k, v, real_keys(mask))
        packed = packed.masked_fill(~mask.any(-1)[:, None, None], 0)  # a sequence without a token has only padding
        unpacked = self._attend(self.query(x), self.key(packed), self.value(packed), None)
        return self.out(unpacked).masked_fill(~mask[..., None], 0), packed

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        """Attend with every head's part of the rows (B, L, C), and set the parts side by side again."""
        q, k, v = (rows.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for rows in (q, k, v))
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).flatten(2)
