"""Convolutions as long as the sequence: LongConv and SGConv, against sums over lags and kernels made otherwise."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lra.training.optimizer import Optimization
from models.mixers import Mixer
from models.mixers.long_conv import LongConvMixer
from models.mixers.sg_conv import SGConvMixer, stretched

B, L, C = 2, 29, 6
SIZES = {"dim": C, "max_len": 40, "dropout": 0.0}


def rows(length: int = L) -> Tensor:
    return torch.randn(B, length, C, generator=torch.Generator().manual_seed(length)).double()


def holey(length: int = L) -> Tensor:
    positions = torch.arange(length)
    return torch.stack([(positions % 4 != 1) & (positions < length - 3), positions >= 0])


def summed(x: Tensor, taps: Tensor) -> Tensor:
    """y_i = sum_j t_{i-j} x_j, token by token; the second set of taps, if any, is that of lags -1, -2, ..."""
    out = torch.zeros_like(x)
    for i in range(x.shape[1]):
        for j in range(x.shape[1]):
            if i >= j:
                out[:, i] += taps[0, :, i - j] * x[:, j]
            elif len(taps) > 1:
                out[:, i] += taps[1, :, j - i - 1] * x[:, j]
    return out


@pytest.mark.parametrize("bidirectional", [True, False])
def test_long_conv_is_its_formula(bidirectional):
    torch.manual_seed(0)
    mixer = LongConvMixer(**SIZES, bidirectional=bidirectional, squash=0.001).double().eval()
    x, mask = rows(), holey()
    seen = x * mask[..., None]
    taps = mixer.kernels.sign() * (mixer.kernels.abs() - 0.001).clamp(min=0)
    assert 0 < (taps == 0).double().mean() < 0.5
    a, b = mixer.out(F.gelu(summed(seen, taps) + mixer.skip * seen)).chunk(2, -1)
    torch.testing.assert_close(mixer(x, mask), a * b.sigmoid() * mask[..., None], rtol=1e-11, atol=1e-11)


def test_long_conv_drops_taps_in_training_and_keeps_their_mean():
    mixer = LongConvMixer(dim=50, max_len=400, dropout=0.0, squash=0.0, kernel_dropout=0.3)
    nn.init.ones_(mixer.kernels)
    torch.manual_seed(0)
    x = torch.zeros(1, 400, 50)
    x[:, 0] = 1
    seen: list[Tensor] = []
    mixer.drop.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0]))
    nn.init.zeros_(mixer.skip)
    for training in (True, False):
        mixer.train(training)(x, torch.ones(1, 400, dtype=torch.bool))
    dropped, whole = (F.gelu(torch.tensor(value)) for value in (1 / 0.7, 1.0))
    zero = seen[0].abs() < 1e-5
    assert abs(zero.float().mean() - 0.3) < 0.02
    torch.testing.assert_close(seen[0][~zero], dropped.expand(int((~zero).sum())), rtol=0, atol=1e-5)
    torch.testing.assert_close(seen[1], whole.expand(1, 400, 50), rtol=0, atol=1e-5)


@pytest.mark.parametrize("max_len", [1, 3, 4, 5, 8, 9, 40])
@pytest.mark.parametrize("bidirectional", [True, False])
def test_sg_conv_is_its_formula(bidirectional, max_len):
    """With torch's interpolation, at the kernel size 4."""
    torch.manual_seed(0)
    options = {"bidirectional": bidirectional, "kernel_size": 4, "decay": 3.0}
    mixer = SGConvMixer(**{**SIZES, "max_len": max_len}, **options).double()
    num_scales = 1 + max(0, math.ceil(math.log2(max_len / 4)))
    assert len(mixer.kernels) == num_scales
    parts = []
    for scale, kernel in enumerate(mixer.kernels):
        longer = F.interpolate(kernel, scale_factor=2 ** max(0, scale - 1), mode="linear")
        parts.append(longer * 3.0 ** (num_scales - scale - 1))
    whole = torch.cat(parts, -1)
    assert whole.shape[-1] >= max_len
    length = min(L, max_len)
    taps = (whole / whole.norm(dim=-1, keepdim=True))[..., :length]
    torch.testing.assert_close(mixer.taps(length), taps, rtol=1e-6, atol=1e-6)  # the norm is of float32
    x, mask = rows(length), holey(length)
    seen = x * mask[..., None]
    expected = mixer.out(F.gelu(summed(seen, mixer.taps(length)) + mixer.skip * seen)) * mask[..., None]
    torch.testing.assert_close(mixer(x, mask), expected, rtol=1e-11, atol=1e-11)


def test_the_kernels_of_sg_conv_are_divided_by_what_they_were_at_first():
    mixer = SGConvMixer(**SIZES, kernel_size=4, bidirectional=True)
    torch.testing.assert_close(mixer._whole(mixer.kernels).norm(dim=-1, keepdim=True), mixer.norm)
    before = mixer.taps(40)
    with torch.no_grad():
        mixer.kernels.mul_(5)
    torch.testing.assert_close(mixer.taps(40), 5 * before)
    assert "norm" in mixer.state_dict()


@pytest.mark.parametrize("factor", [1, 2, 4, 8])
@pytest.mark.parametrize("size", [1, 2, 7])
def test_stretching_is_torchs_interpolation(size, factor):
    x = torch.randn(2, 3, size).double()
    expected = F.interpolate(x, scale_factor=factor, mode="linear")
    torch.testing.assert_close(stretched(x, factor), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("kind", "decayed"), [(LongConvMixer, False), (SGConvMixer, True)])
def test_kernels_have_a_learning_rate_of_their_own(kind, decayed):
    mixer = kind(**SIZES, kernel_learning_rate=3e-4)
    optimization = Optimization(
        learning_rate=1e-2, warmup_steps=2, weight_decay=0.05, adam_eps=1e-8, cycle_momentum=False, clip_norm=None
    )
    usual, own = optimization.groups(mixer)
    assert own["params"] == [mixer.kernels]
    assert (own["lr"], own["weight_decay"]) == (3e-4, 0.05 if decayed else 0.0)
    assert (usual["lr"], usual["weight_decay"]) == (1e-2, 0.05)


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (LongConvMixer, {"squash": -0.1}, "squash must be at least 0 and finite. Got -0.1."),
        (LongConvMixer, {"kernel_dropout": 1.0}, "kernel_dropout must be at least 0 and below 1. Got 1.0."),
        (LongConvMixer, {"kernel_learning_rate": 0.0}, "kernel_learning_rate must be positive and finite. Got 0.0."),
        (SGConvMixer, {"kernel_size": 0}, "kernel_size must be at least 1. Got 0."),
        (SGConvMixer, {"decay": 0.0}, "decay must be positive and finite. Got 0.0."),
        (SGConvMixer, {"kernel_learning_rate": -1.0}, "kernel_learning_rate must be positive and finite. Got -1.0."),
    ],
)
def test_what_cannot_be_is_refused(kind: type[Mixer], options, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        kind(**SIZES, **options)
