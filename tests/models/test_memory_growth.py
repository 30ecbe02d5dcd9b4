"""Peak memory of a training step, counted allocation by allocation: what is claimed to be linear in length is.

Counted are all blocks of torch's allocator, temporaries of a kernel included; not counted is what a library such as MKL
takes for itself.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import accumulate

import hydra
import pytest
import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

from models.attention.softmax import SoftmaxAttention
from models.mixers import Mixer, StreamMixer
from models.positions.alibi import Alibi
from tests.helpers.configurations import choices, resolved, stacked

B, H, D = 4, 2, 32
SHORT, LONG = 2048, 4096

# Memory that grows as the square of the length.
QUADRATIC = {
    "softmax_materialised": "stores the score matrix, which is what it is for",
    "synthesizer_random": "its parameters are an L x L matrix for each head",
    "sparse_strided": "stores L (3 s + L / s) scores: quadratic unless the stride s grows as the root of L",
    "sparse_fixed": "gathers L (b + c L / b) keys: quadratic unless the block b grows as the root of L",
}
MOST = 2.2  # times as much for twice the length; a logarithm's share, 12 / 11 here, would still fit


def peak_bytes(action: Callable[[], object]) -> int:
    """The most that torch held at once during a call, above what it held before."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        action()
    assert profiler.profiler is not None
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    return max(accumulate((event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())), initial=0))


def step(name: str, length: int) -> Callable[[], object]:
    """A forward and a backward pass of a backbone of configs/attn, without padding."""
    torch.manual_seed(0)
    factory = hydra.utils.instantiate(resolved(stacked(attn=name))["attn"])
    mask = torch.ones(B, length, dtype=torch.bool)
    module: nn.Module
    if issubclass(factory.func, Mixer):
        module = factory(dim=H * D, max_len=length, dropout=0.0)
        x, g = (torch.randn(B, length, H * D).requires_grad_() for _ in range(2))
        if isinstance(module, StreamMixer):
            stream = module.first.expand(B, -1, -1)
            return lambda: torch.autograd.grad(module(x, mask, stream)[0], (x, *module.parameters()), g)
        return lambda: torch.autograd.grad(module(x, mask), (x, *module.parameters()), g)
    module = factory(num_heads=H, head_dim=D, max_len=length, dropout=0.0)
    q, k, v, g = (torch.randn(B, length, H, D).transpose(1, 2).requires_grad_() for _ in range(4))
    # Not every backbone looks at queries and keys.
    return lambda: torch.autograd.grad(module(q, k, v, mask), (q, k, v, *module.parameters()), g, allow_unused=True)


def test_the_peak_is_that_of_known_allocations():
    def action() -> None:
        first = torch.empty(2**20, dtype=torch.uint8)
        second = torch.empty(2**21, dtype=torch.uint8)
        del first
        third = torch.empty(2**19, dtype=torch.uint8)
        del second, third

    held = torch.empty(2**22, dtype=torch.uint8)  # before, so not counted
    assert peak_bytes(action) == 2**20 + 2**21
    assert peak_bytes(lambda: held.add(held).add(held).sum()) >= 2 * held.nbytes  # temporaries without a name
    assert peak_bytes(lambda: held.add_(held)) == 0


def test_a_bias_on_the_scores_leaves_memory_linear(monkeypatch):
    monkeypatch.setattr("models.ops.biased_attention.MOST_SCORES", 2**18)
    module, bias = SoftmaxAttention(num_heads=H, head_dim=D, max_len=LONG, dropout=0.0), Alibi(H)

    def peak(length: int) -> int:
        q, k, v = (torch.randn(1, H, length, D).requires_grad_() for _ in range(3))
        mask = torch.ones(1, length, dtype=torch.bool)
        return peak_bytes(lambda: torch.autograd.grad(module(q, k, v, mask, bias).sum(), (q, k, v)))

    assert peak(1024) <= MOST * peak(512)


def test_the_exceptions_are_backbones():
    assert QUADRATIC.keys() <= set(choices("attn"))


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in choices("attn") if name not in QUADRATIC])
def test_peak_memory_is_linear_in_length(name):
    short, long = (peak_bytes(step(name, length)) for length in (SHORT, LONG))
    assert long <= MOST * short


@pytest.mark.slow
@pytest.mark.parametrize("name", QUADRATIC)
def test_quadratic_memory_is_seen(name):
    """So that a name leaves the list once its memory has become linear."""
    short, long = (peak_bytes(step(name, length)) for length in (SHORT, LONG))
    assert long > MOST * short
