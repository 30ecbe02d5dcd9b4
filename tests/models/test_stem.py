"""Local features: the stem in front of every mixer, and the mixer that is nothing but a short convolution."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lra.runs.factory import make_classifier
from models.block import Block, BlockShape
from models.classifier import Classifier
from models.mixers import Mixer
from models.mixers.short_conv import ShortConvMixer
from models.ops.short_convolution import ShortConvolution
from models.stem import PLACES, Stem, StemShape
from tests.helpers.contract import B, C, L, configured, holey_mask, noisy, rows

TASK = {"vocab_size": 11, "max_len": 20, "num_classes": 5, "num_inputs": 1}
MODEL = {
    "dim": 16, "depth": 2, "num_heads": 2, "head_dim": 8, "mlp_dim": 32, "dropout": 0.0, "attention_dropout": 0.0,
}  # fmt: skip
CONV = {"kind": "conv", "width": 5, "place": "both"}


def classifier(attn: str = "softmax", **changes) -> Classifier:
    torch.manual_seed(0)
    return make_classifier(configured(attn), {**MODEL, **changes}, **TASK).double().eval()


def summed(convolution: ShortConvolution, x: Tensor, mask: Tensor) -> Tensor:
    """The convolution, tap by tap."""
    taps, bias = convolution.conv.weight[:, 0], convolution.conv.bias
    half = taps.shape[1] // 2
    out = torch.zeros_like(x)
    for b in range(len(x)):
        for t in range(x.shape[1]):
            if mask[b, t]:
                out[b, t] = bias
                for k in range(-half, half + 1):
                    if 0 <= t + k < x.shape[1] and mask[b, t + k]:
                        out[b, t] += taps[:, k + half] * x[b, t + k]
    return out


@pytest.mark.parametrize("width", [1, 3, 7, 99])
def test_a_short_convolution_is_a_sum_over_taps(width):
    torch.manual_seed(0)
    convolution, (x,), mask = ShortConvolution(C, width).double(), rows(dtype=torch.float64), holey_mask()
    torch.testing.assert_close(convolution(x, mask), summed(convolution, x, mask), rtol=1e-12, atol=1e-12)


def test_the_stem_adds_to_tokens_and_leaves_the_learned_vector_and_padding():
    torch.manual_seed(0)
    (x,), mask = rows(dtype=torch.float64), holey_mask()
    stem = Stem(C, 5).double()
    torch.testing.assert_close(stem(x, mask), x + F.gelu(summed(stem.convolution, x, mask)), rtol=1e-12, atol=1e-12)
    assert torch.equal(stem(x, mask)[~mask], x[~mask])
    with_cls = Stem(C, 5, with_cls=True).double()
    out = with_cls(x, mask)
    assert torch.equal(out[:, 0], x[:, 0])
    changed = torch.cat([x[:, :1] + 1, x[:, 1:]], 1)
    assert torch.equal(with_cls(changed, mask)[:, 1:], out[:, 1:])
    with_cls.convolution = stem.convolution
    torch.testing.assert_close(with_cls(x, mask)[:, 1:], stem(x[:, 1:], mask[:, 1:]))


@pytest.mark.parametrize("width", [3, 99])
def test_padding_contributes_nothing_bit_for_bit(width):
    torch.manual_seed(0)
    stem, (x,), mask = Stem(C, width), rows(), holey_mask()
    assert torch.equal(stem(noisy(x, mask, 1e4), mask)[mask], stem(x, mask)[mask])
    longer = stem(F.pad(x, (0, 0, 0, 9), value=2.0), F.pad(mask, (0, 9)))[:, :L]
    torch.testing.assert_close(longer[mask], stem(x, mask)[mask], rtol=1e-6, atol=1e-6)


def test_a_depthwise_convolution_of_embedded_numbers_is_any_map_from_pixels_to_features():
    """Which is why a dense one is not needed where tokens are numbers."""
    torch.manual_seed(0)
    dense, embed = nn.Conv1d(1, C, 5, padding=2).double(), nn.Linear(1, C).double()
    convolution = ShortConvolution(C, 5).double()
    with torch.no_grad():
        embed.bias.zero_()
        convolution.conv.weight.copy_(dense.weight / embed.weight[:, None])
        convolution.conv.bias.copy_(dense.bias)
    pixels, mask = torch.randn(B, L, 1, dtype=torch.float64), torch.ones(B, L, dtype=torch.bool)
    torch.testing.assert_close(convolution(embed(pixels), mask), dense(pixels.mT).mT)


@pytest.mark.parametrize("pooling", ["mean", "cls", "max"])
@pytest.mark.parametrize("attn", ["softmax", "none", "s4d", "luna", "mega"])
@pytest.mark.parametrize("place", PLACES)
def test_logits_ignore_padding_with_a_stem(place, attn, pooling):
    model = classifier(attn, stem={**CONV, "place": place}, pooling=pooling)
    tokens = torch.randint(1, 11, (3, 1, 10))
    mask = torch.arange(10) < torch.tensor([10, 4, 1])[:, None, None]
    expected = model(tokens, mask)
    assert torch.equal(model(tokens.masked_fill(~mask, 7), mask), expected)
    longer = model(F.pad(tokens, (0, 6)), F.pad(mask, (0, 6)))
    torch.testing.assert_close(longer, expected, rtol=0, atol=1e-12)
    alone = model(tokens[1:2, :, :4], mask[1:2, :, :4])
    torch.testing.assert_close(alone, expected[1:2], rtol=0, atol=1e-12)


@pytest.mark.parametrize(("place", "filters"), [("embedding", 1), ("blocks", 2), ("both", 3)])
def test_a_stem_has_few_parameters_each_with_a_gradient_and_none_draws_nothing(place, filters):
    plain, model = classifier(), classifier(stem={**CONV, "place": place})
    counts = [sum(p.numel() for p in each.parameters()) for each in (plain, model)]
    assert counts[1] - counts[0] == filters * 16 * (5 + 1)
    tokens = torch.randint(1, 11, (2, 1, 9))
    model(tokens, torch.ones_like(tokens, dtype=torch.bool)).logsumexp(-1).sum().backward()
    assert all(p.grad is not None and p.grad.count_nonzero() for p in model.encoder.parameters())
    off = classifier(stem={**CONV, "kind": "none", "place": place}).state_dict()
    assert off.keys() == plain.state_dict().keys()
    assert all(torch.equal(x, off[name]) for name, x in plain.state_dict().items())


def test_the_stem_behind_the_embedding_sees_tokens_without_positions_and_without_the_learned_vector():
    encoder = classifier(stem={**CONV, "place": "embedding"}, pooling="cls").encoder
    seen: list[Tensor] = []
    encoder.stem.register_forward_pre_hook(lambda _, arguments: seen.extend(arguments))
    tokens, mask = torch.randint(1, 11, (2, 9)), torch.arange(9) < torch.tensor([[9], [4]])
    encoder(tokens, mask)
    torch.testing.assert_close(seen[0], encoder.token(tokens))
    assert torch.equal(seen[1], mask)


def test_what_sees_no_neighbours_sees_them_through_the_stem():
    tokens, mask = torch.tensor([[[1, 2, 3, 9, 9, 9]]]), torch.ones(1, 1, 6, dtype=torch.bool)
    other = torch.tensor([[[1, 3, 2, 9, 9, 9]]])
    plain, model = classifier("none", positions="none"), classifier("none", positions="none", stem=CONV)
    torch.testing.assert_close(plain(tokens, mask), plain(other, mask))
    assert not torch.allclose(model(tokens, mask), model(other, mask))


@pytest.mark.parametrize("place", ["pre", "post"])
def test_a_stem_in_a_block_changes_what_the_mixer_reads_alone(place):
    read: list[Tensor] = []

    class Reads(Mixer):
        reads_residual = True

        def forward(self, x, mask, residual):
            read.extend([x, residual])
            return torch.zeros_like(x)

    torch.manual_seed(0)
    mixer, stem = Reads(dim=C, max_len=L, dropout=0.0), Stem(C, 3).double()
    shape = BlockShape(place=place, mlp=False)
    with_stem, without = (
        Block(mixer, shape, dim=C, mlp_dim=8, dropout=0.0, stem=each).double() for each in (stem, None)
    )
    (x,), mask = rows(dtype=torch.float64), holey_mask()
    assert torch.equal(with_stem(x, mask)[0], without(x, mask)[0])  # nothing else has changed
    torch.testing.assert_close(read[0], stem(read[2], mask))
    assert torch.equal(read[1], x)


@pytest.mark.parametrize(
    ("stem", "message"),
    [
        ({"kind": "dense"}, "model.stem.kind must be one of none, conv. Got 'dense'"),
        ({"kind": "conv", "width": 4}, "model.stem.width must be odd. Got 4"),
        ({"width": 0}, "model.stem.width must be at least 1. Got 0"),
        ({"width": 1001}, "model.stem.width must be at most 1000. Got 1001"),
        ({"place": "head"}, "model.stem.place must be one of embedding, blocks, both. Got 'head'"),
    ],
)
def test_options_that_are_none_are_named(stem, message):
    with pytest.raises(ValueError, match=message):
        StemShape(**stem)


@pytest.mark.parametrize("width", [2, 0, 1001, 3.0])
def test_a_short_convolution_that_cannot_be_is_refused(width):
    with pytest.raises(ValueError, match="kernel_size must be "):
        ShortConvMixer(kernel_size=width, dim=C, max_len=L, dropout=0.0)


def test_short_conv_is_what_its_docstring_says():
    torch.manual_seed(0)
    mixer = ShortConvMixer(kernel_size=5, dim=C, max_len=L, dropout=0.0).double()
    (x,), mask = rows(dtype=torch.float64), holey_mask()
    value, gate = F.linear(F.gelu(summed(mixer.convolution, x, mask)), mixer.out.weight, mixer.out.bias).chunk(2, -1)
    expected = torch.where(mask[..., None], value * gate.sigmoid(), 0)
    torch.testing.assert_close(mixer(x, mask), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("depth", [1, 3])
def test_what_is_farther_than_the_range_has_no_influence(depth):
    torch.manual_seed(0)
    width, middle = 5, L // 2
    mixers = [ShortConvMixer(kernel_size=width, dim=C, max_len=L, dropout=0.0).double() for _ in range(depth)]
    (x,), mask = rows(dtype=torch.float64), torch.ones(B, L, dtype=torch.bool)
    y = x
    for mixer in mixers:
        y = y + mixer(y, mask)
    [grad] = torch.autograd.grad(y[:, middle].square().sum(), x)
    reach = depth * (width // 2)
    distance = (torch.arange(L) - middle).abs()
    assert grad[:, distance > reach].count_nonzero() == 0
    assert (grad[:, distance <= reach].abs().sum(-1) > 0).all()
