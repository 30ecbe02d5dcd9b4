"""B2S6 against its recurrence, step by step, and against the S6 that it generalises, in float64."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lra.training.optimizer import Optimization
from models.mixers.b2s6 import B2S6, BlockBiasedS6
from models.mixers.mamba import SelectiveBranch
from models.ops.fft_convolution import convolve
from models.ops.geometric_taps import geometric_taps
from tests.helpers.contract import holey_mask

B, L, H, P, N = 3, 18, 3, 4, 5
C = H * P
OPTIONS = {"complex_poles": True, "biased": True, "step_learning_rate": None}


def redrawn(module: nn.Module) -> nn.Module:
    """The module in float64, its parameters far from where they begin, so that every one of them counts."""
    generator = torch.Generator().manual_seed(0)
    for parameter in module.double().parameters():
        parameter.data = 0.7 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    return module


def inputs(*shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(B, L, *shape, generator=generator, dtype=torch.float64).requires_grad_()


def compare(outs: list[Tensor], leaves: list[Tensor]) -> None:
    torch.testing.assert_close(*outs, rtol=1e-9, atol=1e-9)
    weights = torch.randn(outs[0].shape, generator=torch.Generator().manual_seed(2), dtype=outs[0].dtype)
    grads = [torch.autograd.grad((out * weights).sum(), leaves) for out in outs]
    for ours, theirs in zip(*grads, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-8)


def joined(unit: BlockBiasedS6, x: Tensor) -> Tensor:
    return x if unit.frequency is None else torch.view_as_complex(x.contiguous())


def twin(unit: BlockBiasedS6, u: Tensor) -> Tensor:
    """Algorithm 2 of one sequence (L, H, P): block by block, channel by channel, token by token."""
    poles = -unit.log_decay.exp()
    if unit.frequency is not None:
        poles = torch.complex(poles, unit.frequency)
    out = torch.zeros(u.shape, dtype=u.dtype)
    for j in range(u.shape[1]):
        for i in range(u.shape[2]):
            h = torch.zeros_like(poles)
            for t in range(len(u)):
                row = u[t, j]
                step = F.softplus(unit.step_weight[j] @ row + unit.step_bias[j, i])
                entry = row.to(poles.dtype) @ joined(unit, unit.entry)[j]
                if unit.entry_bias is not None:
                    entry = entry + joined(unit, unit.entry_bias)[j, i]
                h = (step * poles).exp() * h + step * entry * row[i]
                read = (row.to(poles.dtype) @ joined(unit, unit.readout)[j]) @ h
                out = out.index_put(tuple(torch.tensor(k) for k in (t, j, i)), read.real if h.is_complex() else read)
    return out


@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize("complex_poles", [True, False])
def test_a_unit_is_its_recurrence(complex_poles, biased):
    unit = BlockBiasedS6(H, P, N, complex_poles=complex_poles, biased=biased, step_learning_rate=None)
    redrawn(unit)
    u = inputs(H, P)
    compare([unit(u), torch.stack([twin(unit, row) for row in u])], [u, *unit.parameters()])


def test_one_block_with_real_poles_and_no_bias_is_the_s6_of_mamba():
    unit = redrawn(BlockBiasedS6(1, C, N, complex_poles=False, biased=False, step_learning_rate=None))
    s6 = SelectiveBranch(C, N, conv_size=1, step_rank=1).double()
    with torch.no_grad():
        s6.conv.weight.fill_(1.0)
        s6.conv.bias.zero_()
        s6.skip.zero_()
        s6.step.weight.fill_(1.0)
        s6.step.bias.copy_(unit.step_bias[0])
        s6.log_poles.copy_(unit.log_decay.expand(C, -1))
        s6.project.weight.copy_(torch.cat([unit.step_weight, unit.entry[0].mT, unit.readout[0].mT]))
    x = inputs(C)
    outs = [unit(F.silu(x)[:, :, None])[:, :, 0], s6(x, torch.ones(B, L, dtype=torch.bool))]
    compare(outs, [x])


def test_without_selection_of_steps_and_entries_the_states_are_those_of_s4d():
    """Time-invariant: a convolution for every state; only what reads them depends on the inputs."""
    unit = redrawn(BlockBiasedS6(H, P, N, **OPTIONS))
    with torch.no_grad():
        unit.step_weight.zero_()
        unit.entry.zero_()
    u = inputs(H, P)
    step, bias = F.softplus(unit.step_bias).flatten(), joined(unit, unit.entry_bias).flatten(0, 1)
    poles = torch.complex(-unit.log_decay.exp(), unit.frequency)
    states = []
    for n in range(N):
        parts = [
            geometric_taps((weight * step * bias[:, n])[:, None], (step * poles[n])[:, None], L) for weight in (1, -1j)
        ]  # the real and the imaginary part of the taps
        states.append(convolve(u.flatten(2), torch.complex(*parts)))
    readout = torch.einsum("blhp,hpn->blhn", u.to(poles.dtype), joined(unit, unit.readout))
    expected = (torch.stack(states, -1).unflatten(2, (H, P)) * readout[:, :, :, None]).sum(-1).real
    torch.testing.assert_close(unit(u), expected, rtol=1e-9, atol=1e-9)


def test_the_mixer_adds_both_directions_and_gates():
    mixer = redrawn(B2S6(num_blocks=H, state_dim=N, dim=C, max_len=32, dropout=0.0))
    x, mask = inputs(C), holey_mask(L)
    u = x * mask[..., None]
    blocks = u.unflatten(-1, (H, P))
    y = torch.stack([twin(mixer.forwards, row) + twin(mixer.backwards, row.flip(0)).flip(0) for row in blocks]).flatten(
        2
    )
    value, gate = mixer.out(F.gelu(y + mixer.skip * u)).chunk(2, -1)
    compare([mixer(x, mask), value * gate.sigmoid() * mask[..., None]], [x, *mixer.parameters()])


@pytest.mark.parametrize(
    ("dim", "num_blocks", "shape"), [(12, 3, (3, 4)), (12, 8, (6, 2)), (7, 3, (3, 3)), (4, 9, (4, 1))]
)
def test_blocks_that_do_not_divide_the_width_are_filled_up(dim, num_blocks, shape):
    mixer = B2S6(num_blocks=num_blocks, dim=dim, max_len=32, dropout=0.0)
    assert mixer.forwards.step_bias.shape == shape
    assert mixer(torch.randn(2, 5, dim), torch.ones(2, 5, dtype=torch.bool)).shape == (2, 5, dim)


@pytest.mark.parametrize("rate", [1e-4, None])
def test_the_steps_have_a_learning_rate_of_their_own_and_poles_do_not_decay(rate):
    mixer = B2S6(num_blocks=H, step_learning_rate=rate, dim=C, max_len=32, dropout=0.0)
    optimization = Optimization(
        learning_rate=0.01, warmup_steps=0, weight_decay=0.05, adam_eps=1e-8, cycle_momentum=False, clip_norm=None
    )
    names = {parameter: name for name, parameter in mixer.named_parameters()}
    found = {
        names[parameter]: (group["lr"], group["weight_decay"])
        for group in optimization.groups(mixer)
        for parameter in group["params"]
    }
    for name, (learning_rate, decay) in found.items():
        own = name.rpartition(".")[2]
        assert learning_rate == (rate or 0.01 if own in ("step_weight", "step_bias") else 0.01), name
        assert decay == (0.05 if own in ("entry", "readout", "entry_bias", "weight", "bias") else 0.0), name


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("num_blocks", 0, "num_blocks must be at least 1"),
        ("state_dim", 0, "state_dim must be at least 1"),
        ("step_learning_rate", 0.0, "step_learning_rate must be positive"),
    ],
)
def test_an_option_out_of_range_is_named(option, value, message):
    with pytest.raises(ValueError, match=message):
        B2S6(**{option: value}, dim=C, max_len=32, dropout=0.0)
