"""The command itself, in processes of its own: what a user types, sees, kills and mistypes."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from lra.files import ROOT


def heed_interrupts() -> None:
    """Undo what a shell does to its background jobs, of which the tests may be one: they ignore SIGINT."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.fixture
def command(tmp_path):
    """A function that runs run.py with its results and cache under tmp_path."""
    environment = {**os.environ, "LRA_CACHE": str(tmp_path / "cache"), "WANDB_SILENT": "true"}

    def start(*arguments: str, results: str = "results", more: dict[str, str] | None = None) -> subprocess.Popen:
        words = [sys.executable, "run.py", *arguments, f"results_dir={tmp_path / results}"]
        pipe = subprocess.PIPE
        return subprocess.Popen(
            words,
            cwd=ROOT,
            env={**environment, **(more or {})},
            stdout=pipe,
            stderr=pipe,
            text=True,
            preexec_fn=heed_interrupts,
        )

    def finish(*arguments: str, **options: Any) -> subprocess.CompletedProcess:
        process = start(*arguments, **options)
        out, err = process.communicate(timeout=300)
        return subprocess.CompletedProcess(arguments, process.returncode, out, err)

    finish.start = start
    return finish


def records(folder: Path) -> list[dict]:
    return [json.loads(path.read_text()) for path in sorted(folder.glob("runs/*/*/*/record.json"))]


def test_one_command_trains_and_prints_accuracy_against_the_floors(command, tmp_path):
    done = command("task=listops", "attn=skeinformer", "scale=smoke", "wandb.mode=disabled")
    assert done.returncode == 0, done.stderr
    for words in ("test accuracy", "root_operator", "majority", "ms a step", "record.json"):
        assert words in done.stdout
    assert re.search(r"majority +\d+\.\d%   floor, same class in \d+\.\d%", done.stdout)
    (record,) = records(tmp_path / "results")
    assert record["status"] == "ok"
    assert record["config"]["attn"]["num_samples"] == 8
    assert "sizes" not in record["config"]
    assert {"models.attention.skeinformer", "models.ops.masks"} <= {*record["environment"]["source"]}
    assert str(tmp_path) not in json.dumps({name: record[name] for name in ("config", "data")})


def test_a_model_may_have_the_parameters_of_another_and_lose_tokens_on_its_way(command, tmp_path):
    """The other backbone is composed within a job of Hydra's."""
    words = ("attn=luna", "model.match_params=fnet", "model.reducer.kind=k_centre_r", "scale=smoke")
    done = command(*words, "wandb.mode=disabled", "trainer.steps=2", "trainer.eval_every=2", "optimizer.warmup_steps=0")
    assert done.returncode == 0, done.stderr
    (record,) = records(tmp_path / "results")
    model = record["config"]["model"]
    assert record["status"] == "ok"
    assert (model["match_params"], model["reducer"]) == ("fnet", {"kind": "k_centre_r", "retention": 0.8})
    assert model["dim"] < 64


@pytest.mark.slow
def test_a_sweep_gives_a_table_of_means_over_seeds(command, tmp_path):
    sweep = ("-m", "attn=softmax,vmean,skeinformer", "seed=0,1", "scale=smoke")
    assert command(*sweep).returncode == 0
    assert len(records(tmp_path / "results")) == 6
    report = subprocess.run(
        [sys.executable, ROOT / "scripts" / "report.py", f"results_dir={tmp_path / 'results'}"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    rows = {line.split("|")[1].strip(): line for line in report.stdout.splitlines() if line.startswith("|")}
    assert all("(n=2)" in rows[attn] for attn in ("softmax", "vmean", "skeinformer"))
    assert {"floor: majority", "floor: root_operator"} <= set(rows)
    wandb_files = list((tmp_path / "results").glob("runs/*/*/*/wandb/offline-run-*/*.wandb"))
    assert len(wandb_files) == 6
    before = [path.stat().st_mtime_ns for path in sorted((tmp_path / "results").glob("runs/*/*/*/record.json"))]
    assert command(*sweep).returncode == 0
    after = [path.stat().st_mtime_ns for path in sorted((tmp_path / "results").glob("runs/*/*/*/record.json"))]
    assert after == before


@pytest.mark.slow
def test_a_sweep_names_its_failures_and_goes_on(command, tmp_path):
    """A task without data is a gap, a learning rate of 1e30 a result, and neither ends the sweep."""
    words = ("-m", "task=listops,retrieval", "attn=vmean,none", "optimizer.learning_rate=1e-3,1e30", "scale=smoke",
             "wandb.mode=disabled", "trainer.eval_every=1")  # fmt: skip
    nowhere = "http://127.0.0.1:9"  # nothing is downloaded, whatever network there is
    more = {"LRA_DATA": str(tmp_path), "http_proxy": nowhere, "https_proxy": nowhere}
    done = command(*words, more=more)
    assert done.returncode == 0, done.stderr
    assert {"sweep: 2 ok, 2 diverged", "sweep: 2 diverged, 2 ok"} & {*done.stdout.splitlines()}
    assert done.stdout.count("diverged: listops") == 2
    assert "No data for retrieval, the sweep goes on without" in done.stdout
    assert len(list((tmp_path / "results").glob("runs/retrieval/missing-*.json"))) == 1


@pytest.mark.slow
def test_a_sweep_goes_on_without_what_a_mechanism_cannot_take(command, tmp_path):
    words = ("attn=s4d", "model.positions=rotary", "scale=smoke", "wandb.mode=disabled")
    refusal = "model.positions=rotary acts in the heads of an attention, and S4D is a mixer"
    alone = command(*words)
    assert (alone.returncode, alone.stderr.startswith(refusal)) == (1, True)
    done = command("-m", "attn=s4d,vmean,softmax", *words[1:])
    assert done.returncode == 0, done.stderr
    assert f"The sweep goes on without this run: {refusal}" in done.stdout
    assert "and VmeanAttention never reads its query and key" in done.stdout
    assert [record["attn"] for record in records(tmp_path / "results")] == ["softmax"]


@pytest.mark.slow
def test_two_processes_give_the_same_metrics_bit_for_bit(command, tmp_path):
    outcomes = []
    for results in ("a", "b"):
        done = command("attn=skeinformer", "scale=smoke", "wandb.mode=disabled", results=results)
        assert done.returncode == 0
        (record,) = records(tmp_path / results)
        (curve,) = (tmp_path / results).glob("runs/*/*/*/metrics.jsonl")
        points = [json.loads(line) for line in curve.read_text().splitlines()]
        for point in points:
            del point["train_seconds"]
        outcomes.append((record["key"], record["test_accuracy"], record["environment"]["num_threads"], points))
    assert outcomes[0] == outcomes[1]


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_killed_run_leaves_no_half_record_and_the_same_command_finishes(command, tmp_path, how):
    words = ("attn=vmean", "scale=smoke", "wandb.mode=disabled", "optimizer.warmup_steps=5")
    process = command.start(*words, "trainer.steps=100000", "trainer.eval_every=20")
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob("results/runs/*/*/*/metrics.jsonl")):
        assert time.monotonic() < deadline
        assert process.poll() is None, process.communicate()
        time.sleep(0.1)
    process.send_signal(how)
    _, err = process.communicate(timeout=60)
    assert process.returncode == (-how if how == signal.SIGKILL else 130)
    if how != signal.SIGKILL:
        assert re.search(r"stopped after step \d+ of 100000\. The same command goes on from there\.$", err.strip())
        assert "Traceback" not in err
    left = records(tmp_path / "results")
    assert [record["status"] for record in left] == ([] if how == signal.SIGKILL else ["interrupted"])
    (folder,) = tmp_path.glob("results/runs/*/*/*/")
    assert not list(folder.glob(".record.json.*"))
    again = command(*words, "trainer.steps=40", "trainer.eval_every=20")
    assert again.returncode == 0
    assert "ok" in [record["status"] for record in records(tmp_path / "results")]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["lr=1e-3"], "lr is no key. Did you mean optimizer.learning_rate?"),
        (["+lr=1e-3"], "lr is no key. Did you mean optimizer.learning_rate?"),
        (["-m", "attn=softmax,vmean", "++epochs=10"], "epochs is no key. Did you mean trainer.steps"),
        (["-m", "attn=softmax,linear"], "attn=linear is no choice. Did you mean attn=linear_transformer?"),
        (["wandb=online"], "Did you mean wandb.mode=online?"),
    ],
)
def test_a_mistake_in_a_name_is_told_before_torch_is_imported(words, message, tmp_path):
    code = (
        "import runpy, sys\n"
        "try:\n    runpy.run_path('run.py', run_name='__main__')\n"
        "except SystemExit as end:\n    print(end.code, 'torch' in sys.modules)"
    )
    command = [sys.executable, "-c", code, *words, f"results_dir={tmp_path}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert message in done.stderr.splitlines()[0]
    assert done.stdout.splitlines()[-1] == "1 False"
    assert not list(tmp_path.glob("runs/*/*/"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["attn=skienformer"], "skeinformer_no_pilot"),
        (["task=listop"], "listops"),
        (["scale=tiny"], "Did you mean scale=smoke?"),
        (["+tasks.listops.lr=3"], "+tasks.listops.lr=3 changes nothing in this run"),
        (["scale=smoke", "sizes.mini.num_val=3"], "sizes.mini.num_val=3 changes nothing in this run"),
        (["+row.lr=3"], "+row.lr=3 is no setting: this row is read from the tables"),
        (["trainer.stepz=3"], "Did you mean trainer.steps? Keys of trainer: steps, batch_size"),
        (["modle.dim=3"], "modle.dim is no key. Did you mean model.dim? Keys of the top level: seed, device"),
        (["attn.num_samples=3"], "Keys of attn: none"),
        (["scale=smoke", "seed=abc"], "seed must be an integer, at least 0. Got 'abc'."),
        (["scale=smoke", "attn=skeinformer", "budget=abc"], "budget must be an integer, at least 1. Got 'abc'."),
        (["attn._target_=nowhere.Mine"], "attn._target_=nowhere.Mine cannot be imported: ModuleNotFoundError"),
        (["~attn._partial_"], "attn needs `_target_: package.module.Class` and `_partial_: true`"),
        (["sed=3"], "Did you mean seed?"),
        (["scale=smoke", "device=gpu"], "device must be one of auto, cpu, cuda. Got 'gpu'."),
        (["scale=smoke", "trainer.micro_batch=99"], "from 1 to trainer.batch_size=16. Got 99"),
        (
            ["scale=smoke", "task.data_dir=/nonexistent"],
            "Cannot read the folder of task.data_dir=/nonexistent (No such file or directory). It must be",
        ),
        (["scale=smoke", "cache_dir=/proc/none"], "cache_dir="),
    ],
)
def test_a_mistake_gets_one_clear_error(command, tmp_path, arguments, message):
    done = command(*arguments)
    assert done.returncode != 0
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not records(tmp_path / "results")
