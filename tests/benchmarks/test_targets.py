"""The benchmark's core, its predictions, its tables, and what each target makes of bad input."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time

import pytest
import torch

from lra.benchmarks import (
    approximation,
    lengths,
    rendering,
)
from lra.benchmarks import length_cases as sweep
from lra.benchmarks.roofline import Rates
from lra.benchmarks.subjects import factory
from lra.benchmarks.targets import TARGETS
from lra.benchmarks.timing import interleave, milliseconds, seconds_of
from lra.benchmarks.transcriptions import transcription
from lra.errors import InputError
from lra.files import ROOT
from lra.machine.memory import peak_of
from scripts import benchmark

CPU = torch.device("cpu")
ENVIRONMENT = {"device_name": "a machine", "num_threads": 2}


def test_parts_are_timed_apart_and_together():
    found = seconds_of({"short": lambda: time.sleep(0.01), "long": lambda: time.sleep(0.03)}, CPU, "both")
    assert 0.01 <= found["short"] < found["long"] < found["both"]
    assert found["both"] == pytest.approx(found["short"] + found["long"])


def test_repetitions_alternate_and_end_with_the_time():
    order = []

    def action(name, seconds=0.0):
        time.sleep(seconds)
        order.append(name)
        return {"both": seconds}

    found = interleave({name: lambda name=name: action(name) for name in "ab"}, 4, seconds=60)
    assert order == list("abbaabba")
    assert {name: len(values["both"]) for name, values in found.items()} == {"a": 4, "b": 4}
    found = interleave({"a": lambda: action("a", 0.01)}, 100, seconds=0)
    assert len(found["a"]["both"]) == 3  # enough for quartiles, whatever the time


def test_a_row_has_median_and_quartiles():
    assert milliseconds([0.001, 0.002, 0.009]) == {
        "ms": pytest.approx(2), "ms_quartiles": [pytest.approx(1.5), pytest.approx(5.5)], "repeats": 3,
    }  # fmt: skip


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can reset a process's peak of memory")
def test_the_peak_is_that_of_the_known_allocation():
    size = 64 * 2**20
    assert peak_of(lambda: torch.ones(size, dtype=torch.uint8), CPU) == pytest.approx(size, rel=0.1)


def test_a_length_that_would_take_too_long_or_too_much_is_not_started():
    history = sweep.History(budget_seconds=10, budget_bytes=2**30)
    for n, seconds, num_bytes in ((512, 0.1, 2**20), (1024, 0.4, 2**22)):
        assert history.objection(n) == ""
        history.add(n, seconds, num_bytes)
    assert history.objection(2048) == ""  # 1.6 s, five times
    assert history.objection(4096) == "not started (predicted 32 s)"
    assert history.objection(32768) == "not started (predicted 2,048 s, 4.0 GiB)"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits a process's memory")
@pytest.mark.slow
def test_memory_that_ends_is_a_row():
    options = {
        "device": "cpu", "lengths": [64, 128, 16384, 32768], "budget": 16, "batch": 1, "repeats": 3, "seconds": 1.0,
        "case_seconds": 1e9, "memory_gib": 0.25,
    }  # fmt: skip
    words = [sys.executable, "-c", SWEEP_WITHOUT_PREDICTION, json.dumps(options)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True)
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["status"] for row in rows if row["n"] > 128] == [
        "out of memory",
        "not started (out of memory at 16,384)",
    ]


SWEEP_WITHOUT_PREDICTION = """
import json, sys
from lra.benchmarks import length_cases as sweep
sweep.History.objection = lambda self, n: ""
for row in sweep.sweep("attention", "softmax_materialised", json.loads(sys.argv[1])):
    print(json.dumps(row))
"""


def row(**more):
    return {
        "backbone": "foo", "n": 512, "direction": "both", "status": "ok", "ms": 12.34, "ms_quartiles": [11.0, 15.0],
        "ratio_to_fused": 0.5, "ratio_to_materialised": 0.125, "peak_bytes": 3 * 2**20, "least_ms": 6.17, "batch": 1,
        "budget": 256, **more,
    }  # fmt: skip


def test_the_table_of_lengths():
    rows = [row(), row(n=1024, ms=24.68), row(n=2048, ms=49.36), row(n=4096, status="out of memory")]
    lines = lengths.render(rows).splitlines()
    assert lines[0] == "ms of a forward and backward pass, batch 1, budget 256, float32"
    cells = [re.split(r" {2,}", line.strip()) for line in lines[3:]]
    assert cells[0] == ["foo", "512", "12.3", "11.0 to 15.0", "0.500", "0.125", "-", "3.0", "2.00"]
    assert cells[2][-2:] == ["1.00 ± 0.00", "≤ 512"]
    assert cells[3] == ["4,096", "out of memory"]


def test_no_case_is_faster_than_its_slowest_kind_of_work():
    rates = Rates(matmul_flops=1e3, exponentials=1e2, copied_bytes=10)
    assert rates.least_ms(2e3, 1e2, 10) == 2000
    assert rates.least_ms(2e3, 1e3, 10) == 10_000
    assert rates.least_ms(2e3, 1e2, 50) == 5000


def test_tables_set_numbers_to_the_right():
    assert rendering.table(("name", "value"), [["a", "1"], ["bcdef", "10"]]) == (
        "name   value\n-----  -----\na          1\nbcdef     10"
    )
    assert [rendering.number(x) for x in (0, 0.00123456, 1.5, 1234.5, None)] == ["0", "0.00123", "1.50", "1,234", "-"]


@pytest.mark.parametrize(
    "name",
    ["skeinformer", "skeinformer_no_pilot", "skeinformer_uniform", "skeinformer_simple_norm", "skeinformer_no_norm"],
)
def test_the_error_is_nought_where_the_budget_is_the_length(name):
    n = 48
    q, k, v = (torch.randn(2, 2, n, 8, dtype=torch.float64) for _ in range(3))
    found = approximation.relative_errors(factory(name, n), q, k, v)
    assert max(found.values()) < 1e-12
    assert approximation.relative_errors(factory(name, n // 4), q, k, v)["spectral_error"] > 0.05


def test_nothing_in_the_place_of_attention_has_error_one():
    class Zero(torch.nn.Module):
        def forward(self, q, k, v, mask):
            return torch.zeros_like(v)

        def diagnostics(self, q, k, v, mask):
            return {"captured_mass": torch.tensor(0.25)}

    q, k, v = (torch.randn(1, 2, 16, 8) for _ in range(3))
    found = approximation.relative_errors(lambda **_: Zero(), q, k, v, diagnose=True)
    assert found == {"spectral_error": 1.0, "frobenius_error": 1.0, "captured_mass": 0.25}


def test_agreement_counts_the_cases_that_have_an_order():
    names = ("skeinformer", "skeinformer_no_pilot", "skeinformer_uniform", "skeinformer_simple_norm", "linformer")
    rows = [
        {
            "backbone": name,
            "input": "gaussian",
            "n": 512,
            "budget": d,
            "spectral_error": error,
            "spectral_error_half_width": 0.06,
            "status": "ok",
        }
        for d, errors in ((8, (0.1, 0.2, 0.3, 0.4, 0.5)), (16, (0.1, 0.3, 0.2, 0.4, 0.05)))
        for name, error in zip(names, errors, strict=True)
    ]
    # What is out of order differs by less than the intervals.
    assert [found[1:] for found in approximation.agreement(rows)] == [(0, 0, 0), (1, 0, 2), (1, 0, 2)]


# Nystromformer's pseudo-inverse begins at another scale and is not quite converged; Performer's is a mean of draws.
TOLERANCES = {"nystromformer": 0.01, "performer": 0.05}


@pytest.mark.parametrize("name", ["skeinformer", "nystromformer", "linformer", "performer", "linear_transformer"])
def test_a_transcription_says_what_its_backbone_says(name):
    """Where both are exact, as exact attention; elsewhere on average over draws."""
    n, budget = 32, 32
    q, k, v = (torch.randn(2, 2, n, 8) for _ in range(3))
    mask = torch.ones(2, n, dtype=torch.bool)
    shape = {"num_heads": 2, "head_dim": 8, "max_len": n, "dropout": 0.0}
    ours, plain = factory(name, budget)(**shape), transcription(name, budget)(**shape)
    if name == "linformer":
        ours.load_state_dict(plain.state_dict())
    repeats = 600 if name == "performer" else 1
    with torch.no_grad():
        a, b = (sum(module(q / 2, k / 2, v, mask) for _ in range(repeats)) / repeats for module in (ours, plain))
    assert torch.linalg.norm(a - b) / torch.linalg.norm(a) < TOLERANCES.get(name, 1e-4)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "Say what to measure: attention"),
        (["atention"], "Did you mean attention?"),
        (["attention", "attn=foo"], "attn has no 'foo'. Choose all, or from bigbird"),
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


def test_committed_rows_can_be_laid_out():
    for path in (ROOT / "results" / "benchmarks").glob("*.jsonl"):
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        assert rows, path
        for found in rows:
            assert {"target", "status", "environment", "commit"} <= set(found), path
        assert TARGETS[rows[0]["target"]].render(rows), path


@pytest.mark.slow
def test_a_sweep_has_both_baselines_and_every_direction(tmp_path):
    benchmark.main(["attention", "attn=performer", "lengths=64,128,256", "repeats=3", "budget=16", f"out={tmp_path}"])
    rows = [json.loads(line) for line in (tmp_path / "cpu-attention.jsonl").read_text().splitlines()]
    assert list(dict.fromkeys(found["backbone"] for found in rows)) == ["softmax", "softmax_materialised", "performer"]
    for found in rows:
        assert found["status"] == "ok"
        assert found["ms_quartiles"][0] <= found["ms"] <= found["ms_quartiles"][1]
        assert found["ratio_to_fused"] > 0
        assert found["flops"] >= 0
        assert ("peak_bytes" in found) == (found["direction"] == "both")
        assert ("ratio_to_transcription" in found) == (found["backbone"] == "performer")
    assert {found["direction"] for found in rows} == {"forward", "backward", "both"}
    stored = [found["ratio_to_materialised"] for found in rows if found["backbone"] == "softmax_materialised"]
    assert stored == [pytest.approx(1)] * 9


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "attn"), [("image", "softmax_materialised"), ("text", "vmean")]
)  # 256 symbols, and 257
def test_the_largest_batch_is_less_than_wanted_where_memory_is_short(task, attn, tmp_path):
    benchmark.main(["max_batch", f"tasks={task}", f"attn={attn}", "memory_gib=0.5", f"out={tmp_path}"])
    (found,) = [json.loads(line) for line in (tmp_path / "cpu-max_batch.jsonl").read_text().splitlines()]
    assert found["status"] == "ok"
    assert 1 <= found["largest"] < found["wanted"]


def test_the_limit_of_memory_is_torchs_to_report():
    code = (
        "import torch; from lra.machine.memory import limit_memory\n"
        "limit_memory(2**28, torch.device('cpu'))\n"
        "try: torch.ones(2**30)\n"
        "except RuntimeError as error: print('cannot' if \"can't allocate\" in str(error) else error)"
    )
    if sys.platform != "linux":
        pytest.skip("only Linux limits a process's memory")
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "cannot"


@pytest.mark.slow
def test_the_loop_and_the_start_of_a_training_are_measured(tmp_path):
    benchmark.main(["train", "parts=loop,start", "repeats=1", "steps=20", f"out={tmp_path}"])
    rows = [json.loads(line) for line in (tmp_path / "cpu-train.jsonl").read_text().splitlines()]
    assert [found["part"] for found in rows] == ["loop overhead"] * 2 + ["to the first step"] * 2
    assert all(found["target_text"] and found["met"] in (True, False) for found in rows)
    assert all(1 < found["value"] < 60 for found in rows[2:])


def test_a_stopped_benchmark_leaves_its_rows_and_the_former_file(tmp_path):
    def rows():
        yield {"status": "ok", "backbone": "softmax"}
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
