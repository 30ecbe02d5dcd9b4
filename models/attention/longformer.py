"""Longformer: a sliding window, and global tokens that see and are seen by all.

Beltagy, Peters, Cohan 2020, "Longformer: The Long-Document Transformer", arXiv 2004.05150.

Every row sees the window and the global tokens through the ordinary keys and values, each key once, in one softmax.
The rows of the global tokens attend to everything with projections of their own.

Departures from the authors' code: a global token's own projections act on the joined heads of q, k and v, which are
linear in the layer's input, and start as the identity (the paper starts them as copies of the ordinary ones); the
global keys have no bias, since it would cancel in the softmax; no dropout on the attention weights. The LRA code (arXiv
2011.04006) has no global token at all, and a window of w tokens in all: `self_in_window`.
"""

from __future__ import annotations

from typing import ClassVar, Unpack

import torch
from torch import Tensor, nn

from models.attention import Attention, Sizes
from models.checks import at_least
from models.mechanism import Card
from models.ops.biased_attention import Bias
from models.ops.block_attention import Shared, attend_band, fused, in_proportion
from models.ops.precision import linear


class LongformerAttention(Attention):
    """Windowed attention with the first tokens global.

    Args:
        window: w at a budget of 256, changed in proportion to the budget: a token sees w / 2 tokens on either side.
        budget: the budget.
        num_global: g, the number of tokens at the beginning that are global.
        self_in_window: a token is one of the w itself: if w is even, it sees w / 2 - 1 tokens before it, and w / 2
            behind.
    """

    card: ClassVar[Card] = Card(
        what="Longformer: a sliding window, and global tokens that see and are seen by all",
        family="windows and blocks",
        time="O(L (w + g)) for a window of w tokens and g global ones",
        memory="O(L (w + g))",
        paper="2004.05150",
        exact="the window covers the sequence on both sides and no token is global; or all are, with tied projections",
        oracle="transformers LongformerSelfAttention, outputs and gradients with and without global tokens",
    )

    takes_bias: ClassVar[bool] = True

    def __init__(
        self,
        *,
        window: int,
        budget: int,
        num_global: int = 0,
        self_in_window: bool = False,
        **sizes: Unpack[Sizes],
    ) -> None:
        super().__init__(**sizes)
        at_least(0, num_global=num_global)
        window = in_proportion(budget, window=window)
        self.right = window // 2
        self.left = window - 1 - self.right if self_in_window else self.right
        self.num_global = num_global
        if num_global:
            dim = self.num_heads * self.head_dim
            self.global_q, self.global_v = nn.Linear(dim, dim), nn.Linear(dim, dim)
            self.global_k = nn.Linear(dim, dim, bias=False)
            for layer in (self.global_q, self.global_k, self.global_v):
                nn.init.eye_(layer.weight)
            for layer in (self.global_q, self.global_v):
                nn.init.zeros_(layer.bias)

    def forward(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor, bias: Bias | None = None) -> Tensor:
        """See the contract. A bias is for all scores, those of global tokens included."""
        g = min(self.num_global, q.shape[2])
        if g == 0:
            return attend_band(q, k, v, mask, self.left, self.right, bias=bias)
        # The window leaves the global tokens out, so that no key is counted twice.
        places = torch.arange(mask.shape[1], device=mask.device)
        ordinary = mask & (places >= g)
        shared = Shared(k[:, :, :g], v[:, :, :g], mask[:, :g])
        out = attend_band(q, k, v, ordinary, self.left, self.right, shared, bias)
        global_q = self._project(self.global_q, q[:, :, :g])
        global_k, global_v = self._project(self.global_k, k), self._project(self.global_v, v)
        gained = None if bias is None else bias(places[:g], places).expand(len(mask), -1, -1, -1)
        rows = fused(global_q, global_k, global_v, mask[:, None, None], gained)
        return torch.cat([rows.to(out.dtype), out[:, :, g:]], 2)

    def _project(self, layer: nn.Linear, x: Tensor) -> Tensor:
        """Apply a map of the joined heads."""
        joined = x.transpose(1, 2).flatten(2)  # (B, L, H D)
        return linear(layer, joined).unflatten(-1, (self.num_heads, self.head_dim)).transpose(1, 2)
