"""Luna: two explicit attentions, and the rows that go from layer to layer."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import Tensor, nn

from lra.runs.diagnostics import diagnose
from lra.runs.factory import make_classifier
from models.classifier import Classifier
from models.mixers.luna import Luna
from tests.helpers.contract import B, holey_mask

C, H, L, ROWS = 12, 3, 37, 5
MODEL = {
    "dim": C, "depth": 3, "num_heads": H, "head_dim": 4, "mlp_dim": 16, "dropout": 0.0, "attention_dropout": 0.0,
}  # fmt: skip


def luna(**options) -> Luna:
    torch.manual_seed(0)
    return Luna(**{"num_heads": H, "num_rows": ROWS, "dim": C, "max_len": L, "dropout": 0.0, **options}).double()


def classifier(**model) -> Classifier:
    torch.manual_seed(0)
    mixer = partial(Luna, num_heads=H, num_rows=ROWS)
    sizes = {"vocab_size": 7, "max_len": L, "num_classes": 3, "num_inputs": 1}
    return make_classifier(mixer, {**MODEL, **model}, **sizes).double()


def head(rows: Tensor, layer: nn.Linear, h: int) -> Tensor:
    """The part of projected rows (R, C) that belongs to a head."""
    return (rows @ layer.weight.T + layer.bias)[:, 4 * h : 4 * h + 4]


def slow(module: Luna, x: Tensor, stream: Tensor) -> tuple[Tensor, Tensor]:
    """Both attentions on the real rows (n, C) of one sequence, head by head."""
    packed = []
    for h in range(H):
        scores = head(stream, module.pack_query, h) @ head(x, module.pack_key, h).T / 2  # sqrt(4)
        packed.append(scores.softmax(-1) @ head(x, module.pack_value, h))
    P = torch.cat(packed, 1)
    unpacked = []
    for h in range(H):
        scores = head(x, module.query, h) @ head(P, module.key, h).T / 2
        unpacked.append(scores.softmax(-1) @ head(P, module.value, h))
    return torch.cat(unpacked, 1) @ module.out.weight.T + module.out.bias, P


@pytest.mark.parametrize("tied", [True, False])
def test_it_is_two_softmax_attentions_one_after_the_other(tied):
    module, mask = luna(tied=tied), holey_mask(L)
    x, stream = torch.randn(B, L, C, dtype=torch.float64), torch.randn(B, ROWS, C, dtype=torch.float64)
    mixed, change = module(x, mask, stream)
    for b in range(B):
        expected, packed = slow(module, x[b, mask[b]], stream[b])
        torch.testing.assert_close(mixed[b, mask[b]], expected, rtol=0, atol=1e-13)
        torch.testing.assert_close(change[b], packed, rtol=0, atol=1e-13)
    assert (module.key is module.value) == (module.pack_key is module.pack_value) == tied


def test_a_sequence_without_a_token_leaves_the_stream_alone():
    change = luna()(
        torch.randn(B, L, C, dtype=torch.float64), torch.zeros(B, L, dtype=torch.bool), luna().first.expand(B, -1, -1)
    )[1]
    assert change.count_nonzero() == 0


@pytest.mark.parametrize("norm", ["layer", "scale"])
@pytest.mark.parametrize("place", ["pre", "post"])
def test_every_layer_adds_to_the_rows_of_the_layer_before(place, norm):
    """The encoder's rows are those of a loop that keeps the stream itself."""
    encoder = classifier(block={"norm": norm, "place": place, "mlp": True}).encoder
    tokens, mask = torch.randint(7, (B, L)), holey_mask(L)
    x = encoder.token(tokens) + encoder.position(torch.arange(L))
    P = encoder.blocks[0].mixer.first.expand(B, -1, -1)
    for block in encoder.blocks:
        if place == "pre":
            mixed, change = block.mixer(block.mixer_norm(x), mask, block.stream_norm(P))
            x, P = x + mixed, P + change
            x = x + block.mlp(block.mlp_norm(x))
        else:
            P = block.stream_norm(P)
            mixed, change = block.mixer(x, mask, P)
            x, P = block.mixer_norm(x + mixed), P + change
            x = block.mlp_norm(x + block.mlp(x))
    expected = x if encoder.norm is None else encoder.norm(x)
    torch.testing.assert_close(encoder(tokens, mask).rows, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("norm", ["layer", "batch"])
@pytest.mark.parametrize("place", ["pre", "post"])
def test_the_layers_have_one_start_and_every_parameter_learns(place, norm):
    model = classifier(block={"norm": norm, "place": place, "mlp": True})
    first, *others = (block.mixer.first for block in model.encoder.blocks)
    assert all(other is first for other in others)
    tokens = torch.randint(7, (B, 1, L))
    model(tokens, holey_mask(L)[:, None]).logsumexp(-1).sum().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


@pytest.mark.parametrize("place", ["pre", "post"])
def test_padding_changes_no_logit(place):
    model = classifier(block={"norm": "layer", "place": place, "mlp": True}).eval()
    tokens, mask = torch.randint(7, (B, 1, 20)), torch.arange(20) < torch.tensor([20, 7, 1])[:, None, None]
    expected = model(tokens, mask)
    assert torch.equal(model(tokens.masked_fill(~mask, 3), mask), expected)
    longer = model(nn.functional.pad(tokens, (0, 9)), nn.functional.pad(mask, (0, 9)))
    torch.testing.assert_close(longer, expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(model(tokens[1:2, :, :7], mask[1:2, :, :7]), expected[1:2], rtol=0, atol=1e-12)


def test_a_mixer_with_a_stream_is_measured_like_others():
    class Measured(Luna):
        def diagnostics(self, x, mask, stream):
            return {"rows": torch.tensor(float(stream.shape[1]))}

    sizes = {"vocab_size": 7, "max_len": L, "num_classes": 3, "num_inputs": 1}
    model = make_classifier(partial(Measured, num_heads=H, num_rows=ROWS), MODEL, **sizes)
    tokens = torch.randint(7, (B, 1, L))
    assert diagnose(model, tokens, holey_mask(L)[:, None])["rows"] == ROWS
    assert diagnose(classifier(), tokens, holey_mask(L)[:, None]) == {}


def test_heads_divide_the_width():
    with pytest.raises(ValueError, match="num_heads must divide model.dim=12. Got 5."):
        luna(num_heads=5)
    with pytest.raises(ValueError, match="num_rows must be at least 1. Got 0."):
        luna(num_rows=0)
