"""Attention that is exact nearby and coarse farther away: the dense form of each, and where it is softmax attention."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from models.attention.h_transformer_1d import HTransformer1DAttention
from models.ops.block_attention import PUBLISHED_BUDGET

B, H, D = 3, 2, 4
LENGTHS = [1, 5, 37, 64, 128]
COMMON = {"num_heads": H, "head_dim": D, "max_len": 128, "dropout": 0.0}
FULL = {"budget": PUBLISHED_BUDGET}  # sizes mean what they say

outdated = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def inputs(length: int, scale: float = 1.0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(length)
    q, k, v = torch.randn(3, B, H, length, D, generator=generator, dtype=torch.float64)
    return [x.requires_grad_() for x in (scale * q, scale * k, v)]


def masks(length: int) -> Tensor:
    """Rows: holes, also at the beginning; a prefix; everything."""
    i = torch.arange(length)
    return torch.stack([(i % 3 != 1) & (i < 100) & (i > 0), i < max(length * 2 // 3, 1), i >= 0])


def weighted(logits: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    """Attend by logits (B, H, L, L) to the real tokens."""
    return logits.masked_fill(~mask[:, None, None], torch.finfo(logits.dtype).min).softmax(-1) @ v


def softmax_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    return weighted(q @ k.mT / q.shape[-1] ** 0.5, v, mask)


def assert_same(out: Tensor, expected: Tensor, mask: Tensor, wrt: list[Tensor], tolerance: float = 1e-10) -> None:
    """Compare real rows, and gradients of a random projection of them."""
    out, expected = (torch.where(mask[:, None, :, None], x, 0) for x in (out, expected))
    torch.testing.assert_close(out, expected, rtol=tolerance, atol=tolerance)
    seed = torch.randn(out.shape, dtype=out.dtype, generator=torch.Generator().manual_seed(1))
    for grad, right in zip(*(torch.autograd.grad(x, wrt, seed) for x in (out, expected)), strict=True):
        torch.testing.assert_close(grad, right, rtol=tolerance, atol=tolerance)


# H-Transformer-1D


def means(x: Tensor, mask: Tensor, size: int) -> Tensor:
    """Replace every row by the mean of the real ones in its cell."""
    cell = torch.arange(x.shape[2]) // size
    together = ((cell[:, None] == cell) & mask[:, None]).to(x.dtype)  # (B, L, L)
    return (together / together.sum(-1, keepdim=True).clamp(min=1))[:, None] @ x


def neighbours(block: Tensor) -> Tensor:
    """Which blocks are the same or stand beside one another."""
    return (block[:, None] - block).abs() <= 1


def siblings(block: Tensor) -> Tensor:
    """Which blocks are the same or the two halves of one."""
    return block[:, None] // 2 == block // 2


def hierarchical(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, block_size: int, related: Any = neighbours) -> Tensor:
    """Every pair of tokens at the first level at which their blocks are related."""
    i = torch.arange(q.shape[2])
    size, logits, found = 1, torch.zeros(1), torch.zeros(len(i), len(i), dtype=torch.bool)
    while not found.all():
        near = related(i // (block_size * size))
        coarse = means(q, mask, size) @ means(k, mask, size).mT / D**0.5
        logits = torch.where(near & ~found, coarse, logits)
        size, found = 2 * size, near
    return weighted(logits, v, mask)


@pytest.mark.parametrize("scale", [1.0, 20.0])
@pytest.mark.parametrize("block_size", [2, 4, 16])
@pytest.mark.parametrize("length", LENGTHS)
def test_h_transformer_is_its_dense_form(length, block_size, scale):
    qkv, mask = inputs(length, scale), masks(length)
    out = HTransformer1DAttention(**COMMON, **FULL, block_size=block_size)(*qkv, mask)
    assert_same(out, hierarchical(*qkv, mask, block_size), mask, qkv)


def test_h_transformer_is_softmax_attention_on_two_blocks():
    qkv, mask = inputs(64), masks(64)
    out = HTransformer1DAttention(**COMMON, **FULL, block_size=32)(*qkv, mask)
    assert_same(out, softmax_attention(*qkv, mask), mask, qkv)


def test_h_transformer_is_softmax_attention_where_cells_are_constant():
    """Of 32 blocks of 4 the coarsest level makes two, so that its cells have 16 tokens."""
    (q, k, v), mask = inputs(128), masks(128)
    q, k = (x[:, :, ::16].detach().repeat_interleave(16, 2) for x in (q, k))
    out = HTransformer1DAttention(**COMMON, **FULL, block_size=4)(q, k, v, mask)
    assert_same(out, softmax_attention(q, k, v, mask), mask, [v])


def test_h_transformer_has_even_blocks_in_proportion_to_the_budget():
    sizes = [HTransformer1DAttention(**COMMON, block_size=16, budget=budget).block_size for budget in (1, 48, 256, 512)]
    assert sizes == [2, 4, 16, 32]


class NoShift:
    """torch, whose largest number of a row is 0."""

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)

    @staticmethod
    def max(x: Tensor, **_: Any) -> SimpleNamespace:
        return SimpleNamespace(values=torch.zeros((), dtype=x.dtype))


@outdated
def test_the_dense_form_with_siblings_is_that_of_h_transformer_1d(monkeypatch):
    """The two halves of its sequence never meet. Its shifts are removed, and values of 1 give the right normaliser."""
    package = pytest.importorskip("h_transformer_1d.h_transformer_1d")
    monkeypatch.setattr(package, "torch", NoShift())
    theirs = package.HAttention1D(1, heads=1, dim_head=D + 1, block_size=4, eps=0.0)
    theirs.scale, theirs.to_qkv, theirs.to_out = D**-0.5, nn.Identity(), nn.Identity()
    qkv = inputs(64)
    q, k, v = (nn.functional.pad(x, (0, 1), value=value) for x, value in zip(qkv, (0.0, 0.0, 1.0), strict=True))
    *out, total = theirs(torch.cat([q, k, v], -1).flatten(0, 1)).unflatten(0, (B, H)).unbind(-1)
    out = torch.stack(out, -1) / total[..., None]
    half, mask = slice(32), torch.ones(B, 32, dtype=torch.bool)
    expected = hierarchical(*(x[:, :, half] for x in qkv), mask, 4, siblings)
    assert_same(out[:, :, half], expected, mask, qkv)
