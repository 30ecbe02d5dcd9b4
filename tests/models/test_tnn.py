"""TNN: its Toeplitz matrices, written out, along a sequence and along both sides of an image."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from models.mixers.tnn import TNN2DMixer, TNNMixer, ToeplitzOperator

B, L, C = 2, 23, 6
SIZES = {"dim": C, "max_len": 64, "dropout": 0.0}


def build(kind: type[TNNMixer] = TNNMixer, **options) -> TNNMixer:
    torch.manual_seed(0)
    made = kind(**{**SIZES, "expand": 1.5, "rpe_dim": 5, "gamma": 0.9, **options}).double()
    for layer in (made.gate, made.value, made.out):
        torch.nn.init.normal_(layer.weight)  # far from 0, so that a mistake shows
    return made


def rows(length: int = L, channels: int = C) -> Tensor:
    return torch.randn(B, length, channels, generator=torch.Generator().manual_seed(length)).double()


def holey(length: int = L) -> Tensor:
    positions = torch.arange(length)
    return torch.stack([(positions % 4 != 1) & (positions < length - 3), positions >= 0])


def coefficient(operator: ToeplitzOperator, offset: int) -> Tensor:
    """t of one offset, (C), by the layers of the network one after the other."""
    network = operator.network
    x = network.first(torch.tensor([float(offset)]).double())
    x = network.third(F.relu(network.second(F.relu(x))))
    return network.out(F.relu(network.norm(x)))


def matrix(operator: ToeplitzOperator, length: int) -> Tensor:
    """The Toeplitz matrices (C, L, L) of all channels, entry by entry."""
    limit = operator.max_offset or length
    entries = [
        [
            coefficient(operator, i - j) * (operator.gamma ** abs(i - j) if abs(i - j) < limit else 0)
            for j in range(length)
        ]
        for i in range(length)
    ]
    return torch.stack([torch.stack(row) for row in entries]).permute(2, 0, 1)


@pytest.mark.parametrize("max_offset", [None, 1, 7, L, 1024])
@pytest.mark.parametrize("gamma", [0.0, 0.6, 1.0])
def test_mixing_is_a_product_with_toeplitz_matrices(gamma, max_offset):
    mixer, x, mask = build(gamma=gamma, max_offset=max_offset), rows(), holey()
    u = F.silu(mixer.gate(x))
    v = F.silu(mixer.value(x)) * mask[..., None]
    mixed = torch.einsum("cij,bjc->bic", matrix(mixer.operators[0], L), v)
    torch.testing.assert_close(mixer(x, mask), mixer.out(u * mixed) * mask[..., None], rtol=1e-11, atol=1e-11)


def test_without_gamma_every_token_sees_itself_alone():
    mixer = build(gamma=0.0)
    v = rows(channels=9)
    torch.testing.assert_close(mixer.mix(v), v * coefficient(mixer.operators[0], 0), rtol=1e-12, atol=1e-12)


def test_a_shift_of_the_sequence_is_a_shift_of_the_result():
    mixer, shift = build(), 5
    v = rows(channels=9)
    v[:, -shift:] = 0
    moved = mixer.mix(v.roll(shift, 1))
    torch.testing.assert_close(moved[:, shift:], mixer.mix(v)[:, :-shift], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("max_offset", [None, 9])
def test_the_coefficient_of_an_offset_does_not_change_with_the_length(max_offset):
    operator = build(max_offset=max_offset).operators[0]
    short, long = (operator.coefficients(length, rows()) for length in (5, 23))
    for some, all_ in zip(short, long, strict=True):
        torch.testing.assert_close(some, all_[:, : some.shape[1]], rtol=1e-12, atol=1e-12)
    assert [side.shape[1] for side in long] == ([23, 22] if max_offset is None else [9, 8])


def test_neighbouring_offsets_stay_apart_in_half_precision():
    operator, v = build().float().operators[0], torch.zeros(1, 600, 9)
    with torch.autocast("cpu", torch.bfloat16):
        rough = operator.coefficients(600, v.bfloat16())
    for some, exact in zip(rough, operator.coefficients(600, v), strict=True):
        torch.testing.assert_close(some, exact)


@pytest.mark.parametrize("length", [L, 64])
def test_two_dimensions_are_a_product_along_both_sides_in_both_orders(length):
    mixer, x, mask, side = build(TNN2DMixer), rows(length), holey(length), 8
    height = -(-length // side)
    image = F.pad(F.silu(mixer.value(x)) * mask[..., None], (0, 0, 0, height * side - length))
    image = image.unflatten(1, (height, side))
    A, W = matrix(mixer.operators[0], height), matrix(mixer.operators[1], side)

    def down(y: Tensor) -> Tensor:
        return torch.einsum("cij,bjwc->biwc", A, y)

    def across(y: Tensor) -> Tensor:
        return torch.einsum("cij,bhjc->bhic", W, y)

    mixed = (down(across(image)) + across(down(image))).flatten(1, 2)[:, :length]
    expected = mixer.out(F.silu(mixer.gate(x)) * mixed) * mask[..., None]
    torch.testing.assert_close(mixer(x, mask), expected, rtol=1e-11, atol=1e-11)


def test_an_image_has_the_side_of_the_longest_sequence():
    """Pixel (1, 0) of an image with a side of 32 reaches the one below another way than the 33rd of a sequence."""
    mixer = build(TNN2DMixer, max_len=1024, gamma=0.0)
    v = torch.zeros(1, 64, 9).double()
    v[:, 0] = 1
    mixer.operators[0].gamma = 1.0  # along the columns alone
    reached = mixer.mix(v)[0].abs().sum(-1).nonzero()[:, 0]
    assert reached.tolist() == [0, 32]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gamma": 1.1}, "gamma must be at most 1. Got 1.1."),
        ({"gamma": -0.1}, "gamma must be at least 0 and finite. Got -0.1."),
        ({"expand": 0.1}, "expand times model.dim must be at least 1. Got 0."),
        ({"max_offset": 0}, "max_offset must be at least 1. Got 0."),
        ({"rpe_dim": 0}, "rpe_dim must be at least 1. Got 0."),
    ],
)
def test_what_cannot_be_is_refused(options, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        build(**options)
