"""Records to Weights & Biases and back."""

from __future__ import annotations

import dataclasses
import logging
import time

import pytest

from lra.errors import InputError
from lra.records.record import RunRecord
from lra.records.wandb_mirror import HISTORY, STEP, WandbMirror, load_online, to_record
from tests.helpers.records import record, sound
from tests.helpers.shown import printed
from tests.helpers.wandb_file import read, read_run


class FakeRun:
    def __init__(self, config, summary):
        self.config, self.summary, self.id = config, summary, "id"


class FakeApi:
    def __init__(self, *runs):
        self._runs = runs

    def runs(self, path):
        if path != "me/lra":
            raise ValueError("no such project")
        return self._runs


def mirrored(run) -> dict:
    return {name: value for name, value in run.as_dict().items() if name not in ("config", "schema")}


def test_the_online_leaderboard_is_the_one_of_the_records(caplog, monkeypatch, capsys):
    runs = [record("softmax", 0, 0.4), record("softmax", 1, 0.5)]
    added = {"_step": 3, "val_loss": 1.0, "_wandb": {"runtime": 3}}  # by wandb, and from the curve
    mine = [FakeRun({**run.config, "_wandb": {}}, {**mirrored(run), **added}) for run in runs]
    api = FakeApi(*mine, FakeRun({}, {"loss": 1}))
    assert load_online("me/lra", api) == runs
    assert "Left out: me/lra/id" in caplog.text
    with pytest.raises(InputError, match="wandb=you/lra cannot be read .ValueError: no such project"):
        load_online("you/lra", api)
    monkeypatch.setattr("wandb.Api", lambda: api)
    assert "45.0" in printed(capsys, "leaderboard", "wandb=me/lra")


def test_offline_files_hold_config_summary_and_curve(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_SILENT", "true")
    run = sound("softmax", 0, 0.4, val_accuracy=0.5, diagnostics={"captured": 0.5})
    mirror = WandbMirror(run, tmp_path, mode="offline", project="lra", entity=None)
    points = [
        {"step": step, "val_accuracy": 0.01 * step, "learning_rate": 1e-4, "ms_per_step": 3.0, "wall_seconds": 1.0}
        for step in (5, 10)
    ]
    for point in points:
        mirror.log(point)
    mirror.finish()
    (path,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    deadline = time.monotonic() + 30  # wandb's own process writes, some time after `finish`
    while "key" not in read(path)[1] and time.monotonic() < deadline:
        time.sleep(0.1)
    config, summary, curve = read(path)
    assert to_record(config, summary) == run
    assert [{name: value for name, value in point.items() if not name.startswith("_")} for point in curve] == [
        {"step": step, "val/accuracy": 0.01 * step, "train/learning_rate": 1e-4, "cost/ms_per_step": 3.0}
        for step in (5, 10)
    ]
    assert summary["val_accuracy"] == 0.5  # of the best weights; that of a step has another name
    begun, axes = read_run(path)
    assert begun.display_name == "listops-softmax-skeinformer-mini-seed0"
    assert begun.run_group == "listops-softmax-skeinformer-mini"
    assert begun.job_type == "train"
    assert {"listops", "softmax", "skeinformer", "mini", "cpu", f"group {run.group}"} == set(begun.tags)
    assert axes == {STEP: "", **dict.fromkeys(HISTORY.values(), STEP)}


def test_no_name_of_the_history_is_a_field_of_the_record():
    names = {field.name for field in dataclasses.fields(RunRecord)}
    assert not names & {STEP, *HISTORY.values()}
    assert {"train_loss", "train_accuracy", "ms_per_step", "tokens_per_second", "peak_memory_bytes"} <= set(HISTORY)


@pytest.fixture(autouse=True)
def _logged(caplog):
    caplog.set_level(logging.WARNING)
