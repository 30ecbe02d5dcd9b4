"""Megalodon's mixer against its formulas, token by token, in float64."""

from __future__ import annotations

import cmath
import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from models.mixers.megalodon import EPS, ComplexEma, Megalodon, rotate
from tests.helpers.contract import holey_mask

B, L, C, Z, N = 3, 19, 6, 4, 5


def inputs(width: int = C) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(B, L, width, generator=generator, dtype=torch.float64).requires_grad_()


def averages(ema: ComplexEma, x: Tensor) -> Tensor:
    """Eq. 2 of one sequence (L, C), step by step and without a convolution, in both directions."""
    alpha, delta, omega = ema.alpha.sigmoid(), ema.delta.sigmoid(), ema.omega.sigmoid()
    theta = torch.arange(1, N + 1) * omega * (2 * math.pi / N)
    turn = torch.complex(theta.cos(), theta.sin())
    out = [row * ema.residual for row in x]
    for direction, order in enumerate((range(len(x)), reversed(range(len(x))))):
        h = torch.zeros(C, N, dtype=turn.dtype)
        for t in order:
            decay = (1 - alpha[direction] * delta[direction]) * turn[direction]
            h = alpha[direction] * x[t][:, None] + decay * h
            out[t] = out[t] + (torch.view_as_complex(ema.eta[direction]) * h).sum(-1).real / math.sqrt(N)
    return torch.stack(out)


def unit(x: Tensor) -> Tensor:
    return x / (x.square().mean(-1, keepdim=True) + EPS).sqrt()


def twin(mixer: Megalodon, x: Tensor, mask: Tensor) -> Tensor:
    """One sequence (L, C), one row at a time."""
    x = x * mask[:, None]
    m = unit(averages(mixer.ema, x)) * mixer.norm.weight
    z, gate, candidate = mixer.project(m).split(mixer.widths, -1)
    q, k = (unit(z) * (1 + mixer.scale[i]) / math.sqrt(Z) + mixer.shift[i] for i in (0, 1))
    v = F.silu(mixer.value(x))
    size, rows = mixer.chunk or L, []
    for i in range(L):
        keys = [j for j in range(i // size * size, min(i // size * size + size, L)) if mask[j]]
        if not keys:
            rows.append(torch.zeros_like(v[0]))
            continue
        scores = []
        for j in keys:
            score = torch.zeros((), dtype=x.dtype)
            for pair in range(Z // 2):
                left, right = (torch.view_as_complex(part[pair * 2 : pair * 2 + 2]) for part in (q[i], k[j]))
                score = score + (left * right.conj() * cmath.exp(1j * (i - j) * 10_000 ** (-2 * pair / Z))).real
            scores.append(score)
        rows.append(torch.stack(scores).softmax(0) @ v[keys])
    return (candidate + mixer.out(torch.stack(rows) * F.silu(gate))) * mask[:, None]


@pytest.mark.parametrize("chunk", [None, 4, 64])
def test_megalodon_is_its_formula(chunk):
    mixer = Megalodon(shared_dim=Z, ema_dim=N, chunk=chunk, dim=C, max_len=32, dropout=0.0).double()
    generator = torch.Generator().manual_seed(0)
    for parameter in mixer.parameters():  # far from where they begin, so that every one of them counts
        parameter.data = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    x, mask = inputs(), holey_mask(L)
    out, expected = mixer(x, mask), torch.stack([twin(mixer, x[b], mask[b]) for b in range(B)])
    torch.testing.assert_close(out, expected, rtol=1e-9, atol=1e-9)
    leaves = [x, *mixer.parameters()]
    weights = torch.randn(out.shape, generator=torch.Generator().manual_seed(2), dtype=out.dtype)
    pairs = (torch.autograd.grad((result * weights).sum(), leaves) for result in (out, expected))
    for ours, theirs in zip(*pairs, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-8)


def test_rotations_depend_on_distances_alone():
    q, k = (torch.randn(Z, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) for seed in (0, 1))
    scores = rotate(q.expand(1, L, Z))[0] @ rotate(k.expand(1, L, Z))[0].T
    for offset in range(1 - L, L):
        diagonal = scores.diagonal(offset)
        torch.testing.assert_close(diagonal, diagonal[:1].expand_as(diagonal), rtol=1e-10, atol=1e-10)


def test_without_turns_the_averages_are_real():
    """Frequencies of 0 leave MEGA's damped averages, of beta 1."""
    ema = ComplexEma(C, N).double()
    with torch.no_grad():
        ema.omega.fill_(-torch.inf)
    real = torch.stack([averages(ema, row) for row in inputs()])
    torch.testing.assert_close(ema(inputs()), real, rtol=1e-9, atol=1e-9)
    with torch.no_grad():
        ema.eta[..., 1] = 7.0
    torch.testing.assert_close(ema(inputs()), real, rtol=1e-9, atol=1e-9)


def test_the_first_frequencies_are_all_there_in_some_order():
    omega = ComplexEma(64, N).omega.sigmoid()[..., 0]
    expected = torch.exp(-torch.arange(1, 65) * math.log(64) / 64)
    for direction in omega:
        torch.testing.assert_close(direction.sort(descending=True).values, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("shared_dim", 0, "shared_dim must be at least 1"),
        ("shared_dim", 3, "shared_dim must be even. Got 3"),
        ("expansion", 0, "expansion must be at least 1"),
        ("ema_dim", 0, "ema_dim must be at least 1"),
        ("chunk", 0, "chunk must be at least 1"),
    ],
)
def test_an_option_out_of_range_is_named(option, value, message):
    with pytest.raises(ValueError, match=message):
        Megalodon(**{option: value}, dim=C, max_len=32, dropout=0.0)
