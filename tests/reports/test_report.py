"""The script as it is typed, and what it does to a results folder: collecting, importing, rebuilding, comparing."""

from __future__ import annotations

import json
import logging
import math
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lra.errors import InputError
from lra.files import ROOT
from lra.records.arrays import Packed
from lra.records.collection import collect, import_records, load_measured, load_records, unfinished
from lra.records.record import FLOOR, LABELS
from lra.records.wandb_mirror import WandbMirror, load_online, to_record
from lra.reports.comparison import compare, compare_report, holm, mcnemar
from scripts import report
from tests.helpers.records import GENERATED, record, saved, sound, with_published
from tests.helpers.wandb_file import read

SCRIPTS = ROOT / "scripts"
LABELLED = np.random.default_rng(0).integers(0, 10, 10000).astype(np.uint8)


def printed(capsys, *words: str) -> str:
    assert report.main(list(words)) == 0
    return capsys.readouterr().out


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_the_script_prints_what_it_rebuilds_from_collected_records_alone(tmp_path, capsys):
    saved(with_published(tmp_path), record("softmax", 0, 0.4))
    command = [sys.executable, SCRIPTS / "report.py", f"results_dir={tmp_path}"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "| softmax              | 40.0 [39.0, 41.0] (n=1) |" in shown
    path = tmp_path / "measured" / "records.jsonl"
    assert printed(capsys, "collect", f"results_dir={tmp_path}") == f"{path} holds 1 records.\n"
    shutil.rmtree(tmp_path / "runs")
    printed(capsys, "tables", f"results_dir={tmp_path}")
    assert (tmp_path / "tables" / "leaderboard.md").read_text() == shown
    done = subprocess.run([*command, "table=no"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)


def test_a_reader_that_has_enough_ends_the_report_quietly(tmp_path):
    saved(with_published(tmp_path), record("softmax", 0, 0.4))
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, SCRIPTS / "report.py", f"results_dir={tmp_path}"]
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writing)
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["results_dir=nowhere"], "There is no results folder"),
        (["table=skeinformer"], "no table 'skeinformer'. Choose from skeinformer_table1"),
        (["coverage", "experiment=lra"], "no experiment 'lra'. Choose from controlled"),
        (["attn=softmx"], "no attn=softmx. Choose from bigbird"),
        (["compare", "a=softmx", "b=vmean"], "no record of attn='softmx' here. There are: softmax, vmean"),
        (["compare", "a=softmax"], "compare needs two different names"),
        (["format=html"], "terminal, markdown, latex, csv. Got 'html'"),
        (["import"], "import needs a folder"),
        (["import", "from=nowhere"], "There is no folder"),
        (["leaderbord"], "Did you mean leaderboard?"),
    ],
)
def test_bad_input_is_named_with_the_choices(tmp_path, words, message):
    saved(with_published(tmp_path), record("softmax", 0, 0.4), record("vmean", 0, 0.3))
    with pytest.raises(InputError, match=message):
        report.main(
            [f"results_dir={tmp_path}", *words]
            if "=" in words[0]
            else [words[0], f"results_dir={tmp_path}", *words[1:]]
        )


def test_every_verb_answers(tmp_path, capsys):
    saved(with_published(tmp_path), record("softmax", 0, 0.4), record("vmean", 0, None, status="diverged"))
    there = f"results_dir={tmp_path}"
    assert "| softmax" in printed(capsys, "leaderboard", there, "scale=mini", "attn=softmax")
    assert "No records yet" in printed(capsys, "leaderboard", there, "scale=full")
    assert "ms/step" in printed(capsys, "cost", there, "format=terminal")
    assert "diverged" in printed(capsys, "failures", there)
    assert "None of these runs was tested again yet" in printed(capsys, "retests", there)
    assert "1/3" in printed(capsys, "coverage", there, "experiment=skeinformer_table1")
    assert printed(capsys, "table=skeinformer_table1", there, "format=csv").startswith(
        "table,scale,metric,unit,task,length,model"
    )
    assert r"\begin{tabular}" in printed(capsys, "table=lra_table2", there, "format=latex")


def test_tables_are_rebuilt_byte_for_byte(tmp_path):
    saved(with_published(tmp_path), *(record("softmax", seed, 0.4 + seed / 100) for seed in range(3)))
    collect(tmp_path)
    report.main(["tables", f"results_dir={tmp_path}"])
    first = contents(tmp_path / "tables")
    assert {"leaderboard.md", "cost.csv", "coverage.md", "skeinformer_table1.md", "skeinformer_table1.csv"} <= set(
        first
    )
    shutil.rmtree(tmp_path / "tables")
    report.main(["tables", f"results_dir={tmp_path}"])
    assert contents(tmp_path / "tables") == first


def test_the_committed_tables_are_those_of_the_committed_records(tmp_path):
    results = SCRIPTS.parent / "results"
    for name in ("measured", "published", "benchmarks"):
        (tmp_path / name).symlink_to(results / name)
    report.main(["tables", f"results_dir={tmp_path}"])
    for name, content in contents(tmp_path / "tables").items():
        if not name.endswith(".png"):  # compressed pixels are those of one machine's libraries
            assert (results / "tables" / name).read_bytes() == content, f"{name}: run `make tables`"


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
    (folder / "config.json").write_text('{"seed": 3}')
    assert unfinished(tmp_path) == [{"seed": 3}]


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
        ({"config": {}}, "lacks or misstates"),
        ({"key": "0123456789"}, "its configuration was altered"),
        ({"extra": 1}, "a field too many"),
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


def test_mcnemar_is_the_binomial_test():
    assert mcnemar(0, 0) == mcnemar(3, 3) == 1.0
    assert mcnemar(0, 5) == mcnemar(5, 0) == 2 / 32
    assert mcnemar(2, 8) == pytest.approx(2 * sum(math.comb(10, k) for k in range(3)) / 2**10)
    assert 0 < mcnemar(4000, 4400) < 1e-4
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])


def test_comparing_pairs_the_seeds_that_both_have():
    a = {0: np.array([True, True, False]), 1: np.array([True, True, True]), 2: np.array([True] * 3)}
    b = {0: np.array([True, False, True]), 1: np.array([False, False, False])}
    pair = compare(a, b)
    assert (pair.only_a, pair.only_b, pair.seeds) == (4, 1, (0, 1))
    assert pair.p == min(1.0, mcnemar(1, 1) + mcnemar(3, 0))
    with pytest.raises(InputError, match="share no seed"):
        compare(a, {7: b[0]})


def test_ranks_are_told_apart_only_where_the_difference_is_significant(tmp_path, capsys):
    near = [record(name, seed, accuracy) for name, accuracy in (("a", 0.41), ("b", 0.405)) for seed in (0, 1)]
    saved(tmp_path, *near, record("far", 0, 0.3), record("unknown", 0, 0.2), labels=LABELLED)
    for path in tmp_path.glob("runs/listops/unknown/*/predictions.npz"):
        path.unlink()
    (table,) = compare_report(tmp_path, load_records(tmp_path)).tables
    ranks = [(row[1], row[0]) for row in table.rows]
    assert ranks == [("a", "1\N{EN DASH}2"), ("b", "1\N{EN DASH}2"), ("far", "3")]
    text = printed(capsys, "compare", "a=a", "b=far", f"results_dir={tmp_path}", "format=csv")
    assert text.splitlines()[1].startswith("a,far,0.41,0.3,")
    before = compare_report(tmp_path, load_records(tmp_path)).frame
    collect(tmp_path)
    shutil.rmtree(tmp_path / "runs")
    after = compare_report(tmp_path, load_records(tmp_path)).frame  # from what is committed alone
    assert after["p"].tolist() == before["p"].tolist()


def test_a_model_that_follows_a_rule_without_a_model_shows_in_the_comparison(tmp_path, capsys):
    saved(tmp_path, record("a", 0, 0.4), record("a", 1, 0.4), record("b", 0, 0.3), labels=LABELLED)
    add_floors(tmp_path, rule=lambda best, labels: best, majority=lambda best, labels: np.zeros_like(labels))
    (table,) = compare_report(tmp_path, load_records(tmp_path)).tables
    column = {row[1]: row for row in table.rows}
    assert table.head[-1] == "same as floor %"
    assert set(column) == {"a", "b", "floor: rule"}  # the better of the two floors
    assert column["a"][0] == column["floor: rule"][0] == "1\N{EN DASH}2"
    assert float(column["floor: rule"][2]) == pytest.approx(40.0)
    predicted = [np.load(path)["best"] for path in sorted(tmp_path.glob("runs/listops/a/*/predictions.npz"))]
    between_seeds = (predicted[0] == predicted[1]).mean()
    assert float(column["a"][-1]) == pytest.approx(50 * (1 + between_seeds), abs=0.06)
    before = printed(capsys, "compare", f"results_dir={tmp_path}")
    collect(tmp_path)
    shutil.rmtree(tmp_path / "runs")
    assert printed(capsys, "compare", f"results_dir={tmp_path}") == before
    assert "a,floor: rule,0.4,0.4," in printed(capsys, "compare", "a=a", "b=b", f"results_dir={tmp_path}", "format=csv")


def add_floors(results_dir: Path, **rules: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> None:
    """Add what rules make of the first seed of `a` to every run's predictions."""
    with np.load(results_dir / "runs/listops/a/listops-a-0/predictions.npz") as arrays:
        floors = {FLOOR + name: rule(arrays["best"], arrays[LABELS]) for name, rule in rules.items()}
    for path in results_dir.glob("runs/*/*/*/predictions.npz"):
        with np.load(path) as arrays:
            everything = {**arrays, **floors}
        np.savez_compressed(path, **everything)


def test_runs_on_other_data_or_without_true_classes_are_not_compared(tmp_path):
    other = {**GENERATED, "sha256": {"test": "cd" * 32}}
    saved(tmp_path, record("a", 0, 0.4), record("b", 0, 0.4, data=other), labels=LABELLED)
    saved(tmp_path, record("c", 0, 0.4, group="c"))
    with pytest.raises(InputError, match="No two mechanisms.*c, seed 0 .c-0.: no predictions"):
        compare_report(tmp_path, load_records(tmp_path))


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
    points = [{"step": step, "val_accuracy": 0.1 * step, "learning_rate": 1e-4} for step in (5, 10)]
    for point in points:
        mirror.log(point)
    mirror.finish()
    (path,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    deadline = time.monotonic() + 30  # wandb's own process writes, some time after `finish`
    while "key" not in read(path)[1] and time.monotonic() < deadline:
        time.sleep(0.1)
    config, summary, curve = read(path)
    assert to_record(config, summary) == run
    assert [{name: point[name] for name in points[0]} for point in curve] == points


@pytest.fixture(autouse=True)
def _logged(caplog):
    caplog.set_level(logging.WARNING)
