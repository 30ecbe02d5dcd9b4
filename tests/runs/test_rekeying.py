"""Renewing the keys of a results folder: everywhere or not at all, once, and never two runs into one."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from filelock import FileLock

from lra.errors import InputError
from lra.records import collection as collected
from lra.records import folder as folders
from lra.records.collection import collect, import_records, load_measured, load_packed, load_records, load_retests
from lra.records.identity import fingerprint, run_group, run_key
from lra.records.record import RunRecord
from lra.records.retest_record import RETESTS_NAME, Retest, write_retests
from lra.runs import rekeying
from lra.runs.rekeying import rekey
from lra.training import storage
from lra.training.checkpoint import Checkpoints
from scripts import rekey as script
from tests.helpers.records import saved, sound

CPU = torch.device("cpu")
LABELS = np.zeros(50, np.uint8)


def old(attn: str, seed: int, accuracy: float = 0.5, target: str = "models.attention.old.Old") -> RunRecord:
    """A record whose key is of the first rule."""
    run = sound(attn, seed, accuracy)
    run.config["attn"] |= {"_target_": target, "_partial_": True}
    run.key = fingerprint(run.config)
    run.group = fingerprint({name: value for name, value in run.config.items() if name != "seed"})
    return run


def retest_of(run: RunRecord) -> Retest:
    shares = {"majority": 0.1}
    return Retest(run.key, {"num_test": 50}, run.data, 0.4, 1.0, shares, shares, 0, "cpu")


@pytest.fixture
def results(tmp_path):
    """A results folder: two runs collected and with folders, one collected alone, one that has not ended."""
    folder = tmp_path / "results"
    runs = [old("softmax", 0), old("softmax", 1), old("vmean", 0), old("vmean", 1)]
    saved(folder, *runs, labels=LABELS)
    for run in runs:
        place = folder / "runs" / "listops" / run.attn / run.key
        (place / "config.json").write_text(json.dumps(run.config))
        write_retests(place / RETESTS_NAME, [retest_of(run)])
    begun = folder / "runs" / "listops" / "vmean" / runs[3].key
    (begun / "record.json").unlink()
    (begun / RETESTS_NAME).unlink()
    Checkpoints(begun, runs[3].key, 0).save(3, {"step": 3, "weights": torch.ones(2)})
    collect(folder)
    shutil.rmtree(folder / "runs" / "listops" / "vmean" / runs[2].key)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    """All files but the locks and the checkpoints, whose bytes are not the same each time."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != ".lock" and path.suffix != ".pt"
    }


def test_all_files_get_the_new_keys_and_nothing_else_changes(results):
    before, packed_before = load_measured(results), load_packed(results, [])
    renewed = rekey(results)
    after, packed = load_measured(results), load_packed(results, [])
    expected = [dataclasses.replace(run, key=run_key(run.config), group=run_group(run.config)) for run in before]
    assert sorted(after, key=str) == sorted(expected, key=str)
    assert [renewed[run.key] for run in before] == [run.key for run in expected]
    assert len(renewed) == 4
    assert packed.curves == {renewed[key]: points for key, points in packed_before.curves.items()}
    assert packed.predictions.keys() == {(renewed.get(key, key), name) for key, name in packed_before.predictions}
    assert {one.run for one in load_retests(results)} == {run.key for run in after}
    paths = sorted((results / "runs").glob("*/*/*"))
    configs = [json.loads((path / "config.json").read_text()) for path in paths]
    assert [path.name for path in paths] == [run_key(config) for config in configs]
    for path in paths:
        if (path / "record.json").exists():
            assert RunRecord.read(path / "record.json") in after
    texts = [path for path in results.rglob("*") if path.suffix in (".json", ".jsonl")]
    frames = [pd.read_parquet(path) for path in results.rglob("*.parquet")]
    for key in renewed:
        assert not any(key in f"{path}{path.read_text()}" for path in texts)
        assert not any((frame["key"] == key).any() for frame in frames)


def test_a_run_that_has_not_ended_goes_on_from_its_checkpoint(results):
    renewed = rekey(results)
    [folder] = [path.parent for path in results.rglob("checkpoint-*.pt")]
    assert folder.name in renewed.values()
    [path] = folder.glob("checkpoint-*.pt")
    saved = storage.load(path, CPU)
    assert saved["key"] == folder.name
    assert (saved["state"]["step"], saved["state"]["weights"].tolist()) == (3, [1, 1])


def test_a_second_time_changes_nothing(results, capsys):
    script.main([f"results_dir={results}"])
    once = contents(results)
    script.main([f"results_dir={results}"])
    assert contents(results) == once
    assert capsys.readouterr().out == f"4 runs in {results} have a new key.\n0 runs in {results} have a new key.\n"


@pytest.mark.parametrize(
    ("owner", "name", "calls"),
    [
        (folders, "FileLock", 0), (folders, "FileLock", 1), (rekeying, "give_key", 0), (rekeying, "give_key", 1),
        (Path, "rename", 0), (rekeying, "write_measured", 0), (collected, "write_atomically", 0),
    ],
)  # fmt: skip
def test_what_was_cut_short_is_finished_by_the_next_call(results, tmp_path, monkeypatch, owner, name, calls):
    whole = Path(shutil.copytree(results, tmp_path / "whole"))
    rekey(whole)
    real, done = getattr(owner, name), []

    def interrupted(*arguments, **more):
        if len(done) == calls:
            raise KeyboardInterrupt
        done.append(arguments)
        return real(*arguments, **more)

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, interrupted)
        with pytest.raises(KeyboardInterrupt):
            rekey(results)
    assert contents(results) != contents(whole)
    rekey(results)
    assert contents(results) == contents(whole)


def test_two_runs_that_would_be_one_are_refused_and_nothing_is_changed(results):
    saved(results, old("softmax", 0, 0.3, target="models.attention.other.Other"))
    before = contents(results)
    with pytest.raises(
        InputError, match=r"The runs \w+ and \w+ would both have the key \w+\. Remove one of the two first"
    ):
        rekey(results)
    assert contents(results) == before


def test_a_run_trained_again_under_its_new_key_is_refused_beside_the_old_one(results):
    saved(results, sound("softmax", 0, 0.3))
    with pytest.raises(InputError, match="would both have the key"):
        rekey(results)


def test_an_altered_record_gets_no_key_that_would_hide_it(results):
    path = results / "measured" / "records.jsonl"
    path.write_text(path.read_text().replace('"seed": 0', '"seed": 7'))
    before = contents(results)
    with pytest.raises(InputError, match=r"The key \w+ does not belong to its configuration"):
        rekey(results)
    assert contents(results) == before


@pytest.mark.parametrize("name", ["measured/records.jsonl", "measured/retests.jsonl", "config.json", "record.json"])
def test_a_file_that_cannot_be_read_is_named_and_nothing_is_changed(results, name):
    [*_, path] = [path for path in results.rglob(Path(name).name) if name in str(path)]
    if name == "config.json":
        path.with_name("record.json").unlink(missing_ok=True)
    path.write_text("{")
    before = contents(results)
    with pytest.raises(InputError, match="Mend or remove it first"):
        rekey(results)
    assert contents(results) == before


def test_a_run_under_way_is_left_alone(results):
    folder = next((results / "runs").glob("*/*/*"))
    with FileLock(folder / ".lock"), pytest.raises(InputError, match=r"is under way\. Wait for it"):
        rekey(results)
    assert folder.is_dir()
    assert len(rekey(results)) == 4


def test_a_checkpoint_that_cannot_be_read_stays_as_it_is(results, caplog):
    [path] = results.rglob("checkpoint-*.pt")
    path.write_bytes(b"damaged")
    rekey(results)
    [path] = results.rglob("checkpoint-*.pt")
    assert path.read_bytes() == b"damaged"
    assert "cannot be read" in caplog.text


def test_a_folder_without_runs_and_one_that_is_not_there(tmp_path):
    assert rekey(tmp_path) == {}
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(InputError, match="There is no results folder"):
        script.main([f"results_dir={tmp_path / 'nowhere'}"])
    with pytest.raises(InputError, match="Unknown argument 'again'"):
        script.main(["again"])


def test_importing_old_keys_says_how_they_are_renewed(results, tmp_path, caplog):
    ours = tmp_path / "ours"
    ours.mkdir()
    assert import_records(ours, results)[1] == 0
    assert "run python scripts/rekey.py results_dir=FOLDER on its folder" in caplog.text
    rekey(results)
    assert import_records(ours, results)[1:] == (3, 0)
    assert {run.key for run in load_records(ours)} == {run.key for run in load_records(results)}
