"""Skeinformer: softmax attention sketched from sampled columns, with adaptive row normalisation and pilot reuse.

Chen, Zeng, Ji, Yang 2022, "Sketching as a Tool for Understanding and Accelerating Self-attention for Long Sequences",
arXiv 2112.05359. Time is O(L^2) with `normalization="exact"`, as in the paper, since exact row sums need every score.

Symbols: d = `num_samples`, J pilot rows, J' selected columns, B = softmax(Q K^T / sqrt(D)), m real tokens, and
e = min(d, m).

Departures from the authors' code (github.com/pkuzengqi/Skeinformer), which the paper's text does not ask for:
- e is min(d, m) for each sequence, not one number for the batch, so d >= m is exact softmax attention;
- pilots are drawn among the real tokens wherever they stand, and a row drawn twice gets its gradient once;
- nothing is exponentiated without subtracting a maximum, and no weight underflows out of the sample.

The column stage (steps 5 to 9) is one fused attention over d + 1 keys. The geometric mean that stands in for an
unselected score is exp(q . kbar / sqrt(D)) with kbar the mean of the selected keys; so all m - e unselected keys are
one virtual key kbar of multiplicity m - e, that is a bias of log(m - e), whose value is the mean of their values.
"""

from __future__ import annotations

from typing import ClassVar, Literal, Unpack, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from models.attention import Attention, Sizes
from models.checks import at_least, one_of
from models.mechanism import Card
from models.ops.masks import real_keys
from models.ops.precision import accumulation_dtype, without_autocast
from models.ops.rows import take_rows

Columns = Literal["importance", "uniform"]
Normalization = Literal["adaptive", "exact", "simple"]

PILOT_CHUNK = 32  # rows of B_J held at once while their column norms are summed


class SkeinformerAttention(Attention):
    """Column-sampled attention.

    Args:
        num_samples: d, the number of pilot rows and of selected columns.
        columns: draw columns by importance (column norm of B_J times row norm of V), or uniformly.
        normalization: "adaptive" (the paper's), "exact" (divide by the sum over all keys: the unselected columns are
            dropped), or "simple" (softmax over the selected columns alone).
        reuse_pilot: write the exact rows of the pilots into the output.
        pilot_per_head: draw pilots for each head; by default the heads share them, as in the authors' code.
    """

    card: ClassVar[Card] = Card(
        what="Skeinformer: softmax attention sketched from sampled columns, with adaptive row normalisation and pilot "
        "reuse",
        family="Skeinformer",
        time="O(L d) for d = `num_samples`; O(L^2) with `normalization=exact`",
        memory="O(L d)",
        paper="2112.05359",
        exact="d is at least the number of real tokens",
        oracle="none found; a twin that follows the algorithm token by token stands in, and exact softmax attention "
        "where d is at least the number of real tokens",
    )

    def __init__(
        self,
        *,
        num_samples: int,
        columns: Columns = "importance",
        normalization: Normalization = "adaptive",
        reuse_pilot: bool = True,
        pilot_per_head: bool = False,
        **sizes: Unpack[Sizes],
    ) -> None:
        super().__init__(**sizes)
        at_least(1, num_samples=num_samples)
        one_of(get_args(Columns), columns=columns)
        one_of(get_args(Normalization), normalization=normalization)
        self.num_samples = num_samples
        self.columns = columns
        self.normalization = normalization
        self.reuse_pilot = reuse_pilot
        self.pilot_per_head = pilot_per_head

    @without_autocast
    def forward(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
        """See the contract."""
        # The fused calls run in the inputs' precision, all else in float32 or better.
        slots = torch.arange(min(self.num_samples, q.shape[2]), device=q.device)
        m = mask.sum(-1, keepdim=True)  # (B, 1)
        active = slots < m  # (B, M): e of the M slots are in use
        keys = real_keys(mask)  # (B, 1, 1, L)

        weights = torch.zeros(q.shape[:3], device=q.device)
        if self.reuse_pilot or self.columns == "importance":
            J = self._pilots(mask, m, active)  # (B, H, M)
            Q_J = take_rows(q, J)
            if self.columns == "importance":
                weights = _log_weights(Q_J, k, v, keys)

        # Step 4: Gumbel top-k draws e columns without replacement; padded columns come last.
        gumbel = -self.draw("exponential", tuple(q.shape[:3]), q.device).log()
        columns = (weights + gumbel).masked_fill(~mask[:, None], -torch.inf).topk(len(slots)).indices  # (B, H, M)

        if self.normalization == "exact":
            # Rows of B over the selected columns alone: softmax over all keys with the other values set to zero.
            selected = torch.zeros_like(weights).scatter(-1, columns, 1.0).to(v.dtype)
            out = F.scaled_dot_product_attention(q, k, v * selected[..., None], attn_mask=keys)
        else:
            out = self._column_stage(q, take_rows(k, columns), take_rows(v, columns), v, mask, active)
        if self.reuse_pilot:
            out = _overwrite(out, F.scaled_dot_product_attention(Q_J, k, v, attn_mask=keys), J)
        return out

    def _pilots(self, mask: Tensor, m: Tensor, active: Tensor) -> Tensor:
        """Step 1: draw real positions with replacement; slots beyond e repeat the first."""
        heads = self.num_heads if self.pilot_per_head else 1
        uniform = self.draw("uniform", (len(mask), heads, self.num_samples), mask.device)[..., : active.shape[1]]
        m = m[..., None]
        rank = (uniform * m).long().minimum(m - 1).clamp(min=0)
        rank = torch.where(active[:, None], rank, rank[..., :1])
        # The position of the real token of rank r is the first one with r + 1 real tokens up to and including it.
        position = torch.searchsorted(mask.cumsum(-1), rank.flatten(1), right=True).view_as(rank)
        return position.clamp(max=mask.shape[1] - 1).expand(-1, self.num_heads, -1)

    def _column_stage(self, q: Tensor, k: Tensor, v: Tensor, all_v: Tensor, mask: Tensor, active: Tensor) -> Tensor:
        """Steps 5 to 9, from the selected keys and values (B, H, M, D)."""
        dtype = accumulation_dtype(q)
        used = active[:, None, None].to(dtype)  # (B, 1, 1, M)
        m, e = (count.sum(-1)[:, None, None, None] for count in (mask, active))
        k_mean = used @ k.to(dtype) / e.clamp(min=1)  # (B, H, 1, D)
        v_rest = (mask[:, None, None].to(dtype) @ all_v.to(dtype) - used @ v.to(dtype)) / (m - e).clamp(min=1)

        # The virtual key comes first, so that no block of keys in a fused kernel is masked out entirely before it.
        unselected = m > e if self.normalization == "adaptive" else torch.zeros_like(m, dtype=torch.bool)
        log_rest = (m - e).clamp(min=1).to(dtype).log()
        # In bfloat16 log(m - e) is off by up to 0.02; the same shift on every other bias undoes the rounding.
        shift = log_rest.to(q.dtype).to(dtype) - log_rest
        virtual = log_rest.masked_fill(~unselected & (m > 0), -torch.inf)
        bias = torch.cat([virtual, shift.masked_fill(~active[:, None, None], -torch.inf)], -1)  # (B, 1, 1, 1 + M)
        return F.scaled_dot_product_attention(
            q,
            torch.cat([k_mean.to(k.dtype), k], 2),
            torch.cat([v_rest.to(v.dtype), v], 2),
            attn_mask=bias.to(q.dtype),
        )


@torch.no_grad()
def _log_weights(Q_J: Tensor, k: Tensor, v: Tensor, keys: Tensor) -> Tensor:
    """Steps 2 and 3: log of (column norm of B_J) x (row norm of V), unnormalised, (B, H, L).

    Slots not in use count too: where there are any, every real column is drawn whatever its weight.
    """
    dtype = accumulation_dtype(k)
    B, H, M, D = Q_J.shape
    rows, K = Q_J.to(dtype).flatten(0, 1), k.to(dtype).flatten(0, 1).mT
    bias = torch.zeros_like(keys, dtype=dtype).masked_fill(~keys, -torch.inf).expand(-1, H, -1, -1).flatten(0, 1)
    squares = torch.zeros_like(bias)  # (B H, 1, L)
    ones = rows.new_ones(B * H, 1, M)
    for begin in range(0, M, PILOT_CHUNK):
        chunk = slice(begin, begin + PILOT_CHUNK)
        B_J = torch.baddbmm(bias, rows[:, chunk], K, alpha=D**-0.5).softmax(-1)
        squares.baddbmm_(ones[:, :, chunk], B_J.square_())
    weights = squares.view(B, H, -1).sqrt() * v.to(dtype).norm(dim=-1)
    # The floor keeps every real column in the draw, however small its weight.
    return weights.clamp(min=torch.finfo(dtype).tiny).log()


def _overwrite(out: Tensor, rows: Tensor, J: Tensor) -> Tensor:
    """Step 10: write rows (B, H, M, D) at J; a row drawn more than once is written, and differentiated, once."""
    slots = torch.arange(J.shape[-1], device=J.device).expand_as(J)
    first = J.new_full(out.shape[:3], J.shape[-1]).scatter_reduce(-1, J, slots, "amin").gather(-1, J)
    # Repeats carry the first slot's numbers, so the order in which a scatter writes them does not matter.
    rows = torch.where((first == slots)[..., None], rows, take_rows(rows.detach(), first))
    return out.scatter(2, J[..., None].expand_as(rows), rows)
