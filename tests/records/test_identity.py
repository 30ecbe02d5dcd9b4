"""A run's key: it holds what determines numbers and nothing else, and committed keys stay what they are."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest
from hydra.utils import get_class, instantiate
from omegaconf import OmegaConf

from lra.files import ROOT
from lra.records.collection import load_measured
from lra.records.identity import NEUTRAL, TARGET_KEYS, hashed, identify, run_group, run_key
from lra.runs.matching import matched
from lra.runs.rekeying import rekey
from scripts.baseline import SETTINGS
from tests.helpers.configurations import choices, resolved, stacked

RESULTS = ROOT / "results"
RECORDS = load_measured(RESULTS)
GROUPS = ("task", "attn", "protocol", "scale")
# A record of each mechanism and each task.
SAMPLE = list({(run.task, run.attn, run.protocol): run for run in RECORDS}.values())[::5]
SAMPLE += list({run.attn: run for run in RECORDS}.values()) + list({run.task: run for run in RECORDS}.values())


# What a command would say today to make the same run, where its protocol has come nearer to its source since.
ADDED_SINCE = {"93429cdde0": {"attn.share_layers": "false"}}


def leaves(node: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every value that is no mapping and no list."""
    if isinstance(node, dict | list):
        for key in node if isinstance(node, dict) else range(len(node)):
            yield from leaves(node[key], (*path, key))
    else:
        yield path


def at(config: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        config = config[key]
    return config


def with_value(config: dict[str, Any], path: tuple[Any, ...], value: Any) -> dict[str, Any]:
    """A copy with another value at a path."""
    changed = copy.deepcopy(config)
    at(changed, path[:-1])[path[-1]] = value
    return changed


def other(value: Any) -> Any:
    if isinstance(value, bool):
        return not value
    if value is None:
        return 1
    return f"{value}x" if isinstance(value, str) else value + 1


@cache
def every_choice() -> list[Any]:
    """The configuration with every choice of each group, and with every mechanism that a protocol changes, small."""
    changed = [name.split("_", 1) for name in choices("protocol_attn")]
    return [
        *(resolved(stacked(**{name: choice})) for name in GROUPS for choice in choices(name)),
        *(resolved(stacked(protocol=protocol, attn=attn, scale="mini")) for protocol, attn in changed),
    ]


def configured(run: Any) -> dict[str, Any]:
    """What a record's command makes of the configuration today."""
    words = dict(word.split("=", 1) for word in run.command.split()[2:] if not word.startswith("wandb."))
    baseline = run.attn.startswith("baseline_")
    cfg = stacked(**{name: words.pop(name) for name in GROUPS if name in words})
    for name, value in [
        *(word.split("=") for word in SETTINGS if baseline),
        *words.items(),
        *ADDED_SINCE.get(run.key, {}).items(),
    ]:
        OmegaConf.update(cfg, name, OmegaConf.create(f"value: {value}").value)
    version = None if baseline else get_class(cfg.attn._target_).version
    task = instantiate(cfg.task)(cache_dir=".")
    settings = matched(resolved(cfg), task)
    attn = run.config["attn"] if baseline else {**settings["attn"], "name": run.attn, "version": version}
    described = identify(settings, run.task, task, attn)
    return {**described, "device": run.device, "prepared": run.data}


def test_every_committed_key_is_of_its_configuration():
    assert [run.key for run in RECORDS] == [run_key(run.config) for run in RECORDS]
    assert [run.group for run in RECORDS] == [run_group(run.config) for run in RECORDS]


def test_no_two_committed_runs_share_a_key():
    assert len({run.key for run in RECORDS}) == len(RECORDS) >= 156
    assert len({run.group for run in RECORDS}) == len({json.dumps({**run.config, "seed": 0}) for run in RECORDS})


def test_every_committed_key_is_what_its_command_gives_today():
    assert [run.key for run in RECORDS] == [run_key(configured(run)) for run in RECORDS]


def test_a_class_that_moves_leaves_every_key():
    for run in SAMPLE:
        paths = [path for path in leaves(run.config) if path[-1] in TARGET_KEYS]
        assert run.attn.startswith("baseline_") or ("attn", "_target_") in paths
        for path in paths:
            assert run_key(with_value(run.config, path, "elsewhere.Other")) == run.key


def test_an_option_at_its_neutral_value_leaves_every_key_and_at_another_it_does_not():
    for run in SAMPLE:
        for name, value in NEUTRAL.items():
            path = tuple(name.split("."))
            config = with_value(run.config, path, copy.deepcopy(value))
            if path[-1] not in at(run.config, path[:-1]):
                assert run_key(config) == run.key
            for inner in leaves(value):
                assert run_key(with_value(config, (*path, *inner), other(at(value, inner)))) != run_key(config)


def test_whatever_determines_numbers_determines_the_key():
    for run in SAMPLE:
        for path in leaves(run.config):
            if path[-1] not in TARGET_KEYS:
                changed = with_value(run.config, path, other(at(run.config, path)))
                assert run_key(changed) != run.key, path
                assert (run_group(changed) == run.group) == (path == ("seed",)), path


def test_an_option_that_is_unknown_changes_the_key():
    config = RECORDS[0].config
    for node in ("model", "data", "optimizer", "trainer", "task", "attn"):
        assert run_key(with_value(config, (node, "another"), None)) != RECORDS[0].key


def test_values_that_python_takes_for_equal_are_told_apart(monkeypatch):
    monkeypatch.setitem(NEUTRAL, "model.causal", False)
    for value in (0, 0.0, None):
        assert hashed({"model": {"causal": value}}) == {"model": {"causal": value}}
    assert hashed({"model": {"causal": False}}) == {"model": {}}


def test_an_option_inside_a_neutral_mapping_may_come_later_still(monkeypatch):
    monkeypatch.setitem(NEUTRAL, "model.block.scale", 1.0)
    assert hashed({"model": {"block": {**NEUTRAL["model.block"], "scale": 1.0}}}) == {"model": {}}
    assert "block" in hashed({"model": {"block": {**NEUTRAL["model.block"], "scale": 2.0}}})["model"]


def test_hashing_leaves_the_configuration_as_it_is():
    config = copy.deepcopy(RECORDS[0].config)
    hashed(config)
    assert config == RECORDS[0].config


@pytest.mark.parametrize("path", NEUTRAL)
def test_every_neutral_option_is_one_of_the_configuration_and_can_have_that_value(path):
    *parents, name = path.split(".")
    nodes = [at(config, tuple(parents)) for config in every_choice()]
    assert NEUTRAL[path] in [node[name] for node in nodes if name in node]


def test_the_committed_records_need_no_new_keys(tmp_path):
    before = {path.name: path.read_bytes() for path in (RESULTS / "measured").iterdir()}
    (tmp_path / "measured").mkdir()
    for name, content in before.items():
        (tmp_path / "measured" / name).write_bytes(content)
    assert rekey(tmp_path) == {}
    assert {path.name: path.read_bytes() for path in (tmp_path / "measured").iterdir()} == before
