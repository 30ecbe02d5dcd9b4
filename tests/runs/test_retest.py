"""Testing a trained run again: the same examples give the same number, others what a plain loop over them gives."""

from __future__ import annotations

import dataclasses
import json
import logging
import re
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import torch

from lra.errors import InputError
from lra.machine.stopping import StoppedError, StopRequest
from lra.records.collection import collect, import_records, load_records, load_retests
from lra.records.folder import RunFolder
from lra.records.retest_record import RETESTS_NAME, Retest, read_retests, write_retests
from lra.runs.retest import Tasks, count_common, retest
from lra.runs.schema import resolve
from lra.runs.trained_model import load_model
from lra.tasks import Split
from lra.training import storage
from lra.training.trainer import Trainer
from run import train
from scripts import report
from scripts import retest as script
from tests.helpers.configurations import composed

CPU = torch.device("cpu")
MORE = {"num_test": 700, "data_seed": 1}
RELEASED = [("( ( [MAX 2 ) ] )", 2), ("( ( ( [MIN 3 ) 4 ) ] )", 3), ("( ( ( [SM 3 ) 4 ) ] )", 7)]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A results folder with a run whose draws are none, one whose draws are random, and the cache of their data."""
    folder = tmp_path_factory.mktemp("trained")
    for attn in ("vmean", "skeinformer"):
        words = [f"attn={attn}", "scale=smoke", "wandb.mode=disabled", "device=cpu", "data.padding=max"]
        cfg = composed(*words, "model.padding_in_mean=rows", *places(folder))
        train(resolve(cfg), "listops", attn, words)
    return folder


@pytest.fixture
def results(trained, tmp_path):
    """A copy of the results folder."""
    return Path(shutil.copytree(trained / "results", tmp_path / "results"))


@pytest.fixture
def run(results):
    """The record and the folder of the run without draws."""
    return run_of(results, "vmean")


@pytest.fixture
def again(trained):
    """A function that tests a run again."""

    def call(run, changes, **more) -> Retest:
        return retest(*run, Tasks(changes, cache_dir=str(trained / "cache")), device=CPU, command="x", **more)

    return call


def places(folder: Path) -> list[str]:
    return [f"results_dir={folder / 'results'}", f"cache_dir={folder / 'cache'}"]


def run_of(results: Path, attn: str):
    [record] = [record for record in load_records(results) if record.attn == attn]
    return record, RunFolder.of(results, record)


@pytest.mark.parametrize("attn", ["vmean", "skeinformer"])
def test_on_its_own_examples_a_run_reaches_what_its_record_says(results, again, attn):
    record, folder = run_of(results, attn)
    found = again((record, folder), {})
    classes = np.load(folder.predictions)
    assert found.accuracy == record.test_accuracy
    assert (found.floors, found.data, found.trained_on) == (record.floors, record.data, 0)
    assert found.same_as_floors["root_operator"] == (classes["best"] == classes["floor_root_operator"]).mean()


@pytest.mark.parametrize("changes", [MORE, {"max_length": 20, "data_seed": 1}])
def test_on_others_it_reaches_what_one_example_at_a_time_does(run, again, trained, changes):
    """Padded to the length that the model was trained with, whatever the longest example is now."""
    record, folder = run
    found = again(run, changes)
    pair = Tasks(changes, cache_dir=str(trained / "cache")).of(record)
    own, changed = pair.own, pair.changed
    model, test = load_model(record, folder, record.config, own, CPU).eval(), changed.split("test")
    assert found.data["sizes"]["test"] == len(test.labels)
    assert found.data["sha256"]["test"] != record.data["sha256"]["test"]
    right = 0
    with torch.no_grad():
        for i, label in enumerate(test.labels):
            tokens = torch.zeros(1, 1, own.max_len, dtype=torch.uint8)
            example = np.array(test.tokens[test.offsets[i] : test.offsets[i + 1]])
            tokens[0, 0, : len(example)] = torch.from_numpy(example)
            right += int(model(tokens, tokens > 0).argmax() == label)
    assert found.accuracy == right / len(test.labels)
    assert found.floors == changed.floors()


def test_examples_that_the_run_was_trained_on_are_counted(run, again, caplog):
    """All splits are drawn one after the other: with fewer to train on, the test split begins earlier."""
    found = again(run, {"num_train": 100})
    assert found.trained_on == found.data["sizes"]["test"]
    assert "500 of these 500 examples are among those" in caplog.text
    assert again(run, MORE).trained_on == 0


def test_common_examples_are_those_of_the_same_sequences():
    texts = np.frombuffer(b"abcdabce", np.uint8)
    one = Split(texts, np.array([0, 2, 4, 6, 8]), np.array([0, 1, 0, 1]))  # ab cd ab ce
    two = Split(texts, np.array([0, 2, 4, 6, 8]), np.array([0, 1]))  # (ab, cd) (ab, ce)
    other = Split(texts, np.array([0, 4, 6, 7, 8]), np.array([0, 1]))  # (abcd, ab) (c, e)
    assert count_common(one, one) == 4
    assert count_common(two, two) == 2
    assert count_common(two, other) == 0


def test_what_was_tested_is_not_tested_again(run, again):
    first = again(run, MORE)
    run[1].weights.unlink()
    assert again(run, {**MORE, "max_depth": 3}) == first  # the run's own depth changes nothing
    with pytest.raises(InputError, match="collected records have none"):
        again(run, {})


def test_a_stop_is_heeded_and_leaves_nothing_behind(run, again):
    stop = StopRequest()
    stop.cause = signal.SIGINT
    with pytest.raises(StoppedError):
        again(run, MORE, stop=stop)
    assert not run[1].retests.exists()


def test_what_another_process_found_meanwhile_is_kept(run, again, monkeypatch):
    evaluate = Trainer.evaluate

    def slowly(self, *arguments, **more):
        with monkeypatch.context() as patch:
            patch.setattr(Trainer, "evaluate", evaluate)
            again(run, {})
        return evaluate(self, *arguments, **more)

    monkeypatch.setattr(Trainer, "evaluate", slowly)
    again(run, MORE)
    found, refused = read_retests([run[1].retests])
    assert [one.changes for one in found.values()] == [MORE, {}]
    assert refused == []


def test_a_folder_that_cannot_be_written_is_found_before_the_test(run, again, monkeypatch):
    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("lra.records.folder.FileLock.acquire", refuse)
    monkeypatch.setattr(Trainer, "evaluate", lambda *_: pytest.fail("tested"))
    with pytest.raises(InputError, match="cannot be written: Permission denied. Make it writable"):
        again(run, MORE)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_tset": 5}, "task.num_tset is no setting of listops. It has: brackets, data_seed, max_depth"),
        ({"max_length": 200}, "has learned positions for 33 tokens, and these sequences have up to 200"),
        ({"num_test": 0}, "num_test must be an integer, at least 1"),
        ({"num_test": "???"}, "task.num_test must be of type int, as the run's 500. Got '???'"),
        ({"brackets": "maybe"}, "task.brackets must be of type bool, as the run's True"),
        ({"operator_probability": "abc"}, "must be of type float"),
        ({"max_depth": 3}, "are the same with task.max_depth= as without"),
        ({"length": 300}, "with model.num_positions=300 or with other model.positions (sinusoidal, rotary"),
        ({"length": 100}, "task.length must be an integer, at least 256. Got 100"),
        ({"length": 512, "max_depth": 2}, "and task.min_length=256 asks for more. Raise max_depth, or shorten"),
    ],
)
def test_what_cannot_be_tested_is_named(run, again, changes, message):
    with pytest.raises(InputError, match=re.escape(message)):
        again(run, changes)


def test_a_run_on_released_files_is_not_tested_on_generated_ones(trained, tmp_path, monkeypatch):
    """Where the files are is no part of a record, so it must be said again; and the other way round."""
    released = tmp_path / "raw" / "listops"
    released.mkdir(parents=True)
    for times, part in enumerate(("train", "val", "test"), 20):
        lines = "".join(f"{source}\t{value}\n" for source, value in RELEASED * times)
        (released / f"basic_{part}.tsv").write_text(f"Source\tTarget\n{lines}")
    words = ["attn=vmean", "scale=smoke", "wandb.mode=disabled", "device=cpu", *places(tmp_path)]
    train(resolve(composed(*words, f"task.data_dir={released}")), "listops", "vmean", words)
    record, folder = run_of(tmp_path / "results", "vmean")
    cache = str(tmp_path / "cache")
    with pytest.raises(InputError, match=r"had other data than are at hand: released.*Name the folder"):
        Tasks({}, cache_dir=cache).of(record)
    found = retest(record, folder, Tasks({}, str(released), cache), device=CPU, command="x")
    assert found.accuracy == record.test_accuracy
    with pytest.raises(InputError, match="are the same with task.num_test= as without"):
        Tasks({"num_test": 5}, str(released), cache).of(record)
    monkeypatch.setenv("LRA_DATA", str(tmp_path / "raw"))
    generated, _ = run_of(trained / "results", "vmean")
    with pytest.raises(InputError, match="had other data than are at hand: generated.*unset LRA_DATA"):
        Tasks({}, cache_dir=cache).of(generated)


def test_weights_whose_parts_have_other_names_are_refused_in_a_sentence(run, trained):
    record, folder = run
    own = Tasks({}, cache_dir=str(trained / "cache")).of(record).own
    weights = storage.load(folder.weights, CPU)
    storage.save({name.replace("mixer", "attention"): tensor for name, tensor in weights.items()}, folder.weights)
    with pytest.raises(InputError) as error:
        load_model(record, folder, record.config, own, CPU)
    assert (
        f"has other parts than at commit {record.commit}, for example encoder.blocks.0.attention.key.bias. To train"
        in str(error.value)
    )
    assert "\n" not in str(error.value)


def test_weights_of_other_code_are_refused(run, trained, tmp_path):
    record, folder = run
    own = Tasks({}, cache_dir=str(trained / "cache")).of(record).own

    def changed(node, **values):
        return dataclasses.replace(record, config={**record.config, node: {**record.config[node], **values}})

    for altered, message in (
        (changed("attn", version=99), f"trained version 99 of vmean.*Check out commit {record.commit}"),
        (
            changed("attn", _target_="models.attention.gone.Gone"),
            f"vmean, which is not there any more.*Check out commit {record.commit}",
        ),
        (changed("model", mlp_dim=64), "does not fit the model.*size mismatch.*move .* away and run: python run.py"),
        (dataclasses.replace(record, attn="baseline_cnn"), "only attention mechanisms"),
    ):
        with pytest.raises(InputError, match=message):
            load_model(altered, folder, altered.config, own, CPU)
    folder.weights.write_bytes(b"")
    with pytest.raises(InputError, match=r"weights.pt cannot be read: it has no checksum at its end"):
        load_model(record, folder, record.config, own, CPU)


def test_another_commit_is_said(run, again, caplog):
    record, folder = run
    again((dataclasses.replace(record, commit="0" * 40), folder), {})
    assert f"was trained by commit {'0' * 40}; the code is now" in caplog.text


def test_retests_are_collected_and_imported_once_with_their_runs(run, results, again, tmp_path):
    found = [again(run, changes) for changes in ({}, MORE)]
    for _ in range(2):
        collect(results)
        assert read_retests([results / "measured" / RETESTS_NAME])[0].keys() == {one.key for one in found}
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


def test_of_two_tests_of_the_same_the_collected_one_is_kept_and_the_other_named(run, results, again, caplog):
    first = again(run, {})
    collect(results)
    write_retests(run[1].retests, [dataclasses.replace(first, accuracy=0.5)])
    _, _, refused = collect(results)
    assert load_retests(results) == [first]
    assert refused == 1
    assert f"is another test of {run[0].key} on the same examples" in caplog.text


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda line: '{"schema": 1}', "it lacks run, changes, data"),
        (lambda line: '{"schema": 2}', "its schema is 2, and this program reads 1"),
        (lambda line: json.dumps({**line, "accuracy": 7.0}), "accuracy must be less than or equal to 1"),
        (lambda line: json.dumps({**line, "data": {}}), "data: it lacks source, variant"),
        (lambda line: "\udcff", "Invalid JSON"),
    ],
)
def test_a_damaged_line_is_named_and_left_out_and_nothing_is_rewritten(run, results, again, caplog, damage, message):
    record, folder = run
    line = dataclasses.asdict(again(run, {}))
    path, collected = folder.retests, results / "measured" / RETESTS_NAME
    path.write_text(damage({**line, "run": record.key}), errors="surrogateescape")
    before = path.read_bytes()
    with pytest.raises(InputError, match=rf"retests.jsonl.*{message}.*Mend or remove it first"):
        again(run, MORE)
    assert path.read_bytes() == before
    assert load_retests(results) == []
    assert collect(results)[1:] == (2, 1)
    assert not collected.exists()
    shutil.copy(path, collected)
    kept = {path: path.read_bytes() for path in collected.parent.iterdir()}
    with pytest.raises(InputError, match="Mend or remove it first"):
        collect(results)
    assert kept == {path: path.read_bytes() for path in collected.parent.iterdir()}


def test_the_script_tests_what_it_can_and_names_the_rest(results, trained, capsys, caplog):
    run_of(results, "skeinformer")[1].weights.unlink()
    record, _ = run_of(results, "vmean")
    words = ["task=listops", f"results_dir={results}", f"cache_dir={trained / 'cache'}", "device=cpu"]
    assert script.main([*words, "task.num_test=700", "task.data_seed=1", "task.brackets=true"]) == 1
    assert "Not tested: Run" in caplog.text
    shown = capsys.readouterr().out
    assert "listops, scale=smoke, protocol=skeinformer, on cpu: task.num_test=700 task.data_seed=1\n" in shown
    [found] = load_retests(results)
    assert f"{100 * record.test_accuracy:.1f} ± " in shown
    assert f"{100 * found.accuracy:.1f} ± " in shown
    assert found.command.startswith("python scripts/retest.py task=listops device=cpu task.num_test=700")
    assert found.changes == MORE
    report.main(["retests", f"results_dir={results}", "format=csv"])
    head, line = capsys.readouterr().out.splitlines()
    assert {"accuracy", "half_width", "same_as_floor", "trained_on", "key"} <= set(head.split(","))
    assert record.key in line


def test_baselines_are_left_aside_unless_they_are_asked_for(results, trained, caplog):
    caplog.set_level(logging.ERROR)
    record, _ = run_of(results, "vmean")
    folder = results / "runs" / "listops" / "baseline_ngrams" / "0123456789"
    folder.mkdir(parents=True)
    dataclasses.replace(record, key=folder.name, group=folder.name, attn="baseline_ngrams").write(folder)
    (folder / "weights.pt").write_bytes(b"")
    words = [f"results_dir={results}", f"cache_dir={trained / 'cache'}"]
    assert script.main(words) == 0
    assert script.main([*words, "attn=baseline_ngrams"]) == 1
    assert "only attention mechanisms can be tested again" in caplog.text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["task.num_test"], "expected task.name=value"),
        (["task.num_test=[1"], "expected task.name=value"),
        (["task.num_test=[1]"], "expected task.name=value"),
        (["key=0000000000"], "has 0 finished runs of that name or key"),
        (["task=listopps"], "There is no task=listopps"),
        (["num_test=5"], "Unknown argument 'num_test=5'"),
    ],
)
def test_mistakes_on_the_command_line_are_named(results, words, message):
    with pytest.raises(InputError, match=message):
        script.main([*words, f"results_dir={results}"])
