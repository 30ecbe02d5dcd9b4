"""MEGA against its formulas, token by token, in float64."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.block import Block, BlockShape
from models.mixers.mega import DampedEma, Mega
from models.ops.chunked_attention import attend_in_chunks, laplace
from tests.helpers.contract import holey_mask

B, L, C, Z, N = 3, 19, 6, 4, 5


def redrawn(module: nn.Module) -> nn.Module:
    """The module in float64, its parameters far from where they begin, so that every one of them counts."""
    generator = torch.Generator().manual_seed(0)
    for parameter in module.double().parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    return module


def inputs(width: int = C) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(B, L, width, generator=generator, dtype=torch.float64).requires_grad_()


def averages(ema: DampedEma, x: Tensor) -> Tensor:
    """Eq. 4 to 6 of one sequence (L, C), step by step and without a convolution."""
    alpha, delta = ema.alpha.sigmoid(), ema.delta.sigmoid()
    out = [row * ema.residual for row in x]
    for direction, order in enumerate((range(len(x)), reversed(range(len(x))))):
        h = torch.zeros_like(alpha[0])
        for t in order:
            u = x[t][:, None] * ema.beta[direction]
            h = alpha[direction] * u + (1 - alpha[direction] * delta[direction]) * h
            out[t] = out[t] + (ema.eta[direction] * h).sum(-1) / math.sqrt(h.shape[-1])
    return torch.stack(out)


def attended(mega: Mega, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    """Attention of one sequence, one row at a time."""
    size, centre = mega.chunk or len(q), len(mega.bias) // 2
    rows = []
    for i in range(len(q)):
        start = i // size * size
        keys = [j for j in range(start, min(start + size, len(q))) if mask[j]]
        if not keys:
            rows.append(torch.zeros_like(v[0]))
            continue
        bias = torch.stack([mega.bias[centre + i - j] for j in keys])
        if mega.function == "softmax":
            weights = (k[keys] @ q[i] / math.sqrt(len(q[i])) + bias).softmax(0)
        else:
            scores = k[keys] @ q[i] / len(keys) + bias
            weights = torch.special.ndtr((scores - math.sqrt(0.5)) / math.sqrt(0.25 / math.pi))
        rows.append(weights @ v[keys])
    return torch.stack(rows)


def twin(mega: Mega, x: Tensor, mask: Tensor) -> Tensor:
    """Eq. 7 to 15 of one sequence (L, C), without the residual's sum."""
    x = x * mask[:, None]
    m = F.silu(averages(mega.ema, x))
    phi, z, r, candidate = mega.project(m).split(mega.widths, -1)
    q, k = (F.silu(z) * mega.scale[i] + mega.shift[i] for i in (0, 1))
    o = attended(mega, q, k, F.silu(mega.value(x)), mask)
    candidate = F.silu(candidate + mega.out(o * F.silu(r)))
    return phi.sigmoid() * (candidate - x) * mask[:, None]


@pytest.mark.parametrize("chunk", [None, 4, 64])
@pytest.mark.parametrize("function", ["softmax", "laplace"])
def test_mega_is_its_formula(function, chunk):
    mega = Mega(function=function, shared_dim=Z, ema_dim=N, chunk=chunk, dim=C, max_len=32, dropout=0.0)
    redrawn(mega)
    x, mask = inputs(), holey_mask(L)
    out, expected = mega(x, mask), torch.stack([twin(mega, x[b], mask[b]) for b in range(B)])
    torch.testing.assert_close(out, expected, rtol=1e-9, atol=1e-9)
    leaves = [x, *mega.parameters()]
    weights = torch.randn(out.shape, generator=torch.Generator().manual_seed(2), dtype=out.dtype)
    pairs = (torch.autograd.grad((result * weights).sum(), leaves) for result in (out, expected))
    for ours, theirs in zip(*pairs, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("truncation", [1, 2, 7, L, 100])
def test_averages_see_nothing_from_the_truncation_on(truncation):
    ema = redrawn(DampedEma(C, N, truncation))
    forwards, backwards = redrawn(DampedEma(C, N, None)).taps(L)
    x = inputs()
    out = ema(x)
    for i in range(L):
        expected = x[:, i] * ema.residual
        for j in range(L):
            if abs(i - j) < truncation:
                expected = expected + x[:, j] * (forwards[:, i - j] if i >= j else 0)
                expected = expected + x[:, j] * (backwards[:, j - i] if j >= i else 0)
        torch.testing.assert_close(out[:, i], expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("place", ["pre", "post"])
def test_the_update_gate_mixes_with_the_residual_itself(place):
    """Not with the normalised row: an open gate forgets what was there."""
    mega = redrawn(Mega(shared_dim=Z, ema_dim=N, dim=C, max_len=32, dropout=0.0))
    block = Block(mega, BlockShape(place=place, mlp=False), dim=C, mlp_dim=1, dropout=0.0).double()
    with torch.no_grad():
        mega.project.weight[:C] = 0
        mega.project.bias[:C] = 50.0  # the sigmoid is 1
    x, mask = inputs(), holey_mask(L)
    rows = block.mixer_norm(x) if place == "pre" else x
    candidate = mega(rows, mask, residual=torch.zeros_like(x))
    expected = candidate if place == "pre" else block.mixer_norm(candidate)
    out, _ = block(x, mask)
    torch.testing.assert_close(out[mask], expected[mask], rtol=1e-9, atol=1e-9)


def test_blocks_of_rows_do_not_matter(monkeypatch):
    q, k, v = inputs(Z), inputs(Z) * 0.5, inputs(C)
    bias = torch.randn(2 * L - 1, dtype=torch.float64)
    results = []
    for most in (2**25, 100, 1):
        monkeypatch.setattr("models.ops.chunked_attention.MOST_SCORES", most)
        results.append(attend_in_chunks(q, k, v, holey_mask(L), bias, chunk=None, function="softmax"))
    for other in results[1:]:
        torch.testing.assert_close(other, results[0], rtol=1e-12, atol=1e-12)


def test_laplace_has_value_and_slope_of_the_squared_relu_at_the_root_of_a_half():
    x = torch.tensor(math.sqrt(0.5), dtype=torch.float64, requires_grad=True)
    value = laplace(x)
    assert value.item() == pytest.approx(0.5)
    (slope,) = torch.autograd.grad(value, x)
    assert slope.item() == pytest.approx(math.sqrt(2))


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("function", "relu2", "function must be one of softmax, laplace"),
        ("shared_dim", 0, "shared_dim must be at least 1"),
        ("expansion", 0, "expansion must be at least 1"),
        ("ema_dim", 0, "ema_dim must be at least 1"),
        ("truncation", 0, "truncation must be at least 1"),
        ("chunk", 0, "chunk must be at least 1"),
    ],
)
def test_an_option_out_of_range_is_named(option, value, message):
    with pytest.raises(ValueError, match=message):
        Mega(**{option: value}, dim=C, max_len=32, dropout=0.0)
