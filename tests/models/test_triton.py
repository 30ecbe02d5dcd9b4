"""Kernels in Triton against their forms in torch, values and gradients: in the interpreter on a CPU, and on a GPU."""

from __future__ import annotations

import importlib
from types import ModuleType, SimpleNamespace

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from models import ops
from models.ops.hash_sums import sampled_gradients, sampled_sum
from models.ops.scan import scan

TILES = {"scan": {"STEPS": 4, "CHANNELS": 2}, "hash_sums": {"ROWS": 4, "COLUMNS": 8}}
B, C = 2, 5
DTYPES = [torch.float64, torch.complex128]


@pytest.fixture
def interpreted(monkeypatch) -> dict[str, ModuleType]:
    """Kernels by name, in the place of torch's forms, with small tiles, since the interpreter takes its time."""
    pytest.importorskip("triton")
    if torch.cuda.is_available():
        pytest.skip("kernels are compiled where there is a GPU")
    kernels = {name: importlib.import_module(f"models.ops.triton.{name}") for name in TILES}
    for name, tiles in TILES.items():
        for size, value in tiles.items():
            monkeypatch.setattr(kernels[name], size, value)
        monkeypatch.setattr(importlib.import_module(f"models.ops.{name}"), "fused", lambda x: not ops._torch_alone)
    return kernels


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
    monkeypatch.setattr(interpreted["scan"], "solve", lambda decay, inputs: inputs + 1)
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


def sums_over_collisions(length: int, hashes: int, num_bits: int, device: str, dtype: torch.dtype) -> list[Tensor]:
    """The sampled sum and its gradients, with codes of which many collide."""
    torch.manual_seed(0)
    grad, q, k, v = (torch.randn(3, length, 5, dtype=dtype, device=device) for _ in range(4))
    codes_q, codes_k = (
        torch.randint(2**num_bits, (3, hashes, length), dtype=torch.int32, device=device) for _ in range(2)
    )
    gradients = sampled_gradients(grad, q, k, v, codes_q, codes_k, num_bits)
    return [sampled_sum(codes_q, codes_k, v, num_bits), *gradients]


def compare_sums(*case, tolerance: float) -> None:
    ours = sums_over_collisions(*case)
    with ops.reference():
        theirs = sums_over_collisions(*case)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)


@pytest.mark.slow
@pytest.mark.parametrize(("length", "hashes", "num_bits"), [(1, 3, 0), (4, 1, 2), (13, 4, 3), (24, 2, 1)])
def test_sums_over_collisions_in_the_interpreter_are_those_of_torch(interpreted, length, hashes, num_bits):
    compare_sums(length, hashes, num_bits, "cpu", torch.float64, tolerance=1e-12)


@pytest.mark.slow
def test_sums_over_collisions_are_counted_only_in_short_sequences(interpreted, monkeypatch):
    monkeypatch.setattr("models.ops.hash_sums.COUNT_UP_TO", 2)
    monkeypatch.setattr(interpreted["hash_sums"], "_sum", None)
    compare_sums(11, 2, 2, "cpu", torch.float64, tolerance=1e-12)


@pytest.mark.gpu
@pytest.mark.parametrize(("length", "hashes", "num_bits"), [(1, 3, 0), (64, 1, 4), (1000, 8, 6)])
def test_sums_over_collisions_on_a_gpu_are_those_of_torch(length, hashes, num_bits):
    pytest.importorskip("triton")
    compare_sums(length, hashes, num_bits, "cuda", torch.float32, tolerance=1e-3)


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
