"""Local attention: a band around each token, or the token's own block.

The baseline of Tay et al. 2020, "Long Range Arena" (arXiv 2011.04006), after Parmar et al. 2018 (arXiv 1802.05751).

Departures from the LRA code: no dropout on the attention weights; padded keys are masked out where they stand; its
groups of tokens i mod (number of blocks), the result of a reshape, are the option `strided_groups`; and the zeros that
it appends and sees, a whole block of them where the length is a multiple of b, are the option `seen_fill`.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar, Unpack

import torch
from torch import Tensor

from models.attention import Attention, Sizes
from models.checks import at_least
from models.mechanism import Card
from models.ops.biased_attention import Bias
from models.ops.block_attention import attend_band, attend_blocks, in_proportion, window_table, with_fill


class LocalAttention(Attention):
    """Softmax attention of token i to tokens j with |i - j| <= w.

    Args:
        budget: number of keys a token sees, itself not counted: w is half of it.
        causal: see the `budget` tokens before it instead, and none behind it.
    """

    causal_settings: ClassVar[Mapping[str, bool] | None] = MappingProxyType({"causal": True})

    card: ClassVar[Card] = Card(
        what="Local attention: a band around each token",
        family="windows and blocks",
        time="O(L w) for w keys on either side",
        memory="O(L w)",
        paper="2011.04006",
        exact="the band covers the sequence",
        oracle="local-attention LocalAttention, outputs and gradients of the band",
    )

    takes_bias: ClassVar[bool] = True

    def __init__(self, *, budget: int, causal: bool = False, **sizes: Unpack[Sizes]) -> None:
        super().__init__(**sizes)
        at_least(0, budget=budget)
        self.before, self.behind = (budget, 0) if causal else (budget // 2, budget // 2)

    def forward(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor, bias: Bias | None = None) -> Tensor:
        """See the contract."""
        return attend_band(q, k, v, mask, self.before, self.behind, bias=bias)


class LocalBlockAttention(Attention):
    """Softmax attention within blocks.

    Args:
        block_size: tokens of a block at a budget of 256, changed in proportion to the budget.
        budget: the budget.
        strided_groups: attend within groups of tokens i mod (number of blocks), as the LRA code does. The groups
            then depend on the padded length.
        seen_fill: append zeros that every group sees up to the next multiple of b, as the LRA code does: L // b + 1
            blocks. Results then depend on the padded length.
    """

    card: ClassVar[Card] = Card(
        what="Local attention: the token's own block",
        family="windows and blocks",
        time="O(L b) for blocks of b tokens",
        memory="O(L b)",
        paper="2011.04006",
        exact="one block covers the sequence",
        oracle="local-attention LocalAttention, outputs and gradients of the blocks",
    )

    takes_bias: ClassVar[bool] = True

    def __init__(
        self,
        *,
        block_size: int,
        budget: int,
        strided_groups: bool = False,
        seen_fill: bool = False,
        **sizes: Unpack[Sizes],
    ) -> None:
        super().__init__(**sizes)
        self.block_size = in_proportion(budget, block_size=block_size)
        self.strided_groups = strided_groups
        self.seen_fill = seen_fill
        if seen_fill:
            at_least(1, self.max_len, block_size=self.block_size)
            self.identity_on_one = False  # type: ignore[misc]  # a lone token sees zeros besides

    def forward(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor, bias: Bias | None = None) -> Tensor:
        """See the contract."""
        if not self.seen_fill:
            return self._attend(q, k, v, mask, bias)
        return self._attend(*with_fill(q, k, v, mask, self.block_size), bias)[:, :, : q.shape[2]]

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor, bias: Bias | None) -> Tensor:
        L = q.shape[2]
        b = min(self.block_size, L)
        nb = -(-L // b)
        own = window_table(nb, 0, q.device)
        if not self.strided_groups:
            return attend_blocks(q, k, v, mask, own, b, bias=bias)
        # Row g of the transposed (b, nb) grid holds the tokens i with i mod nb = g; it is padded where i >= L.
        order = torch.arange(nb * b, device=q.device).view(b, nb).mT.flatten()
        inside = order < L
        position = order.clamp(max=L - 1)
        q, k, v = (x.index_select(2, position) for x in (q, k, v))
        of_grid = None if bias is None else lambda rows, columns: bias(order[rows], order[columns])
        out = attend_blocks(q, k, v, mask[:, position] & inside, own, b, bias=of_grid)
        return out.index_select(2, order.argsort()[:L])
