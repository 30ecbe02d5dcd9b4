"""Softmax attention over keys that each query chose for itself: the one kernel of token-wise sparsity.

A query reads a window around its own position, and slots, each a pair of neighbouring keys that are interpolated. Time
and memory O(L (W + 2 S)) for W keys of a window and S slots, apart from a sort of L S numbers in the backward pass. No
key is copied for a query: scores and weighted sums read the keys in place, as embedding bags, and the gradients of keys
and values are bags too, over the queries that chose them, so that they are added in a fixed order.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

NUMBERS = 2**20  # weights at work at once, or as many as an input has numbers; at least those of a sequence


def attend_sets(q: Tensor, k: Tensor, v: Tensor, window: int, lower: Tensor, share: Tensor, seen: Tensor) -> Tensor:
    """Attend to the window and to the slots in one softmax.

    Args:
        q: queries (B, L, H, D), float32 or float64.
        k: keys (B, L, H, D).
        v: values (B, L, H, D).
        window: W, odd, or 0 for none: tokens i - W // 2 to i + W // 2.
        lower: (B, L, H, S), the lower token of each slot; the upper one is the next, if there is one.
        share: (B, L, H, S), the weight of the upper token in a slot's key and value; the lower one has 1 - share.
        seen: (B, L, H, W + S) bool, False for what does not count, such as a window beyond the ends.

    Returns:
        (B, L, H, D); a row that sees nothing is finite and means nothing.
    """
    step = max(1, max(NUMBERS, q.numel()) // (lower[0].numel() * 2 + q[0, :, :, 0].numel() * window))
    outs = []
    for parts, lower_part in zip(
        zip(*(x.split(step) for x in (q, k, v, share, seen)), strict=True), lower.split(step), strict=True
    ):
        outs.append(_Attend.apply(*(x.flatten(0, 2) for x in parts), _Sets(window, lower_part)).view(parts[0].shape))
    return torch.cat(outs)


class _Sets:
    """What each row of an (N, D) table reads, N = B L H: the window's rows, the slots' lower and their upper ones."""

    def __init__(self, window: int, lower: Tensor) -> None:
        B, L, H, self.slots = lower.shape
        self.shape, self.window = (B, L, H), window
        # In int32, which is half the traffic of int64.
        sequence, token, head = (torch.arange(n, device=lower.device, dtype=torch.int32) for n in self.shape)
        first = sequence[:, None, None, None] * (L * H) + head[:, None]  # (B, 1, H, 1)
        offsets = torch.arange(window, device=lower.device, dtype=torch.int32) - window // 2
        around = (token[:, None] + offsets).clamp(0, L - 1)[:, None]  # (L, 1, W)
        self.lower = (lower.int() * H + first).flatten(0, 2)
        upper = (self.lower + H).clamp_(max=len(self.lower) - 1)
        self.index = torch.cat([(around * H + first).flatten(0, 2), self.lower, upper], 1)

    @cached_property
    def readers(self) -> tuple[Tensor, Tensor, Tensor]:
        """All slots in the order of their lower rows, the rows that have them, and where each lower row's begin."""
        keys, order = self.lower.flatten().sort()
        rows = order.int().div_(self.slots, rounding_mode="floor")
        every_key = torch.arange(len(self.lower), device=keys.device, dtype=keys.dtype)
        return order, rows, torch.searchsorted(keys, every_key, out_int32=True)

    def read(self, weights: Tensor, table: Tensor) -> Tensor:
        """Sum the rows of a table (N, D) that each row reads, by weights (N, W + 2 S)."""
        return F.embedding_bag(self.index, table, mode="sum", per_sample_weights=weights)

    def products(self, x: Tensor, table: Tensor) -> Tensor:
        """Multiply each row of x (N, D) with the rows that it reads: (N, W + 2 S)."""
        # x . row is the derivative of x . sum(weight row) by the weight, for which torch has a kernel.
        with torch.enable_grad():
            weights = x.new_zeros(self.index.shape).requires_grad_()
            return torch.autograd.grad(self.read(weights, table.detach()), weights, x.detach())[0]

    def write(self, weights: Tensor, x: Tensor) -> Tensor:
        """Add rows of x (N, D), by weights (N, W + 2 S), to the rows that each reads: the transpose of `read`."""
        out = torch.zeros_like(x)
        if self.window:
            own = self._seen_from_the_key(weights[:, : self.window])
            out = F.embedding_bag(self.index[:, : self.window], x, mode="sum", per_sample_weights=own)
        if self.slots:
            order, rows, starts = self.readers
            lower, upper = (
                F.embedding_bag(rows, x, starts, mode="sum", per_sample_weights=part.flatten().index_select(0, order))
                for part in weights[:, self.window :].split(self.slots, 1)
            )
            H = self.shape[2]
            out += lower
            out[H:] += upper[:-H]
        return out

    def _seen_from_the_key(self, weights: Tensor) -> Tensor:
        """Turn the weights (N, W) that each row gives to its window into those that the window gives to the row."""
        # Token j + o gives j the weight at index W // 2 - o: as o grows by 1, one token further and one index back.
        H, W = self.shape[2], self.window
        padded = F.pad(weights.unflatten(0, self.shape), (0, 0, 0, 0, W // 2, W // 2))
        strides = (padded.stride(0), H * W, W, H * W - 1)
        return padded.as_strided((*self.shape, W), strides, W - 1).reshape(-1, W)


class _Attend(torch.autograd.Function):
    """The attention of rows; of the scores only the differences within slots are kept."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, share: Tensor, seen: Tensor, sets: _Sets) -> Tensor:
        q = q * q.shape[1] ** -0.5
        local, lower, upper = sets.products(q, k).split([sets.window, sets.slots, sets.slots], 1)
        slope = upper - lower
        logits = torch.cat([local, torch.addcmul(lower, share, slope)], 1)
        # Instead of minus infinity, which a row that sees nothing would turn into nan.
        P = logits.masked_fill_(~seen, torch.finfo(logits.dtype).min).softmax(1)
        ctx.save_for_backward(q, k, v, share, slope, P)
        ctx.sets = sets
        return sets.read(_divided(P, share), v)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (q, k, v, share, slope, P), sets = ctx.saved_tensors, ctx.sets
        grad = grad.contiguous()
        local, lower, upper = sets.products(grad, v).split([sets.window, sets.slots, sets.slots], 1)
        value_slope = upper - lower
        dP = torch.cat([local, torch.addcmul(lower, share, value_slope)], 1)
        dS = dP.sub_((P * dP).sum(1, keepdim=True)).mul_(P)
        d_share = value_slope.mul_(P[:, sets.window :]).addcmul_(slope, dS[:, sets.window :])
        dv, dS = sets.write(_divided(P, share), grad), _divided(dS, share)
        return sets.read(dS, k) * q.shape[1] ** -0.5, sets.write(dS, q), dv, d_share, None, None


def _divided(weights: Tensor, share: Tensor) -> Tensor:
    """Divide each slot's weight among its two tokens: (N, W + S) to (N, W + 2 S)."""
    local, slots = weights.split([weights.shape[1] - share.shape[1], share.shape[1]], 1)
    upper = slots * share
    return torch.cat([local, slots - upper, upper], 1)
