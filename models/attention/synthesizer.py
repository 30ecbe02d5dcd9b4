"""Synthesizer: attention weights that are not made from products of queries and keys.

Tay et al. 2021, "Synthesizer: Rethinking Self-Attention for Transformer Models", arXiv 2005.00743. The dense and the
factorised forms are softmax attention over learned keys, in one fused call; the random form has L^2 weights for each
head, once and not once for each sequence. Zero logits give the mean of the values.

The dense form reads a layer's input X; here it reads the queries of all heads, joined, which are linear in X. Nothing
reads the keys, and only the dense form reads the queries.

Departures from the code of Long Range Arena (github.com/google-research/long-range-arena): padding is masked, which it
is not there without dot products; the dense form's second layer is of each head, as in the paper, without a bias and
without the reshape that mixes heads with positions; no dropout on the weights. Initial scales are those of that code.
"""

from __future__ import annotations

from typing import ClassVar, Unpack

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.attention import Attention, Sizes
from models.checks import at_least
from models.mechanism import Card
from models.ops.masks import real_keys
from models.ops.precision import accumulation_dtype, linear, without_autocast


class DenseSynthesizerAttention(Attention):
    """softmax(relu(X W1 + b1) W2) V: a row of logits for each token, from the token alone."""

    unread: ClassVar[tuple[str, ...]] = ("key",)

    card: ClassVar[Card] = Card(
        what="Synthesizer: a row of attention logits made from each token alone",
        family="synthesizer",
        time="O(L^2)",
        memory="O(L), in one fused call",
        paper="2005.00743",
        oracle="none found; softmax of the explicit logits stands in",
    )

    def __init__(self, **sizes: Unpack[Sizes]) -> None:
        super().__init__(**sizes)
        dim = self.num_heads * self.head_dim
        self.hidden = nn.Linear(dim, dim)
        self.logits = nn.Parameter(torch.empty(self.num_heads, self.max_len, self.head_dim))
        nn.init.normal_(self.logits, std=self.head_dim**-0.5)

    @without_autocast
    def forward(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
        """See the contract."""
        joined = q.transpose(1, 2).flatten(2).to(accumulation_dtype(q))  # (B, L, H D)
        hidden = linear(self.hidden, joined).relu().unflatten(-1, (self.num_heads, self.head_dim)).transpose(1, 2)
        return _attend(hidden, self.logits[None, :, : q.shape[2]], v, mask)


class FactorizedSynthesizerAttention(Attention):
    """softmax(R1 R2^T) V with learned R1 and R2 (L, rank), the same for every input.

    Args:
        rank: width of the factors.
    """

    unread: ClassVar[tuple[str, ...]] = ("query", "key")

    card: ClassVar[Card] = Card(
        what="Synthesizer: attention logits that are a learned product of two factors, the same for every input",
        family="synthesizer",
        time="O(L^2)",
        memory="O(L), in one fused call",
        paper="2005.00743",
        oracle="none found; softmax of the explicit logits stands in",
    )

    def __init__(self, *, rank: int = 32, **sizes: Unpack[Sizes]) -> None:
        super().__init__(**sizes)
        at_least(1, rank=rank)
        self.rows, self.columns = (nn.Parameter(torch.empty(self.num_heads, self.max_len, rank)) for _ in range(2))
        nn.init.normal_(self.rows, std=(self.num_heads * self.max_len) ** -0.5)
        nn.init.normal_(self.columns, std=(self.num_heads * rank) ** -0.5)

    def forward(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
        """See the contract."""
        L = q.shape[2]
        return _attend(self.rows[None, :, :L], self.columns[None, :, :L], v, mask)


class RandomSynthesizerAttention(Attention):
    """softmax(R) V with a learned R (L, L), the same for every input."""

    unread: ClassVar[tuple[str, ...]] = ("query", "key")

    card: ClassVar[Card] = Card(
        what="Synthesizer: attention logits that are learned one by one, the same for every input",
        family="synthesizer",
        time="O(L^2)",
        memory="O(L^2), once and not once for each sequence",
        paper="2005.00743",
        oracle="none found; softmax of the explicit logits stands in",
    )

    def __init__(self, **sizes: Unpack[Sizes]) -> None:
        super().__init__(**sizes)
        self.logits = nn.Parameter(torch.empty(self.num_heads, self.max_len, self.max_len))
        nn.init.normal_(self.logits, std=(self.num_heads * self.max_len) ** -0.5)

    @without_autocast
    def forward(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
        """See the contract."""
        L = q.shape[2]
        dtype = accumulation_dtype(v)
        R = self.logits[:, :L, :L].to(dtype)
        # Only the values depend on the sequence: masked here, with a column that counts what is left.
        weights = (R - R.detach().amax(-1, keepdim=True)).exp()
        values = torch.cat([v, torch.ones_like(v[..., :1])], -1).masked_fill(~mask[:, None, :, None], 0).to(dtype)
        out = torch.einsum("hml,bhld->bhmd", weights, values)
        total = out[..., -1:]
        return (out[..., :-1] / total.masked_fill(total == 0, 1)).to(v.dtype)  # zero only where there is no key


def _attend(rows: Tensor, columns: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    """Return softmax(rows columns^T) V over the real keys, without any scale."""
    rows, columns = (x.to(v.dtype).expand(len(v), -1, -1, -1) for x in (rows, columns))
    return F.scaled_dot_product_attention(rows, columns, v, attn_mask=real_keys(mask), scale=1.0)
