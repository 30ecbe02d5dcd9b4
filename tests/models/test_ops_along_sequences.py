"""Convolution by FFT, the associative scan and taps of geometric series, against the loops that they stand for."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from models.ops.fft_convolution import convolve, fast_size
from models.ops.geometric_taps import geometric_taps
from models.ops.scan import scan

B, C = 2, 3
DTYPES = [torch.float64, torch.complex128]


def convolution_by_loop(x: Tensor, kernel: Tensor, reverse: Tensor | None) -> Tensor:
    """y_i = sum_j t_{i-j} x_j, term by term."""
    rows = []
    for i in range(x.shape[1]):
        row = torch.zeros_like(x[:, 0] * kernel[:, 0])
        for j in range(x.shape[1]):
            taps, lag = (kernel, i - j) if i >= j else (reverse, j - i - 1)
            if taps is not None and lag < taps.shape[1]:
                row = row + taps[:, lag] * x[:, j]
        rows.append(row)
    return torch.stack(rows, 1)


def scan_by_loop(decay: Tensor, inputs: Tensor, reverse: bool) -> Tensor:
    """h_t = a_t h_{t-1} + x_t, step by step."""
    length = inputs.shape[1]
    states: dict[int, Tensor] = {}
    state = torch.zeros_like(inputs[:, 0] * decay[:, 0])
    for t in reversed(range(length)) if reverse else range(length):
        state = states[t] = decay[:, min(t, decay.shape[1] - 1)] * state + inputs[:, t]
    return torch.stack([states[t] for t in range(length)], 1)


def gradients(out: Tensor, inputs: list[Tensor]) -> list[Tensor]:
    weights = torch.linspace(0.5, 2, out.numel(), dtype=torch.float64).view(out.shape)
    loss = (out * weights * torch.exp(torch.tensor(0.3j))).real.sum()
    return list(torch.autograd.grad(loss, inputs, allow_unused=True, materialize_grads=True))


@pytest.mark.parametrize("dtypes", [(a, b) for a in DTYPES for b in DTYPES], ids=str)
@pytest.mark.parametrize("num_taps", [(1, 0), (4, None), (4, 2), (40, 40), (2, 25)])
@pytest.mark.parametrize("length", [1, 2, 7, 16, 33])
def test_convolution_is_the_loop(length, num_taps, dtypes):
    x = torch.randn(B, length, C, dtype=dtypes[0], requires_grad=True)
    kernel, reverse = (
        None if count is None else torch.randn(C, count, dtype=dtypes[1], requires_grad=True) for count in num_taps
    )
    out, expected = convolve(x, kernel, reverse), convolution_by_loop(x, kernel, reverse)
    assert out.dtype == expected.dtype
    torch.testing.assert_close(out, expected, rtol=1e-10, atol=1e-10)
    inputs = [x, kernel] if reverse is None else [x, kernel, reverse]
    for ours, theirs in zip(gradients(out, inputs), gradients(expected, inputs), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)


def test_convolution_keeps_a_low_precision_and_computes_in_float32():
    x, kernel = torch.randn(B, 50, C).bfloat16(), torch.randn(C, 50).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        out = convolve(x, kernel)
    assert out.dtype == torch.bfloat16
    expected = convolution_by_loop(x.double(), kernel.double(), None)
    torch.testing.assert_close(out.double(), expected, rtol=2**-8, atol=1e-4)


def test_the_length_of_a_transform_is_enough_and_little_more():
    for least in range(1, 3000):
        size = fast_size(least)
        assert least <= size <= 1.34 * least
        while size % 2 == 0:
            size //= 2
        assert size in (1, 3, 5)


@pytest.mark.parametrize("dtypes", [(a, b) for a in DTYPES for b in DTYPES], ids=str)
@pytest.mark.parametrize("steady", ["no", "in time", "in all"])
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("length", [1, 2, 15, 16, 17, 32, 100, 300])
def test_scan_is_the_loop(length, reverse, steady, dtypes):
    shape = {"no": (B, length, C), "in time": (B, 1, C), "in all": (1, 1, C)}[steady]
    decay = (0.6 * torch.randn(shape, dtype=dtypes[0])).requires_grad_()
    inputs = torch.randn(B, length, C, dtype=dtypes[1], requires_grad=True)
    # Chunks of 4: several rounds of them.
    out, expected = scan(decay, inputs, reverse, chunk=4), scan_by_loop(decay, inputs, reverse)
    assert out.dtype == expected.dtype
    torch.testing.assert_close(out, expected, rtol=1e-10, atol=1e-10)
    for ours, theirs in zip(gradients(out, [decay, inputs]), gradients(expected, [decay, inputs]), strict=True):
        assert ours.dtype == theirs.dtype
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


def test_scan_of_several_dimensions_and_its_second_argument_alone():
    decay = torch.rand(B, 40, C, 1, dtype=torch.float64)
    inputs = torch.randn(B, 40, C, 5, dtype=torch.float64, requires_grad=True)
    out = scan(decay, inputs)
    torch.testing.assert_close(out, scan_by_loop(decay, inputs, False))
    torch.autograd.gradcheck(lambda x: scan(decay[:, :20], x), (inputs[:, :20].detach().requires_grad_(),))


def test_scan_computes_in_float32_at_least():
    decay, inputs = torch.full((1, 1, C), 0.99), torch.randn(B, 200, C).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        out = scan(decay, inputs)
    assert out.dtype == torch.float32
    torch.testing.assert_close(out.double(), scan_by_loop(decay.double(), inputs.double(), False), rtol=1e-4, atol=1e-4)


def test_scan_keeps_no_more_than_its_decay_and_its_states():
    kept: list[int] = []
    decay, inputs = torch.rand(B, 500, C, requires_grad=True), torch.randn(B, 500, C, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(lambda x: (kept.append(x.numel()), x)[1], lambda x: x):
        scan(decay, inputs)
    assert sum(kept) == 2 * inputs.numel()


@pytest.mark.parametrize("shape", [(C, 4), (2, C, 4)])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("length", [1, 2, 3, 4, 5, 16, 17, 100])
def test_taps_are_those_of_the_recurrence(length, dtype, shape):
    weights = torch.randn(shape, dtype=dtype, requires_grad=True)
    log_ratios = (0.3 * torch.randn(shape, dtype=dtype) - 0.5).requires_grad_()
    state, taps = weights, []
    for _ in range(length):
        taps.append(state.sum(-1).real)
        state = state * log_ratios.exp()
    out, expected = geometric_taps(weights, log_ratios, length), torch.stack(taps, -1)
    torch.testing.assert_close(out, expected, rtol=1e-11, atol=1e-11)
    inputs = [weights, log_ratios]
    for ours, theirs in zip(gradients(out, inputs), gradients(expected, inputs), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-11)
