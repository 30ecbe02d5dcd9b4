"""Informer: exact where it reaches every query, the mean where it reaches none, and its twin between."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from models.attention import informer
from models.attention.informer import InformerAttention
from tests.helpers.frozen import freeze_draws
from tests.twins.informer import informer as twin

B, H, L, D = 4, 2, 30, 8


def build(num_samples: int, log_scaled: bool = False, max_len: int = 64) -> InformerAttention:
    options = {"num_samples": num_samples, "log_scaled": log_scaled}
    return InformerAttention(num_heads=H, head_dim=D, max_len=max_len, dropout=0.0, **options)


def inputs() -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(B, H, L, D, generator=generator, dtype=torch.float64).requires_grad_() for _ in range(3)]


def holey_mask() -> Tensor:
    positions = torch.arange(L)
    return torch.stack([positions % 4 != 2, positions % 7 == 3, positions < 17, positions >= 0])


def real(x: Tensor, mask: Tensor) -> Tensor:
    return torch.where(mask[:, None, :, None], x, 0)


def assert_same(out: Tensor, expected: Tensor, qkv: list[Tensor]) -> None:
    torch.testing.assert_close(out, expected, rtol=1e-10, atol=1e-10)
    seed = torch.randn(out.shape, dtype=out.dtype, generator=torch.Generator().manual_seed(1))
    grads, expected_grads = (torch.autograd.grad(x, qkv, seed, allow_unused=True) for x in (out, expected))
    for grad, expected_grad in zip(grads, expected_grads, strict=True):
        if expected_grad is not None:
            torch.testing.assert_close(grad, expected_grad, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("gather", [False, True])
@pytest.mark.parametrize("log_scaled", [False, True])
@pytest.mark.parametrize("num_samples", [1, 5, 12, 40])
def test_equals_the_twin(num_samples, log_scaled, gather, monkeypatch):
    monkeypatch.setattr(informer, "SCORE_UP_TO", 0 if gather else 1000)
    monkeypatch.setattr(informer, "NUMBERS", 512)
    module, qkv, mask = freeze_draws(build(num_samples, log_scaled)), inputs(), holey_mask()
    drawn, draw = [], module.draw
    module.draw = lambda *arguments: drawn.append(draw(*arguments)) or drawn[-1]
    out = real(module(*qkv, mask), mask)
    assert_same(out, twin(*qkv, mask, drawn[0], num_samples=num_samples, factor=module.factor), qkv)


@pytest.mark.parametrize("log_scaled", [False, True])
def test_enough_samples_give_softmax_attention(log_scaled):
    qkv, mask = inputs(), holey_mask()
    q, k, v = qkv
    scores = (q @ k.mT / D**0.5).masked_fill(~mask[:, None, None], -torch.inf)
    assert_same(real(build(64, log_scaled)(*qkv, mask), mask), real(scores.softmax(-1) @ v, mask), qkv)


def test_no_samples_give_the_mean():
    qkv, mask = inputs(), holey_mask()
    mean = (mask[:, None, :, None] * qkv[2]).sum(2, keepdim=True) / mask.sum(-1)[:, None, None, None]
    assert_same(real(build(0)(*qkv, mask), mask), real(mean.expand(B, H, L, D), mask), qkv[2:])


def test_exactly_u_rows_are_exact():
    qkv, mask = inputs(), holey_mask()
    q, k, v = qkv
    exact = (q @ k.mT / D**0.5).masked_fill(~mask[:, None, None], -torch.inf).softmax(-1) @ v
    rows = ((build(6)(*qkv, mask) - exact).abs().amax(-1) < 1e-12) & mask[:, None]
    assert (rows.sum(-1) == mask.sum(-1).clamp(max=6)[:, None]).all()


def test_the_factor_is_that_of_the_published_code():
    assert build(128, log_scaled=True, max_len=2048).factor == 17  # ceil(128 / 7.62)
    with pytest.raises(ValueError, match=r"num_samples must be at least 0\. Got -1\."):
        build(-1)
