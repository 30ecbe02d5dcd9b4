"""The same sweep by every launcher, many workers on one folder, a job that is put back, and tuning."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lra.files import ROOT

SMALL = ("scale=smoke", "trainer.steps=6", "trainer.eval_every=3", "optimizer.warmup_steps=2", "device=cpu",
         "wandb.mode=disabled")  # fmt: skip
# What differs between two runs of the same thing.
INCIDENTAL = {
    "date", "command", "commit", "environment", "train_seconds", "warmup_seconds", "wall_seconds", "ms_per_step",
    "ms_per_step_quartiles", "tokens_per_second", "padded_tokens_per_second", "load_average", "peak_memory_bytes",
}  # fmt: skip

pytestmark = pytest.mark.slow


def start(folder: Path, *words: str) -> subprocess.Popen:
    """Start a sweep; Hydra wants its flag before what it sweeps over."""
    environment = {**os.environ, "LRA_CACHE": str(folder.parent / "cache"), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "run.py", "-m", *SMALL, *words, f"results_dir={folder}"],
        cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def sweep(folder: Path, *words: str) -> list[dict]:
    process = start(folder, *words)
    out, _ = process.communicate(timeout=600)
    assert process.returncode == 0, out
    return records(folder)


def records(folder: Path) -> list[dict]:
    return [json.loads(path.read_text()) for path in sorted(folder.glob("runs/*/*/*/record.json"))]


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("launchers")


@pytest.fixture(scope="module")
def expected(place) -> list[dict]:
    return essential(sweep(place / "basic", "attn=vmean,none", "seed=0,1"))


def essential(found: list[dict]) -> list[dict]:
    return [{name: value for name, value in record.items() if name not in INCIDENTAL} for record in found]


@pytest.mark.parametrize(
    ("launcher", "package", "words"),
    [
        ("processes", "hydra_plugins.hydra_joblib_launcher", []),
        ("slurm_local", "hydra_plugins.hydra_submitit_launcher", []),
        ("ray", "hydra_plugins.hydra_ray_launcher", ["+hydra.launcher.ray.init.num_cpus=2"]),
    ],
)
def test_every_launcher_leaves_the_same_records(place, expected, launcher, package, words):
    pytest.importorskip(package)
    found = sweep(place / launcher, f"hydra/launcher={launcher}", "attn=vmean,none", "seed=0,1", *words)
    assert len(expected) == 4
    assert essential(found) == expected


def test_four_processes_share_a_results_folder_and_an_empty_cache(tmp_path):
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    words = ("hydra/launcher=processes", "hydra.launcher.n_jobs=4", "attn=none", "seed=range(20)")
    found = sweep(tmp_path / "results", *words)
    assert sorted(record["seed"] for record in found) == list(range(20))
    assert {record["status"] for record in found} == {"ok"}
    assert len({json.dumps(record["data"], sort_keys=True) for record in found}) == 1


def test_a_job_that_nears_its_limit_is_put_back_and_goes_on(tmp_path):
    """submitit's own executor without Slurm sends the same signal, and starts the job again."""
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    results = tmp_path / "results"
    words = ("hydra/launcher=slurm_local", "attn=vmean", "trainer.steps=1500", "trainer.eval_every=50")
    process = start(results, *words)
    deadline = time.monotonic() + 200
    while not list(results.glob("runs/*/*/*/metrics.jsonl")):
        assert time.monotonic() < deadline
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.05)
    (holder,) = results.glob("runs/*/*/*/.holder")
    os.kill(json.loads(holder.read_text())["process"], signal.SIGUSR2)
    out, _ = process.communicate(timeout=400)
    assert process.returncode == 0, out
    (record,) = records(results)
    assert (record["status"], record["steps"], len(record["resumptions"])) == ("ok", 1500, 1)


def test_tuning_maximises_validation_accuracy(tmp_path):
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper")
    found = sweep(tmp_path / "results", "hydra/sweeper=tune", "hydra.sweeper.n_trials=3", "attn=vmean")
    assert len({record["config"]["optimizer"]["learning_rate"] for record in found}) == 3
    (summary,) = (tmp_path / "results").rglob("optimization_results.yaml")
    best = max(record["val_accuracy"] for record in found)
    assert f"best_value: {best}" in summary.read_text()
