"""One backbone at ascending lengths: what is not started, what ends for want of memory, what a mixer is timed on."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from lra.benchmarks import length_cases, passes
from lra.files import ROOT
from lra.records.benchmark_rows import parse_row
from tests.helpers.toy_mixer import ToyMixer

RATES = {"matmul_flops": 1e9, "exponentials": 1e9, "copied_bytes": 1e9}


def test_a_length_that_would_take_too_long_or_too_much_is_not_started():
    history = length_cases.History(budget_seconds=10, budget_bytes=2**30)
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
        "case_seconds": 1e9, "memory_gib": 0.25, "rates": RATES,
    }  # fmt: skip
    words = [sys.executable, "-c", SWEEP_WITHOUT_PREDICTION, json.dumps(options)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True)
    rows = [parse_row("attention", line) for line in done.stdout.splitlines()]
    assert [row.status for row in rows if row.n > 128] == [
        "out of memory",
        "not started (out of memory at 16,384)",
    ]


SWEEP_WITHOUT_PREDICTION = """
import json, sys
from lra.benchmarks import length_cases
length_cases.History.objection = lambda self, n: ""
settings = length_cases.Settings(**json.loads(sys.argv[1]))
for row in length_cases.sweep("attention", "softmax_materialised", settings):
    print(length_cases.format_row(row))
"""


def test_a_step_of_a_model_around_a_mixer_is_measured(monkeypatch):
    makers = {"toy": ToyMixer, passes.FUSED: passes.factory(passes.FUSED, 16)}
    monkeypatch.setattr(passes, "factory", lambda name, budget: makers[name])
    settings = length_cases.Settings("cpu", [32], 2, 16, 3, 0.1, 20.0, 4.0, RATES)
    rows, seconds, _ = length_cases.measure("model", "toy", 32, settings)
    assert [row.direction for row in rows] == ["forward", "backward", "optimizer", "step"]
    assert all(row.ratio_to_fused > 0 and row.ratio_to_transcription is None for row in rows)
    assert rows[-1].flops > 0
    assert seconds == rows[-1].ms / 1e3
