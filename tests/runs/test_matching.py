"""Models of different backbones with the same number of parameters, by their width."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch

from lra.configuration import compose_config
from lra.errors import InputError
from lra.records.identity import hashed, run_key
from lra.runs.factory import make_model, make_task, sketch
from lra.runs.matching import matched
from lra.runs.schema import resolve
from run import train

PROPORTION = ("dim", "head_dim", "mlp_dim")


def configured(*words: str) -> tuple[dict[str, Any], Any]:
    resolved = resolve(compose_config("scale=mini", "protocol=controlled", "task=image", *words))
    return resolved, make_task(resolved)


def parameters(resolved: dict[str, Any], task: Any) -> int:
    return sum(parameter.numel() for parameter in make_model(resolved, task).parameters())


def matching(*words: str) -> tuple[dict[str, Any], int]:
    """The node `model` as it is matched, and the number of parameters of the model made of it."""
    resolved, task = configured(*words)
    found = matched(resolved, task)
    assert {**found, "model": None} == {**resolved, "model": None}
    changed = {key for key, value in found["model"].items() if value != resolved["model"][key]}
    assert changed <= set(PROPORTION)
    return found["model"], parameters(found, task)


@pytest.mark.parametrize("asked", ["softmax", "linformer", "fnet"])
@pytest.mark.parametrize("attn", ["softmax", "vmean", "fnet", "luna"])
def test_the_model_has_as_many_parameters_as_that_of_another_backbone(attn, asked):
    model, number = matching(f"attn={attn}", f"model.match_params={asked}")
    target = parameters(*configured(f"attn={asked}"))
    assert abs(number - target) <= 0.01 * target
    assert (model["num_heads"], model["match_params"]) == (2, asked)
    assert model["head_dim"] == round(model["dim"] / 2)
    assert abs(model["mlp_dim"] - 2 * model["dim"]) <= 2 * model["dim"] / 4
    if attn == asked:
        assert [model[name] for name in PROPORTION] == [64, 32, 128]


@pytest.mark.parametrize("number", [30_000, 109_450, 1_000_000])
def test_a_number_of_parameters_may_be_asked_for(number):
    model, found = matching(f"model.match_params={number}")
    assert abs(found - number) <= 0.01 * number
    assert (model["dim"] > 64) == (number > 109_450)


def test_without_it_nothing_changes():
    resolved, task = configured("attn=fnet")
    assert matched(resolved, task) == resolved


def test_the_other_backbone_has_the_same_budget_and_block():
    words = ["budget=16", "model.block.mlp=glu"]
    _, number = matching("attn=fnet", "model.match_params=linformer", *words)
    target = parameters(*configured("attn=linformer", *words))
    assert abs(number - target) <= 0.01 * target
    assert target not in (parameters(*configured("attn=linformer", word)) for word in words)


def test_the_other_backbone_has_the_mechanism_of_the_protocol_and_the_widths_of_this_configuration():
    """LRA's Linformer has 16 projected keys whatever the budget, and on images another width than others."""
    resolved, task = configured("protocol=lra", "budget=99", "attn=vmean", "model.match_params=linformer")
    linformer, _ = configured("protocol=lra", "attn=linformer")
    assert linformer["attn"]["proj_len"] == 16
    assert linformer["model"]["dim"] != resolved["model"]["dim"]
    target = parameters({**resolved, "attn": linformer["attn"]}, task)
    assert abs(parameters(matched(resolved, task), task) - target) <= 0.01 * target


def test_a_width_is_one_that_the_backbone_takes():
    for words, step in (
        (["attn=luna"], 2),
        (["model.positions=sinusoidal"], 2),
        (["attn=luna", "model.num_heads=4"], 4),
    ):
        model, _ = matching(*words, "model.match_params=300000")
        assert model["dim"] % step == 0
        assert model["dim"] != 64


def test_nothing_is_drawn_and_no_memory_is_taken():
    resolved, task = configured("attn=fnet", "model.match_params=2000000000")
    state = torch.get_rng_state()
    found = matched(resolved, task)
    assert torch.equal(state, torch.get_rng_state())
    assert next(sketch(found, task).parameters()).is_meta


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["model.match_params=softmx"],
            "model.match_params must be a number of parameters, or a backbone. Got 'softmx'.",
        ),
        (["model.match_params=10"], "model.match_params=10 asks for 10 parameters, and no width comes within 1%."),
        (["model.match_params=10"], "The closest is model.dim=1 with"),
        (
            ["attn=fnet", "model.match_params=luna", "model.num_heads=3"],
            "model.match_params=luna has no number of parameters here: The model cannot be built",
        ),
        (["model.match_params=0"], "model.match_params must be an integer, at least 1, or text, not empty, or null."),
    ],
)
def test_what_cannot_be_matched_is_said_in_a_sentence(words, message):
    with pytest.raises(InputError) as error:
        matched(*configured(*words))
    assert message in str(error.value)


def test_the_choices_are_named():
    with pytest.raises(InputError, match=r"There are: .*linformer, .*softmax, .*yoso_star\."):
        matched(*configured("model.match_params=softmx"))


def test_a_record_has_the_widths_and_what_was_asked(tmp_path):
    words = [
        "attn=fnet", "scale=smoke", "model.match_params=softmax", "trainer.steps=2", "trainer.eval_every=2",
        "optimizer.warmup_steps=0", "device=cpu", "wandb.mode=disabled", f"results_dir={tmp_path}",
        f"cache_dir={tmp_path}",
    ]  # fmt: skip
    for _ in range(2):
        train(resolve(compose_config(*words)), "listops", "fnet", words)
    [path] = tmp_path.rglob("record.json")  # the second time it was found
    record = json.loads(path.read_text())
    model = record["config"]["model"]
    assert record["status"] == "ok"
    assert model["match_params"] == "softmax"
    assert model["dim"] > 64
    resolved = resolve(compose_config("attn=softmax", *words[1:2], *words[3:]))
    target = parameters(resolved, make_task(resolved))
    assert abs(record["num_params"] - target) <= 0.01 * target
    again = make_model(record["config"] | {"data": resolved["data"]}, make_task(resolved))
    assert sum(parameter.numel() for parameter in again.parameters()) == record["num_params"]
    assert run_key(record["config"]) != run_key({**record["config"], "model": {**model, "match_params": None}})
    assert "match_params" not in hashed({"model": {**model, "match_params": None}})["model"]
