"""Sinkhorn attention: each block attends to itself and to a block that a learned sorting network sends to it.

Tay, Bahri, Yang, Metzler, Juan 2020, "Sparse Sinkhorn Attention", arXiv 2002.11296. Where one block covers the
sequence it is sorted to itself, so that every key appears twice, which leaves the softmax as it was.

Symbols: R relevance of block s for slot l, P its doubly stochastic form. A block of keys is pooled by a sum over its
real tokens and sent through one linear map to the slots; P = Sinkhorn(exp((R + Gumbel noise) / temperature)), the
slots normalised last; sorted slot l is sum_s P[s, l] block_s, and one softmax runs over own and sorted keys.

Departures from the LRA code (arXiv 2011.04006), whose blocks are groups i mod (number of blocks), and whose sorted
blocks are, by mistake, plain sums of all blocks that give the sorting network no gradient: neither is offered. Its
softmax in place of Sinkhorn's balancing is `activation="softmax"`. Padded tokens are left out of pools and mixtures,
blocks without a real token out of the sorting, and a mixed key without a real token behind it out of the softmax. The
map has no bias, since the normalisation removes what all blocks of a slot share. The noise is drawn in training only;
no dropout on the attention weights.
"""

from __future__ import annotations

from typing import ClassVar, Literal, Unpack, get_args

import torch
from torch import Tensor, nn

from models.attention import Attention, Sizes
from models.checks import MOST_ROUNDS, at_least, one_of, positive
from models.mechanism import Card
from models.ops.block_attention import from_blocks, fused, in_proportion, mask_to_blocks, to_blocks
from models.ops.precision import accumulation_dtype, without_autocast

Activation = Literal["sinkhorn", "softmax"]


class SinkhornAttention(Attention):
    """Attention to the own and the sorted block.

    Args:
        block_size: b at a budget of 256, changed in proportion to the budget.
        budget: the budget.
        num_iterations: rounds of Sinkhorn balancing.
        temperature: divides R; lower is nearer to a permutation.
        activation: "sinkhorn" balances rows and columns; "softmax" normalises each block's weights over the slots.
    """

    card: ClassVar[Card] = Card(
        what="Sinkhorn attention: each block attends to itself and to a block that a learned sorting network sends to "
        "it",
        family="windows and blocks",
        time="O(L b + (L / b)^2 b) for blocks of b tokens",
        memory="O(L + (L / b)^2)",
        paper="2002.11296",
        exact="one block covers the sequence",
        oracle="sinkhorn-transformer SinkhornAttention, outputs and gradients given the permutation, and its sorting "
        "operator",
    )

    def __init__(
        self,
        *,
        block_size: int,
        budget: int,
        num_iterations: int = 8,
        temperature: float = 0.75,
        activation: Activation = "sinkhorn",
        **sizes: Unpack[Sizes],
    ) -> None:
        super().__init__(**sizes)
        one_of(get_args(Activation), activation=activation)
        at_least(1, MOST_ROUNDS, num_iterations=num_iterations)
        positive(temperature=temperature)
        self.block_size = min(in_proportion(budget, block_size=block_size), self.max_len)
        self.num_iterations = num_iterations
        self.temperature = temperature
        self.activation = activation
        self.sorter = nn.Linear(self.head_dim, -(-self.max_len // self.block_size), bias=False)

    @without_autocast
    def forward(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
        """See the contract."""
        L, b = q.shape[2], self.block_size
        dtype = accumulation_dtype(q)
        k, v = (torch.where(mask[:, None, :, None], x, 0) for x in (k, v))
        queries, keys, values = (to_blocks(x, b) for x in (q, k, v))  # (B, nb, b, H, D)
        real = mask_to_blocks(mask, b)  # (B, nb, b)

        pooled = keys.to(dtype).sum(2).transpose(1, 2)  # (B, H, nb, D)
        R = pooled @ self.sorter.weight.to(dtype)[: real.shape[1]].mT  # (B, H, s, l)
        P = self._balance(R, real.any(-1)[:, None]).mT  # (B, H, l, s)

        sorted_keys, sorted_values = (
            torch.einsum("bhls,bsthd->blthd", P, x.to(dtype)).to(x.dtype) for x in (keys, values)
        )
        sorted_real = torch.einsum("bhls,bst->blht", P, real.to(dtype)) > 0  # (B, nb, H, b)
        seen = torch.cat([real[:, :, None].expand_as(sorted_real), sorted_real], -1)[..., None, :]
        keys, values = torch.cat([keys, sorted_keys], 2), torch.cat([values, sorted_values], 2)
        queries, keys, values = (x.flatten(0, 1).transpose(1, 2) for x in (queries, keys, values))
        out = fused(queries, keys, values, seen.flatten(0, 1))
        return from_blocks(out.transpose(1, 2).unflatten(0, real.shape[:2]), L)

    def _balance(self, R: Tensor, real: Tensor) -> Tensor:
        """Normalise relevances (B, H, s, l) among the blocks (B, 1, blocks) with real tokens; the others get 0."""
        excluded = ~(real[..., :, None] & real[..., None, :])
        low = torch.finfo(R.dtype).min / 4
        if self.activation == "softmax":
            return R.masked_fill(excluded, low).softmax(-1).masked_fill(excluded, 0)
        if self.training:
            R = R - self.draw("exponential", tuple(R.shape), R.device).log()
        log_P = R / self.temperature
        for _ in range(self.num_iterations):
            for axis in (-1, -2):
                log_P = log_P.masked_fill(excluded, low)
                log_P = log_P - log_P.logsumexp(axis, keepdim=True)
        return log_P.exp().masked_fill(excluded, 0)
