"""What a command line says about the configuration: read as Hydra reads it."""

from __future__ import annotations

from pathlib import Path

import pytest

from lra.configuration import explain_unknown_keys, is_sweep, options_of, results_dir_of


@pytest.mark.parametrize(
    ("words", "sweep"),
    [
        ([], False), (["task=text", "seed=3"], False), (["-m", "seed=1,2"], True), (["seed=1,2", "--multirun"], True),
        (["experiment=controlled"], True), (["attn=softmax", "results_dir=experiment"], False),
    ],
)  # fmt: skip
def test_a_sweep_is_told_from_a_single_job(words, sweep):
    assert is_sweep(words) == sweep


@pytest.mark.parametrize(
    ("words", "folder"),
    [
        (["-m", "seed=1,2"], "results"), (["results_dir=/tmp/x", "-m"], "/tmp/x"),
        (["results_dir=a", "results_dir=b"], "b"), (["results_dir='with space'"], "with space"),
        (["results_dir=", "attn=("], "."),
    ],
)  # fmt: skip
def test_the_results_folder_of_a_command_is_the_one_that_hydra_gives_it(words, folder):
    assert results_dir_of(words) == Path(folder)


@pytest.mark.parametrize(
    "words",
    [
        ["task=text", "attn=bigbird", "attn.block_size=8", "trainer.steps=3"], ["-m", "attn=softmax,vmean", "seed=0,1"],
        ["+new.key=3", "~seed", "--cfg", "job"], ["hydra/launcher=processes", "hydra.launcher.n_jobs=2"], ["attn=("],
    ],
)  # fmt: skip
def test_nothing_is_said_of_known_keys_and_of_what_is_no_plain_setting(words):
    assert explain_unknown_keys(words) == ""


def test_each_unknown_key_is_explained_in_a_line():
    lines = explain_unknown_keys(["attn=skeinformer", "attn.num_sample=3", "trainer.optim.lr=3", "sed=1"]).splitlines()
    assert lines[0].startswith("attn.num_sample is no key. Did you mean num_samples? Keys of attn: num_samples")
    assert lines[1].startswith("trainer.optim.lr is no key. Keys of trainer: steps, batch_size")
    assert lines[2].startswith("sed is no key. Did you mean seed? Keys of the top level: seed, device")
    assert explain_unknown_keys(["attn=skienformer", "sed=1"]) == ""  # Hydra names the choices first


def test_a_key_is_explained_where_a_mechanism_comes_from_another_folder(tmp_path):
    (tmp_path / "attn").mkdir()
    (tmp_path / "attn" / "mine.yaml").write_text("_target_: mine.Mine\n_partial_: true\nsharpness: 2.0\n")
    words = [f"hydra.searchpath=[file://{tmp_path}]", "attn=mine", "attn.sharpnes=3"]
    assert explain_unknown_keys(words).startswith("attn.sharpnes is no key. Did you mean sharpness?")


def test_the_options_of_a_group_are_its_files():
    assert options_of("scale") == ["full", "mini", "smoke"]
