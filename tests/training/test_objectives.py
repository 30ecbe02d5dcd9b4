"""What is predicted of tokens: which ones, what counts, and how parts of a batch add up."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from lra.runs.factory import make_encoder
from lra.training.batching import Batch
from lra.training.evaluation import evaluate
from lra.training.objectives import MaskedTokens, NextTokens, score_tokens
from lra.training.outcome import Outcome
from lra.training.surroundings import Surroundings
from models.attention.softmax import SoftmaxAttention
from models.token_predictor import TokenPredictor
from tests.helpers.toy import ToyTask
from tests.helpers.training import CPU, changed, numbers

MODEL = {
    "dim": 16, "depth": 1, "num_heads": 2, "head_dim": 8, "mlp_dim": 32, "dropout": 0.0, "attention_dropout": 0.0,
}  # fmt: skip
STATISTICS = {"mean": 3.0, "std": 2.0}


def predictor(causal: bool = False) -> TokenPredictor:
    torch.manual_seed(0)
    encoder = make_encoder(SoftmaxAttention, MODEL, vocab_size=8, max_len=12)
    for block in encoder.blocks:
        block.mixer.attention.causal = causal
    return TokenPredictor(encoder, num_outputs=8, hides=not causal)


class Shown(nn.Module):
    """Keeps what it was shown, and predicts nothing."""

    def forward(self, tokens, mask, hidden=None):
        self.tokens, self.mask, self.hidden = tokens, mask, hidden
        return torch.zeros(*tokens.shape, 8)


def batch(num_inputs: int = 1, size: int = 64, width: int = 40) -> Batch:
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(1, width + 1, (size, num_inputs, 1), generator=generator)
    tokens = torch.randint(1, 8, (size, num_inputs, width), generator=generator, dtype=torch.uint8)
    mask = torch.arange(width) < lengths
    return Batch(tokens * mask, mask, torch.zeros(size, dtype=torch.long))


def hidden_by(seed: int, rate: float, shown: Batch) -> torch.Tensor:
    model = Shown()
    torch.manual_seed(seed)
    MaskedTokens(rate).score(model, shown, CPU, "fp32")
    return model.hidden


@pytest.mark.parametrize("values", [None, STATISTICS], ids=["symbols", "numbers"])
def test_only_what_is_chosen_counts(values):
    outputs = torch.randn(3, 12, 8 if values is None else 1, requires_grad=True)
    tokens, chosen = torch.randint(8, (3, 12)), torch.rand(3, 12) < 0.4
    found = score_tokens(outputs, tokens, chosen, values)
    other = score_tokens(outputs, torch.where(chosen, tokens, (tokens + 3) % 8), chosen, values)
    assert (found.loss, found.hits, found.num_predictions) == (other.loss, other.hits, chosen.sum())
    assert found.predictions is None
    [gradient] = torch.autograd.grad(found.loss, outputs)
    assert (gradient.abs().sum(-1) > 0).equal(chosen)
    wrong = score_tokens(outputs, torch.where(chosen, (tokens + 3) % 8, tokens), chosen, values)
    assert wrong.loss != found.loss


def test_a_score_of_symbols_is_cross_entropy_and_of_numbers_the_absolute_error_and_r2():
    outputs, tokens = torch.randn(3, 12, 8), torch.randint(8, (3, 12))
    chosen = torch.ones(3, 12, dtype=torch.bool)
    found = score_tokens(outputs, tokens, chosen, None)
    right = outputs.log_softmax(-1).gather(-1, tokens[..., None])
    torch.testing.assert_close(found.loss, -right.sum())
    values = (tokens.float() - 3) / 2
    statistics = {"mean": tokens.float().mean().item(), "std": tokens.float().std(correction=0).item()}
    found = score_tokens(outputs[..., :1], tokens, chosen, STATISTICS)
    torch.testing.assert_close(found.loss, (outputs[..., 0] - values).abs().sum())
    values = (tokens.float() - statistics["mean"]) / statistics["std"]
    guess = values + 0.3
    found = score_tokens(guess[..., None], tokens, chosen, statistics)
    assert found.hits / found.num_predictions == pytest.approx(1 - 0.3**2 / values.var(correction=0).item())


@pytest.mark.parametrize("num_inputs", [1, 2])
@pytest.mark.parametrize("rate", [0.1, 0.15, 0.5])
def test_real_tokens_of_every_input_are_hidden_at_the_rate_and_padding_never(rate, num_inputs):
    shown = batch(num_inputs)
    masks = torch.stack([hidden_by(seed, rate, shown) for seed in range(40)])
    real = shown.mask.flatten(0, 1)
    assert masks.shape[1] == 64 * num_inputs
    assert not masks[:, ~real].any()
    drawn = masks[:, real].double()
    assert drawn.mean() == pytest.approx(rate, abs=4 * (rate * (1 - rate) / drawn.numel()) ** 0.5)
    # Independent: neither neighbours nor seeds go together.
    assert abs(torch.corrcoef(torch.stack([drawn[:, :-1].flatten(), drawn[:, 1:].flatten()]))[0, 1]) < 0.02
    assert MaskedTokens(rate).expected([shown], 64) == pytest.approx(rate * int(real.sum()))


def test_masks_repeat_with_the_seed():
    assert torch.equal(hidden_by(3, 0.5, batch()), hidden_by(3, 0.5, batch()))
    assert not torch.equal(hidden_by(3, 0.5, batch()), hidden_by(4, 0.5, batch()))


def test_the_masks_of_an_evaluation_are_the_same_at_every_pass():
    model, split = predictor(), ToyTask().split("val")
    batching, objective = changed().batching, MaskedTokens(0.5)

    def loss(seed):
        batches = batching.evaluation(split, 20, 12)
        return evaluate(model, batches, len(split.labels), "fp32", seed, Surroundings(CPU), objective).loss

    torch.manual_seed(0)
    first = loss(0)
    torch.rand(5)
    assert loss(0) == first != loss(1)


def test_the_next_token_is_predicted_where_it_and_the_one_before_are_real():
    class Knows(nn.Module):
        def forward(self, tokens, mask):
            return 9.0 * nn.functional.one_hot(tokens.roll(-1, 1).long(), 8)

    shown = batch(2)
    lengths = shown.mask.flatten(0, 1).sum(-1)
    found = NextTokens().score(Knows(), shown, CPU, "fp32")
    assert found.num_predictions == found.hits == (lengths - 1).sum() == NextTokens().expected([shown], 64)
    holes = shown._replace(mask=shown.mask & (torch.arange(40) % 4 != 1))
    model = Shown()
    assert NextTokens().score(model, holes, CPU, "fp32").num_predictions == NextTokens().expected([holes], 64)
    assert model.hidden is None


@pytest.mark.parametrize("objective", [MaskedTokens(0.5), NextTokens()], ids=["masked", "causal"])
def test_it_learns_to_predict_tokens(objective):
    """The toy task's tokens: the first one is 1 to 3, all others are drawn from 4 to 7."""
    outcome = Outcome()
    model = predictor(isinstance(objective, NextTokens))
    trainer = changed(steps=60, eval_every=20, learning_rate=1e-2)
    torch.manual_seed(1)
    trainer.fit(model, ToyTask(), outcome, seed=0, surroundings=Surroundings(CPU), objective=objective)
    assert outcome.curve[-1]["val_loss"] == pytest.approx(np.log(4), abs=0.25)  # about all that there is to know
    assert outcome.curve[0]["val_loss"] > outcome.curve[-1]["val_loss"]
    assert outcome.test_accuracy is None
    assert outcome.predictions == {}


def test_accumulation_gives_the_gradient_of_the_undivided_batch():
    """Next tokens, which need no draws: parts of a batch would have others."""
    curves = []
    for size in (32, 12, "auto"):
        outcome = Outcome()
        trainer = changed(steps=6, eval_every=2, micro_batch=size, clip_norm=0.5)
        surroundings = Surroundings(CPU)
        trainer.fit(predictor(True), ToyTask(), outcome, seed=0, surroundings=surroundings, objective=NextTokens())
        curves.append(numbers(outcome.curve))
    for whole, *parts in zip(*curves, strict=True):
        for part in parts:
            assert part["val_loss"] == pytest.approx(whole["val_loss"], rel=1e-4)
            assert part["train_loss"] == pytest.approx(whole["train_loss"], rel=1e-4)
