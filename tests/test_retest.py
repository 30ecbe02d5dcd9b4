"""Testing a trained run again: the same examples give the same number, others what a plain loop over them gives."""

from __future__ import annotations

import dataclasses
import json
import shutil

import numpy as np
import pytest
import torch

from lra.collected import collect, import_records, load_records, load_retests
from lra.errors import InputError
from lra.retest import RETESTS_NAME, change_task, load_model, read_retests, retest
from run import train
from scripts import report
from scripts import retest as script
from tests.configurations import composed

CPU = torch.device("cpu")
MORE = {"num_test": 700, "data_seed": 1}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A results folder with one run, and the cache of its data."""
    folder = tmp_path_factory.mktemp("trained")
    words = ["attn=vmean", "scale=smoke", "wandb.mode=disabled", "trainer.eval_every=30", "device=cpu"]
    cfg = composed(*words, f"results_dir={folder / 'results'}", f"cache_dir={folder / 'cache'}")
    train(cfg, "listops", "vmean", words)
    return folder


@pytest.fixture
def run(trained, tmp_path):
    """A copy of the results folder, the run's record and the run's folder."""
    shutil.copytree(trained / "results", tmp_path / "results")
    [record] = load_records(tmp_path / "results")
    return record, tmp_path / "results" / "runs" / "listops" / "vmean" / record.key


def again(run, changes, cache):
    record, folder = run
    task = change_task(record, changes, str(cache))
    return retest(record, folder, changes, task, device=CPU, command="x"), task


def test_on_its_own_examples_a_run_reaches_what_its_record_says(run, trained):
    record, folder = run
    found, _ = again(run, {}, trained / "cache")
    classes = np.load(folder / "predictions.npz")
    assert found.accuracy == record.test_accuracy
    assert (found.floors, found.data) == (record.floors, record.data)
    assert found.same_as_floors["root_operator"] == (classes["best"] == classes["floor_root_operator"]).mean()


def test_on_others_it_reaches_what_one_example_at_a_time_does(run, trained):
    record, folder = run
    found, task = again(run, MORE, trained / "cache")
    assert found.data["sizes"]["test"] == 700
    assert found.data["sha256"]["test"] != record.data["sha256"]["test"]
    model, test = load_model(record, folder, CPU).eval(), task.split("test")
    right = 0
    with torch.no_grad():
        for i, label in enumerate(test.labels):
            tokens = torch.from_numpy(np.array(test.tokens[test.offsets[i] : test.offsets[i + 1]]))[None, None]
            right += int(model(tokens, torch.ones_like(tokens, dtype=torch.bool)).argmax() == label)
    assert found.accuracy == right / 700
    assert found.floors == task.floors()


def test_what_was_tested_is_not_tested_again(run, trained):
    record, folder = run
    first, _ = again(run, MORE, trained / "cache")
    (folder / "weights.pt").unlink()
    assert again(run, MORE, trained / "cache")[0] == first
    with pytest.raises(InputError, match="collected records have none"):
        retest(record, folder, {}, change_task(record, {}, str(trained / "cache")), device=CPU, command="x")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_tset": 5}, "task.num_tset is no setting of listops. It has: brackets, data_seed, max_depth"),
        ({"max_length": 200}, "sequences of up to 33 tokens, and these have up to 200"),
        ({"num_test": 0}, "num_test must be an integer, at least 1"),
    ],
)
def test_what_cannot_be_tested_is_named(run, changes, message):
    with pytest.raises(InputError, match=message):
        change_task(run[0], changes)


def test_weights_of_other_code_are_refused(run):
    record, folder = run
    newer = {**record.config, "attn": {**record.config["attn"], "version": 99}}
    with pytest.raises(InputError, match=f"version 99 of vmean.*check out commit {record.commit}"):
        load_model(dataclasses.replace(record, config=newer), folder, CPU)
    wider = {**record.config, "model": {**record.config["model"], "mlp_dim": 64}}
    with pytest.raises(InputError, match=r"weights.pt does not fit the model"):
        load_model(dataclasses.replace(record, config=wider), folder, CPU)
    with pytest.raises(InputError, match="only attention mechanisms"):
        load_model(dataclasses.replace(record, attn="baseline_cnn"), folder, CPU)


def test_retests_are_collected_and_imported_once_with_their_runs(run, trained, tmp_path):
    _, folder = run
    found = [again(run, changes, trained / "cache")[0] for changes in ({}, MORE)]
    results = folder.parents[3]
    for _ in range(2):
        collect(results)
        assert read_retests([results / "measured" / RETESTS_NAME]).keys() == {one.key for one in found}
    shutil.rmtree(results / "runs")
    elsewhere, deceived = tmp_path / "elsewhere", tmp_path / "deceived"
    elsewhere.mkdir()
    import_records(elsewhere, results)
    assert load_retests(elsewhere) == load_retests(results)
    path = results / "measured" / "records.jsonl"
    path.write_text(path.read_text().replace('"depth": 2', '"depth": 3'))
    deceived.mkdir()
    import_records(deceived, results)
    assert load_retests(deceived) == []  # of a record that was refused


def test_a_damaged_line_is_named_and_nothing_is_lost(run, trained):
    _, folder = run
    again(run, {}, trained / "cache")
    path = folder / RETESTS_NAME
    path.write_text(path.read_text() + '{"schema": 1}\n')
    before = path.read_text()
    with pytest.raises(InputError, match=r"retests.jsonl, line 2, is no retest: .*Mend or remove that line"):
        again(run, MORE, trained / "cache")
    assert path.read_text() == before


def test_the_script_prints_both_numbers_and_the_report_repeats_them(run, trained, capsys):
    record, folder = run
    results = folder.parents[3]
    words = ["task=listops", f"results_dir={results}", f"cache_dir={trained / 'cache'}", "device=cpu"]
    script.main([*words, "task.num_test=700", "task.data_seed=1"])
    shown = capsys.readouterr().out
    assert "listops, scale=smoke, protocol=skeinformer, on cpu: task.num_test=700 task.data_seed=1" in shown
    [found] = load_retests(results)
    assert f"{100 * record.test_accuracy:.1f} ± " in shown
    assert f"{100 * found.accuracy:.1f} ± " in shown
    assert found.command == "python scripts/retest.py task=listops device=cpu task.num_test=700 task.data_seed=1"
    report.main(["retests", f"results_dir={results}", "format=csv"])
    assert record.key in capsys.readouterr().out
    lines = [json.loads(line) for line in (folder / RETESTS_NAME).read_text().splitlines()]
    assert [(line["changes"], line["run"]) for line in lines] == [(MORE, record.key)]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["task.num_test"], "expected task.name=value"),
        (["key=0000000000"], "None of the 0 finished runs"),
        (["task=listopps"], "There is no task=listopps"),
        (["num_test=5"], "Unknown argument 'num_test=5'"),
    ],
)
def test_mistakes_on_the_command_line_are_named(run, words, message):
    with pytest.raises(InputError, match=message):
        script.main([*words, f"results_dir={run[1].parents[3]}"])
