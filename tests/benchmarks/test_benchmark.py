"""The command: bad input, rows as they come, from any folder, mixers among the mechanisms."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from lra.errors import InputError
from lra.files import ROOT
from lra.records.benchmark_rows import load_rows
from scripts import benchmark
from tests.helpers.benchmark_rows import flops_row


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "Say what to measure: attention"),
        (["atention"], "Did you mean attention?"),
        (["attention", "attn=foo"], "attn has no 'foo'. Choose all, or from aaren"),
        (["attention", "lengths=512,x"], "lengths must be an integer, at least 1. Got 'x'."),
        (["model", "memory_gib=-1"], "memory_gib must be a positive number. Got '-1'."),
        (["attention", "trials=3"], "trials= is no option of attention."),
        (["listops", "approximation", "inputs=foo"], "inputs has no 'foo'."),
        (["data", "tasks=foo"], "tasks has no 'foo'."),
        (["report", "out=nowhere"], "There are no rows in"),
    ],
)
def test_bad_input_is_named_before_anything_is_measured(words, message, monkeypatch):
    monkeypatch.setattr(benchmark, "run", lambda *_: pytest.fail("something was measured"))
    with pytest.raises(InputError) as error:
        benchmark.main(words)
    assert message in str(error.value)


def test_rows_are_self_contained_lines(tmp_path, capsys):
    benchmark.main(["flops", "attn=softmax,skeinformer", "length=256", "budget=32", f"out={tmp_path}"])
    rows = [json.loads(line) for line in (tmp_path / "cpu-flops.jsonl").read_text().splitlines()]
    assert [row["backbone"] for row in rows] == ["softmax", "skeinformer"]
    for found in rows:
        assert {"target", "backbone", "n", "budget", "status", "device", "environment", "commit", "date"} <= set(found)
        assert found["environment"]["torch"] == torch.__version__
    assert "softmax" in capsys.readouterr().out
    benchmark.main(["report", f"out={tmp_path}"])
    assert "## cpu-flops" in (tmp_path / "tables.md").read_text()


def test_a_stopped_benchmark_leaves_its_rows_and_the_former_file(tmp_path):
    def rows():
        yield flops_row("softmax", 2.0, 0.0)
        raise KeyboardInterrupt

    (tmp_path / "cpu-flops.jsonl").write_text("former")
    with pytest.raises(KeyboardInterrupt):
        benchmark.run("flops", rows(), "cpu", tmp_path)
    assert (tmp_path / "cpu-flops.jsonl").read_text() == "former"
    (line,) = (tmp_path / "cpu-flops.jsonl.unfinished").read_text().splitlines()
    assert json.loads(line)["backbone"] == "softmax"
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        benchmark.run("flops", rows(), "cpu", tmp_path / "file")


def run_elsewhere(folder: Path, checkout: Path, *words: str) -> str:
    """Run the script of a checkout in a folder outside it; return what it prints."""
    done = subprocess.run(
        [sys.executable, str(checkout / "scripts" / "benchmark.py"), *words],
        cwd=folder, env={**os.environ, "PYTHONPATH": str(checkout)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_it_runs_in_any_folder(tmp_path):
    words = ["lengths=32,64", "repeats=3", "seconds=0.1", "budget=8", "tasks=image", "memory_gib=1", "out=mine"]
    run_elsewhere(tmp_path, ROOT, "model", "max_batch", "attn=vmean", *words)
    assert {path.name for path in (tmp_path / "mine").iterdir()} == {"cpu-model.jsonl", "cpu-max_batch.jsonl"}
    for path in (tmp_path / "mine").iterdir():
        assert {row.status for row in load_rows(path)} == {"ok"}, path
    assert "tables.md" in run_elsewhere(tmp_path, ROOT, "report", "out=mine")


@pytest.mark.slow
def test_every_target_says_what_it_makes_of_a_mixer(tmp_path):
    """In a copy of the code that has one in configs/attn."""
    checkout = tmp_path / "checkout"
    for name in ("lra", "models", "configs", "scripts", "results/published"):
        shutil.copytree(ROOT / name, checkout / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "tests" / "helpers" / "toy_mixer.py", checkout / "models" / "mixers" / "toy.py")
    file = checkout / "configs" / "attn" / "toy.yaml"
    file.write_text("_target_: models.mixers.toy.ToyMixer\n_partial_: true\n")
    words = ["attn=toy", "lengths=32,64", "repeats=3", "seconds=0.1", "tasks=image", "memory_gib=1", "inputs=gaussian"]
    targets = ["attention", "model", "flops", "approximation", "max_batch"]
    printed = run_elsewhere(tmp_path, checkout, *targets, *words, "budget=8", "out=rows")
    assert "skipped: is a mixer, which approximates no attention" in printed
    rows = {name: load_rows(tmp_path / "rows" / f"cpu-{name}.jsonl") for name in targets}
    statuses = {name: {row.status for row in rows[name] if row.backbone == "toy"} for name in targets}
    assert {name: {status[:19] for status in statuses[name]} for name in targets} == {
        "attention": {"ok"}, "model": {"ok"}, "flops": {"ok"},
        "approximation": {"skipped: is a mixer"}, "max_batch": {"ok"},
    }  # fmt: skip
    [counted] = rows["flops"]
    assert (counted.quadratic, counted.linear, counted.published) == (None, None, None)
    assert counted.model_training_flops > counted.model_forward_flops > 0
