"""BigBird: blocks of a window, global blocks at both ends, and random blocks.

Zaheer et al. 2020, "Big Bird: Transformers for Longer Sequences", arXiv 2007.14062.

A block of queries sees the first block, the last one, itself with both neighbours, and r blocks drawn without
repetition from the others, anew for each head and block; queries of the first and the last block see everything.

Departures from the authors' code and from Hugging Face's, which Skeinformer's (arXiv 2112.05359) copies:
- the last block is that of the sequence's last real token, not of the padded length, so padding changes nothing;
- random blocks are drawn from all blocks that a row does not see otherwise (at some lengths Hugging Face's draws
  repeat blocks, at others they cover the first blocks only), and a block counts once however it is reached;
- they are drawn afresh at every call, at evaluation too, as in Skeinformer's code; the authors draw them once for a
  model, and at evaluation Hugging Face counts the first block r more times instead;
- no change to full attention on short sequences, and no dropout on the attention weights.
The LRA code (arXiv 2011.04006) appends zeros that it sees, a whole block of them where the length is a multiple of b,
so that they are the last block, or in it: `seen_fill`.
"""

from __future__ import annotations

from typing import ClassVar, Unpack

import torch
from torch import Tensor

from models.attention import Attention, Sizes
from models.checks import MOST_ROUNDS, at_least
from models.mechanism import Card
from models.ops.block_attention import attend_blocks, fused, in_proportion, mask_to_blocks, window_table, with_fill
from models.ops.rows import take_rows


class BigBirdAttention(Attention):
    """Window, global and random blocks.

    Args:
        block_size: b at a budget of 256, changed in proportion to the budget.
        budget: the budget.
        num_random_blocks: r.
        seen_fill: append zeros that count as real tokens up to the next multiple of b, as the LRA code does. Results
            then depend on the padded length.
    """

    card: ClassVar[Card] = Card(
        what="BigBird: blocks of a window, global blocks at both ends, and random blocks",
        family="windows and blocks",
        time="O(L b (5 + r)) for blocks of b tokens and r random blocks",
        memory="O(L b (5 + r))",
        paper="2007.14062",
        exact="the sequence has at most 4 + r blocks",
        oracle="transformers BigBirdBlockSparseAttention, outputs and gradients on its own random blocks",
    )

    def __init__(
        self,
        *,
        block_size: int,
        budget: int,
        num_random_blocks: int = 3,
        seen_fill: bool = False,
        **sizes: Unpack[Sizes],
    ) -> None:
        super().__init__(**sizes)
        at_least(0, MOST_ROUNDS, num_random_blocks=num_random_blocks)
        self.block_size = in_proportion(budget, block_size=block_size)
        self.num_random_blocks = num_random_blocks
        self.seen_fill = seen_fill
        if seen_fill:
            at_least(1, self.max_len, block_size=self.block_size)
            self.identity_on_one = False  # type: ignore[misc]  # a lone token sees zeros besides

    def forward(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
        """See the contract."""
        if not self.seen_fill:
            return self._attend(q, k, v, mask)
        return self._attend(*with_fill(q, k, v, mask, self.block_size))[:, :, : q.shape[2]]

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
        L = q.shape[2]
        b = min(self.block_size, L)
        real = mask_to_blocks(mask, b).any(-1)  # (B, blocks)
        last = (real * torch.arange(real.shape[1], device=q.device)).amax(-1)  # (B,)
        out = attend_blocks(q, k, v, mask, self._table(last, real.shape[1]), b)

        # The rows of the first and the last block see everything.
        offsets = torch.arange(b, device=q.device)
        ends = torch.cat([offsets.expand(len(last), -1), last[:, None] * b + offsets], 1).clamp(max=L - 1)  # (B, 2 b)
        dense = fused(take_rows(q, ends[:, None]), k, v, mask[:, None, None])
        position = torch.arange(L, device=q.device)
        from_last = position - last[:, None] * b  # (B, L)
        slot = torch.where(position < b, position, b + from_last.clamp(0, b - 1))
        is_end = (position < b) | ((from_last >= 0) & (from_last < b))
        return torch.where(is_end[:, None, :, None], take_rows(dense, slot[:, None]), out)

    def _table(self, last: Tensor, num_blocks: int) -> Tensor:
        """Name the blocks that each block visits, (B, blocks, H, 5 + r); the kernel counts repeats once."""
        r, H, device = self.num_random_blocks, self.num_heads, last.device
        shape = (len(last), num_blocks, H)
        window = window_table(num_blocks, 1, device).expand(*shape, -1)
        last = last[:, None, None]  # (B, 1, 1)
        ends = torch.stack([torch.zeros_like(last), last], -1).expand(*shape, -1)
        uniform = self.draw("uniform", (H, num_blocks, r), device).transpose(0, 1)  # (blocks, H, r)

        # Candidates are the blocks 1 ... last - 1 without the `skip` ones of the window, which begin at `low`.
        i = torch.arange(num_blocks, device=device)[:, None]
        low = (i - 1).clamp(min=1)
        skip = ((i + 1).minimum(last - 1) - low + 1).clamp(min=0)
        count = last - 1 - skip  # (B, blocks, 1)
        ranks: list[Tensor] = []
        for t in range(r):
            # Rank x among the remaining candidates becomes a rank among all by stepping over those drawn, in order.
            remaining = count - t
            x = (uniform[..., t] * remaining).long().minimum(remaining - 1).clamp(min=0)  # (B, blocks, H)
            if ranks:
                for drawn in torch.stack(ranks, -1).sort(-1).values.unbind(-1):
                    x = x + (x >= drawn)
            ranks.append(x)
        blocks = [(1 + x + skip * (1 + x >= low)).masked_fill(count <= t, -1) for t, x in enumerate(ranks)]
        return torch.cat([ends, window, *(x[..., None] for x in blocks)], -1)
