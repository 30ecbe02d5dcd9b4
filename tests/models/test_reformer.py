"""Reformer: its twin over many chunks, its exact case, and the contract beyond one chunk."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from models.attention.reformer import ReformerAttention
from tests.helpers.frozen import freeze_draws
from tests.twins.reformer import reformer

B, H, L, D = 4, 2, 37, 8
VARIANTS = {
    "paper": {},
    "one_round": {"num_hashes": 1},
    "three_rounds": {"num_hashes": 3},
    "twice_counted": {"count_once": False},
    "transformers": {"count_once": False, "same_bucket": False},
    "buckets": {"num_buckets": 4},
    "across": {"same_bucket": False, "num_hashes": 3},
}


def build(chunk_size: int = 4, **options) -> ReformerAttention:
    return ReformerAttention(num_heads=H, head_dim=D, max_len=64, dropout=0.0, chunk_size=chunk_size, **options)


def inputs(length: int = L) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(B, H, length, D, generator=generator, dtype=torch.float64).requires_grad_() for _ in range(2)]


def holey_mask(length: int = L) -> Tensor:
    positions = torch.arange(length)
    return torch.stack([positions % 4 != 2, positions % 11 == 3, positions < length // 2, positions >= 0])


def real(x: Tensor, mask: Tensor) -> Tensor:
    return torch.where(mask[:, None, :, None], x, 0)


def with_grads(out: Tensor, qv: list[Tensor]) -> list[Tensor]:
    seed = torch.randn(out.shape, dtype=out.dtype, generator=torch.Generator().manual_seed(1))
    return [out.detach(), *torch.autograd.grad(out, qv, seed)]


def assert_same(first: list[Tensor], second: list[Tensor]) -> None:
    for x, y in zip(first, second, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("chunk_size", [2, 4, 9, 40])
@pytest.mark.parametrize("variant", VARIANTS)
def test_equals_the_twin(variant, chunk_size):
    options = dict(VARIANTS[variant])
    module, (q, v), mask = freeze_draws(build(chunk_size, **options)), inputs(), holey_mask()
    drawn, draw = [], module.draw
    module.draw = lambda *arguments: drawn.append(draw(*arguments)) or drawn[-1]
    out = real(module(q, q, v, mask), mask)
    options.pop("num_hashes", None)
    expected = reformer(q, v, mask, drawn[0].double(), chunk_size=chunk_size, **options)
    assert_same(with_grads(out, [q, v]), with_grads(expected, [q, v]))


@pytest.mark.parametrize("variant", VARIANTS)
def test_one_chunk_is_softmax_over_the_others(variant):
    (q, v), mask = inputs(), holey_mask()
    scores = (q @ F.normalize(q, dim=-1).mT).masked_fill(~mask[:, None, None], -torch.inf)
    scores = scores.masked_fill(torch.eye(L, dtype=torch.bool), -1e5)
    expected = real(scores.softmax(-1) @ v, mask)
    out = real(build(L, **VARIANTS[variant])(q, q, v, mask), mask)
    assert_same(with_grads(out, [q, v]), with_grads(expected, [q, v]))


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("extra", [1, 3, 27])
def test_padding_and_batch_mates_do_not_matter_over_many_chunks(variant, extra):
    module, (q, v), mask = freeze_draws(build(**VARIANTS[variant])), inputs(), holey_mask()
    out = with_grads(real(module(q, q, v, mask), mask), [q, v])
    noisy_q, noisy_v = (torch.where(mask[:, None, :, None], x, 1e4 * torch.randn_like(x)) for x in (q, v))
    noisy = with_grads(real(module(noisy_q, noisy_q, noisy_v, mask), mask), [q, v])
    for x, y in zip(out, noisy, strict=True):
        assert torch.equal(x, y)
    longer_q, longer_v = (F.pad(x, (0, 0, 0, extra), value=2.0) for x in (q, v))
    longer = real(module(longer_q, longer_q, longer_v, F.pad(mask, (0, extra))), F.pad(mask, (0, extra)))
    assert_same(out, with_grads(longer[:, :, :L], [q, v]))
    alone = real(module(q[:1], q[:1], v[:1], mask[:1]), mask[:1])
    torch.testing.assert_close(alone, out[0][:1], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("length", [1, 3, 4, 5, 8, 64])
def test_empty_and_single_sequences_over_many_chunks(length):
    mask = torch.ones(B, length, dtype=torch.bool)
    mask[0] = False
    mask[1] = torch.arange(length) == length // 2
    q, v = inputs(length)
    out = build(num_hashes=3)(q, q, v, mask)
    for x in with_grads(out, [q, v]):
        assert x.isfinite().all()
    torch.testing.assert_close(out[1, :, length // 2], v[1, :, length // 2])


def test_gradients_match_finite_differences_over_many_chunks():
    module, (q, v), mask = freeze_draws(build(3, num_hashes=2)), inputs(11), holey_mask(11)

    def attend(q: Tensor, v: Tensor) -> Tensor:
        return real(module(q, q, v, mask), mask)

    assert torch.autograd.gradcheck(attend, (q, v), fast_mode=True)


def test_logits_above_2000_stay_finite():
    q, v = (x.detach().float().requires_grad_() for x in inputs())
    out = build()(1000 * q, 1000 * q, v, holey_mask())
    for x in with_grads(out, [q, v]):
        assert x.isfinite().all()


@pytest.mark.parametrize(("length", "num_buckets"), [(16_384, None), (256, 2**17)])
def test_many_small_chunks_are_told_apart_in_float32(length, num_buckets):
    """Numbers of chunks that float32 cannot hold beside a half: 88 % of the rows of the first case were wrong."""
    options = {"chunk_size": 4, "num_buckets": num_buckets, "num_hashes": 2, "max_len": 2**17}
    module = ReformerAttention(num_heads=1, head_dim=D, dropout=0.0, **options)
    generator = torch.Generator().manual_seed(0)
    q, v = torch.randn(2, 1, 1, length, D, generator=generator, dtype=torch.float64)
    buckets = torch.randint(num_buckets or length // 2, (1, 1, 2, length // 8), generator=generator).repeat(1, 1, 1, 8)
    mask = torch.ones(1, length, dtype=torch.bool)
    out = module._attend(q.float(), v.float(), mask, buckets)
    torch.testing.assert_close(out.double(), module._attend(q, v, mask, buckets), rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_hashes": 0}, r"num_hashes must be at least 1\. Got 0\."),
        ({"chunk_size": 0}, r"chunk_size must be at least 1\. Got 0\."),
        ({"num_buckets": 3}, r"num_buckets must be even\. Got 3\."),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        build(**options)
