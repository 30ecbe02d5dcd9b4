"""Transformer-LS (Long-Short Transformer): a window, and keys and values projected to r by weights made of the input.

Zhu, Ping, Xiao, Shoeybi, Goldstein, Anandkumar, Catanzaro 2021, "Long-Short Transformer: Efficient Transformers for
Language and Vision", arXiv 2107.02192, without its causal form.

The sequence is cut into segments of w tokens. A token sees its segment and w / 2 tokens on either side of that; and, in
the same softmax, r rows of P^T K and P^T V, where each column of P (L, r) is a softmax over the real tokens of a linear
map of the layer's input. The two sets have a layer norm each, of keys and values alike: the dual normalisation.

The map acts on the joined heads of k, which are linear in the layer's input.

Departures from the authors' code for Long Range Arena (github.com/NVIDIA/transformer-ls), where it departs from the
paper: the norms are those of each head, not of all heads together; the window's norm does not come before the
projection, too; the map has no bias, which would cancel in the softmax. Besides, w need not divide the length, there is
no CLS token with attention of its own, and no dropout on the attention weights.
"""

from __future__ import annotations

from typing import ClassVar, Unpack

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.attention import Attention, Sizes
from models.checks import at_least
from models.mechanism import Card
from models.ops.block_attention import Shared, attend_blocks, in_proportion, window_table
from models.ops.precision import accumulation_dtype, linear, without_autocast

LEAST_BLOCK = 32  # tokens: small segments share a block, since small groups are slow


class TransformerLSAttention(Attention):
    """Softmax attention to a window and to projected keys.

    Args:
        window: w at a budget of 256, changed in proportion to the budget.
        num_landmarks: r, likewise; 0 for a window alone.
        budget: the budget.
        norms: normalise the keys and values of both sets.
    """

    card: ClassVar[Card] = Card(
        what="Transformer-LS: a window, and keys and values projected by weights made of the input",
        family="multilevel",
        time="O(L (w + r)) for a window of w tokens and r projected ones",
        memory="O(L (w + r))",
        paper="2107.02192",
        exact="the window covers the sequence, r = 0 and `norms` is false",
        oracle="long-short-transformer LongShortAttention, outputs and gradients where keys are the values and the "
        "window covers the sequence",
    )

    def __init__(
        self, *, window: int, num_landmarks: int, budget: int, norms: bool = True, **sizes: Unpack[Sizes]
    ) -> None:
        super().__init__(**sizes)
        at_least(0, num_landmarks=num_landmarks)
        self.window = in_proportion(budget, window=window)
        self.num_landmarks = in_proportion(budget, num_landmarks=num_landmarks) if num_landmarks else 0
        self.norms = norms
        self.identity_on_one = not norms  # type: ignore[misc]  # a lone value comes out normalised
        if num_landmarks:
            self.projection = nn.Linear(self.num_heads * self.head_dim, self.num_heads * self.num_landmarks, bias=False)
        if norms:
            self.window_norm = nn.LayerNorm(self.head_dim)
            self.landmark_norm = nn.LayerNorm(self.head_dim)

    @without_autocast
    def forward(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
        """See the contract."""
        landmarks = self._landmarks(k, v, mask) if self.num_landmarks else None
        if self.norms:
            k, v = (_normalised(self.window_norm, x) for x in (k, v))
        L = q.shape[2]
        w = min(self.window, L)
        block_size = w * min(-(-LEAST_BLOCK // w), -(-L // w))
        num_blocks = -(-L // block_size)
        reach = min(1, num_blocks - 1)
        begin = torch.arange(block_size, device=q.device).div(w, rounding_mode="floor")[:, None] * w
        columns = torch.arange(-reach * block_size, (reach + 1) * block_size, device=q.device)
        pattern = (columns >= begin - w // 2) & (columns < begin + w + w // 2)
        if landmarks is not None:
            pattern = F.pad(pattern, (0, self.num_landmarks), value=True)
        table = window_table(num_blocks, reach, q.device)
        return attend_blocks(q, k, v, mask, table, block_size, pattern, landmarks)

    def _landmarks(self, k: Tensor, v: Tensor, mask: Tensor) -> Shared:
        """Project the keys and values of the real tokens to r."""
        dtype, padding = accumulation_dtype(k), ~mask[:, None, :, None]
        rows = [x.masked_fill(padding, 0).to(dtype) for x in (k, v)]
        logits = linear(self.projection, rows[0].transpose(1, 2).flatten(2))  # (B, L, H r)
        logits = logits.masked_fill(~mask[..., None], torch.finfo(dtype).min)
        P = logits.softmax(1).unflatten(-1, (self.num_heads, -1)).permute(0, 2, 3, 1)  # (B, H, r, L)
        projected = [P @ x for x in rows]
        if self.norms:
            projected = [_normalised(self.landmark_norm, x) for x in projected]
        keys, values = (x.to(k.dtype) for x in projected)
        return Shared(keys, values, mask.new_ones(len(mask), self.num_landmarks))


def _normalised(norm: nn.LayerNorm, x: Tensor) -> Tensor:
    """Normalise rows in float32 or better; the result has the precision of x."""
    dtype = accumulation_dtype(x)
    return F.layer_norm(x.to(dtype), x.shape[-1:], norm.weight.to(dtype), norm.bias.to(dtype), norm.eps).to(x.dtype)
