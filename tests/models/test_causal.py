"""The causal forms of mechanisms: no token sees a later one, and what else is promised holds for them, too."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from lra.runs.factory import make_encoder
from models.attention.local import LocalAttention
from models.attention.softmax import SoftmaxAttention
from tests.helpers.contract import MAX_LEN, configured, files, heads, holey_mask, mechanism_in, noisy, rows_of

CAUSAL = [name for name, path in files().items() if mechanism_in(path).causal_settings is not None]
MODEL = {
    "dim": 12, "depth": 2, "num_heads": 2, "head_dim": 8, "mlp_dim": 16, "dropout": 0.0, "attention_dropout": 0.0,
}  # fmt: skip


def encoder(name: str, **more: str):
    torch.manual_seed(0)
    make = configured(name, **mechanism_in(files()[name]).causal_settings)
    return make_encoder(make, {**MODEL, **more}, vocab_size=11, max_len=MAX_LEN).double().eval()


def batch(length: int = 37):
    tokens = torch.randint(1, 11, (3, length), generator=torch.Generator().manual_seed(1))
    return tokens, holey_mask(length)


def test_the_backbones_that_pre_training_needs_have_a_causal_form():
    assert {"softmax", "none", "local", "s4d", "lru"} <= set(CAUSAL)


@pytest.mark.parametrize("name", CAUSAL)
def test_no_token_sees_a_later_one(name):
    model, (tokens, mask) = encoder(name), batch()
    before = model(tokens, mask).rows
    for first in (1, 2, 16, 36):
        changed = torch.cat([tokens[:, :first], tokens[:, first:] % 10 + 1], 1)
        after = model(changed, mask).rows
        # A Fourier transform rounds all of a sequence together.
        torch.testing.assert_close(after[:, :first], before[:, :first], rtol=0, atol=1e-11)
        assert not torch.allclose(after[2, first:], before[2, first:], rtol=0, atol=1e-4)
        shorter = model(tokens[:, :first], mask[:, :first]).rows
        torch.testing.assert_close(shorter, before[:, :first], rtol=0, atol=1e-11)


@pytest.mark.parametrize(("name", "positions"), [("softmax", "rotary"), ("softmax", "alibi"), ("local", "alibi")])
def test_no_token_sees_a_later_one_with_positions_inside_attention(name, positions):
    model, (tokens, mask) = encoder(name, positions=positions), batch()
    before = model(tokens, mask).rows
    assert not torch.allclose(before, encoder(name, positions="none")(tokens, mask).rows, atol=1e-4)
    for first in (1, 2, 16, 36):
        changed = torch.cat([tokens[:, :first], tokens[:, first:] % 10 + 1], 1)
        torch.testing.assert_close(model(changed, mask).rows[:, :first], before[:, :first], rtol=0, atol=1e-12)
    x = model.embed(tokens).detach().requires_grad_()
    assert torch.autograd.grad(model.encode(x, mask).rows.sum(), x)[0].isfinite().all()


@pytest.mark.parametrize("name", CAUSAL)
def test_no_gradient_comes_from_a_later_token(name):
    model, (tokens, mask) = encoder(name), batch()
    x = model.embed(tokens).detach().requires_grad_()
    rows = model.encode(x, mask).rows
    [gradient] = torch.autograd.grad(rows[2, 20].square().sum(), x)
    assert gradient[2, 21:].abs().max() < 1e-11 < gradient[2, 20].abs().max()


@pytest.mark.parametrize("name", CAUSAL)
def test_padding_reaches_no_real_row(name):
    model, (tokens, mask) = encoder(name), batch()
    rows = model(tokens, mask).rows
    changed = model(torch.where(mask, tokens, 7), mask).rows
    assert torch.equal(changed[mask], rows[mask])
    assert rows.isfinite().all()


def attend_densely(q, k, v, mask, reach):
    """Softmax attention to the real keys at most `reach` tokens before each, score by score."""
    place = torch.arange(q.shape[2])
    behind = place[:, None] - place
    seen = (behind >= 0) & (behind <= reach) & mask[:, None, None]
    seen = seen | ((behind == 0) & ~mask[:, None, :, None])  # for padding, which nothing reads, something finite
    scores = (q @ k.mT / q.shape[-1] ** 0.5).masked_fill(~seen, -torch.inf)
    return scores.softmax(-1) @ v


@pytest.mark.parametrize("budget", [None, 0, 5])
def test_causal_attention_is_softmax_over_a_triangle(budget):
    sizes = {"num_heads": 2, "head_dim": 8, "max_len": 64, "dropout": 0.0}
    make = SoftmaxAttention if budget is None else partial(LocalAttention, budget=budget)
    inputs, mask = heads(dtype=torch.float64), holey_mask()
    real = rows_of(mask, inputs[0]).expand_as(inputs[0])
    found = make(causal=True, **sizes)(*inputs, mask)[real]
    expected = attend_densely(*inputs, mask, 64 if budget is None else budget)[real]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    weights = torch.linspace(-1, 1, len(found), dtype=torch.float64)
    for one, other in zip(*(torch.autograd.grad(x @ weights, inputs) for x in (found, expected)), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_causal_softmax_keeps_padding_out_in_every_precision_and_at_any_size(dtype):
    attention = SoftmaxAttention(causal=True, num_heads=2, head_dim=8, max_len=64, dropout=0.0)
    mask = holey_mask()
    for scale in (1, 50):
        q, k, v = ((scale * x.detach()).to(dtype) for x in heads())
        out = attention(q, k, v, mask)
        other = attention(q, noisy(k, mask, scale), noisy(v, mask, scale), mask)
        real = rows_of(mask, out).expand_as(out)
        assert torch.equal(out[real], other[real])
        assert out.isfinite().all()
    lone = torch.zeros(3, 37, dtype=torch.bool)
    lone[:, 5] = True
    torch.testing.assert_close(attention(q, k, v, lone)[:, :, 5], v[:, :, 5])
