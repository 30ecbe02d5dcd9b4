"""Counted operations against the formulas."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from lra.machine.flops import WorkCounter, count_flops
from lra.runs.factory import make_classifier
from models.attention.none import NoneAttention
from models.attention.softmax import SoftmaxAttention
from models.attention.softmax_materialised import SoftmaxMaterialisedAttention
from models.classifier import Classifier

L, C, HEADS, D, MLP, DEPTH = 96, 24, 2, 8, 40, 3


def model(attention, num_inputs: int = 1, **more) -> Classifier:
    shape = {
        "dim": C, "depth": DEPTH, "num_heads": HEADS, "head_dim": D, "mlp_dim": MLP, "dropout": 0.1,
        "attention_dropout": 0.1, **more,
    }  # fmt: skip
    return make_classifier(attention, shape, vocab_size=7, max_len=L, num_classes=5, num_inputs=num_inputs)


def encoder_flops() -> int:
    return DEPTH * L * 2 * (4 * C * HEADS * D + 2 * C * MLP)


@pytest.mark.parametrize("attention", [SoftmaxAttention, SoftmaxMaterialisedAttention])
def test_softmax_is_its_formula_however_it_is_computed(attention):
    """Two products of L x L x D for each head: forward 4 L^2 D, backward twice that."""
    head = 2 * (C * MLP + MLP * 5)
    products = DEPTH * HEADS * 4 * L**2 * D
    forward, both = count_flops(model(attention), 1, L)
    assert forward == encoder_flops() + products + head
    # The first projections' inputs need gradients too, since embeddings are learnt.
    assert both == 3 * forward


def test_two_inputs_are_twice_the_encoder():
    one, two = (count_flops(model(NoneAttention, n), n, L)[0] for n in (1, 2))
    assert two - one == encoder_flops() + 2 * 3 * C * MLP


@pytest.mark.parametrize("norm", ["layer", "batch"])
def test_the_model_is_left_as_it_was(norm):
    made = model(SoftmaxAttention, block={"norm": norm}).eval()
    before = {name: tensor.clone() for name, tensor in made.state_dict().items()}
    state = torch.get_rng_state()
    count_flops(made, 1, L)
    assert not made.training
    assert all(parameter.grad is None for parameter in made.parameters())
    assert all(torch.equal(before[name], tensor) for name, tensor in made.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)


def counted(run: Callable[[], object]) -> int:
    with WorkCounter() as counter:
        run()
    return counter.flops


def test_a_real_transform_is_half_of_a_complex_one_over_however_many_dimensions():
    real, complex_ = torch.ones(3, 8, 64), torch.ones(3, 8, 64, dtype=torch.complex64)
    assert counted(lambda: torch.fft.fft(complex_)) == 3 * 8 * 5 * 64 * 6
    assert counted(lambda: torch.fft.ifft(complex_, dim=1)) == 3 * 64 * 5 * 8 * 3
    assert counted(lambda: torch.fft.fft2(complex_)) == 3 * 5 * (8 * 64) * 9
    assert counted(lambda: torch.fft.rfft2(real)) == 3 * 2.5 * (8 * 64) * 9
    assert counted(lambda: torch.fft.fft(real)) == 3 * 8 * 2.5 * 64 * 6  # what comes out is symmetric
    assert counted(lambda: torch.fft.rfft(real, 128)) == 3 * 8 * 2.5 * 128 * 7  # padded
    assert counted(lambda: torch.fft.irfft(complex_[..., :33], 64)) == 3 * 8 * 2.5 * 64 * 6


def test_the_derivative_of_a_transform_is_counted():
    x = torch.ones(3, 64, requires_grad=True)
    spectrum = torch.fft.rfft(x)
    # It is computed as a complex transform.
    assert counted(lambda: spectrum.abs().sum().backward()) == 3 * 5 * 64 * 6


def test_a_product_of_complex_matrices_is_four_real_ones():
    a, b = torch.ones(2, 4, 5, dtype=torch.complex64), torch.ones(2, 5, 6, dtype=torch.complex64)
    assert counted(lambda: a @ b) == 4 * counted(lambda: a.real @ b.real) == 4 * 2 * 2 * 4 * 5 * 6


def test_what_is_done_entry_by_entry_is_not_counted():
    """So of a recurrence that is computed by a scan there is nothing but its projections."""
    assert counted(lambda: torch.ones(4, 8).cumsum(0) * 2 + 1) == 0


class Transform(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3, 64))

    def forward(self, tokens, mask):
        return torch.fft.irfft(torch.fft.rfft(self.weight))


class Gather(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.EmbeddingBag(9, 4, mode="sum")

    def forward(self, tokens, mask):
        return self.table(tokens[:, 0].long())


def test_transforms_and_gathered_sums_are_counted_in_a_model():
    transform = 3 * 64 * 6
    # Forward a real transform and its inverse; backward a real and a complex one.
    assert count_flops(Transform(), 1, 10) == (5 * transform, 12.5 * transform)
    assert count_flops(Gather(), 1, 10)[0] == 10 * 4
