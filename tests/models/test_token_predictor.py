"""Predicting tokens: what is hidden is hidden, in either form, and the encoder is the classifier's."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from lra.runs.factory import make_encoder
from models.attention.softmax import SoftmaxAttention
from models.reducer import Reducer
from models.token_predictor import TokenPredictor
from tests.helpers.toy import ToyTask
from tests.helpers.training import model_for

MODEL = {
    "dim": 16, "depth": 1, "num_heads": 2, "head_dim": 8, "mlp_dim": 32, "dropout": 0.0, "attention_dropout": 0.0,
}  # fmt: skip
NUMBERS = {"mean": 4.0, "std": 2.0}
FORMS: list[dict[str, Any]] = [
    {}, {"pooling": "cls"}, {"real_valued": NUMBERS}, {"stem": {"kind": "conv", "width": 3, "place": "both"}},
]  # fmt: skip


def predictor(**model) -> TokenPredictor:
    torch.manual_seed(0)
    encoder = make_encoder(SoftmaxAttention, {**MODEL, **model}, vocab_size=8, max_len=12)
    return TokenPredictor(encoder, num_outputs=8, hides=True).double()


def batch() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    tokens = torch.randint(1, 8, (3, 12), generator=torch.Generator().manual_seed(0))
    mask = torch.arange(12) < torch.tensor([[12], [7], [1]])
    return tokens, mask, mask & (torch.arange(12) % 3 == 0)


@pytest.mark.parametrize("model", FORMS, ids=str)
def test_a_hidden_token_reaches_nothing(model):
    model, (tokens, mask, hidden) = predictor(**model), batch()
    found = model(tokens, mask, hidden)
    assert found.shape == (3, 12, 8)
    assert torch.equal(model(tokens.masked_fill(hidden, 5), mask, hidden), found)
    assert not torch.allclose(model(tokens, mask), found)


def test_a_hidden_number_is_0_with_a_second_channel_as_its_mark():
    model, (tokens, mask, hidden) = predictor(real_valued=NUMBERS), batch()
    first = model.encoder.token
    two = nn.Linear(2, 16).double()
    with torch.no_grad():
        two.weight.copy_(torch.stack([first.weight[:, 0], model.hidden], 1))
        two.bias.copy_(first.bias)
    numbers = ((tokens - NUMBERS["mean"]) / NUMBERS["std"]).masked_fill(hidden, 0)
    rows = two(torch.stack([numbers, hidden.double()], -1))
    expected = model.decoder(model.encoder.encode(rows, mask).rows)
    torch.testing.assert_close(model(tokens, mask, hidden), expected, rtol=0, atol=1e-12)


def test_a_hidden_symbol_is_a_further_row_of_the_embedding():
    model, (tokens, mask, hidden) = predictor(), batch()
    table = torch.cat([model.encoder.token.weight, model.hidden[None]])
    rows = table[tokens.masked_fill(hidden, 8)]
    expected = model.decoder(model.encoder.encode(rows, mask).rows)
    assert torch.equal(model(tokens, mask, hidden), expected)


def test_the_encoder_is_the_classifiers_by_every_name():
    encoder = make_encoder(SoftmaxAttention, MODEL, vocab_size=8, max_len=12)
    model_for(ToyTask()).encoder.load_state_dict(encoder.state_dict())


def test_an_encoder_that_leaves_rows_out_is_refused():
    encoder = make_encoder(SoftmaxAttention, MODEL, vocab_size=8, max_len=12)
    encoder.reducer = Reducer("k_centre_r", 0.5)
    with pytest.raises(ValueError, match=r"needs a row of every token. Set model.reducer.kind=none."):
        TokenPredictor(encoder, num_outputs=8, hides=True)
