"""What shortens the sequence between layers: which tokens it keeps, and that nothing else changes."""

from __future__ import annotations

import math
from contextlib import nullcontext
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from lra.runs.factory import make_classifier
from models.attention.local import LocalAttention
from models.attention.softmax import SoftmaxAttention
from models.classifier import Classifier
from models.mixers.fnet import FNet
from models.mixers.luna import Luna
from models.reducer import Reducer, farthest_first
from tests.helpers.contract import B, L, Uploads, holey_mask

C = 6
MODEL = {
    "dim": 12, "depth": 3, "num_heads": 2, "head_dim": 6, "mlp_dim": 16, "dropout": 0.0, "attention_dropout": 0.0,
}  # fmt: skip
BACKBONES = {
    "softmax": SoftmaxAttention,
    "local": partial(LocalAttention, budget=5),
    "fnet": partial(FNet, scaled=True),
    "luna": partial(Luna, num_heads=2, num_rows=3),
}


def classifier(backbone: str = "softmax", num_inputs: int = 1, retention: float = 0.6, **model) -> Classifier:
    torch.manual_seed(0)
    settings = {**MODEL, "reducer": {"kind": "k_centre_r", "retention": retention}, **model}
    sizes = {"vocab_size": 11, "max_len": 40, "num_classes": 3, "num_inputs": num_inputs}
    return make_classifier(BACKBONES[backbone], settings, **sizes).double().eval()


def slow_choice(x: Tensor, mask: Tensor, count: int) -> list[int]:
    """Greedy k-centre on one sequence, as its definition has it."""
    real = mask.nonzero()[:, 0].tolist()
    chosen = real[:1]
    while len(chosen) < count:
        left = [i for i in real if i not in chosen]
        nearest = [min((x[i] - x[c]).norm().item() for c in chosen) for i in left]
        chosen.append(left[nearest.index(max(nearest))])
    return chosen


@pytest.mark.parametrize("retention", [0.3, 0.8])
@pytest.mark.parametrize("layer", [1, 3])
def test_the_tokens_kept_are_those_of_the_greedy_algorithm(layer, retention):
    x, mask = torch.randn(B, L, C, dtype=torch.float64), holey_mask()
    rows, kept, positions = Reducer("k_centre_r", retention).shorten(x, mask, mask, layer)
    assert rows.shape[:2] == kept.shape == positions.shape == (B, math.ceil(retention**layer * L))
    for b in range(B):
        count = math.ceil(retention**layer * mask[b].sum().item())
        expected = sorted(slow_choice(x[b], mask[b], count))
        assert kept[b].tolist() == [True] * count + [False] * (len(kept[b]) - count)
        assert positions[b, :count].tolist() == expected
        assert expected[0] == mask[b].nonzero()[0]
        assert torch.equal(rows[b, :count], x[b, expected])
        assert rows[b, count:].count_nonzero() == 0


def test_the_order_of_choice_is_that_of_the_greedy_algorithm():
    x, mask = torch.randn(B, L, C, dtype=torch.float64), holey_mask()
    order = farthest_first(x, mask, L)
    for b in range(B):
        count = int(mask[b].sum())
        assert order[b, :count].tolist() == slow_choice(x[b], mask[b], count)


def test_counts_are_not_rounded_up_for_the_errors_of_floating_point():
    mask = torch.ones(1, 25, dtype=torch.bool)
    assert 25 * 0.8**2 > 16
    assert Reducer("k_centre_r", 0.8).shorten(torch.randn(1, 20, C), mask[:, :20], mask, 2).mask.sum() == 16


def test_equal_tokens_are_chosen_once_each_and_empty_sequences_keep_none():
    x, mask = torch.ones(2, 8, C), torch.tensor([[False, True] * 4, [False] * 8])
    rows, kept, positions = Reducer("k_centre_r", 0.75).shorten(x, mask, mask, 1)
    assert positions[0, :3].tolist() == [1, 3, 5]
    assert kept.sum(-1).tolist() == [3, 0]
    assert rows[1].count_nonzero() == 0
    assert Reducer("k_centre_r", 1e-12).shorten(x, mask, mask, 1).mask.sum(-1).tolist() == [1, 0]


def test_gradients_reach_kept_rows_alone():
    x, mask = torch.randn(B, L, C, requires_grad=True), holey_mask()
    rows, kept, positions = Reducer("k_centre_r", 0.5).shorten(x, mask, mask, 1)
    rows.sum().backward()
    for b in range(B):
        expected = torch.zeros(L, C).index_fill_(0, positions[b, kept[b]], 1)
        assert torch.equal(x.grad[b], expected)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_a_retention_of_one_is_the_model_without_it_to_the_bit(backbone):
    tokens, mask = torch.randint(11, (B, 1, L)), holey_mask()[:, None]
    whole = classifier(backbone, reducer={"kind": "none", "retention": 0.5})(tokens, mask)
    assert torch.equal(classifier(backbone, retention=1.0)(tokens, mask), whole)
    assert not torch.allclose(classifier(backbone, retention=0.5)(tokens, mask), whole)


def test_sequences_that_lose_no_token_are_encoded_as_they_are():
    """A retention so near to 1 that no count falls: the rows go all the way, and come out in their old order."""
    tokens, mask = torch.randint(11, (B, 1, L)), torch.arange(L) < torch.tensor([L, 20, 1])[:, None, None]
    for backbone in BACKBONES:
        whole = classifier(backbone, retention=1.0)(tokens, mask)
        torch.testing.assert_close(classifier(backbone, retention=0.999)(tokens, mask), whole, rtol=0, atol=1e-12)


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("num_inputs", [1, 2])
def test_logits_depend_neither_on_padding_nor_on_batch_mates(backbone, num_inputs):
    model = classifier(backbone, num_inputs)
    tokens = torch.randint(1, 11, (3, num_inputs, 20))
    mask = torch.arange(20) < torch.tensor([20, 7, 1])[:, None, None].expand(3, num_inputs, 1)
    expected = model(tokens, mask)
    assert torch.equal(model(tokens.masked_fill(~mask, 7), mask), expected)
    longer = model(nn.functional.pad(tokens, (0, 9)), nn.functional.pad(mask, (0, 9)))
    torch.testing.assert_close(longer, expected, rtol=0, atol=1e-12)
    alone = model(tokens[1:2, :, :7], mask[1:2, :, :7])
    torch.testing.assert_close(alone, expected[1:2], rtol=0, atol=1e-12)


def test_the_learned_vector_in_front_is_always_kept():
    model = classifier(pooling="cls", retention=0.1)
    tokens, mask = torch.randint(11, (B, L)), holey_mask()
    seen = []
    for block in model.encoder.blocks:
        block.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0].detach()))
        block.register_forward_hook(lambda _, arguments, out: seen.append(out[0].detach()))
    rows, kept = model.encoder(tokens, mask)
    assert kept.sum(-1).tolist() == [math.ceil(0.1**2 * (n + 1)) for n in mask.sum(-1).tolist()] == [1, 1, 1]
    for behind, before in zip(seen[1:-1:2], seen[2::2], strict=True):
        assert torch.equal(behind[:, 0], before[:, 0])
    torch.testing.assert_close(model(tokens[:, None], mask[:, None]), model.head(rows[:, 0]))


def test_every_parameter_learns():
    model = classifier().train()
    model(torch.randint(11, (B, 1, 40)), torch.ones(B, 1, 40, dtype=torch.bool)).logsumexp(-1).sum().backward()
    without = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert [name for name in without if not name.endswith("key.bias")] == []


def test_no_value_is_read_back_from_the_device_and_none_is_uploaded(monkeypatch):
    reducer = Reducer("k_centre_r", 0.5)
    with FakeTensorMode():
        mask = torch.empty(B, L, dtype=torch.bool)
        assert reducer.shorten(torch.empty(B, L, C), mask, mask, 1).rows.shape == (B, 19, C)
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())
    x, mask = (
        torch.empty(B, L, C, device="meta", requires_grad=True),
        torch.empty(B, L, dtype=torch.bool, device="meta"),
    )
    with Uploads("meta", [x, mask]) as uploads:
        torch.autograd.grad(reducer.shorten(x, mask, mask, 1).rows.sum(), x)
    assert uploads.found == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"reducer": {"kind": "pool"}}, "model.reducer.kind must be one of none, k_centre_r. Got 'pool'."),
        ({"retention": 0.0}, "model.reducer.retention must be positive and finite. Got 0.0."),
        ({"retention": 1.5}, "model.reducer.retention must be at most 1. Got 1.5."),
        ({"padding_in_mean": "zeros"}, "model.padding_in_mean must be none where model.reducer shortens .* Got zeros."),
    ],
)
def test_options_that_are_none_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        classifier(**changes)
