"""Aaren: softmax attention of one learned query to a token and all before it, in one pass along the sequence.

Feng et al. 2024, "Attention as an RNN", arXiv 2405.13956. The sums that softmax needs are carried from token to token,
both relative to the largest score so far, m: with a_t = exp(m_{t-1} - m_t),

    u_t = a_t u_{t-1} + exp(s_t - m_t),    w_t = a_t w_{t-1} + exp(s_t - m_t) v_t,    o_t = w_t / u_t.

m cancels in o, so it counts as a constant in the backward pass.

The paper's layer looks back alone. Here a second learned query looks ahead by default, and the result is the mean of
what both see, so that every token hears of the whole sequence and a lone one receives its own value. No code of the
authors was at hand: that scores are not divided by sqrt(D) is as others implement it, and an option, `scale`. Keys and
values are projections as for any attention; nothing reads the queries.
"""

from __future__ import annotations

from typing import ClassVar, Unpack

import torch
from torch import Tensor, nn

from models.attention import Attention, Sizes
from models.checks import positive
from models.mechanism import ONE_WAY, Card
from models.ops.precision import accumulation_dtype, without_autocast
from models.ops.scan import scan


class AarenAttention(Attention):
    """softmax(scale q K^T) V over the tokens up to each, q being learned.

    Args:
        bidirectional: whether a second query sees the tokens from each on, and the mean of both is taken.
        scale: what scores are multiplied with; None for 1 / sqrt(D).
    """

    unread: ClassVar[tuple[str, ...]] = ("query",)

    causal_settings = ONE_WAY
    card: ClassVar[Card] = Card(
        what="Aaren: attention of one learned query to a token and all before it, and of another to all after it",
        family="recurrence",
        time="O(L)",
        memory="O(L)",
        paper="2405.13956",
        oracle="none found; torch's own causal attention with the query repeated stands in",
    )

    def __init__(self, *, bidirectional: bool = True, scale: float | None = 1.0, **sizes: Unpack[Sizes]) -> None:
        super().__init__(**sizes)
        if scale is not None:
            positive(scale=scale)
        self.scale = self.head_dim**-0.5 if scale is None else scale
        self.queries = nn.Parameter(torch.empty(2 if bidirectional else 1, self.num_heads, self.head_dim))
        nn.init.normal_(self.queries, std=self.head_dim**-0.5)

    @without_autocast
    def forward(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
        """See the contract."""
        dtype = accumulation_dtype(v)
        scores = self.scale * torch.einsum("bhld,rhd->rbhl", k.to(dtype), self.queries.to(dtype))
        seen = [
            prefix_softmax(score, v.to(dtype), mask, reverse)
            for score, reverse in zip(scores.unbind(), (False, True), strict=False)
        ]
        return (sum(seen, torch.zeros_like(seen[0])) / len(seen)).to(v.dtype)


def prefix_softmax(scores: Tensor, values: Tensor, mask: Tensor, reverse: bool = False) -> Tensor:
    """Average values by the softmax of the scores up to each token.

    Args:
        scores: (B, H, L), in float32 at least.
        values: (B, H, L, D), likewise.
        mask: (B, L) bool, True on real tokens.
        reverse: average over the scores from each token on.

    Returns:
        (B, H, L, D); 0 where no real token has been seen yet.
    """
    real = mask[:, None]
    s = scores.masked_fill(~real, torch.finfo(scores.dtype).min)
    m = _running_maximum(s.detach(), reverse)
    # What the sums so far are worth beside the new maximum; the scan never reads the first.
    before = m.roll(-1 if reverse else 1, -1)
    a = (before - m).clamp(max=0).exp()
    e = (s - m).exp().masked_fill(~real, 0)[..., None]
    rows = torch.cat([e * values.masked_fill(~real[..., None], 0), e], -1).transpose(1, 2)
    sums = scan(a.transpose(1, 2)[..., None], rows, reverse).transpose(1, 2)
    w, u = sums[..., :-1], sums[..., -1:]
    return w / u.masked_fill(u == 0, 1)


def _running_maximum(x: Tensor, reverse: bool) -> Tensor:
    return x.flip(-1).cummax(-1).values.flip(-1) if reverse else x.cummax(-1).values
