"""The encoder around the mechanisms: padding, pooling, two inputs."""

import copy
import math
import pickle
from functools import partial
from typing import Any, ClassVar

import pytest
import torch
from torch import nn

from lra.runs.factory import make_classifier
from models.attention import Attention
from models.attention.linformer import LinformerAttention
from models.attention.softmax import SoftmaxAttention
from models.block import Block, BlockShape
from models.classifier import Classifier, cosine_features, masked_max, masked_mean
from models.mixers import Mixer
from models.norms import BatchNorm, ScaleNorm
from models.positions.added import Sinusoids

TASK = {"vocab_size": 11, "max_len": 20, "num_classes": 5, "padded_length": None}
MODEL = {
    "dim": 16, "depth": 2, "num_heads": 2, "head_dim": 8, "mlp_dim": 32, "dropout": 0.1, "attention_dropout": 0.1,
}  # fmt: skip


BLOCKS = [
    {"norm": "layer", "place": "pre", "mlp": True},
    {"norm": "layer", "place": "post", "mlp": True},
    {"norm": "batch", "place": "pre", "mlp": True},
    {"norm": "batch", "place": "post", "mlp": False},
    {"norm": "scale", "place": "pre", "mlp": "glu"},
]


def classifier(num_inputs: int = 1, attention=SoftmaxAttention, **changes) -> Classifier:
    torch.manual_seed(0)
    task = {name: changes.pop(name, value) for name, value in TASK.items()}
    return make_classifier(attention, {**MODEL, **changes}, num_inputs=num_inputs, **task)


class Recording(SoftmaxAttention):
    """Keeps what it was built with."""

    made: ClassVar[list[dict[str, Any]]] = []

    def __init__(self, **options) -> None:
        self.made.append(options)
        super().__init__(**options)


@pytest.fixture
def made(monkeypatch) -> list[dict[str, Any]]:
    """The options of every `Recording`."""
    monkeypatch.setattr(Recording, "made", [])
    return Recording.made


class GarbageInPadding(Attention):
    """Leaves something finite but meaningless in padded rows, as the contract allows."""

    def forward(self, q, k, v, mask):
        return torch.where(mask[:, None, :, None], v, 1e6)


@pytest.mark.parametrize("block", BLOCKS, ids=str)
@pytest.mark.parametrize("num_inputs", [1, 2])
def test_logits_ignore_what_stands_in_the_padding_and_how_long_it_is(num_inputs, block):
    model = classifier(num_inputs, block=block).double().eval()
    tokens = torch.randint(1, 11, (3, num_inputs, 10))
    mask = torch.arange(10) < torch.tensor([10, 4, 1])[:, None, None].expand(3, num_inputs, 1)
    expected = model(tokens, mask)
    assert torch.equal(model(tokens.masked_fill(~mask, 7), mask), expected)
    longer = model(nn.functional.pad(tokens, (0, 6)), nn.functional.pad(mask, (0, 6)))
    torch.testing.assert_close(longer, expected, rtol=0, atol=1e-12)
    alone = model(tokens[1:2, :, :4], mask[1:2, :, :4])
    torch.testing.assert_close(alone, expected[1:2], rtol=0, atol=1e-12)


def test_padded_rows_of_a_mechanism_reach_nothing():
    model = classifier(attention=GarbageInPadding).eval()
    layer = model.encoder.blocks[0].mixer
    x, mask = torch.randn(2, 6, 16), torch.arange(6) < torch.tensor([[6], [2]])
    assert layer(x, mask)[1, 2:].abs().max() == 0
    assert layer(x, mask)[1, :2].abs().max() < 100


def test_token_zero_is_a_token_where_the_mask_says_so():
    model = classifier().eval()
    tokens, mask = torch.zeros(1, 1, 8, dtype=torch.uint8), torch.ones(1, 1, 8, dtype=torch.bool)
    changed = tokens.clone()
    changed[0, 0, 3] = 5
    assert not torch.allclose(model(tokens, mask), model(changed, mask))


def test_masked_mean_divides_by_the_real_length():
    x = torch.tensor([[[1.0], [3.0], [torch.inf]], [[2.0], [2.0], [2.0]]])
    mask = torch.tensor([[True, True, False], [False, False, False]])
    assert masked_mean(x, mask).tolist() == [[2.0], [0.0]]


def test_masked_max_takes_real_rows_alone_and_gives_padding_no_gradient():
    x = torch.tensor([[[-1.0], [-3.0], [torch.inf]], [[2.0], [2.0], [2.0]]], requires_grad=True)
    mask = torch.tensor([[True, True, False], [False, False, False]])
    pooled = masked_max(x, mask)
    assert pooled.tolist() == [[-1.0], [0.0]]
    [grad] = torch.autograd.grad(pooled.sum(), x)
    assert grad.flatten(1).tolist() == [[1.0, 0.0, 0.0], [0.0, 0.0, 0.0]]


@pytest.mark.parametrize("num_inputs", [1, 2])
def test_the_maximum_ignores_padding(num_inputs):
    model = classifier(num_inputs, pooling="max", pair_features="cosine").double().eval()
    tokens = torch.randint(1, 11, (3, num_inputs, 10))
    mask = torch.arange(10) < torch.tensor([10, 4, 1])[:, None, None].expand(3, num_inputs, 1)
    expected = model(tokens, mask)
    assert torch.equal(model(tokens.masked_fill(~mask, 7), mask), expected)
    longer = model(nn.functional.pad(tokens, (0, 6)), nn.functional.pad(mask, (0, 6)))
    torch.testing.assert_close(longer, expected, rtol=0, atol=1e-12)
    if num_inputs == 1:
        rows = model.encoder(tokens[1:2, 0, :4], mask[1:2, 0, :4]).rows
        torch.testing.assert_close(model.head(rows.amax(1)), expected[1:2], rtol=0, atol=1e-12)


def test_cosine_features_are_of_vectors_of_one_length():
    x, y = torch.randn(2, 3, 16)
    a, b = (z / z.square().sum(-1, keepdim=True).sqrt() for z in (x, y))
    features = cosine_features(x, y)
    torch.testing.assert_close(features, torch.cat([x, y, a * b, (a - b).abs()], -1))
    torch.testing.assert_close(features[:, 32:48].sum(-1), nn.functional.cosine_similarity(x, y))
    torch.testing.assert_close(cosine_features(3 * x, y)[:, 32:], features[:, 32:])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_cosine_features_of_an_empty_input_are_finite(dtype):
    x, y = torch.zeros(1, 4, dtype=dtype, requires_grad=True), torch.ones(1, 4, dtype=dtype)
    features = cosine_features(x, y)
    assert features.dtype == dtype
    assert features.isfinite().all()
    assert torch.autograd.grad(features.sum(), x)[0].isfinite().all()


def test_padding_in_the_mean_is_an_option():
    x = torch.tensor([[[1.0], [3.0], [5.0], [7.0]], [[2.0], [2.0], [2.0], [2.0]]])
    mask = torch.tensor([[True, True, False, False], [False, False, False, False]])
    assert masked_mean(x, mask, "zeros").tolist() == [[1.0], [0.0]]
    assert masked_mean(x, mask, "zeros", padded_length=8).tolist() == [[0.5], [0.0]]
    assert masked_mean(x, mask, "rows").tolist() == [[4.0], [2.0]]


@pytest.mark.parametrize("padding", ["zeros", "rows"])
def test_padding_in_the_mean_counts_the_padding_and_not_what_stands_in_it_for_attention(padding):
    tokens = torch.randint(1, 11, (2, 1, 10))
    mask = torch.arange(10) < torch.tensor([10, 4])[:, None, None]
    tokens = tokens.masked_fill(~mask, 0)
    model = classifier(padding_in_mean=padding, max_len=10, num_positions=20).double().eval()
    plain = classifier(max_len=10, num_positions=20).double().eval()
    torch.testing.assert_close(model(tokens, mask)[0], plain(tokens, mask)[0])  # no padding, no difference
    assert not torch.allclose(model(tokens, mask)[1], plain(tokens, mask)[1])
    longer = model(nn.functional.pad(tokens, (0, 6)), nn.functional.pad(mask, (0, 6)))
    # Zeros are counted to the padded length, whatever the batch happens to have; rows are those that there are.
    assert torch.allclose(longer, model(tokens, mask)) == (padding == "zeros")


def test_sinusoids_are_those_of_the_paper():
    table = Sinusoids(50, 6)(torch.arange(50))
    for place in (0, 1, 49):
        for pair in range(3):
            angle = place / 10_000 ** (2 * pair / 6)
            expected = torch.tensor([math.sin(angle), math.cos(angle)])
            torch.testing.assert_close(table[place, 2 * pair : 2 * pair + 2], expected)


def test_sinusoidal_positions_are_no_parameters_and_no_state():
    model = classifier(positions="sinusoidal")
    assert sum(p.numel() for p in model.parameters()) == EXPECTED_PARAMETERS - 20 * 16
    assert not [name for name in model.state_dict() if "position" in name]
    tokens = torch.randint(1, 11, (1, 1, 9))
    mask = torch.ones_like(tokens, dtype=torch.bool)
    assert not torch.allclose(model.eval()(tokens, mask), model(tokens.flip(-1), mask))


def test_without_positions_the_order_does_not_matter():
    tokens = torch.randint(1, 11, (1, 1, 9))
    mask = torch.ones_like(tokens, dtype=torch.bool)
    model = classifier(positions="none").double().eval()
    torch.testing.assert_close(model(tokens, mask), model(tokens.flip(-1), mask))


def test_the_class_vector_stands_in_front_is_never_masked_and_alone_is_read(made):
    model = classifier(attention=Recording, pooling="cls").double().eval()
    assert [options["max_len"] for options in made] == [21, 21]
    assert sum(p.numel() for p in model.parameters()) == EXPECTED_PARAMETERS + 2 * 16  # itself and its position
    assert model.encoder.cls.abs().max() == 0  # at first
    tokens = torch.randint(1, 11, (2, 1, 20))
    mask = torch.arange(20) < torch.tensor([20, 7])[:, None, None]
    encoded = model.encoder(tokens[:, 0], mask[:, 0]).rows
    assert encoded.shape == (2, 21, 16)
    torch.testing.assert_close(model(tokens, mask), model.head(encoded[:, 0]))
    alone = model(tokens[1:, :, :7], mask[1:, :, :7])
    torch.testing.assert_close(alone, model(tokens, mask)[1:])
    black_corner = mask.clone()
    black_corner[..., 0] = False  # in LRA's code it hides the class vector too
    changed = tokens.clone()
    changed[..., 3] = (changed[..., 3] + 1) % 11
    assert not torch.allclose(model(tokens, black_corner), model(changed, black_corner))
    hidden = tokens.clone()
    hidden[..., 0] = (hidden[..., 0] + 1) % 11
    assert torch.equal(model(tokens, black_corner), model(hidden, black_corner))


def test_the_class_vector_and_its_position_get_gradients():
    model = classifier(pooling="cls")
    tokens = torch.randint(1, 11, (3, 1, 20))
    model(tokens, torch.ones_like(tokens, dtype=torch.bool)).logsumexp(-1).sum().backward()
    assert model.encoder.cls.grad.abs().sum() > 0
    assert (model.encoder.position.weight.grad.abs().sum(-1) > 0).all()


def test_the_head_of_lras_retrieval():
    model = classifier(num_inputs=2, pair_features="concat", head_depth=3).eval()
    assert [(m.in_features, m.out_features) for m in model.head if isinstance(m, nn.Linear)] == [
        (32, 32), (32, 16), (16, 5),
    ]  # fmt: skip
    tokens = torch.randint(1, 11, (2, 2, 9))
    mask = torch.ones_like(tokens, dtype=torch.bool)
    x, y = (model.encoder(tokens[:, i], mask[:, i]).rows.mean(1) for i in (0, 1))
    torch.testing.assert_close(model(tokens, mask), model.head(torch.cat([x, y], -1)))
    assert [type(m) for m in classifier(head_depth=1).head] == [nn.Linear]


def test_the_size_of_initial_embeddings_leaves_learned_positions_alone():
    model = classifier(embedding_std=1.0, vocab_size=1000)
    assert model.encoder.token.weight.std().item() == pytest.approx(1.0, rel=0.05)
    assert model.encoder.position.weight.std().item() == pytest.approx(0.02, rel=0.2)


def test_more_positions_than_the_task_has(made):
    model = classifier(attention=Recording, num_positions=32)
    assert [options["max_len"] for options in made] == [32, 32]
    tokens = torch.ones(1, 1, 32, dtype=torch.uint8)
    assert model(tokens, tokens.bool()).shape == (1, 5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pooling": "sum"}, "model.pooling must be one of mean, max, cls. Got 'sum'"),
        ({"padded_length": 5}, "data.padded_length must be at least 20, the task's longest sequence. Got 5"),
        ({"padding_in_mean": True}, "model.padding_in_mean must be one of none, zeros, rows. Got True"),
        ({"pair_features": "sum"}, "model.pair_features must be one of nli, concat, cosine. Got 'sum'"),
        (
            {"positions": "relative"},
            "model.positions must be one of learned, sinusoidal, rotary, alibi, none. Got 'relative'",
        ),
        ({"positions": "sinusoidal", "dim": 15}, "model.dim must be even for model.positions=sinusoidal. Got 15"),
        ({"head_depth": 0}, "model.head_depth must be at least 1. Got 0."),
        ({"num_heads": 0}, "model.num_heads must be at least 1. Got 0."),
        ({"dim": "abc"}, "model.dim must be an integer, at least 1. Got 'abc'"),
        ({"mlp_dim": 0}, "model.mlp_dim must be at least 1. Got 0."),
        ({"block": {"norm": "group"}}, "model.block.norm must be one of layer, batch, scale. Got 'group'"),
        ({"block": {"place": "both"}}, "model.block.place must be one of pre, post. Got 'both'"),
        ({"block": {"mlp": "no"}}, "model.block.mlp must be true, false or glu. Got 'no'"),
        ({"depth": 1001}, "model.depth must be at most 1000. Got 1001"),
        ({"head_depth": 8}, "model.mlp_dim must be at least 64. Got 32"),
        ({"dropout": 1.0}, "model.dropout must be at least 0 and below 1. Got 1.0"),
        ({"attention_dropout": float("nan")}, "model.attention_dropout must be at least 0 and below 1. Got nan"),
        ({"attention_dropout": "abc"}, "model.attention_dropout must be at least 0 and below 1. Got 'abc'"),
        ({"embedding_std": -1}, "model.embedding_std must be at least 0 and finite. Got -1"),
        (
            {"real_valued": {"mean": 1.0}},
            "model.real_valued must have mean and std, and nothing else. Got {'mean': 1.0}",
        ),
        (
            {"real_valued": {"mean": float("inf"), "std": 1.0}},
            "model.real_valued.mean must be a finite number. Got inf",
        ),
        ({"real_valued": {"mean": 1.0, "std": 0.0}}, "model.real_valued.std must be positive and finite. Got 0.0"),
        ({"num_positions": 19}, "model.num_positions must be at least 20, the task's longest sequence. Got 19"),
    ],
)
def test_options_that_are_none_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        classifier(**changes)


def test_two_inputs_meet_in_the_head_as_four_features():
    model = classifier(num_inputs=2).eval()
    tokens = torch.randint(1, 11, (2, 2, 9))
    mask = torch.ones_like(tokens, dtype=torch.bool)
    x, y = (model.encoder(tokens[:, i], mask[:, i]).rows.mean(1) for i in (0, 1))
    torch.testing.assert_close(model(tokens, mask), model.head(torch.cat([x, y, x * y, x - y], -1)))


def test_every_parameter_gets_a_gradient_and_shared_projections_are_one():
    class SharedQK(SoftmaxAttention):
        shared_qk = True

    for attention, extra in ((SoftmaxAttention, 0), (SharedQK, -2 * (16 * 16 + 16))):
        model = classifier(attention=attention)
        tokens = torch.randint(1, 11, (3, 1, 20))
        model(tokens, torch.ones_like(tokens, dtype=torch.bool)).logsumexp(-1).sum().backward()
        without = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
        # Adding a constant to every score changes no softmax, so the key's bias has a gradient of 0 but for rounding.
        assert [name for name in without if not name.endswith("key.bias")] == []
        assert sum(p.numel() for p in model.parameters()) == EXPECTED_PARAMETERS + extra


# Embeddings, two blocks (norms, four projections, perceptron), the last norm, the head.
EXPECTED_PARAMETERS = (
    (11 + 20) * 16
    + 2 * (2 * 32 + 4 * (16 * 16 + 16) + (16 * 32 + 32) + (32 * 16 + 16))
    + 32
    + (16 * 32 + 32)
    + (32 * 5 + 5)
)


def layers_of(model: Classifier) -> list[LinformerAttention]:
    return [block.mixer.attention for block in model.encoder.blocks]


def linformer(share_layers: bool) -> Classifier:
    return classifier(attention=partial(LinformerAttention, proj_len=4, share_layers=share_layers), depth=3).double()


def test_layers_that_share_a_parameter_compute_and_learn_as_if_each_had_a_copy():
    """Its gradient is the sum of the copies', and it is one parameter wherever parameters are counted or trained."""
    shared, copies = linformer(share_layers=True).eval(), linformer(share_layers=False).eval()
    copies.load_state_dict(shared.state_dict())
    E, *own = layers_of(shared)[0].E, *(layer.E for layer in layers_of(copies))
    assert all(layer.E is E for layer in layers_of(shared))
    assert len({id(x) for x in own}) == 3
    numbers = [sum(p.numel() for p in model.parameters()) for model in (shared, copies)]
    assert numbers[1] - numbers[0] == 2 * E.numel()
    assert len(torch.optim.AdamW(shared.parameters()).param_groups[0]["params"]) == len([*copies.parameters()]) - 2

    tokens = torch.randint(1, 11, (3, 1, 20))
    mask = torch.arange(20) < torch.tensor([20, 7, 1])[:, None, None]
    logits = [model(tokens, mask) for model in (shared, copies)]
    assert torch.equal(*logits)
    for x in logits:
        x.logsumexp(-1).sum().backward()
    torch.testing.assert_close(E.grad, sum(x.grad for x in own))


@pytest.mark.parametrize(
    "again",
    [
        copy.deepcopy,
        lambda model: pickle.loads(pickle.dumps(model)),
        lambda model: model.float().double(),
        lambda model: linformer(share_layers=True),
    ],
)
def test_layers_still_share_after_a_copy_a_conversion_and_a_step(again, tmp_path):
    model = linformer(share_layers=True)
    made = again(model)
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    made.load_state_dict(torch.load(tmp_path / "weights.pt"))
    first, *others = (layer.E for layer in layers_of(made))
    assert all(other is first for other in others)
    assert all(torch.equal(x, y) for x, y in zip(model.parameters(), made.parameters(), strict=True))
    optimizer = torch.optim.AdamW(made.parameters(), lr=0.1)
    tokens = torch.randint(1, 11, (2, 1, 20))
    made(tokens, torch.ones_like(tokens, dtype=torch.bool)).logsumexp(-1).sum().backward()
    optimizer.step()
    assert not torch.equal(first, layers_of(model)[0].E) or made is model
    assert all(torch.equal(layer.E, first) for layer in layers_of(made))


def test_dropout_is_silent_at_evaluation():
    model = classifier(dropout=0.5)
    tokens = torch.randint(1, 11, (2, 1, 9))
    mask = torch.ones_like(tokens, dtype=torch.bool)
    assert not torch.equal(model(tokens, mask), model(tokens, mask))
    model.eval()
    assert torch.equal(model(tokens, mask), model(tokens, mask))


def test_real_valued_tokens_enter_through_a_linear_layer():
    model = classifier(real_valued={"mean": 4.0, "std": 2.0}, dropout=0.0).eval()
    tokens = torch.tensor([[[0, 4, 8]]], dtype=torch.uint8)
    seen = []
    model.encoder.token.register_forward_hook(lambda _module, inputs, _output: seen.append(inputs[0]))
    model(tokens, torch.ones_like(tokens, dtype=torch.bool))
    assert seen[0].flatten().tolist() == [-2.0, 0.0, 2.0]
    assert sum(p.numel() for p in model.encoder.token.parameters()) == 32


def test_wrong_sizes_are_named():
    with pytest.raises(ValueError, match="21 tokens long.*max_len=20"):
        classifier()(torch.ones(1, 1, 21, dtype=torch.uint8), torch.ones(1, 1, 21, dtype=torch.bool))
    with pytest.raises(ValueError, match="num_inputs must be 1 or 2. Got 3"):
        classifier(num_inputs=3)


def test_the_factory_is_told_the_rate_of_attention_dropout(made):
    classifier(attention=Recording, attention_dropout=0.3)
    assert [options["dropout"] for options in made] == [0.3, 0.3]
    assert isinstance(classifier(attention=partial(SoftmaxAttention)), Classifier)


class Reversed(Mixer):
    """Turns each sequence round, padding and all."""

    def forward(self, x, mask):
        return x.flip(1).masked_fill(~mask[..., None], 0)


def block_of(**shape) -> tuple[Block, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    block = Block(Reversed(dim=4, max_len=6, dropout=0.0), BlockShape(**shape), dim=4, mlp_dim=8, dropout=0.0)
    for name, parameter in block.named_parameters():
        if "norm" in name:
            nn.init.normal_(parameter)
    return block.double(), torch.randn(3, 6, 4).double(), torch.arange(6) < torch.tensor([[6], [4], [1]])


@pytest.mark.parametrize("norm", ["layer", "batch", "scale"])
@pytest.mark.parametrize("place", ["pre", "post"])
@pytest.mark.parametrize("mlp", [True, False, "glu"])
def test_the_shape_of_a_block_is_its_formula(norm, place, mlp):
    block, x, mask = block_of(norm=norm, place=place, mlp=mlp)
    assert (block.mlp is not None) == hasattr(block, "mlp_norm") == bool(mlp)
    first, mixed = partial(block.mixer_norm, mask=mask), partial(block.mixer, mask=mask)
    second = partial(block.mlp_norm, mask=mask) if mlp else None
    if place == "pre":
        expected = x + mixed(first(x))
        expected = expected + block.mlp(second(expected)) if mlp else expected
    else:
        expected = first(x + mixed(x))
        expected = second(expected + block.mlp(expected)) if mlp else expected
    torch.testing.assert_close(block(x, mask)[0], expected)


def test_post_norm_has_no_further_norm_behind_the_last_block():
    pre, post = (classifier(block={"place": place}) for place in ("pre", "post"))
    assert (pre.encoder.norm is None, post.encoder.norm is None) == (False, True)
    assert sum(p.numel() for p in pre.parameters()) - sum(p.numel() for p in post.parameters()) == 2 * 16


def test_without_the_perceptron_a_block_is_a_mixer_with_its_norm():
    with_it, without = (classifier(block={"mlp": mlp}) for mlp in (True, False))
    saved = sum(p.numel() for p in with_it.parameters()) - sum(p.numel() for p in without.parameters())
    assert saved == 2 * (32 + (16 * 32 + 32) + (32 * 16 + 16))


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_every_parameter_gets_a_gradient_in_every_block(block):
    model = classifier(block=block)
    tokens = torch.randint(1, 11, (3, 1, 20))
    model(tokens, torch.ones_like(tokens, dtype=torch.bool)).logsumexp(-1).sum().backward()
    without = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert [name for name in without if not name.endswith("key.bias")] == []


def real_rows(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows (3, 7, 4) of which some are real, of no mean of 0 and no variance of 1."""
    generator = torch.Generator().manual_seed(seed)
    x = 2 + 3 * torch.randn(3, 7, 4, generator=generator, dtype=torch.float64)
    return x, torch.rand(3, 7, generator=generator) < 0.6


def test_the_gated_perceptron_is_its_formula():
    block, x, _ = block_of(mlp="glu")
    hidden, out = block.mlp[0], block.mlp[2]
    gate = hidden.gate(x)
    torch.testing.assert_close(block.mlp(x), out(gate * gate.sigmoid() * hidden.value(x)))


def test_scale_norm_is_torchs_rms_norm_with_one_weight_for_all_channels():
    ours, theirs, x = ScaleNorm(4).double(), nn.RMSNorm(4, eps=1e-6).double(), torch.randn(3, 6, 4).double()
    nn.init.constant_(ours.scale, 0.7)
    nn.init.constant_(theirs.weight, 0.7)
    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-12, atol=1e-12)


def test_batch_norm_is_torchs_on_the_real_rows():
    ours, theirs = BatchNorm(4).double(), nn.BatchNorm1d(4).double()
    for norm in (ours, theirs):
        nn.init.constant_(norm.weight, 0.7)
        nn.init.constant_(norm.bias, 0.3)
    for training, seeds in ((True, (0, 1, 2)), (False, (3,))):
        ours.train(training)
        theirs.train(training)
        for seed in seeds:
            x, mask = real_rows(seed)
            x, rows = x.requires_grad_(), x[mask].clone().requires_grad_()
            out, expected = ours(x, mask)[mask], theirs(rows)
            torch.testing.assert_close(out, expected)
            (gradient,), (expected,) = (torch.autograd.grad(y.pow(3).sum(), z) for y, z in ((out, x), (expected, rows)))
            torch.testing.assert_close(gradient[mask], expected)
            assert gradient[~mask].count_nonzero() == 0
    torch.testing.assert_close(ours.mean, theirs.running_mean)
    torch.testing.assert_close(ours.variance, theirs.running_var)


def test_batch_norm_does_not_read_padding():
    norms = [BatchNorm(4).double() for _ in range(3)]
    x, mask = real_rows(0)
    noisy = x.masked_fill(~mask[..., None], 1e6)
    longer, longer_mask = nn.functional.pad(noisy, (0, 0, 0, 5)), nn.functional.pad(mask, (0, 5))
    clean, changed, padded = (
        norm(*given)[:, :7][mask]
        for norm, given in zip(norms, ((x, mask), (noisy, mask), (longer, longer_mask)), strict=True)
    )
    assert torch.equal(clean, changed)
    torch.testing.assert_close(padded, clean)
    assert torch.equal(norms[0].mean, norms[1].mean)
    assert torch.equal(norms[0].variance, norms[1].variance)


@pytest.mark.parametrize("real", [0, 1])
def test_batch_norm_of_almost_nothing_stays_finite(real):
    norm = BatchNorm(4)
    x, mask = torch.randn(2, 5, 4).requires_grad_(), torch.zeros(2, 5, dtype=torch.bool)
    mask[0, :real] = True
    out = norm(x, mask)
    out.sum().backward()
    assert out.isfinite().all()
    assert x.grad.isfinite().all()
    assert torch.equal(norm.variance, torch.ones(4))
    assert torch.equal(norm.mean, 0.1 * x[0, 0].detach() if real else torch.zeros(4))


def test_batch_norm_computes_in_float32_under_autocast():
    norm, (x, mask) = BatchNorm(4), real_rows(0)
    rough = x.bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        out = norm(rough, mask)
    assert out.dtype == torch.float32
    assert torch.equal(out, BatchNorm(4)(rough.float(), mask))
