"""Informer's ProbSparse attention: exact rows for the queries whose scores look least uniform, mean of V for the rest.

Zhou, Zhang, Peng, Zhang, Li, Xiong, Zhang 2021, "Informer: Beyond Efficient Transformer for Long Sequence Time-Series
Forecasting", arXiv 2012.07436. A query's measure is M_i = max_j s_ij - (1 / m) sum_j s_ij over U sampled keys, where
s = q . k unscaled and m counts real tokens; the u queries of the largest M get their exact softmax row, the
others the mean of V.

The two rows of Chen et al. 2022 (arXiv 2112.05359) differ in u once both know their padding, as every mechanism here
must: "Informer" has u = U = c ceil(ln m), c = ceil(budget / ln max_len); "Informer w/ padding mask" has u = U = budget.

Departures from the authors' code (github.com/zhouhaoyi/Informer2020) and from Chen et al.'s:
- keys are drawn among the real tokens, padded queries are never chosen, and the mean is over real values: their
  "Informer" without mask lets padding in at all three places;
- m, the number of real tokens, replaces the padded length everywhere, the divisor of the sum included; otherwise the
  chosen queries would change with the padding. u is min(u, m) for each sequence.
As there, the sum over U keys is divided by m, and all heads and sequences share one draw of keys for each query.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import ClassVar, Unpack

import torch
import torch.nn.functional as F
from torch import Tensor

from models.attention import Attention, Sizes
from models.checks import at_least
from models.mechanism import Card
from models.ops.masks import real_keys
from models.ops.precision import accumulation_dtype, without_autocast
from models.ops.rows import take_rows

NUMBERS = 2**19  # scores, or numbers of gathered keys, held at once; or as many as an input has
SCORE_UP_TO = 32  # times U: the length up to which scoring every key and keeping U beats gathering U keys a query


class InformerAttention(Attention):
    """ProbSparse attention.

    Args:
        num_samples: the budget: u and U themselves, or what `log_scaled` turns into the factor c.
        log_scaled: u = U = c ceil(ln m) with c = ceil(num_samples / ln max_len), instead of u = U = num_samples.
    """

    card: ClassVar[Card] = Card(
        what="Informer's ProbSparse attention: exact rows for the queries whose scores look least uniform, mean of V "
        "for the rest",
        family="sampled queries",
        time="O(L u) for u = U exact rows and sampled keys, that is O(L log L) when `log_scaled`",
        memory="O(L)",
        paper="2012.07436",
        exact="u is at least the number of real tokens",
        oracle="transformers InformerProbSparseAttention, outputs and gradients where every query is chosen",
    )

    def __init__(
        self,
        *,
        num_samples: int,
        log_scaled: bool,
        **sizes: Unpack[Sizes],
    ) -> None:
        super().__init__(**sizes)
        at_least(0, num_samples=num_samples)
        self.num_samples = num_samples
        self.factor = math.ceil(num_samples / math.log(max(self.max_len, 2))) if log_scaled else None

    @without_autocast
    def forward(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
        """See the contract."""
        # The fused call runs in the inputs' precision, all else in float32 or better.
        dtype = accumulation_dtype(q)
        L, m = q.shape[2], mask.sum(-1, keepdim=True)  # m: (B, 1)
        mean = mask[:, None, None].to(dtype) @ torch.where(mask[:, None, :, None], v, 0).to(dtype)
        mean = (mean / m.clamp(min=1)[..., None, None]).to(v.dtype)  # (B, H, 1, D)

        slots = min(self.num_samples if self.factor is None else self.factor * math.ceil(math.log(L)), L)
        budget = torch.full_like(m, self.num_samples)
        if self.factor is not None:
            budget = self.factor * m.clamp(min=1).double().log().ceil().long()
        active = torch.arange(slots, device=q.device) < torch.minimum(budget, m)  # (B, U)
        if slots == 0:
            return mean.expand_as(v)
        chosen = self._measure(q, k, mask, active).topk(slots).indices  # (B, H, U)

        rows = F.scaled_dot_product_attention(take_rows(q, chosen), k, v, attn_mask=real_keys(mask))
        rows = torch.where(active[:, None, :, None], rows, mean)
        return mean.expand_as(v).scatter(2, chosen[..., None].expand_as(rows), rows)

    @torch.no_grad()
    def _measure(self, q: Tensor, k: Tensor, mask: Tensor, active: Tensor) -> Tensor:
        """Return M (B, H, L), minus infinity on padding."""
        (B, H, L, D), U = q.shape, active.shape[1]
        dtype = accumulation_dtype(q)
        uniform = self.draw("uniform", (L, U), q.device)
        m = mask.sum(-1)[:, None, None]
        # The real positions come first, in order: entry r is the real token of rank r.
        positions = mask.logical_not().to(torch.uint8).sort(dim=-1, stable=True).indices  # (B, L)
        keys = k.to(dtype).transpose(1, 2).gather(1, positions[..., None, None].expand(-1, -1, H, D))
        rows_of_keys = keys.flatten(2).flatten(0, 1).contiguous()  # (B L, H D): a gathered row serves all heads
        keys = keys.transpose(1, 2).contiguous()  # (B, H, L, D)
        first = torch.arange(B, device=q.device)[:, None, None] * L
        Q = q.to(dtype).contiguous()

        measures = []
        for rows in _row_chunks(q, U):
            rank = (uniform[rows] * m).long().minimum(m - 1).clamp(min=0)  # (B, C, U)
            # A slot not in use repeats the first, which leaves the maximum as it is, and is left out of the sum.
            rank = torch.where(active[:, None], rank, rank[..., :1])
            if L <= SCORE_UP_TO * U:
                scores = (Q[:, :, rows] @ keys.mT).gather(-1, rank[:, None].expand(-1, H, -1, -1))
            else:
                gathered = rows_of_keys.index_select(0, (rank + first).flatten()).view(B, -1, U, H, D)
                scores = torch.einsum("bhcd,bcuhd->bhcu", Q[:, :, rows], gathered)
            total = scores @ active[:, None, :, None].to(dtype)
            measures.append(scores.amax(-1) - total[..., 0] / m.clamp(min=1))
        return torch.cat(measures, -1).masked_fill(~mask[:, None], -torch.inf)


def _row_chunks(q: Tensor, U: int) -> Iterator[slice]:
    """Cut the queries so that no block of scores, or of gathered keys, is much larger than an input."""
    B, H, L, D = q.shape
    block = L if L <= SCORE_UP_TO * U else U * D
    step = max(1, max(NUMBERS, q.numel()) // (B * H * block))
    return (slice(begin, begin + step) for begin in range(0, L, step))
