"""Kernels in Triton against their forms in torch, values and gradients: in the interpreter on a CPU, and on a GPU."""

from __future__ import annotations

import importlib
from types import ModuleType, SimpleNamespace

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from models import ops
from models.ops import scan as scan_module
from models.ops.scan import scan

B, C = 2, 5
DTYPES = [torch.float64, torch.complex128]


@pytest.fixture
def interpreted(monkeypatch) -> ModuleType:
    """The kernel of the scan, with small tiles, since the interpreter takes its time; used in the place of torch's."""
    pytest.importorskip("triton")
    if torch.cuda.is_available():
        pytest.skip("kernels are compiled where there is a GPU")
    kernel = importlib.import_module("models.ops.triton.scan")
    monkeypatch.setattr(kernel, "STEPS", 4)
    monkeypatch.setattr(kernel, "CHANNELS", 2)
    monkeypatch.setattr(scan_module, "fused", lambda x: not ops._torch_alone)
    return kernel


def with_gradients(decay: Tensor, inputs: Tensor, reverse: bool) -> list[Tensor]:
    out = scan(decay, inputs, reverse)
    weights = torch.linspace(0.5, 2, out.numel(), dtype=out.real.dtype, device=out.device).view(out.shape)
    loss = (out * weights * (0.8 + 0.6j)).real.sum()
    return [out.detach(), *torch.autograd.grad(loss, [decay, inputs])]


def numbers(steady: str, length: int, dtypes: tuple[torch.dtype, torch.dtype], device: str = "cpu") -> list[Tensor]:
    shape = {"no": (B, length, C), "in time": (B, 1, C), "in all": (1, 1, C)}[steady]
    decay = 0.6 * torch.randn(shape, dtype=dtypes[0], device=device)
    return [decay.requires_grad_(), torch.randn(B, length, C, dtype=dtypes[1], device=device, requires_grad=True)]


def compare(decay: Tensor, inputs: Tensor, reverse: bool, tolerance: float) -> None:
    ours = with_gradients(decay, inputs, reverse)
    with ops.reference():
        theirs = with_gradients(decay, inputs, reverse)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)


@pytest.mark.slow
@pytest.mark.parametrize("dtypes", [(a, b) for a in DTYPES for b in DTYPES], ids=str)
@pytest.mark.parametrize("steady", ["no", "in time", "in all"])
@pytest.mark.parametrize(("length", "reverse"), [(1, False), (4, False), (5, True), (14, False)])
def test_scan_in_the_interpreter_is_that_of_torch(interpreted, length, reverse, steady, dtypes):
    torch.manual_seed(0)
    compare(*numbers(steady, length, dtypes), reverse, 1e-10)


@pytest.mark.slow
def test_scan_of_several_dimensions_in_the_interpreter(interpreted):
    decay = torch.rand(B, 6, C, 1, dtype=torch.float64, requires_grad=True)
    inputs = torch.randn(B, 6, 3, C, dtype=torch.float64).transpose(2, 3).requires_grad_()
    compare(decay, inputs, False, 1e-10)
    assert scan(decay[:, :0], inputs[:, :0]).shape == (B, 0, C, 3)


@pytest.mark.slow
def test_scan_in_the_interpreter_is_used_where_it_is_asked_for(interpreted, monkeypatch):
    monkeypatch.setattr(interpreted, "solve", lambda decay, inputs: inputs + 1)
    x = torch.zeros(1, 3, 1)
    assert torch.equal(scan(x, x), x + 1)
    with ops.reference():
        assert torch.equal(scan(x, x), x)


@pytest.mark.gpu
@pytest.mark.parametrize("dtypes", [(a, b) for a in DTYPES for b in DTYPES], ids=str)
@pytest.mark.parametrize("steady", ["no", "in time", "in all"])
@pytest.mark.parametrize(("length", "reverse"), [(1, False), (64, True), (1000, False)])
def test_scan_on_a_gpu_is_that_of_torch(length, reverse, steady, dtypes):
    pytest.importorskip("triton")
    torch.manual_seed(0)
    inputs = numbers(steady, length, dtypes, "cuda")
    assert ops.fused(inputs[1])
    compare(*inputs, reverse, 1e-9)


def test_kernels_are_used_on_cuda_alone_and_torch_is_one_option_away(monkeypatch):
    on_device = SimpleNamespace(is_cuda=True)
    monkeypatch.setattr(ops, "_has_triton", lambda: True)
    assert ops.fused(on_device)
    assert not ops.fused(torch.ones(1))
    with ops.reference():
        with ops.reference():
            assert not ops.fused(on_device)
        assert not ops.fused(on_device)
    assert ops.fused(on_device)
    monkeypatch.setattr(ops, "_has_triton", lambda: False)
    assert not ops.fused(on_device)


def test_what_is_counted_without_content_is_the_form_in_torch(monkeypatch):
    monkeypatch.setattr(ops, "_has_triton", lambda: True)
    with FakeTensorMode():
        assert not ops.fused(torch.empty(1, device="cuda"))
