"""The same seed gives the same gradients, by kernels that torch knows to be deterministic."""

from __future__ import annotations

import pytest
import torch

from tests.helpers.contract import attention, attentions, heads, holey_mask, run

NAMES = attentions()


@pytest.fixture
def deterministic():
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("name", NAMES)
def test_a_backbone_repeats_bit_for_bit(name, device, deterministic):
    """On a GPU this says what cannot be deterministic: torch raises, and names the kernel."""
    first, second = (
        run(
            attention(name, dropout=0.1).to(device),
            [x.detach().to(device).requires_grad_() for x in heads()],
            holey_mask().to(device),
        )[1]
        for _ in range(2)
    )
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
