"""Projections, landmarks, feature maps and learned weights: the identity and the explicit formula of each."""

from __future__ import annotations

import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import Tensor

from lra.files import ROOT
from models.attention.linear_transformer import LinearTransformerAttention
from models.attention.linformer import LinformerAttention, UnreducedJLTAttention
from models.attention.none import NoneAttention
from models.attention.nystromformer import (
    NystromformerAttention,
    apply_pinv,
    depthwise_conv,
    segment_means,
)
from models.attention.performer import PerformerAttention
from models.attention.synthesizer import (
    DenseSynthesizerAttention,
    FactorizedSynthesizerAttention,
    RandomSynthesizerAttention,
)
from models.ops.feature_sums import BLOCK
from tests.twins.feature_map import elu_features, feature_map_attention, relu_features, softmax_features
from tests.twins.nystromformer import iterative_pinv, landmark_segments, nystromformer

B, H, L, D = 4, 2, 24, 8
SIZES = {"num_heads": H, "head_dim": D, "max_len": 40, "dropout": 0.0}


def inputs(seed: int = 0, length: int = L) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(B, H, length, D, generator=generator, dtype=torch.float64).requires_grad_() for _ in range(3)]


def unequal_mask() -> Tensor:
    """Rows: holes, shorter than most budgets, a prefix, everything real."""
    positions = torch.arange(L)
    return torch.stack([positions % 4 != 2, positions % 6 == 3, positions < 17, positions >= 0])


def real(x: Tensor, mask: Tensor) -> Tensor:
    return torch.where(mask[:, None, :, None], x, 0)


def softmax_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    scores = (q @ k.mT / q.shape[-1] ** 0.5).masked_fill(~mask[:, None, None], -torch.inf)
    return real(scores.softmax(-1) @ v, mask)


def assert_same(out: Tensor, expected: Tensor, wrt: list[Tensor], tolerance: float = 1e-8) -> None:
    """Compare values, and gradients of a random projection of them."""
    torch.testing.assert_close(out, expected, rtol=tolerance, atol=tolerance)
    seed = torch.randn(out.shape, dtype=out.dtype, generator=torch.Generator().manual_seed(1))
    grads, expected_grads = (
        torch.autograd.grad(x, wrt, seed, allow_unused=True, materialize_grads=True) for x in (out, expected)
    )
    for grad, expected_grad in zip(grads, expected_grads, strict=True):
        torch.testing.assert_close(grad, expected_grad, rtol=tolerance, atol=tolerance)


def test_none_is_softmax_that_sees_only_itself():
    q, k, v = inputs()
    mask = torch.ones(B, L, dtype=torch.bool)
    scores = (q @ k.mT).masked_fill(~torch.eye(L, dtype=torch.bool), -torch.inf)
    assert_same(NoneAttention(**SIZES)(q, k, v, mask), scores.softmax(-1) @ v, [q, k, v])


# Linformer


def test_linformer_with_an_identity_is_softmax_attention():
    qkv, module = inputs(), LinformerAttention(**SIZES, proj_len=L).double()
    with torch.no_grad():
        module.E.zero_()[..., :L] = torch.eye(L)
    mask = torch.ones(B, L, dtype=torch.bool)
    assert_same(module(*qkv, mask), softmax_attention(*qkv, mask), qkv)


def test_linformer_is_its_formula():
    (q, k, v), mask = inputs(), unequal_mask()
    module = LinformerAttention(**SIZES, proj_len=5).double()
    torch.nn.init.normal_(module.E)
    E = module.E[..., :L] * mask[:, None, None]  # padding and columns beyond the length leave no trace
    expected = (q @ (E @ k).mT / D**0.5).softmax(-1) @ (E @ v)
    assert_same(real(module(q, k, v, mask), mask), real(expected, mask), [q, k, v, module.E])


def test_unreduced_jlt_with_an_orthogonal_sketch_is_softmax_attention():
    qkv, mask, module = inputs(), unequal_mask(), UnreducedJLTAttention(**SIZES, proj_len=L)
    S = torch.linalg.qr(torch.randn(H, L, L, dtype=torch.float64)).Q * L**0.5
    module.draw = lambda *_: S
    assert_same(real(module(*qkv, mask), mask), softmax_attention(*qkv, mask), qkv)


def test_unreduced_jlt_is_its_formula_and_unbiased():
    (q, k, v), mask, module = inputs(), unequal_mask(), UnreducedJLTAttention(**SIZES, proj_len=5)
    S = torch.randn(H, L, 5, dtype=torch.float64)
    module.draw = lambda *_: S
    weights = softmax_attention(q, k, torch.eye(L).double().expand(B, H, L, L), mask)
    assert_same(real(module(q, k, v, mask), mask), weights @ (S @ S.mT / 5) @ real(v, mask), [q, k, v])

    # 4,000 draws, each cell within 5 standard errors of 1,536: a false alarm once in 1,100 seeds; the seed is fixed.
    del module.draw
    torch.manual_seed(0)
    draws = torch.stack([real(module(q, k, v, mask), mask) for _ in range(4000)]).detach()
    error = (draws.mean(0) - softmax_attention(q, k, v, mask)).abs()
    assert (error <= 5 * draws.std(0) / 4000**0.5 + 1e-12).all()


# Nystromformer


@pytest.mark.parametrize("num_landmarks", [1, 3, 7, L, 40])
def test_nystromformer_equals_the_twin(num_landmarks):
    qkv, mask, module = inputs(), unequal_mask(), NystromformerAttention(**SIZES, num_landmarks=num_landmarks)
    expected = nystromformer(*qkv, mask, num_landmarks=num_landmarks)
    assert_same(real(module(*qkv, mask), mask), expected, qkv)


def test_a_landmark_for_every_token_gives_softmax_attention():
    qkv, mask = inputs(), unequal_mask()
    exact = softmax_attention(*qkv, mask)
    torch.testing.assert_close(nystromformer(*qkv, mask, num_landmarks=L, pinv_iterations=None), exact)
    module = NystromformerAttention(**SIZES, num_landmarks=L, pinv_iterations=40)
    assert_same(real(module(*qkv, mask), mask), exact, qkv)


def test_short_sequences_are_exact_beside_long_ones():
    qkv, mask = inputs(), unequal_mask()
    out = NystromformerAttention(**SIZES, num_landmarks=6, pinv_iterations=40)(*qkv, mask)
    torch.testing.assert_close(out[1, :, mask[1]], softmax_attention(*qkv, mask)[1, :, mask[1]])


def test_segments_share_out_the_real_tokens():
    x, mask = inputs()[0], unequal_mask()
    (means,), used = segment_means((x,), mask, 7)
    for b in range(B):
        tokens = x[b][:, mask[b]]
        segments = landmark_segments(tokens.shape[1], 7)
        assert used[b].sum() == len(segments)
        assert max(map(len, segments)) - min(map(len, segments)) <= 1
        expected = torch.stack([tokens[:, s].mean(1) for s in segments], 1)
        torch.testing.assert_close(means[b][:, used[b]], expected)
        assert means[b][:, ~used[b]].count_nonzero() == 0


@pytest.mark.parametrize("iterations", [1, 5, 6, 7, 12, 20])
def test_the_pseudo_inverse_is_the_formula_and_stable_in_float32(iterations):
    generator = torch.Generator().manual_seed(0)
    q, k = 3**0.5 * torch.randn(2, 4, 128, 32, generator=generator, dtype=torch.float64)
    u = torch.randn(4, 128, 8, generator=generator, dtype=torch.float64)
    A = (q @ k.mT / 32**0.5).softmax(-1)
    exact = torch.stack([iterative_pinv(a, iterations) @ b for a, b in zip(A, u, strict=True)])
    torch.testing.assert_close(apply_pinv(A, u, iterations), exact, rtol=1e-8, atol=1e-8)
    assert (apply_pinv(A.float(), u.float(), iterations) - exact).norm() < 5e-5 * exact.norm()


@pytest.mark.parametrize("length", [1, 5, 63, 64, 65, 200])
@pytest.mark.parametrize("size", [1, 3, 35])
def test_depthwise_conv_is_a_convolution(size, length):
    x = torch.randn(B, H, length, D, dtype=torch.float64, requires_grad=True)
    filters = torch.randn(H, size, dtype=torch.float64, requires_grad=True)
    expected = torch.nn.functional.conv2d(x, filters[:, None, :, None], padding=(size // 2, 0), groups=H)
    assert_same(depthwise_conv(x, filters), expected, [x, filters])


def test_the_convolution_adds_to_nystromformer():
    qkv, mask = inputs(), unequal_mask()
    with_conv = NystromformerAttention(**SIZES, num_landmarks=6, conv_size=35).double()
    added = with_conv(*qkv, mask) - NystromformerAttention(**SIZES, num_landmarks=6)(*qkv, mask)
    torch.testing.assert_close(added, depthwise_conv(real(qkv[2], mask), with_conv.filters))


# Feature maps


def performer(kernel: str, num_features: int = 11) -> PerformerAttention:
    return PerformerAttention(**SIZES, num_features=num_features, kernel=kernel).double().eval()


@pytest.mark.parametrize("method", ["softmax", "relu", "elu"])
@pytest.mark.parametrize("block", [BLOCK, 64])
def test_feature_maps_equal_their_quadratic_form(method, block, monkeypatch):
    """In one block, and in several: 64 numbers are 5 or 8 tokens, so that some block of the second row has no key."""
    monkeypatch.setattr("models.ops.feature_sums.BLOCK", block)
    (q, k, v), mask = inputs(), unequal_mask()
    if method == "elu":
        module, features = LinearTransformerAttention(**SIZES), elu_features
    else:
        module = performer(method)
        transform = softmax_features if method == "softmax" else relu_features
        features = lambda x: transform(x, module.projection)  # noqa: E731
    expected = feature_map_attention(features(q), features(k), v, mask)
    assert_same(real(module(q, k, v, mask), mask), expected, [q, k, v])


def test_performer_weights_are_unbiased():
    """E[phi(q) . phi(k)] = exp(q . k / sqrt(D)), orthogonal blocks or not, within 5 standard errors of 20,000 draws."""
    q, k = (x[0, 0, :3].detach() / 2 for x in inputs()[:2])
    module = PerformerAttention(**{**SIZES, "head_dim": D}, num_features=D)
    torch.manual_seed(0)
    draws = []
    for _ in range(20_000):
        W = module._draw_projection(q.device).double()
        draws.append(softmax_features(q, W) @ softmax_features(k, W).T)
    estimates, expected = torch.stack(draws), (q @ k.T / D**0.5).exp()
    assert ((estimates.mean(0) - expected).abs() < 5 * estimates.std(0) / len(draws) ** 0.5).all()


def test_performer_nears_softmax_attention_as_features_grow():
    generator = torch.Generator().manual_seed(0)
    q, k, v = torch.randn(3, 2, H, 64, D, generator=generator) / 2
    mask = torch.arange(64) < torch.tensor([[64], [50]])
    exact = softmax_attention(q, k, v, mask)
    torch.manual_seed(0)
    errors = []
    for num_features in (64, 1024, 16384):
        module = PerformerAttention(**SIZES, num_features=num_features)
        draws = [(real(module(q, k, v, mask), mask) - exact).norm() / exact.norm() for _ in range(10)]
        errors.append(float(torch.stack(draws).mean()))
    for few, many in pairwise(errors):
        assert 3 < few / many < 5  # 4 = the square root of 16 times as many features


def test_projection_rows_are_orthogonal_in_blocks():
    W = PerformerAttention(**SIZES, num_features=20).projection
    cosines = torch.nn.functional.normalize(W, dim=-1)
    for block in cosines.split(D):
        torch.testing.assert_close(block @ block.T, torch.eye(len(block)), rtol=0, atol=1e-5)


def test_performer_redraws_in_training_and_keeps_the_last_for_evaluation():
    qkv, mask = [x.float() for x in inputs()], unequal_mask()
    module = PerformerAttention(**SIZES, num_features=16)
    first = module.projection.clone()
    out = module(*qkv, mask)
    assert not torch.equal(module.projection, first)
    torch.testing.assert_close(module.eval()(*qkv, mask), out)
    assert "projection" in module.state_dict()
    fixed = PerformerAttention(**SIZES, num_features=16, redraw=False)
    first = fixed.projection.clone()
    fixed(*qkv, mask)
    assert torch.equal(fixed.projection, first)


@pytest.mark.parametrize("method", ["softmax", "elu"])
def test_exponential_features_neither_vanish_nor_overflow(method):
    """Rows stay convex combinations of the values where every feature, taken alone, underflows in float32."""
    q, k, v = (x.detach().float() for x in inputs())
    mask = unequal_mask()
    q, k = (-300 * q.abs(), -300 * k.abs()) if method == "elu" else (100 * q, 100 * k)
    module = LinearTransformerAttention(**SIZES) if method == "elu" else PerformerAttention(**SIZES, num_features=32)
    ones = real(module(q, k, torch.ones_like(v), mask), mask)
    torch.testing.assert_close(ones, real(torch.ones_like(v), mask))


@pytest.mark.parametrize("kernel", ["softmax", "relu"])
def test_performer_scaled_twice_has_the_features_of_what_was_scaled_before(kernel):
    """Logits q . k / D: queries and keys that were divided by D^(1/4) are divided by it once more."""
    (q, k, v), mask = inputs(), unequal_mask()
    module = PerformerAttention(**SIZES, num_features=11, kernel=kernel, scale_twice=True).double().eval()
    transform = softmax_features if kernel == "softmax" else relu_features
    phi_q, phi_k = (transform(x / D**0.25, module.projection) for x in (q, k))
    expected = feature_map_attention(phi_q, phi_k, v, mask)
    assert_same(real(module(q, k, v, mask), mask), expected, [q, k, v])


def test_performer_may_redraw_at_evaluation_too_and_keeps_nothing_of_it():
    (q, k, v), mask = inputs(), unequal_mask()
    module = PerformerAttention(**SIZES, num_features=16, redraw_at_evaluation=True).double().eval()
    first, draw, drawn = module.projection.clone(), module._draw_projection, []
    module._draw_projection = lambda device: drawn.append(draw(device)) or drawn[-1]
    outs = [module(q, k, v, mask) for _ in range(2)]
    assert not torch.equal(*outs)
    for out, W in zip(outs, drawn, strict=True):
        phi_q, phi_k = (softmax_features(x, W.double()) for x in (q, k))
        torch.testing.assert_close(real(out, mask), feature_map_attention(phi_q, phi_k, v, mask))
    assert torch.equal(module.projection, first)
    module.train()(q, k, v, mask)
    assert torch.equal(module.projection, drawn[-1].double())
    with pytest.raises(ValueError, match=r"^redraw_at_evaluation must be false with redraw=false\. Got true\.$"):
        PerformerAttention(**SIZES, num_features=16, redraw=False, redraw_at_evaluation=True)


# Synthesizer


def explicit(logits: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    weights = logits.expand(B, H, L, L).masked_fill(~mask[:, None, None], -torch.inf).softmax(-1)
    return real(weights @ v, mask)


def test_synthesizers_are_softmax_of_their_logits():
    (q, k, v), mask = inputs(), unequal_mask()
    random = RandomSynthesizerAttention(**SIZES).double()
    torch.nn.init.normal_(random.logits, std=3)
    expected = explicit(random.logits[:, :L, :L], v, mask)
    assert_same(real(random(q, k, v, mask), mask), expected, [q, k, v, random.logits])

    factorized = FactorizedSynthesizerAttention(**SIZES, rank=5).double()
    R1, R2 = factorized.rows, factorized.columns
    expected = explicit(R1[:, :L] @ R2[:, :L].mT, v, mask)
    assert_same(real(factorized(q, k, v, mask), mask), expected, [q, k, v, R1, R2])

    dense = DenseSynthesizerAttention(**SIZES).double()
    hidden = torch.stack([dense.hidden(q[:, :, i].flatten(1)).relu() for i in range(L)], 1).view(B, L, H, D)
    expected = explicit(torch.einsum("blhd,hmd->bhlm", hidden, dense.logits[:, :L]), v, mask)
    assert_same(real(dense(q, k, v, mask), mask), expected, [q, k, v, dense.logits, dense.hidden.weight])


@pytest.mark.parametrize(
    "method", [DenseSynthesizerAttention, FactorizedSynthesizerAttention, RandomSynthesizerAttention]
)
def test_zero_logits_give_the_mean_of_the_values(method):
    (q, k, v), mask, module = inputs(), unequal_mask(), method(**SIZES).double()
    for parameter in module.parameters():
        torch.nn.init.zeros_(parameter)
    assert_same(real(module(q, k, v, mask), mask), explicit(v.new_zeros(1, 1), v, mask), [q, k, v])


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        (LinformerAttention, {"proj_len": 0}, r"proj_len must be at least 1\. Got 0\."),
        (UnreducedJLTAttention, {"proj_len": 0}, r"proj_len must be at least 1\. Got 0\."),
        (NystromformerAttention, {"num_landmarks": 0}, r"num_landmarks must be at least 1\. Got 0\."),
        (
            NystromformerAttention,
            {"num_landmarks": 4, "pinv_iterations": 0},
            r"pinv_iterations must be at least 1\. Got 0\.",
        ),
        (NystromformerAttention, {"num_landmarks": 4, "conv_size": 4}, r"conv_size must be odd\. Got 4\."),
        (PerformerAttention, {"num_features": 0}, r"num_features must be at least 1\. Got 0\."),
        (
            PerformerAttention,
            {"num_features": 4, "kernel": "cos"},
            r"kernel must be one of softmax, relu\. Got 'cos'\.",
        ),
        (FactorizedSynthesizerAttention, {"rank": 0}, r"rank must be at least 1\. Got 0\."),
    ],
)
def test_bad_options_are_named(method, options, message):
    with pytest.raises(ValueError, match=message):
        method(**SIZES, **options)


# Memory

LINEAR = ["linformer", "nystromformer", "nystromformer_conv", "performer", "performer_relu", "linear_transformer"]
PEAK = """
import sys, hydra, torch
from omegaconf import OmegaConf
def status(key):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(key))
config = OmegaConf.create({"budget": 64, "attn": OmegaConf.load(sys.argv[1])})
def step(n):
    q, k, v = (torch.randn(4, n, 2, 32).transpose(1, 2).requires_grad_() for _ in range(3))
    grad, mask = torch.randn(4, 2, n, 32), torch.ones(4, n, dtype=torch.bool)
    module = hydra.utils.instantiate(config.attn)(num_heads=2, head_dim=32, max_len=n, dropout=0.0)
    open("/proc/self/clear_refs", "w").write("5")
    base = status("VmRSS")
    module(q, k, v, mask).backward(grad)
    return status("VmHWM") - base
step(64)
print(step(int(sys.argv[2])))
"""


def peak_kib(name: str, n: int) -> int:
    """Peak memory of a forward and a backward pass above its inputs, in a process of its own."""
    top = ROOT
    # A low threshold makes the allocator return every block at once, so that the peak is the peak of live tensors.
    environment = {"MALLOC_MMAP_THRESHOLD_": "65536", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(top)}
    command = [sys.executable, "-c", PEAK, str(top / "configs" / "attn" / f"{name}.yaml"), str(n)]
    return int(subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux to reset the peak")
@pytest.mark.parametrize("name", LINEAR)
def test_peak_memory_is_linear(name):
    assert peak_kib(name, 4096) < 2.2 * peak_kib(name, 2048)
