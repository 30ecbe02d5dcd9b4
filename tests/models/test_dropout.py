"""Our dropout against what the word means, and torch's own."""

from __future__ import annotations

import math

import pytest
import torch

from models.dropout import Dropout


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_the_share_and_the_scale(rate):
    torch.manual_seed(0)
    x = torch.ones(1000, 997)
    out = Dropout(rate)(x)
    zero = (out == 0).float()
    # Five standard errors of a share, over all entries and over each of the four that share a draw.
    assert zero.mean().item() == pytest.approx(rate, abs=5 * math.sqrt(rate * (1 - rate) / x.numel()))
    for place in range(4):
        share = zero.flatten()[place::4].mean().item()
        assert share == pytest.approx(rate, abs=5 * math.sqrt(rate * (1 - rate) / (x.numel() / 4)))
    assert out[out != 0].unique().tolist() == pytest.approx([1 / (1 - rate)], rel=1e-4)
    assert out.mean().item() == pytest.approx(1, abs=5 * math.sqrt(rate / (1 - rate) / x.numel()))


def test_neighbours_fall_independently():
    torch.manual_seed(0)
    zero = (Dropout(0.5)(torch.ones(1_000_000)) == 0).float()
    for lag in (1, 2, 3, 4, 8):
        both = (zero[lag:] * zero[:-lag]).mean().item()
        assert both == pytest.approx(0.25, abs=5 * math.sqrt(0.25 * 0.75 / 1e6))


def test_the_gradient_passes_where_the_value_did():
    torch.manual_seed(0)
    x = torch.randn(7, 5, dtype=torch.float64, requires_grad=True)
    out = Dropout(0.4)(x)
    out.sum().backward()
    assert torch.equal(x.grad != 0, out != 0)
    assert torch.allclose(x.grad[out != 0] * x[out != 0], out[out != 0])


def test_silence_and_repetition():
    x = torch.randn(3, 5)
    layer = Dropout(0.5)
    torch.manual_seed(3)
    first = layer(x)
    torch.manual_seed(3)
    assert torch.equal(layer(x), first)
    assert layer(x.bfloat16()).dtype == torch.bfloat16
    assert layer(torch.empty(0, 4)).shape == (0, 4)
    assert Dropout(0)(x) is x
    assert layer.eval()(x) is x
    with pytest.raises(ValueError, match="Got 1"):
        Dropout(1)
