"""The encoder around the mechanisms: padding, pooling, two inputs."""

from functools import partial

import pytest
import torch
from torch import nn

from models.attention import Attention
from models.attention.softmax import SoftmaxAttention
from models.encoder import Classifier, masked_mean

SMALL = {
    "vocab_size": 11, "max_len": 20, "dim": 16, "depth": 2, "num_heads": 2, "head_dim": 8, "mlp_dim": 32,
    "num_classes": 5, "dropout": 0.1, "attention_dropout": 0.1,
}  # fmt: skip


def classifier(num_inputs: int = 1, attention=SoftmaxAttention, **changes) -> Classifier:
    torch.manual_seed(0)
    return Classifier(attention, num_inputs=num_inputs, **{**SMALL, **changes})


class GarbageInPadding(Attention):
    """Leaves something finite but meaningless in padded rows, as the contract allows."""

    def forward(self, q, k, v, mask):
        return torch.where(mask[:, None, :, None], v, 1e6)


@pytest.mark.parametrize("num_inputs", [1, 2])
def test_logits_ignore_what_stands_in_the_padding_and_how_long_it_is(num_inputs):
    model = classifier(num_inputs).double().eval()
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
    layer = model.encoder.blocks[0].attention
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


def test_two_inputs_meet_in_the_head_as_four_features():
    model = classifier(num_inputs=2).eval()
    tokens = torch.randint(1, 11, (2, 2, 9))
    mask = torch.ones_like(tokens, dtype=torch.bool)
    x, y = (model.encoder(tokens[:, i], mask[:, i]).mean(1) for i in (0, 1))
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


def test_the_factory_is_told_the_rate_of_attention_dropout():
    made = []
    classifier(attention=lambda **options: made.append(options) or SoftmaxAttention(**options), attention_dropout=0.3)
    assert [options["dropout"] for options in made] == [0.3, 0.3]
    assert isinstance(classifier(attention=partial(SoftmaxAttention)), Classifier)
