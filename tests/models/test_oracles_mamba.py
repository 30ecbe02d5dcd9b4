"""Mamba against implementations that others wrote: same weights, same outputs, same gradients."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import Tensor, nn

from models.mixers.mamba import Mamba

B, L, C, N = 3, 21, 6, 4


def one_direction() -> Mamba:
    torch.manual_seed(0)
    ours = Mamba(state_dim=N, step_rank=2, bidirectional=False, dim=C, max_len=32, dropout=0.0).double()
    for parameter in ours.parameters():  # far from where they begin, so that every one of them counts
        nn.init.normal_(parameter, std=0.7)
    return ours


def inputs() -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(B, L, C, generator=generator, dtype=torch.float64).requires_grad_()


NAMES = {  # ours, and those of both packages
    "enter.weight": "in_proj.weight", "forwards.conv.weight": "conv1d.weight", "forwards.conv.bias": "conv1d.bias",
    "forwards.project.weight": "x_proj.weight", "forwards.step.weight": "dt_proj.weight",
    "forwards.step.bias": "dt_proj.bias", "forwards.log_poles": "A_log", "forwards.skip": "D",
    "out.weight": "out_proj.weight",
}  # fmt: skip


def compare_blocks(ours: Mamba, theirs: nn.Module, tolerance: float) -> None:
    assert set(NAMES) == set(dict(ours.named_parameters()))
    theirs.load_state_dict({NAMES[name]: value for name, value in ours.state_dict().items()})
    x, other = inputs(), inputs()
    named = dict(theirs.named_parameters())
    leaves = [[x, *ours.parameters()], [other, *(named[NAMES[name]] for name, _ in ours.named_parameters())]]
    outs = [ours(x, torch.ones(B, L, dtype=torch.bool)), theirs(other)]
    torch.testing.assert_close(*outs, rtol=tolerance, atol=tolerance)
    weights = torch.randn(B, L, C, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    grads = [torch.autograd.grad((out * weights).sum(), own) for out, own in zip(outs, leaves, strict=True)]
    for left, right in zip(*grads, strict=True):
        torch.testing.assert_close(left, right, rtol=10 * tolerance, atol=10 * tolerance)


@pytest.mark.slow  # the import alone takes seconds
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_one_direction_equals_transformers():
    package = pytest.importorskip("transformers.models.mamba.modeling_mamba")
    config = package.MambaConfig(hidden_size=C, state_size=N, conv_kernel=4, expand=2, time_step_rank=2)
    theirs = package.MambaMixer(config, layer_idx=0).double()
    compare_blocks(one_direction(), theirs, 1e-5)  # theirs has the scan in float32


def test_one_direction_equals_mambapy():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        package = pytest.importorskip("mambapy.mamba")
    config = package.MambaConfig(
        d_model=C, n_layers=1, d_state=N, d_conv=4, expand_factor=2, dt_rank=2, use_cuda=False, pscan=False
    )
    theirs = package.MambaBlock(config).double()
    compare_blocks(one_direction(), theirs, 1e-5)  # theirs has the poles in float32
