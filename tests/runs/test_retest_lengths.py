"""Runs tested on longer sequences than they were trained on: a curve whose first point is the run's own accuracy."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch

from lra.errors import InputError
from lra.records.collection import load_records, load_retests
from lra.records.folder import RunFolder
from lra.runs.factory import make_task, sketch
from lra.runs.retest import Tasks, retest
from lra.runs.schema import resolve
from lra.runs.trained_model import built_for, load_model
from run import train
from scripts import report
from scripts import retest as script
from tests.helpers.configurations import composed, stacked

CPU = torch.device("cpu")
SMALL = [
    "task=listops", "scale=smoke", "task.length=256", "task.num_train=64", "task.num_val=32", "task.num_test=48",
    "trainer.steps=2", "trainer.eval_every=2", "optimizer.warmup_steps=0", "wandb.mode=disabled", "device=cpu",
    "data.padding=max",
]  # fmt: skip
RUNS = {
    "softmax": ["model.positions=none"],
    "s4d": ["model.positions=sinusoidal"],
    "linformer": ["model.positions=none"],
    "vmean": [],
    "none": ["model.num_positions=512"],
}
# Mechanisms with weights for places, which say nothing of places beyond those, and some without.
BOUND = (
    "linformer", "long_conv", "mega", "sg_conv", "sinkhorn", "synthesizer_dense", "synthesizer_factorized",
    "synthesizer_random",
)  # fmt: skip
FREE = ("softmax", "s4d", "none", "skeinformer", "nystromformer", "performer", "mamba", "local", "fnet")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    for attn, more in RUNS.items():
        words = [f"attn={attn}", *SMALL, *more]
        cfg = composed(*words, f"results_dir={folder / 'results'}", f"cache_dir={folder / 'cache'}")
        train(resolve(cfg), "listops", attn, words)
    return folder


def again_at(trained, attn: str, changes: dict):
    record, folder = run_of(trained, attn)
    return retest(record, folder, Tasks(changes, cache_dir=str(trained / "cache")), device=CPU, command="x")


def run_of(trained, attn: str):
    [record] = [record for record in load_records(trained / "results") if record.attn == attn]
    return record, RunFolder.of(trained / "results", record)


@pytest.mark.parametrize("attn", list(RUNS))
def test_at_its_own_length_a_run_repeats_what_its_record_says(trained, attn):
    record, _ = run_of(trained, attn)
    found = again_at(trained, attn, {"length": 256})
    assert (found.accuracy, found.data, found.changes) == (record.test_accuracy, record.data, {})


@pytest.mark.parametrize("attn", ["softmax", "s4d"])
def test_at_another_it_reaches_what_one_example_at_a_time_does(trained, attn):
    record, folder = run_of(trained, attn)
    found = again_at(trained, attn, {"length": 512})
    assert found.changes == {"length": 512}
    assert (found.data["variant"], found.trained_on) == ("brackets, length 512", 0)
    pair = Tasks({"length": 512}, cache_dir=str(trained / "cache")).of(record)
    model = load_model(record, folder, *built_for(record, pair.own, pair.changed), CPU).eval()
    test, right = pair.changed.split("test"), 0
    with torch.no_grad():
        for i, label in enumerate(test.labels):
            example = np.array(test.tokens[test.offsets[i] : test.offsets[i + 1]])
            assert 256 < len(example) < 512
            tokens = torch.from_numpy(example)[None, None]
            right += int(model(tokens, tokens > 0).argmax() == label)
    assert found.accuracy == right / len(test.labels)


def test_a_setting_beside_the_length_goes_before_it(trained):
    found = again_at(trained, "softmax", {"length": 512, "max_depth": 9})
    assert found.changes == {"length": 512, "max_depth": 9}
    assert found.data["generator"]["max_depth"] == 9
    assert found.data["generator"]["min_length"] == 256


@pytest.mark.parametrize(
    ("attn", "length", "message"),
    [
        ("vmean", 512, "has learned positions for 256 tokens, and these sequences have up to 512. Choose shorter ones, "
         "or train with model.num_positions=512 or with other model.positions (sinusoidal, rotary, alibi, none)."),
        ("none", 1024, "has learned positions for 512 tokens, and these sequences have up to 1024."),
        ("linformer", 512, "The weights of linformer are for at most 256 tokens in run "),
        ("linformer", 512, "(blocks.0.mixer.attention.E), and these sequences have up to 512. Choose shorter ones, "
         "or train with model.num_positions=512."),
        ("softmax", 100, "task.length must be an integer, at least 256. Got 100."),
    ],
)  # fmt: skip
def test_what_cannot_read_so_many_tokens_is_refused(trained, attn, length, message):
    with pytest.raises(InputError, match=re.escape(message)):
        again_at(trained, attn, {"length": length})


def test_positions_that_were_built_for_more_tokens_serve(trained):
    assert 0 <= again_at(trained, "none", {"length": 512}).accuracy <= 1


@pytest.mark.parametrize(("attn", "is_bound"), [*((attn, True) for attn in BOUND), *((attn, False) for attn in FREE)])
def test_mechanisms_with_weights_for_places_are_known(attn, is_bound):
    resolved = resolve(stacked(attn=attn, scale="mini"))
    resolved["model"]["positions"] = "none"
    shapes = []
    for length in (256, 512):
        resolved["model"]["num_positions"] = length
        model = sketch(resolved, make_task(resolved))
        shapes.append({name: tensor.shape for name, tensor in model.state_dict().items()})
    assert (shapes[0] != shapes[1]) == is_bound


def test_one_command_tests_several_lengths_and_names_who_cannot(trained, capsys, caplog):
    words = [f"results_dir={trained / 'results'}", f"cache_dir={trained / 'cache'}", "device=cpu"]
    assert script.main([*words, "task.length=256,512,1024"]) == 1
    assert "task.length=512\n" in capsys.readouterr().out
    refused = [message for message in caplog.messages if message.startswith("Not tested: ")]
    assert len(refused) == 2 + 2 + 1  # vmean and linformer at both, none at the longer
    again = load_retests(trained / "results")
    lengths = [test.changes.get("length") for test in again if "max_depth" not in test.changes]
    assert {(length, lengths.count(length)) for length in set(lengths)} == {(None, 5), (512, 3), (1024, 2)}
    report.main(["length", words[0], "format=markdown"])
    shown = capsys.readouterr().out
    assert re.search(r"\| attn +\| trained at \| 256 +\| 512 +\| 1,024 +\|", shown)
    for row in ("softmax", "s4d", "none", "vmean", "floor: majority", "floor: root_operator"):
        assert f"| {row}" in shown
