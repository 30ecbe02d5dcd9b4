"""Weights from a kernel, a flow, a binding or a decay: each attention against its formula over all pairs."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from models.attention.cosformer import LEAST_SUM, CosformerAttention
from models.attention.efficient import EfficientAttention
from models.attention.flowformer import EPSILON, FlowformerAttention
from models.attention.hrrformer import HrrformerAttention
from models.attention.las_r import BLOCK as LAS_BLOCK
from models.attention.las_r import LaSReconstructedAttention
from models.attention.rfa import RandomFeatureAttention
from models.ops.feature_sums import BLOCK
from tests.twins.feature_map import feature_map_attention

B, H, L, D = 4, 2, 24, 8
SIZES = {"num_heads": H, "head_dim": D, "max_len": 40, "dropout": 0.0}


def inputs(seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(B, H, L, D, generator=generator, dtype=torch.float64).requires_grad_() for _ in range(3)]


def unequal_mask() -> Tensor:
    """Rows: holes, a few tokens far apart, a prefix, everything real."""
    positions = torch.arange(L)
    return torch.stack([positions % 4 != 2, positions % 6 == 3, positions < 17, positions >= 0])


def real(x: Tensor, mask: Tensor) -> Tensor:
    return torch.where(mask[:, None, :, None], x, 0)


def assert_same(out: Tensor, expected: Tensor, wrt: list[Tensor], tolerance: float = 1e-10) -> None:
    """Compare values, and gradients of a random projection of them."""
    torch.testing.assert_close(out, expected, rtol=tolerance, atol=tolerance)
    seed = torch.randn(out.shape, dtype=out.dtype, generator=torch.Generator().manual_seed(1))
    grads, expected_grads = (
        torch.autograd.grad(x, wrt, seed, retain_graph=True, allow_unused=True, materialize_grads=True)
        for x in (out, expected)
    )
    for grad, expected_grad in zip(grads, expected_grads, strict=True):
        torch.testing.assert_close(grad, expected_grad, rtol=tolerance, atol=tolerance)


def sequences(mask: Tensor) -> list[tuple[int, int, list[int]]]:
    """Every sequence and head with the positions of its real tokens."""
    return [(b, h, row.nonzero().flatten().tolist()) for b, row in enumerate(mask) for h in range(H)]


def distances() -> Tensor:
    return (torch.arange(L)[:, None] - torch.arange(L)).double()


# Efficient attention


def test_efficient_attention_is_two_softmaxes():
    """Over all pairs: query i takes feature d with softmax(q_i)_d, and key j has softmax_j(k_jd) of feature d."""
    (q, k, v), mask = inputs(), unequal_mask()
    shares = torch.where(mask[:, None, :, None], k.exp(), 0)
    shares = shares / shares.sum(2, keepdim=True)
    weights = torch.einsum("bhid,bhjd->bhij", q.softmax(-1), shares)
    torch.testing.assert_close(weights.sum(-1), torch.ones_like(weights[..., 0]))
    out = EfficientAttention(**SIZES)(q, k, v, mask)
    assert_same(real(out, mask), real(weights @ v, mask), [q, k, v])


def test_efficient_attention_with_equal_keys_is_the_mean_of_the_values():
    (q, _, v), mask = inputs(), unequal_mask()
    out = EfficientAttention(**SIZES)(q, torch.full_like(v, 3), v, mask)
    means = (mask.double()[:, None, None] @ v) / mask.sum(-1)[:, None, None, None]
    torch.testing.assert_close(real(out, mask), real(means.expand_as(v), mask))


# cosFormer


@pytest.mark.parametrize("block", [BLOCK, 64])
def test_cosformer_is_its_quadratic_form(block, monkeypatch):
    """In one block of features and in several."""
    monkeypatch.setattr("models.ops.feature_sums.BLOCK", block)
    (q, k, v), mask, M = inputs(), unequal_mask(), SIZES["max_len"]
    weights = (q.relu() @ k.relu().mT) * (torch.pi / 2 * distances() / M).cos() * mask[:, None, None]
    assert weights.min() >= 0
    expected = weights @ v / weights.sum(-1, keepdim=True).clamp(min=LEAST_SUM)
    assert_same(real(CosformerAttention(**SIZES)(q, k, v, mask), mask), real(expected, mask), [q, k, v])


def test_cosformer_without_a_longest_length_is_linear_attention_with_relu_features():
    (q, k, v), mask = inputs(), unequal_mask()
    out = CosformerAttention(**{**SIZES, "max_len": 10**9})(q, k, v, mask)
    assert_same(real(out, mask), feature_map_attention(q.relu(), k.relu(), v, mask), [q, k, v], 1e-8)


def test_cosformer_gives_nothing_to_a_query_without_weights():
    (q, k, v), mask = inputs(), unequal_mask()
    q = torch.where(torch.arange(L)[:, None] == 3, -q.abs(), q)
    out = CosformerAttention(**SIZES)(q, k, v, mask)
    assert out[:, :, 3].count_nonzero() == 0
    assert out[:, :, 9].count_nonzero() > 0


# Random Feature Attention


def rfa(num_features: int, **options: float) -> RandomFeatureAttention:
    return RandomFeatureAttention(**SIZES, num_features=num_features, **options).double().eval()


def trigonometric_features(x: Tensor, W: Tensor) -> Tensor:
    """Rahimi and Recht 2007: E[phi(x) . phi(y)] = exp(-|x - y|^2 / 2) for Gaussian rows of W (M, D)."""
    return torch.cat([(x @ W.mT).sin(), (x @ W.mT).cos()], -1) / W.shape[-2] ** 0.5


@pytest.mark.parametrize("block", [BLOCK, 64])
def test_rfa_is_its_quadratic_form(block, monkeypatch):
    """In one block of features and in several; sigma of each dimension scales the unit vectors."""
    monkeypatch.setattr("models.ops.feature_sums.BLOCK", block)
    (q, k, v), mask, module = inputs(), unequal_mask(), rfa(50)
    torch.nn.init.uniform_(module.sigma, 0.5, 2)
    phi_q, phi_k = (
        trigonometric_features(module.sigma * x / x.norm(dim=-1, keepdim=True), module.projection) for x in (q, k)
    )
    expected = feature_map_attention(phi_q, phi_k, v, mask)
    assert_same(real(module(q, k, v, mask), mask), expected, [q, k, v, module.sigma])


def test_rfa_keeps_sums_from_zero_and_their_sign(monkeypatch):
    """One random vector gives sums of both signs; raised far, so that many a sum is raised."""
    monkeypatch.setattr("models.attention.rfa.LEAST_SUM", 4.0)
    (q, k, v), mask, module = inputs(), unequal_mask(), rfa(1, sigma=2.0)
    phi_q, phi_k = (trigonometric_features(2 * F.normalize(x, dim=-1), module.projection) for x in (q, k))
    weights = (phi_q @ phi_k.mT) * mask[:, None, None]
    total = weights.sum(-1, keepdim=True)
    for sign in (-1, 1):
        assert (sign * total > 4).any()
        assert ((sign * total > 0) & (sign * total < 4)).any()
    expected = weights @ v / (total.sign() * total.abs().clamp(min=4))
    assert_same(real(module(q, k, v, mask), mask), real(expected, mask), [q, k, v])


def test_rfa_features_are_unbiased():
    """E[phi(x) . phi(y)] is the Gaussian kernel, within 5 standard errors of 5,000 draws; the seed is fixed."""
    x, y = (F.normalize(x[0, :, :3].detach(), dim=-1) for x in inputs()[:2])  # (H, 3, D)
    module = RandomFeatureAttention(**SIZES, num_features=4)
    torch.manual_seed(0)
    draws = []
    for _ in range(5000):
        W = 1.5 * module._draw_projection(x.device).double()
        draws.append(trigonometric_features(x, W) @ trigonometric_features(y, W).mT)
    estimates = torch.stack(draws)
    expected = (-(1.5**2) / 2 * (x[:, :, None] - y[:, None]).square().sum(-1)).exp()
    assert ((estimates.mean(0) - expected).abs() < 5 * estimates.std(0) / len(draws) ** 0.5).all()


def test_rfa_nears_softmax_attention_over_cosines():
    sigma, (q, k, v), mask = 1.2, [x.detach() for x in inputs()], unequal_mask()
    cosines = F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).mT
    scores = (sigma**2 * cosines).masked_fill(~mask[:, None, None], -torch.inf)
    exact = real(scores.softmax(-1) @ v, mask)
    torch.manual_seed(0)
    errors = []
    for num_features in (32, 512, 8192):
        draws = [(real(rfa(num_features, sigma=sigma)(q, k, v, mask), mask) - exact).norm() for _ in range(6)]
        errors.append(float(torch.stack(draws).mean().detach() / exact.norm()))
    for few, many in pairwise(errors):
        assert 2.5 < few / many < 6  # 4 = the square root of 16 times as many features
    assert errors[-1] < 0.04


def test_rfa_redraws_in_training_and_keeps_the_last_for_evaluation():
    qkv, mask, module = [x.float() for x in inputs()], unequal_mask(), RandomFeatureAttention(**SIZES, num_features=16)
    first = module.projection.clone()
    out = module(*qkv, mask)
    assert not torch.equal(module.projection, first)
    assert not torch.equal(module.projection[0], module.projection[1])
    torch.testing.assert_close(module.eval()(*qkv, mask), out)
    assert "projection" in module.state_dict()


# Flowformer


def test_flowformer_is_its_flows_one_by_one():
    (q, k, v), mask = inputs(), unequal_mask()
    expected = torch.zeros_like(v)
    for b, h, tokens in sequences(mask):
        m, phi_q, phi_k = len(tokens), q[b, h, tokens].sigmoid(), k[b, h, tokens].sigmoid()

        def flow(x: Tensor, y: Tensor) -> Tensor:
            return torch.stack([((row + EPSILON) * (y.sum(0) + EPSILON)).sum() for row in x])

        incoming, outgoing = flow(phi_q, phi_k), flow(phi_k, phi_q)
        gate = flow(phi_q, phi_k / outgoing[:, None]).sigmoid()
        given = flow(phi_k, phi_q / incoming[:, None])
        torch.testing.assert_close(given.mean(), torch.ones_like(given.mean()), rtol=0, atol=1e-5)
        competition = m * given.clamp(-1, 1).softmax(0)
        weights = gate[:, None] * (phi_q @ phi_k.T) / incoming[:, None] * competition
        expected = expected.index_put(
            (torch.tensor(b), torch.tensor(h), torch.tensor(tokens)), weights @ v[b, h, tokens]
        )
    assert_same(real(FlowformerAttention(**SIZES)(q, k, v, mask), mask), expected, [q, k, v])


def test_flowformer_with_equal_keys_is_the_gated_mean_of_the_values():
    """Up to the 1e-6 that is added: every key gives the same."""
    (q, _, v), mask = inputs(), unequal_mask()
    out = FlowformerAttention(**SIZES)(q, torch.full_like(v, 0.3), v, mask)
    phi = torch.where(mask[:, None, :, None], q.sigmoid(), 0).sum(-1, keepdim=True)
    gate = (phi * mask.sum(-1)[:, None, None, None] / phi.sum(2, keepdim=True)).sigmoid()
    means = (mask.double()[:, None, None] @ v) / mask.sum(-1)[:, None, None, None]
    torch.testing.assert_close(real(out, mask), real(gate * means, mask), rtol=0, atol=1e-5)


# Hrrformer


@pytest.mark.parametrize("width", [1, 2, 5, 8])
def test_hrrformer_is_its_circular_convolutions_in_loops(width):
    """Of even and odd width: coordinate c of x (*) y is the sum over a of x_a y_(c - a), indices modulo the width."""
    (q, k, v), mask = [x[..., :width] for x in inputs()], unequal_mask()
    backwards = [[(c - a) % width for a in range(width)] for c in range(width)]
    forwards = [[(c + a) % width for a in range(width)] for c in range(width)]
    expected = torch.zeros_like(v)
    for b, h, tokens in sequences(mask):
        Q, K, V = (x[b, h, tokens] for x in (q, k, v))
        bound = sum(
            torch.stack([(key * value[index]).sum() for index in backwards]) for key, value in zip(K, V, strict=True)
        )
        # The inverse of q has q_(-a) for its coordinate a.
        unbound = torch.stack([torch.stack([(query * bound[index]).sum() for index in forwards]) for query in Q])
        cosines = (V * unbound).sum(-1) / V.norm(dim=-1) / unbound.norm(dim=-1)
        rows = cosines.softmax(0)[:, None] * V
        expected = expected.index_put((torch.tensor(b), torch.tensor(h), torch.tensor(tokens)), rows)
    module = HrrformerAttention(**{**SIZES, "head_dim": width})
    assert_same(real(module(q, k, v, mask), mask), expected, [q, k, v], 1e-9)


def test_hrrformer_finds_a_value_by_its_key():
    """One bound pair, a key of unit waves: the query that equals it brings the value back, with a cosine of 1."""
    width = 64
    waves = torch.polar(torch.ones(33), 2 * torch.pi * torch.rand(33, generator=torch.Generator().manual_seed(0)))
    waves[0] = waves[-1] = 1
    key, v = torch.fft.irfft(waves, n=width), torch.randn(1, 1, 3, width, generator=torch.Generator().manual_seed(1))
    k = torch.zeros(1, 1, 3, width)
    k[..., 1, :] = key
    module = HrrformerAttention(num_heads=1, head_dim=width, max_len=3, dropout=0.0)
    out = module(key.expand(1, 1, 3, -1), k, v, torch.ones(1, 3, dtype=torch.bool))
    cosines = torch.cosine_similarity(v, v[:, :, 1:2], dim=-1)
    torch.testing.assert_close(out, cosines.softmax(-1)[..., None] * v)


# LaS attention


def explicit_las(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, alphas: list[float], pool_size: int) -> Tensor:
    """The formula as it is written, with the mean over neighbouring weights."""
    decay = torch.stack([(-alpha * distances()).exp() for alpha in alphas])
    scores = (decay * (q @ k.mT) / D**0.5).masked_fill(~mask[:, None, None] | (distances() < 0), -torch.inf)
    weights = torch.where(mask[:, None, :, None], scores, 0).softmax(-1)
    weights = F.avg_pool1d(weights.flatten(0, 1), pool_size, stride=1, padding=pool_size // 2).view_as(weights)
    return real(weights @ real(v, mask), mask)


@pytest.mark.parametrize("block", [LAS_BLOCK, 5 * L])
@pytest.mark.parametrize("pool_size", [1, 3, 7])
def test_las_is_its_formula(pool_size, block, monkeypatch):
    """With all rows at once and five at a time."""
    monkeypatch.setattr("models.attention.las_r.BLOCK", block)
    (q, k, v), mask = inputs(), unequal_mask()
    module = LaSReconstructedAttention(**SIZES, decay=0.25, pool_size=pool_size)
    expected = explicit_las(q, k, v, mask, [0.0, 0.25], pool_size)
    assert_same(real(module(q, k, v, mask), mask), expected, [q, k, v])


def test_las_without_decay_and_pool_is_causal_softmax_attention():
    (q, k, v), mask = inputs(), torch.ones(B, L, dtype=torch.bool)
    module = LaSReconstructedAttention(**SIZES, decay=0, pool_size=1)
    assert_same(module(q, k, v, mask), F.scaled_dot_product_attention(q, k, v, is_causal=True), [q, k, v])


def test_las_sees_half_a_pool_ahead_and_no_further():
    (q, k, v), mask = inputs(), torch.ones(B, L, dtype=torch.bool)
    out = LaSReconstructedAttention(**SIZES, pool_size=5)(q, k, v, mask)
    [grad] = torch.autograd.grad(out[:, :, 9].sum(), v)
    assert grad[:, :, :12].count_nonzero() == grad[:, :, :12].numel()
    assert grad[:, :, 12:].count_nonzero() == 0


@pytest.mark.parametrize(("num_heads", "alphas"), [(1, [0.0]), (2, [0.0, 0.5]), (5, [0.0, 0.0625, 0.125, 0.25, 0.5])])
def test_las_heads_decay_at_rates_that_double(num_heads, alphas):
    module = LaSReconstructedAttention(**{**SIZES, "num_heads": num_heads})
    assert module.alphas(torch.empty(0)).tolist() == alphas


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        (RandomFeatureAttention, {"num_features": 0}, r"num_features must be at least 1\. Got 0\."),
        (RandomFeatureAttention, {"num_features": 4, "sigma": 0.0}, r"sigma must be positive and finite\. Got 0\.0\."),
        (LaSReconstructedAttention, {"decay": -1.0}, r"decay must be at least 0 and finite\. Got -1\.0\."),
        (LaSReconstructedAttention, {"pool_size": 4}, r"pool_size must be odd\. Got 4\."),
    ],
)
def test_bad_options_are_named(method, options, message):
    with pytest.raises(ValueError, match=message):
        method(**SIZES, **options)
