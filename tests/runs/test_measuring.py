"""What makes test examples hard is measured when a run ends, and afterwards for runs that lack it."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from lra.records.arrays import DIFFICULTY, Packed
from lra.records.collection import collect
from lra.records.folder import RunFolder
from lra.runs import run as runs
from lra.tasks import difficulty
from lra.tasks.listops import ListOps
from scripts import report
from tests.helpers.records import record, saved
from tests.helpers.toy import ToyTask
from tests.helpers.training import TRAINER, model_for

OPTIONS = {"max_depth": 4, "max_args": 5, "min_length": 15, "max_length": 60, "num_train": 30, "num_val": 10,
           "num_test": 50}  # fmt: skip


@pytest.fixture
def measured(tmp_path):
    """A finished run on ListOps, its task, and the options that name where its data are."""
    task = ListOps(cache_dir=tmp_path / "cache", **OPTIONS)
    config = {"task": {"_target_": "lra.tasks.listops.ListOps", "_partial_": True, "name": "listops", **OPTIONS}}
    data = json.loads(json.dumps(task.describe()))
    one = record("softmax", 0, 0.4, data=data, config={**config, "attn": {"name": "softmax"}, "seed": 0})
    results = tmp_path / "results"
    saved(results, one, labels=task.split("test").labels.astype(np.uint8))
    return one, task, results, [f"results_dir={results}", f"cache_dir={tmp_path / 'cache'}"]


def test_runs_that_lack_it_get_it_in_their_folders_and_collected_ones_beside_them(measured, capsys):
    one, task, results, words = measured
    assert report.main(["measure_difficulty", *words]) == 0
    assert capsys.readouterr().out == (
        f"listops (generated, brackets, {one.data['sha256']['test'][:8]}): length, depth, operators, distance.\n"
    )
    expected = {name: values.tolist() for name, values in task.difficulties().items()}
    folder = RunFolder.of(results, one)
    assert {name: values.tolist() for name, values in folder.read_difficulty(one).items()} == expected
    folder.difficulty.unlink()
    collect(results)
    assert not (results / "measured" / DIFFICULTY).exists()
    shutil.rmtree(results / "runs")
    assert report.main(["measure_difficulty", *words]) == 0
    packed = Packed.load(results / "measured").measures(one.data["sha256"]["test"])
    assert {name: values.tolist() for name, values in packed.items()} == expected
    assert report.main(["difficulty", words[0], "by=operators"]) == 0


def test_other_data_than_the_run_had_are_named_and_nothing_is_written(measured, caplog):
    one, _, results, words = measured
    path = RunFolder.of(results, one).record
    changed = json.loads(path.read_text())
    changed["config"]["task"]["data_seed"] = 5
    path.write_text(json.dumps(changed))
    assert report.main(["measure_difficulty", *words]) == 1
    assert "Not measured: listops (generated, brackets, " in caplog.text
    assert "Here are other data" in caplog.text
    assert not RunFolder.of(results, one).difficulty.exists()


class Measured(ToyTask):
    def difficulties(self):
        return {"length": np.diff(self.split("test").offsets)}


class Unmeasurable(ToyTask):
    def difficulties(self):
        raise OSError("the raw data are gone")


def trained(results_dir, task):
    config = {node: {"name": name, "version": 1} for node, name in
              (("task", "toy"), ("attn", "softmax"), ("protocol", "plain"))}  # fmt: skip
    job = runs.Job(
        config={**config, "scale": "smoke", "seed": 0}, task=task, build_model=lambda: model_for(ToyTask()),
        trainer=TRAINER, device=runs.torch.device("cpu"), results_dir=results_dir, checkpoint_seconds=0, profile=False,
        command="python run.py", wandb={"mode": "disabled", "project": "lra", "entity": None},
    )  # fmt: skip
    return runs.run(job)


def test_a_run_leaves_it_beside_its_predictions(tmp_path, capsys):
    one, folder = trained(tmp_path, Measured())
    assert one.status == "ok"
    found = difficulty.read(folder.difficulty)
    assert found["length"].tolist() == Measured().difficulties()["length"].tolist()
    assert report.main(["difficulty", f"results_dir={tmp_path}", "by=length"]) == 0
    assert "toy, scale=smoke, protocol=plain, on cpu: by length" in capsys.readouterr().out


@pytest.mark.parametrize("task", [ToyTask(), Unmeasurable()])
def test_a_task_that_says_nothing_of_it_is_trained_on_all_the_same(tmp_path, task, caplog):
    one, folder = trained(tmp_path, task)
    assert one.status == "ok"
    assert not folder.difficulty.exists()
    assert ("the raw data are gone" in caplog.text) == isinstance(task, Unmeasurable)


@pytest.mark.parametrize("target", ["os.getcwd", "subprocess.Popen", "lra.tasks.gone.Gone", None])
def test_of_what_a_record_names_only_a_task_is_called(measured, caplog, target):
    one, _, results, words = measured
    path = RunFolder.of(results, one).record
    changed = json.loads(path.read_text())
    changed["config"]["task"] = {"_target_": target, "args": "true"} if target else {}
    path.write_text(json.dumps(changed))
    assert report.main(["measure_difficulty", *words]) == 1
    assert "Its task cannot be made: " in caplog.text
