"""Softmax attention over the blocks of keys that a table names: the one kernel of all blocked sparsity.

Queries are cut into blocks of b tokens. For every block the kernel gathers the blocks of keys and values that it
visits, and attends in one fused call with the blocks in the batch dimension: time and memory O(L K b) for K visits of
a block, and no L x L matrix. A length that is no multiple of b is padded inside.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from models.checks import at_least
from models.ops.biased_attention import Bias

PUBLISHED_BUDGET = 256  # the budget at which a published size holds


class Shared(NamedTuple):
    """Keys (B, H, S, D), values (B, H, S, D) and mask (B, S) of tokens that every query sees."""

    k: Tensor
    v: Tensor
    mask: Tensor


def in_proportion(budget: int, **published: int) -> int:
    """Scale a size that was published for a budget of 256 keys to another budget, rounded up.

    Args:
        budget: the budget.
        published: the one size, by the name of its option.

    Raises:
        ValueError: one of them is no integer from 1.
    """
    at_least(1, **published, budget=budget)
    [size] = published.values()
    return -(-size * budget // PUBLISHED_BUDGET)


def to_blocks(x: Tensor, block_size: int) -> Tensor:
    """Cut (B, H, L, D) into (B, blocks, block_size, H, D), the last block padded with zeros."""
    x = x.transpose(1, 2)  # the layout of the encoder, whose heads are neighbours: cutting it copies nothing
    return F.pad(x, (0, 0, 0, 0, 0, -x.shape[1] % block_size)).unflatten(1, (-1, block_size))


def mask_to_blocks(mask: Tensor, block_size: int) -> Tensor:
    """Cut (B, L) into (B, blocks, block_size)."""
    return F.pad(mask, (0, -mask.shape[1] % block_size)).unflatten(1, (-1, block_size))


def with_fill(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, block_size: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Append zeros that count as real tokens: up to the next multiple of b, a whole block where the length is one.

    So does the LRA code (arXiv 2011.04006) by mistake. Results then depend on how much padding follows a sequence.
    """
    extra = block_size - mask.shape[1] % block_size
    q, k, v = (F.pad(x, (0, 0, 0, extra)) for x in (q, k, v))
    return q, k, v, F.pad(mask, (0, extra), value=True)


def from_blocks(x: Tensor, length: int) -> Tensor:
    """Undo `to_blocks`."""
    return x.flatten(1, 2)[:, :length].transpose(1, 2)


def fused(q: Tensor, k: Tensor, v: Tensor, seen: Tensor, bias: Tensor | None = None) -> Tensor:
    """Attend to the keys that are seen, bool, in the inputs' precision, autocast or not; a bias is added to the scores.

    A key that is not seen has weight exactly 0 beside any that is, however large the logits; a row that sees none sees
    all, which is finite and means nothing.
    """
    with torch.autocast(q.device.type, enabled=False):
        seen = seen | ~seen.any(-1, keepdim=True)
        if bias is not None:
            seen = bias.to(q.dtype).masked_fill(~seen, -torch.inf)
        return F.scaled_dot_product_attention(q, k, v, attn_mask=seen)


def window_table(num_blocks: int, reach: int, device: torch.device) -> Tensor:
    """Name the blocks at most `reach` away: (blocks, 1, 2 reach + 1), -1 beyond the ends."""
    index = torch.arange(num_blocks, device=device)[:, None] + torch.arange(-reach, reach + 1, device=device)
    return index.masked_fill((index < 0) | (index >= num_blocks), -1)[:, None]


def attend_blocks(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor,
    table: Tensor,
    block_size: int,
    pattern: Tensor | None = None,
    shared: Shared | None = None,
    bias: Bias | None = None,
) -> Tensor:
    """Attend to the blocks that a table names.

    Args:
        q: queries (B, H, L, D).
        k: keys (B, H, L, D).
        v: values (B, H, L, D).
        mask: (B, L) bool, True on keys that may be seen.
        table: blocks of keys that each block of queries visits, int64, broadcast to
            (B, blocks, G, K) with G = 1 or H. A negative entry is no visit, and a block named twice counts once.
        block_size: b.
        pattern: which of the K b gathered and S shared keys each row of a block sees, bool, broadcast to
            (B, blocks, G, b, K b + S); all of them by default.
        shared: tokens that every query sees besides; they must not be visible in the table's blocks too.
        bias: what is added to the scores, by the places of queries and keys; only with one table for all sequences
            and heads, (blocks, 1, K), and with shared tokens that are the first ones.

    Returns:
        (B, H, L, D); a row that sees no key is finite and means nothing.
    """
    B, L = mask.shape
    G = table.shape[-2]  # tables for each head make a group of each, a table for all keeps the heads together
    queries, keys, values = (
        to_blocks(x, block_size).unflatten(3, (G, -1)).movedim(3, 2) for x in (q, k, v)
    )  # (B, nb, G, b, H / G, D)
    nb = queries.shape[1]

    gained = None
    if bias is not None:
        num_shared = 0 if shared is None else shared.mask.shape[1]
        gained = _bias_of_blocks(bias, table, block_size, num_shared).expand(B, -1, -1, -1, -1).flatten(0, 1)
    table = table.expand(B, nb, -1, -1)
    repeated = (table[..., :, None] == table[..., None, :]).tril(-1).any(-1)
    visited, index = (table >= 0) & ~repeated, table.clamp(min=0)
    sequences = torch.arange(B, device=q.device)[:, None, None, None]
    seen = mask_to_blocks(mask, block_size)[sequences, index] & visited[..., None]  # (B, nb, G, K, b)
    seen = seen.flatten(-2)[..., None, :]

    rows = (sequences * nb + index) * G + torch.arange(G, device=q.device)[:, None]  # (B, nb, G, K)
    keys, values = (_gather(x, rows) for x in (keys, values))  # (B, nb, G, K b, H / G, D)
    if shared is not None:
        common = (x.transpose(1, 2).unflatten(2, (G, -1)).movedim(2, 1)[:, None] for x in (shared.k, shared.v))
        keys, values = (
            torch.cat([x, y.expand(-1, nb, -1, -1, -1, -1)], 3) for x, y in zip((keys, values), common, strict=True)
        )
        seen = torch.cat([seen, shared.mask[:, None, None, None].expand(*seen.shape[:4], -1)], -1)
    if pattern is not None:
        seen = seen & pattern
    queries, keys, values = (x.flatten(0, 2).transpose(1, 2) for x in (queries, keys, values))
    out = fused(queries, keys, values, seen.flatten(0, 2)[:, None], gained)
    return from_blocks(out.transpose(1, 2).unflatten(0, (B, nb, G)).movedim(2, 3).flatten(3, 4), L)


def attend_band(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor,
    left: int,
    right: int,
    shared: Shared | None = None,
    bias: Bias | None = None,
) -> Tensor:
    """Attend to the keys at most `left` positions before and `right` behind a query, and to the shared ones.

    See `attend_blocks` for the tensors; with a bias, the shared tokens are the first ones.
    """
    L = q.shape[2]
    block_size = min(max(left, right, 32), L)  # small windows share a block, since small groups are slow
    nb = -(-L // block_size)
    reach = min(1, nb - 1)
    rows = torch.arange(block_size, device=q.device)[:, None]
    columns = torch.arange(-reach * block_size, (reach + 1) * block_size, device=q.device)
    pattern = (rows - columns <= left) & (columns - rows <= right)
    if shared is not None:
        pattern = F.pad(pattern, (0, shared.mask.shape[1]), value=True)
    return attend_blocks(q, k, v, mask, window_table(nb, reach, q.device), block_size, pattern, shared, bias)


def _bias_of_blocks(bias: Bias, table: Tensor, block_size: int, num_shared: int) -> Tensor:
    """Return the biases (blocks, H, b, K b + S) of the keys that a table (blocks, 1, K) names, and of the first S."""
    within = torch.arange(block_size, device=table.device)
    queries = torch.arange(len(table), device=table.device)[:, None] * block_size + within  # (nb, b)
    keys = table[:, 0].clamp(min=0)[..., None] * block_size + within  # (nb, K, b)
    first = torch.arange(num_shared, device=table.device).expand(len(table), -1)
    return bias(queries, torch.cat([keys.flatten(-2), first], -1))


def _gather(blocks: Tensor, rows: Tensor) -> Tensor:
    """Take blocks (B, nb, G, b, H / G, D) by their numbers in that order, (B, nb, G, K), and join each row's K."""
    # An embedding is a gather of rows whose backward pass adds in a fixed order, on every device.
    gathered = F.embedding(rows, blocks.flatten(3).flatten(0, 2))
    return gathered.unflatten(-1, blocks.shape[3:]).flatten(3, 4)
