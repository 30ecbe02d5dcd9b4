"""What a command line says about the configuration: read as Hydra reads it."""

from __future__ import annotations

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from lra.configuration import (
    CONFIGS,
    check_choices,
    compose_config,
    explain_unknown_keys,
    is_sweep,
    options_of,
    results_dirs_of,
    told,
)
from lra.errors import InputError


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
    ("words", "folders"),
    [
        (["-m", "seed=1,2"], ["results"]), (["results_dir=/tmp/x", "-m"], ["/tmp/x"]),
        (["results_dir=a", "results_dir=b"], ["b"]), (["results_dir='with space'"], ["with space"]),
        (["results_dir=with space"], ["with space"]), (["results_dir='~/x'"], [str(Path.home() / "x")]),
        (["-m", "results_dir=a,'b c'"], ["a", "b c"]), (["results_dir=", "attn=("], ["."]),
    ],
)  # fmt: skip
def test_the_results_folders_of_a_command_are_those_that_hydra_gives_it(words, folders):
    assert results_dirs_of(words) == [Path(folder) for folder in folders]


def test_a_sweep_keeps_its_own_file_in_the_results_folder():
    """Hydra makes this folder, before any code of ours runs."""
    sweep = OmegaConf.load(CONFIGS / "config.yaml").hydra.sweep
    del sweep["subdir"]
    assert OmegaConf.create({"results_dir": "~/x", "sweep": sweep}).sweep.dir == str(Path.home() / "x/runs/.multirun")


@pytest.mark.parametrize(
    "word",
    [
        "scale=[smoke,mini]", "task=[listops,text]", "attn=[softmax,vmean]", "~attn", "~task", "attn=null", "task=null",
        "protocol=null", "scale=null", "attn=", "attn=softmax,null", "attn={a:1}", "scale=true",
        "experiment=controlled,lra_table1", "experiment=[controlled,lra_table1]",
    ],
)  # fmt: skip
def test_a_choice_that_is_no_choice_is_refused_with_the_choices(word):
    group = word.strip("~").partition("=")[0]
    with pytest.raises(InputError, match=f"^{group} takes one choice") as error:
        check_choices(["seed=1", word])
    assert f"Got {word}." in str(error.value)
    assert ", ".join(options_of(group)) in str(error.value)


def test_a_choice_is_none_of_these():
    check_choices(["-m", "task=a,'b'", "attn=glob(*)", "scale=choice(a,b)", "experiment=controlled", "~hydra/launcher"])


def test_a_mistake_in_the_configuration_is_told_in_a_sentence():
    with pytest.raises(InputError, match=r"^attn=skienformer is no choice. Did you mean attn=skeinformer\? There"):
        compose_config("attn=skienformer")
    with pytest.raises(InputError, match=r"(?m)^sed is no key. Did you mean seed\?"):
        compose_config("sed=1")
    with pytest.raises(InputError, match="Config group override must be"):  # a ValueError of Hydra's
        compose_config("hydra=3")
    assert told(ValueError("of our own")) == ""


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
    assert lines[0].startswith("attn.num_sample is no key. Did you mean attn.num_samples? Keys of attn: num_samples")
    assert lines[1].startswith("trainer.optim.lr is no key. Did you mean optimizer.learning_rate? Keys of trainer: ste")
    assert lines[2].startswith("sed is no key. Did you mean seed? Keys of the top level: seed, device")
    assert explain_unknown_keys(["attn=skienformer", "sed=1"]) == ""  # Hydra names the choices first


def test_a_key_is_explained_where_a_mechanism_comes_from_another_folder(tmp_path):
    (tmp_path / "attn").mkdir()
    (tmp_path / "attn" / "mine.yaml").write_text("_target_: mine.Mine\n_partial_: true\nsharpness: 2.0\n")
    words = [f"hydra.searchpath=[file://{tmp_path}]", "attn=mine", "attn.sharpnes=3"]
    assert explain_unknown_keys(words).startswith("attn.sharpnes is no key. Did you mean attn.sharpness?")


def test_the_options_of_a_group_are_its_files():
    assert options_of("scale") == ["full", "mini", "smoke"]
