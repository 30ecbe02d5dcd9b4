"""Diagnostics of a whole model: the right numbers from the right layers, and nothing left behind."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import Tensor

from lra.runs.diagnostics import diagnose
from lra.runs.factory import make_classifier
from models.attention import Attention
from models.attention.fsat_r import FSATReconstructedAttention
from models.attention.softmax import SoftmaxAttention
from models.attention.vmean import VmeanAttention
from models.classifier import Classifier

L = 40


class Counting(SoftmaxAttention):
    """Softmax that measures which call of all this is, whether it trains, and a draw."""

    calls = 0

    def diagnostics(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> dict[str, Tensor]:
        assert not torch.is_grad_enabled()
        Counting.calls += 1
        first = {"first": torch.tensor(7.0)} if Counting.calls == 1 else {}
        return {"calls": torch.tensor(float(Counting.calls)), "training": torch.tensor(self.training).float(), **first}


class Failing(SoftmaxAttention):
    def diagnostics(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> dict[str, Tensor]:
        raise ArithmeticError


def build(attention: type[Attention], depth: int = 2, **options: object) -> Classifier:
    torch.manual_seed(0)
    shape = {
        "dim": 16, "depth": depth, "num_heads": 2, "head_dim": 8, "mlp_dim": 16, "dropout": 0.1,
        "attention_dropout": 0.1,
    }  # fmt: skip
    make = partial(attention, **options)
    return make_classifier(make, shape, vocab_size=11, max_len=L, num_classes=3, num_inputs=1)


def batch() -> tuple[Tensor, Tensor]:
    tokens = torch.randint(11, (3, 1, L), generator=torch.Generator().manual_seed(1))
    return tokens, torch.arange(L) < torch.tensor([40, 23, 5])[:, None, None]


def test_layers_are_named_in_their_order_and_averaged():
    Counting.calls = 0
    assert diagnose(build(Counting, depth=3), *batch()) == {
        "calls": 2.0, "calls/layer0": 1.0, "calls/layer1": 2.0, "calls/layer2": 3.0,
        "training": 0.0, "training/layer0": 0.0, "training/layer1": 0.0, "training/layer2": 0.0,
        "first": 7.0, "first/layer0": 7.0,
    }  # fmt: skip


def test_a_model_that_measures_nothing_gives_nothing():
    assert diagnose(build(VmeanAttention), *batch()) == {}


@pytest.mark.parametrize("estimator", ["learned", "oracle", "random", "local", "strided"])
def test_captured_mass_is_that_of_every_layer(estimator):
    figures = diagnose(build(FSATReconstructedAttention, budget=64, estimator=estimator), *batch())
    for name in ("captured_mass", "oracle_mass", "num_keys"):
        assert figures[name] == pytest.approx((figures[f"{name}/layer0"] + figures[f"{name}/layer1"]) / 2)
    assert 0 < figures["captured_mass"] <= figures["oracle_mass"] + 1e-6 <= 1 + 2e-6
    assert ("clipped" in figures) == (estimator == "learned")


def test_figures_are_those_of_the_arguments_of_the_forward_pass():
    model, (tokens, mask) = build(FSATReconstructedAttention, budget=64).eval(), batch()
    seen = []
    mechanism = model.encoder.blocks[1].mixer.attention
    mechanism.register_forward_pre_hook(lambda module, arguments: seen.append(arguments))
    with torch.no_grad():
        model(tokens, mask)
    expected = mechanism.diagnostics(*seen[0])
    figures = diagnose(model, tokens, mask)
    for name, value in expected.items():
        assert figures[f"{name}/layer1"] == pytest.approx(value.item(), rel=1e-12)


@pytest.mark.parametrize("attention", [Counting, Failing, FSATReconstructedAttention])
def test_nothing_is_left_behind(attention):
    options = {"budget": 64, "estimator": "random"} if attention is FSATReconstructedAttention else {}
    model = build(attention, **options)
    model.head.eval()  # modes may differ within a model
    modes = [module.training for module in model.modules()]
    torch.manual_seed(5)
    state = torch.get_rng_state()
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    if attention is Failing:
        with pytest.raises(ArithmeticError):
            diagnose(model, *batch())
    else:
        diagnose(model, *batch())
    assert [module.training for module in model.modules()] == modes
    assert not any(module._forward_pre_hooks for module in model.modules())
    assert torch.equal(state, torch.get_rng_state())
    assert torch.is_grad_enabled()
    assert all(torch.equal(weights[name], tensor) for name, tensor in model.state_dict().items())
