"""Mamba against its recurrence, step by step, in float64."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.mixers.mamba import LEAST_STEP, LONGEST_STEP, Mamba, SelectiveBranch, initial_steps
from models.ops.selective_scan import Portion, selective_scan
from tests.helpers.contract import holey_mask

B, L, C, N = 3, 21, 6, 4


def redrawn(module: nn.Module) -> nn.Module:
    """The module in float64, its parameters far from where they begin, so that every one of them counts."""
    generator = torch.Generator().manual_seed(0)
    for parameter in module.double().parameters():
        parameter.data = 0.7 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    return module


def inputs(width: int = C) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(B, L, width, generator=generator, dtype=torch.float64).requires_grad_()


def compare(outs: list[Tensor], leaves: list[list[Tensor]], tolerance: float = 1e-9) -> None:
    """Two results, and the gradients of a loss that reads every number of them."""
    torch.testing.assert_close(*outs, rtol=tolerance, atol=tolerance)
    weights = torch.randn(outs[0].shape, generator=torch.Generator().manual_seed(2), dtype=outs[0].dtype)
    pairs = [
        torch.autograd.grad((out * weights).sum(), own, retain_graph=True)
        for out, own in zip(outs, leaves, strict=True)
    ]
    for ours, theirs in zip(*pairs, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=10 * tolerance, atol=10 * tolerance)


def branch_twin(branch: SelectiveBranch, x: Tensor, mask: Tensor) -> Tensor:
    """Algorithm 2 of one sequence (L, E), one token after the other."""
    taps = branch.conv.weight[:, 0]
    size = taps.shape[1]
    h = torch.zeros_like(branch.log_poles)
    rows = []
    for t in range(len(x)):
        u = branch.conv.bias
        for lag in range(min(size, t + 1)):
            u = u + taps[:, size - 1 - lag] * x[t - lag]
        u = F.silu(u) * mask[t]
        step, entry, readout = branch.project(u).split(branch.widths)
        step = F.softplus(branch.step(step))[:, None]
        h = (-step * branch.log_poles.exp()).exp() * h + step * u[:, None] * entry
        rows.append(h @ readout + branch.skip * u)
    return torch.stack(rows)


@pytest.mark.parametrize("tied", [False, True])
def test_mamba_is_its_recurrence_in_both_directions(tied):
    mamba = redrawn(Mamba(state_dim=N, conv_size=3, step_rank=2, tied=tied, dim=C, max_len=32, dropout=0.0))
    x, mask = inputs(), holey_mask(L)
    rows = []
    for b in range(B):
        channels, gate = mamba.enter(x[b] * mask[b][:, None]).chunk(2, -1)
        y = branch_twin(mamba.forwards, channels, mask[b])
        y = y + branch_twin(mamba.backwards, channels.flip(0), mask[b].flip(0)).flip(0)
        rows.append(mamba.out(y * F.silu(gate)) * mask[b][:, None])
    leaves = [x, *mamba.parameters()]
    compare([mamba(x, mask), torch.stack(rows)], [leaves, leaves])


def test_tied_directions_share_their_weights():
    untied, tied = (Mamba(tied=tied, dim=C, max_len=32, dropout=0.0) for tied in (False, True))
    assert tied.backwards is tied.forwards
    assert len([*untied.parameters()]) == len([*tied.parameters()]) + len([*tied.forwards.parameters()])


def test_without_the_way_back_no_token_sees_a_later_one():
    mamba = redrawn(Mamba(state_dim=N, bidirectional=False, dim=C, max_len=32, dropout=0.0))
    x, mask = inputs(), torch.ones(B, L, dtype=torch.bool)
    later = x.detach().clone()
    later[:, 10:] = 7.0
    assert torch.equal(mamba(x, mask)[:, :10], mamba(later, mask)[:, :10])


def test_groups_of_channels_do_not_matter(monkeypatch):
    generator = torch.Generator().manual_seed(0)

    def drawn(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    tensors = {
        "x": drawn(B, L, 2, 5), "step": drawn(B, L, 2, 5).exp(), "poles": -drawn(2, 5, N).exp(),
        "entry": drawn(B, L, 2, N), "readout": drawn(B, L, 2, N), "entry_bias": drawn(2, 5, N),
    }  # fmt: skip
    leaves = [tensor.requires_grad_() for tensor in tensors.values()]
    whole = selective_scan(**tensors)
    for most in (1, B * L * 2 * N * 2):
        monkeypatch.setattr("models.ops.selective_scan.ON_CPU", Portion(most, 4))
        compare([selective_scan(**tensors), whole], [leaves, leaves])


def test_initial_steps_are_in_their_range():
    steps = F.softplus(initial_steps((10_000,)))
    assert steps.min() >= LEAST_STEP * (1 - 1e-3)
    assert steps.max() <= LONGEST_STEP * (1 + 1e-3)
    assert steps.log().mean().item() == pytest.approx(-4.605, abs=0.05)  # 0.01, in the middle of the logarithms


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"expansion": 0}, "expansion must be at least 1"),
        ({"state_dim": 0}, "state_dim must be at least 1"),
        ({"conv_size": 0}, "conv_size must be at least 1"),
        ({"step_rank": 0}, "step_rank must be at least 1"),
        ({"tied": True, "bidirectional": False}, "tied must be false where bidirectional is"),
    ],
)
def test_an_option_out_of_range_is_named(options, message):
    with pytest.raises(ValueError, match=message):
        Mamba(**options, dim=C, max_len=32, dropout=0.0)
