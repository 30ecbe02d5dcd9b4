"""Sets of runs: what Hydra makes of their files."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from hydra import compose, initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import RunMode
from omegaconf import OmegaConf

from lra.errors import InputError
from lra.files import ROOT
from lra.records.identity import as_typed
from lra.reports.experiments import Experiment, choose, load_experiments
from lra.runs.pretraining import staged
from tests.helpers.configurations import CONFIGS, EXPERIMENTS, choices, composed, resolved


def jobs(name: str, *overrides: str) -> list[list[str]]:
    """The command lines that Hydra makes of an experiment."""
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        cfg = compose("config", overrides=[f"experiment={name}"], return_hydra_config=True)
        assert cfg.hydra.mode == RunMode.MULTIRUN
        params = [f"{key}={value}" for key, value in OmegaConf.to_container(cfg.hydra.sweeper.params).items()]
        parser = OverridesParser.create(config_loader=GlobalHydra.instance().config_loader())
        (batch,) = BasicSweeper.split_arguments(
            parser.parse_overrides([*params, f"experiment={name}", *overrides]), None
        )
    return batch


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_an_experiment_is_the_sweep_that_hydra_makes(name):
    experiment = EXPERIMENTS[name]
    found = jobs(name)
    for group, names in (("task", experiment.tasks), ("attn", experiment.attns)):
        assert tuple(dict.fromkeys(word for job in found for word in job if word.startswith(f"{group}="))) == tuple(
            f"{group}={name}" for name in names
        )
    assert len(found) == len(experiment.tasks) * len(experiment.attns) * experiment.runs_a_cell
    for level in experiment.levels:
        assert sum(f"{experiment.factor}={level}" in job for job in found) == len(found) // len(experiment.levels)
    assert all(f"protocol={experiment.protocol}" in job for job in found)
    assert set(experiment.tasks) <= set(choices("task"))
    assert set(experiment.attns) <= set(choices("attn"))
    assert len(set(experiment.attns)) == len(experiment.attns)
    assert experiment.protocol in choices("protocol")
    text = (CONFIGS / "experiment" / f"{name}.yaml").read_text()
    assert all(f"# {word}" in text for word in ("Expected:", f"  python run.py experiment={name}"))
    assert "Hours:" in text


def test_a_sweep_is_read_by_the_grammar_of_hydra(tmp_path):
    for folder in ("experiment", "attn"):
        (tmp_path / folder).mkdir()
    for attn in ("yoso", "mine", "mine_too", "mine_not"):
        (tmp_path / "attn" / f"{attn}.yaml").touch()

    def load(**params: str) -> Experiment:
        sweep = {"protocol": "lra", "task": "text", "attn": "mine", "seed": "0", **params}
        OmegaConf.save({"hydra": {"sweeper": {"params": sweep}}}, tmp_path / "experiment" / "one.yaml")
        return load_experiments(tmp_path / "experiment")["one"]

    made = load(seed="range(3)", task="choice(text, image)", attn="glob([mine*,yoso],exclude=*_not)")
    assert made == Experiment("one", "lra", ("text", "image"), ("mine", "mine_too", "yoso"), (0, 1, 2))
    assert load() == Experiment("one", "lra", ("text",), ("mine",), (0,))
    with pytest.raises(
        InputError, match=r"An experiment must have one protocol. Got lra, controlled: make one of each"
    ):
        load(protocol="lra,controlled")
    swept = load(**{"model.positions": "rotary,none", "model.dim": "32"})
    assert (swept.factor, swept.levels, swept.runs_a_cell) == ("model.positions", ("rotary", "none"), 2)
    assert swept.settings == ("model.positions", "model.dim")
    assert swept.level({"model": {"positions": "none"}}) == "none"
    assert load(pretrain="none,masked").level({"pretrain": {"kind": "masked"}}) == "masked"
    with pytest.raises(InputError, match=r"one more setting. .*one.yaml sweeps model.positions, model.dim"):
        load(**{"model.positions": "rotary,none", "model.dim": "32,64"})
    with pytest.raises(InputError, match=r"The sweep of .*one.yaml cannot be read: "):
        load(attn="glob(")


@pytest.mark.parametrize("name", [name for name, experiment in EXPERIMENTS.items() if experiment.factor])
def test_the_level_of_a_run_is_what_was_typed(name):
    experiment = EXPERIMENTS[name]
    for level in experiment.levels:
        assert experiment.level(resolved(composed(f"{experiment.factor}={level}"))) == level


@pytest.mark.parametrize("name", choices("pretrain"))
def test_every_choice_of_a_pre_training_is_told_by_its_settings(name):
    assert as_typed(staged(resolved(composed(f"pretrain={name}")))["pretrain"]) == name


def test_a_tied_pre_training_is_the_masked_one_with_a_share():
    masked, tied = (resolved(composed(f"pretrain={name}"))["pretrain"] for name in ("masked", "masked_tied"))
    assert tied == {**masked, "share": 0.4}


def test_our_own_comparison_has_every_mechanism():
    assert set(EXPERIMENTS["controlled"].attns) == set(choices("attn"))
    assert len(EXPERIMENTS["controlled"].seeds) >= 3


def test_the_command_line_wins_over_the_experiment():
    found = jobs("skeinformer_table1", "seed=7", "task=listops,text", "attn=vmean", "trainer.steps=5")
    assert len(found) == 2
    assert all({"seed=7", "attn=vmean", "trainer.steps=5", "protocol=skeinformer"} <= set(job) for job in found)


def test_the_experiment_is_no_part_of_a_run():
    overrides = ("task=text", "attn=linformer", "protocol=lra")
    assert resolved(composed("experiment=lra_table1", *overrides)) == resolved(composed(*overrides))


def test_an_unknown_experiment_lists_the_others():
    with pytest.raises(InputError, match="no experiment 'lra'. Choose from controlled, fsat_r_lra"):
        choose(EXPERIMENTS, "lra")


@pytest.mark.slow
def test_one_command_runs_an_experiment(tmp_path):
    top = ROOT
    command = [sys.executable, "run.py", "experiment=skeinformer_table1", "scale=smoke", "seed=0", "task=listops"]
    subprocess.run(
        [*command, "attn=vmean,skeinformer_uniform", f"results_dir={tmp_path}", "wandb.mode=disabled"],
        cwd=top, env={**os.environ, "LRA_CACHE": str(tmp_path / "cache")}, check=True, capture_output=True,
    )  # fmt: skip
    assert len(list(tmp_path.glob("runs/listops/*/*/record.json"))) == 2
