"""YOSO: the formulas of its weights and surrogate gradients, and the statistics of its hashes."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from models.attention.yoso import YosoAttention
from models.ops import hash_sums as yoso_hashing
from tests.helpers.frozen import freeze_draws
from tests.twins.yoso import (
    collision_probability,
    collisions,
    gaussian_codes,
    hadamard_codes,
    lower_bound_gradients,
)

B, H, L, D = 3, 2, 13, 8
E = {"estimator": "expectation", "backward": "lower_bound"}
STAR = {"estimator": "sampled", "backward": "lower_bound"}
SAMPLED = {"estimator": "sampled", "backward": "sampled"}
WAYS = {"expectation": E, "star": STAR, "sampled": SAMPLED, "hadamard": {**SAMPLED, "hashing": "hadamard"}}


def build(heads: int = H, dim: int = D, num_bits: int | None = 5, **options) -> YosoAttention:
    return YosoAttention(num_heads=heads, head_dim=dim, max_len=64, dropout=0.0, num_bits=num_bits, **options)


def inputs(seed: int = 0, shape: tuple[int, ...] = (B, H, L, D), count: int = 3) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_() for _ in range(count)]


def unit(x: Tensor) -> Tensor:
    return F.normalize(x.detach(), dim=-1).requires_grad_()


def holey_mask() -> Tensor:
    positions = torch.arange(L)
    return torch.stack([positions % 4 != 2, positions < 7, positions >= 0])


def real(x: Tensor, mask: Tensor) -> Tensor:
    return torch.where(mask[:, None, :, None], x, 0)


@pytest.mark.parametrize("num_bits", [0, 1, 2, 3, 7, 9, 12])
def test_expectation_is_its_two_line_formula(num_bits):
    (q, k, v), mask = inputs(), holey_mask()
    P = collision_probability(q, k, num_bits) * mask[:, None, None]
    expected = real(F.normalize(P @ v, dim=-1), mask)
    out = real(build(num_bits=num_bits, **E)(q, k, v, mask), mask)
    torch.testing.assert_close(out, expected, rtol=1e-12, atol=1e-12)
    if num_bits == 0:
        total = (mask[:, None, :, None] * v).sum(2, keepdim=True)
        torch.testing.assert_close(out, real(F.normalize(total, dim=-1).expand_as(v), mask))


@pytest.mark.parametrize("num_bits", [0, 1, 5, 9])
def test_true_derivative_is_that_of_the_formula(num_bits):
    qkv, mask = inputs(), holey_mask()
    module = build(num_bits=num_bits, estimator="expectation", backward="true")
    seed = real(torch.randn(B, H, L, D, dtype=torch.float64), mask)
    q, k, v = qkv
    P = collision_probability(q, k, num_bits) * mask[:, None, None]
    expected = torch.autograd.grad(F.normalize(P @ v, dim=-1), qkv, seed, allow_unused=True, materialize_grads=True)
    for grad, other in zip(torch.autograd.grad(module(*qkv, mask), qkv, seed), expected, strict=True):
        torch.testing.assert_close(grad, other, rtol=1e-9, atol=1e-9)
    if num_bits == 5:
        assert torch.autograd.gradcheck(lambda *x: real(module(*x, mask), mask), qkv, fast_mode=True)


@pytest.mark.parametrize(
    ("counted", "numbers", "num_hashes"),
    [(True, 5000, 6), (True, 5000, 130), (False, 5000, 6), (False, 2**19, 6)],  # few hashes at a time, or many heads
)
@pytest.mark.parametrize("way", WAYS)
def test_forward_and_surrogate_gradients_equal_the_pair_formulas(way, counted, numbers, num_hashes, monkeypatch):
    """The weighted sum alone, given unit vectors: no gradient of the normalisation is in the way."""
    monkeypatch.setattr(yoso_hashing, "COUNT_UP_TO", 1000 if counted else 0)
    monkeypatch.setattr(yoso_hashing, "PAIRS", 50)
    monkeypatch.setattr(yoso_hashing, "NUMBERS", numbers)
    module, mask = build(num_hashes=num_hashes, **WAYS[way]), torch.ones(B, L, dtype=torch.bool)
    q, k, v = inputs()
    q, k = unit(q), unit(k)
    torch.manual_seed(0)
    Y = module.weighted_sum(q, k, v, mask)
    P = collision_probability(q, k, 5).detach()
    torch.manual_seed(0)
    C = collisions(*module.codes(q, k, mask)).view_as(P)
    forward = P if way == "expectation" else C
    torch.testing.assert_close(Y, forward @ v, rtol=1e-12, atol=1e-12)
    (G,) = inputs(1, count=1)
    grads = torch.autograd.grad(Y, (q, k, v), G.detach())
    backward = C if module.backward_form == "sampled" else P
    for b in range(B):
        for h in range(H):
            expected = lower_bound_gradients(*(x[b, h].detach() for x in (G, q, k, v)), backward[b, h], 5)
            for grad, other in zip(grads, expected, strict=True):
                torch.testing.assert_close(grad[b, h], other, rtol=1e-12, atol=1e-12)
    if way == "expectation":
        (dv,) = torch.autograd.grad(P @ v, v, G.detach())
        torch.testing.assert_close(grads[2], dv)


def test_codes_equal_the_twin_in_both_code_paths():
    x, (planes,) = torch.randn(3, L, D), (torch.randn(3, D, 20),)
    codes = yoso_hashing.hyperplane_codes(x, planes, 4)
    assert codes.tolist() == [gaussian_codes(a, p, 4) for a, p in zip(x, planes, strict=True)]


@pytest.mark.parametrize(("dim", "num_bits", "num_hashes"), [(1, 1, 3), (6, 3, 5), (8, 8, 2), (8, 1, 9), (5, 11, 2)])
def test_hadamard_hyperplanes_give_the_codes_of_the_transforms(dim, num_bits, num_hashes):
    width = 2 ** max(dim - 1, num_bits - 1).bit_length()
    rotations = math.ceil(num_hashes / (width // num_bits))
    x, signs = torch.randn(3, L, dim, dtype=torch.float64), torch.randint(2, (3, rotations, 3, width)) * 2 - 1
    planes = yoso_hashing.hadamard_planes(signs, dim, num_bits, num_hashes)
    codes = yoso_hashing.hyperplane_codes(x, planes, num_bits)
    assert codes.tolist() == [hadamard_codes(a, s, num_bits, num_hashes) for a, s in zip(x, signs, strict=True)]


@pytest.mark.parametrize("hashing", ["gaussian", "hadamard"])
def test_equal_vectors_always_collide_and_opposite_ones_never(hashing):
    module, mask = build(num_hashes=40, hashing=hashing), torch.ones(B, L, dtype=torch.bool)
    q, _, _ = inputs()
    for k, expected in ((2 * q, 1.0), (-q, 0.0)):
        C = collisions(*module.codes(q.detach(), k.detach(), mask))
        assert (C.diagonal(dim1=1, dim2=2) == expected).all()


@pytest.mark.parametrize("way", WAYS)
def test_lengths_of_queries_and_keys_do_not_matter(way):
    module, (q, k, v), mask = freeze_draws(build(**WAYS[way])), inputs(), holey_mask()
    scales = torch.linspace(0.01, 100, L).double()[:, None]
    out, scaled = module(q, k, v, mask), module(scales * q, k * scales.flip(0), v, mask)
    torch.testing.assert_close(out, scaled, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("way", WAYS)
def test_rows_have_norm_one_or_are_zero(way):
    module, (q, k, v), mask = build(num_bits=8, num_hashes=4, **WAYS[way]), inputs(), holey_mask()
    norm = module(q, k, v, mask).norm(dim=-1)
    zero = norm == 0
    torch.testing.assert_close(norm[~zero], torch.ones_like(norm[~zero]))
    assert zero[~mask[:, None].expand_as(zero)].all()
    assert (zero & mask[:, None]).any() == (way != "expectation")


def test_near_opposite_vectors_give_a_short_row_and_no_nan():
    q = torch.tensor([[[[1.0, 1e-3]]]], dtype=torch.float64, requires_grad=True)
    k, v = torch.tensor([[[[-1.0, 1e-3]]]], dtype=torch.float64), torch.ones(1, 1, 1, 2, dtype=torch.float64)
    module = YosoAttention(num_heads=1, head_dim=2, max_len=64, dropout=0.0, num_bits=12, **E)
    out = module(q, k, v, torch.ones(1, 1, dtype=torch.bool))
    assert 0 < out.norm() < 1
    assert torch.autograd.grad(out.sum(), q)[0].isfinite().all()


def test_a_lone_token_receives_the_direction_of_its_value():
    (q, k, v), mask = inputs(), torch.arange(L).expand(B, L) == 4
    out = build(**E)(q, k, v, mask)[:, :, 4]
    torch.testing.assert_close(out, F.normalize(v[:, :, 4], dim=-1))
    out = build(num_hashes=1, **SAMPLED)(q, k, v, mask)[:, :, 4]
    same = (out - F.normalize(v[:, :, 4], dim=-1)).norm(dim=-1) < 1e-12
    assert (same | (out == 0).all(-1)).all()


@pytest.mark.parametrize("way", ["star", "sampled"])
def test_a_row_without_a_collision_passes_no_gradient(way):
    q, _, v = inputs()
    qkv = [q, (-q).detach().requires_grad_(), v]
    mask = torch.arange(L).expand(B, L) == 4
    for grad in torch.autograd.grad(build(**WAYS[way])(*qkv, mask).sum(), qkv):
        assert grad.count_nonzero() == 0


def test_equal_queries_and_keys_give_finite_numbers_in_float32():
    """Cosines round to above 1, where arccos is not a number and its derivative infinite."""
    for backward in ("lower_bound", "true"):
        q, _, v = (x.detach().float().requires_grad_() for x in inputs())
        out = build(num_bits=9, estimator="expectation", backward=backward)(q, q, v, holey_mask())
        for x in (out, *torch.autograd.grad(out.square().sum() + out.sum(), (q, v))):
            assert x.isfinite().all()


def test_convolution_reads_masked_values_and_comes_after_the_norm():
    (q, k, v), mask = inputs(), holey_mask()
    module = build(conv_window=3, **E).double()
    assert module.conv is not None
    kernel = module.conv.weight.view(H, 3)
    V = F.pad(real(v, mask), (0, 0, 1, 1))
    added = sum(kernel[:, i, None, None] * V[:, :, i : i + L] for i in range(3))
    torch.testing.assert_close(real(module(q, k, v, mask), mask), real(build(**E)(q, k, v, mask) + added, mask))


def test_number_of_bits_is_that_of_the_published_configurations():
    for max_len, bits in ((2000, 11), (4000, 12), (1024, 10)):
        module = YosoAttention(num_heads=1, head_dim=8, max_len=max_len, dropout=0.0)
        assert module.num_bits == bits


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"estimator": "guess"}, "estimator must be one of expectation, sampled. Got 'guess'."),
        ({"estimator": "expectation"}, "backward='sampled' needs estimator='sampled'"),
        ({"num_hashes": 0}, "num_hashes must be at least 1. Got 0."),
        ({"num_bits": 21}, "num_bits must be at most 20. Got 21."),
        ({"conv_window": 4}, "conv_window must be odd. Got 4."),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(ValueError) as error:  # noqa: PT011
        build(**options)
    assert message in str(error.value)


def hashed(cosines: Tensor, dim: int, num_bits: int, num_hashes: int, hashing: str, draws: int) -> Tensor:
    """Collision shares (draws, pairs) of unit vectors at the given cosines, in random planes."""
    module = build(heads=1, dim=dim, num_bits=num_bits, num_hashes=num_hashes, hashing=hashing)
    a, b = torch.randn(2, draws, 1, len(cosines), dim)
    a = F.normalize(a, dim=-1)
    b = F.normalize(b - (a * b).sum(-1, keepdim=True) * a, dim=-1)
    b = cosines[:, None] * a + (1 - cosines**2).sqrt()[:, None] * b
    codes_q, codes_k = module.codes(a, b, torch.ones(draws, len(cosines), dtype=torch.bool))
    return (codes_q == codes_k).double().mean(1)


def test_collisions_have_the_mean_and_variance_of_bernoulli_draws():
    """Every cosine within 5 standard errors (20 of them, mean and variance: a false alarm in 40,000 seeds)."""
    torch.manual_seed(0)
    cosines, m, draws = torch.linspace(-0.4, 0.98, 20), 16, 4000
    share = hashed(cosines, 16, 4, m, "gaussian", draws)
    P = (1 - torch.arccos(cosines.double()) / math.pi) ** 4
    variance = P * (1 - P) / m
    assert ((share.mean(0) - P).abs() < 5 * (variance / draws).sqrt()).all()
    # The fourth central moment of a binomial share gives the spread of a sample variance.
    fourth = variance**2 * 3 + variance * (1 - 6 * P * (1 - P)) / m**2
    assert ((share.var(0) - variance).abs() < 5 * ((fourth - variance**2) / draws).sqrt()).all()


def test_the_sampled_sum_is_unbiased_and_its_error_falls_with_the_root_of_m():
    torch.manual_seed(0)
    q, k, v = (x[:1, :1].detach() for x in inputs())
    draws = 2000
    many = [x.expand(draws, 1, L, D) for x in (unit(q).detach(), unit(k).detach(), v)]
    mask = torch.ones(draws, L, dtype=torch.bool)
    expected = (collision_probability(q, k, 4) @ v)[0, 0]
    spreads = []
    for m in (4, 16, 64):
        Y = build(heads=1, num_bits=4, num_hashes=m).weighted_sum(*many, mask)[:, 0]
        error = Y.mean(0) - expected
        # 104 numbers within 5 standard errors: a false alarm in 16,000 seeds for each m.
        assert (error.abs() < 5 * Y.std(0) / draws**0.5).all()
        spreads.append(float((Y - expected).square().mean().sqrt()))
    assert spreads[0] / spreads[1] == pytest.approx(2, rel=0.05)
    assert spreads[1] / spreads[2] == pytest.approx(2, rel=0.05)


def test_the_sampled_gradient_is_unbiased_at_a_fixed_output_gradient():
    torch.manual_seed(0)
    q, k, v = (x[:1, :1].detach() for x in inputs())
    q, k, draws = unit(q).detach(), unit(k).detach(), 2000
    G = inputs(1, count=1)[0][:1, :1].detach()
    many = [x.expand(draws, 1, L, D).clone().requires_grad_() for x in (q, k, v)]
    Y = build(heads=1, num_bits=4, num_hashes=8, **SAMPLED).weighted_sum(*many, torch.ones(draws, L, dtype=torch.bool))
    grads = torch.autograd.grad(Y, many, G.expand_as(Y))
    P = collision_probability(q, k, 4)[0, 0]
    expected = lower_bound_gradients(*(x[0, 0] for x in (G, q, k, v)), P, 4)
    for grad, other in zip(grads, expected, strict=True):
        # 312 numbers within 5 standard errors: a false alarm in 5,000 seeds; the seed is fixed besides.
        assert ((grad[:, 0].mean(0) - other).abs() < 5 * grad[:, 0].std(0) / draws**0.5).all()


# Collision rate of Hadamard hashes over that of independent hyperplanes, as measured twice, with its standard error.
HADAMARD = {
    (32, 8): {0.95: (0.989, 0.001), 0.8: (0.945, 0.001), 0.5: (0.844, 0.002), 0.2: (0.735, 0.004)},
    (32, 12): {0.95: (0.975, 0.001), 0.8: (0.870, 0.002), 0.5: (0.650, 0.006), 0.2: (0.471, 0.013)},
    (64, 9): {0.95: (0.993, 0.0005), 0.8: (0.966, 0.001), 0.5: (0.902, 0.002), 0.2: (0.828, 0.004)},
}


@pytest.mark.slow
@pytest.mark.parametrize("setting", HADAMARD)
def test_hadamard_hashes_collide_too_rarely_as_measured(setting):
    torch.manual_seed(0)
    dim, num_bits = setting
    cosines = torch.tensor(list(HADAMARD[setting]))
    # One rotation for every vector: hashes of one rotation are dependent, so errors are estimated over pairs.
    share = hashed(cosines, dim, num_bits, dim // num_bits, "hadamard", 60_000)
    P = (1 - torch.arccos(cosines.double()) / math.pi) ** num_bits
    ratio, error = share.mean(0) / P, share.std(0) / P / len(share) ** 0.5
    reference, spread = torch.tensor(list(HADAMARD[setting].values()), dtype=torch.float64).unbind(1)
    assert ((ratio - reference).abs() < 5 * (error**2 + spread**2).sqrt()).all()
