"""What is read of a results folder, and what collecting and importing make of it."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path

import numpy as np
import pytest

from lra.errors import InputError
from lra.records.arrays import Packed
from lra.records.collection import collect, import_records, load_measured, load_records, unfinished
from lra.records.record import LABELS
from scripts import report
from tests.helpers.records import LABELLED, contents, record, saved, sound


def test_collecting_keeps_final_records_once_and_repeats_byte_for_byte(tmp_path):
    runs = [record("softmax", 1, 0.4), record("softmax", 0, 0.4), record("vmean", 0, None, status="failed")]
    saved(tmp_path, *runs, labels=LABELLED)
    assert collect(tmp_path)[1:] == (2, 0)
    first = contents(tmp_path / "measured")
    assert set(first) == {"records.jsonl", "curves.parquet", "predictions.parquet"}
    collect(tmp_path)
    assert contents(tmp_path / "measured") == first
    shutil.rmtree(tmp_path / "runs")
    assert collect(tmp_path)[1:] == (2, 0)
    assert contents(tmp_path / "measured") == first
    assert [one.seed for one in load_measured(tmp_path)] == [0, 1]
    packed = Packed.load(tmp_path / "measured")
    assert packed.curves["listops-softmax-0"][1] == {"step": 2, "val_accuracy": 0.2, "epoch": 0.5}
    assert np.array_equal(packed.predictions["ab" * 32, LABELS], LABELLED)
    assert (packed.predictions["listops-softmax-1", "last"] == LABELLED).mean() == 0.4


def test_collecting_adds_what_a_known_record_lacked(tmp_path):
    saved(tmp_path, record("softmax", 0, 0.4), labels=LABELLED)
    collect(tmp_path)
    before = contents(tmp_path / "measured")
    (tmp_path / "measured" / "curves.parquet").unlink()
    (tmp_path / "measured" / "predictions.parquet").unlink()
    collect(tmp_path)
    assert contents(tmp_path / "measured") == before


def test_of_two_records_with_one_key_the_collected_one_is_kept_and_the_other_named(tmp_path, caplog):
    saved(tmp_path, record("softmax", 0, 0.4))
    collect(tmp_path)
    shutil.rmtree(tmp_path / "runs")
    saved(tmp_path, record("softmax", 0, 0.5))
    assert collect(tmp_path)[1:] == (1, 1)
    assert load_measured(tmp_path)[0].test_accuracy == 0.4
    assert "listops-softmax-0 has the key listops-softmax-0 of another record" in caplog.text


def test_a_finished_record_counts_more_than_an_unfinished_one_of_its_key(tmp_path):
    saved(tmp_path, record("softmax", 0, 0.4))
    collect(tmp_path)
    shutil.rmtree(tmp_path / "runs")
    saved(tmp_path, record("softmax", 0, None, status="interrupted"))
    assert [run.status for run in load_records(tmp_path)] == ["ok"]


@pytest.mark.parametrize(
    "damage", ["{", "[]", '{"schema": 1}', "\x00", "data", "accuracy", "status"], ids=lambda text: repr(text)
)
def test_a_corrupt_record_among_many_is_named_counted_and_left_out(tmp_path, caplog, damage):
    saved(tmp_path, *(record("softmax", seed, 0.4) for seed in range(5)), record("vmean", 0, 0.3))
    path = tmp_path / "runs" / "listops" / "vmean" / "listops-vmean-0" / "record.json"
    whole = json.loads(path.read_text())
    changed = {"data": {}, "accuracy": 7.0, "status": "fine"}
    name = {"accuracy": "test_accuracy"}.get(damage, damage)
    path.write_text(json.dumps({**whole, name: changed[damage]}) if damage in changed else damage)
    assert len(load_records(tmp_path)) == 5
    assert str(path) in caplog.text
    assert "1 left out, 5 read." in caplog.text


def test_a_damaged_line_is_left_out_of_tables_and_stops_collecting(tmp_path, caplog):
    saved(tmp_path, record("softmax", 0, 0.4))
    path, *_ = collect(tmp_path)
    path.write_text(path.read_text() + "{\n")
    assert len(load_measured(tmp_path)) == 1
    assert f"{path}, line 2" in caplog.text
    with pytest.raises(InputError, match="line 2.*about to be rewritten"):
        collect(tmp_path)


def test_runs_without_a_record_are_known_by_their_configuration(tmp_path):
    saved(tmp_path, record("softmax", 0, 0.4))
    folder = tmp_path / "runs" / "listops" / "vmean" / "k"
    folder.mkdir(parents=True)
    config = {
        "seed": 3,
        "scale": "mini",
        "device": "cpu",
        **{node: {"name": "x"} for node in ("task", "attn", "protocol")},
    }
    (folder / "config.json").write_text(json.dumps(config))
    assert unfinished(tmp_path) == [config]


def test_records_of_others_are_merged_with_curves_and_predictions(tmp_path):
    theirs, ours = tmp_path / "theirs", tmp_path / "ours"
    saved(theirs, sound("softmax", 0, 0.4), sound("softmax", 1, 0.4), labels=LABELLED)
    saved(ours, sound("vmean", 0, 0.3), sound("softmax", 1, 0.4))
    collect(theirs)
    assert import_records(ours, theirs / "measured")[1:] == (2, 0)
    assert collect(ours)[1:] == (3, 0)
    assert len(Packed.load(ours / "measured").curves) == 3
    again = tmp_path / "again"
    again.mkdir()
    assert import_records(again, theirs)[1:] == (2, 0)
    assert contents(again / "measured") == contents(theirs / "measured")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": 2}, "its schema is 2, and this program reads 1"),
        ({"seed": 5}, "are not those of its configuration"),
        ({"config": {}}, "config: it lacks attn"),
        ({"key": "0123456789"}, "its configuration was altered"),
        ({"extra": 1}, "it has fields that it should not have: extra"),
    ],
)
def test_an_altered_record_is_refused_by_name(tmp_path, caplog, change, message):
    theirs, ours = tmp_path / "theirs", tmp_path / "ours"
    saved(theirs, sound("softmax", 0, 0.4), sound("vmean", 0, 0.3))
    ours.mkdir()
    (path,) = theirs.glob("runs/*/vmean/*/record.json")
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    assert import_records(ours, theirs)[1:] == (1, 1)
    assert str(path) in caplog.text
    assert message in caplog.text
    assert report.main(["import", f"from={theirs}", f"results_dir={ours}"]) == 1


def test_altering_a_setting_shows_in_the_hash(tmp_path, caplog):
    theirs = tmp_path / "theirs"
    run = sound("softmax", 0, 0.4)
    run.config["trainer"] = {"steps": 5}
    saved(theirs, run)
    assert import_records(tmp_path, theirs)[1:] == (0, 1)
    assert "its configuration was altered" in caplog.text


def test_a_folder_that_cannot_be_written_is_one_clear_error(tmp_path):
    saved(tmp_path, record("softmax", 0, 0.4))
    (tmp_path / "measured").write_text("in the way")
    with pytest.raises(InputError, match="measured"):
        collect(tmp_path)
    with pytest.raises(InputError, match="cannot be written.*results_dir="):
        import_records(Path("/proc/self"), tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds neither"):
        import_records(tmp_path, tmp_path / "empty")


@pytest.fixture(autouse=True)
def _logged(caplog):
    caplog.set_level(logging.WARNING)
