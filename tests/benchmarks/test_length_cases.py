"""One backbone at ascending lengths: what is not started, what ends for want of memory, what is timed."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from lra.benchmarks import length_cases, passes
from lra.benchmarks.passes import ALONE, MIXER, MODEL
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
        "timed": ALONE, "device": "cpu", "lengths": [64, 128, 16384, 32768], "budget": 16, "batch": 1, "repeats": 3,
        "seconds": 1.0, "case_seconds": 1e9, "memory_gib": 0.25, "rates": RATES,
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
for row in length_cases.sweep("softmax_materialised", settings):
    print(length_cases.format_row(row))
"""


def settings(timed: str) -> length_cases.Settings:
    return length_cases.Settings(timed, "cpu", [32], 2, 16, 3, 0.1, 20.0, 4.0, RATES)


def test_a_mixer_is_measured_as_one_and_in_a_model(monkeypatch):
    makers = {"toy": ToyMixer, passes.FUSED: passes.factory(passes.FUSED, 16)}
    monkeypatch.setattr(passes, "factory", lambda name, budget: makers[name])
    for timed, directions in (
        (MIXER, ["forward", "backward", "both"]),
        (MODEL, ["forward", "backward", "optimizer", "step"]),
    ):
        rows, seconds, _ = length_cases.measure("toy", 32, settings(timed))
        assert [row.direction for row in rows] == directions
        assert {row.as_mixer for row in rows} == {timed == MIXER}
        assert all(row.ratio_to_fused > 0 and row.ratio_to_transcription is None for row in rows)
        assert (rows[-1].flops > 0) == (timed == MODEL)  # the toy has nothing but operations entry by entry
        assert (rows[-1].least_ms is None) == (timed == MODEL)
        assert seconds == rows[-1].ms / 1e3


def test_an_attention_has_its_projections_as_a_mixer_and_none_alone():
    n, batch, width = 32, 2, passes.WIDTH
    flops = {}
    for timed in (MIXER, ALONE):
        rows, _, _ = length_cases.measure("softmax", n, settings(timed))
        flops[timed] = {row.direction: row.flops for row in rows}
        assert {row.as_mixer for row in rows} == {timed == MIXER}
    products = 2 * 4 * batch * n * width**2  # four projections
    assert flops[ALONE]["forward"] == 4 * batch * n**2 * width
    assert flops[MIXER]["forward"] - flops[ALONE]["forward"] == products
    assert flops[MIXER]["backward"] - flops[ALONE]["backward"] == 2 * products


@pytest.mark.parametrize("timed", [MIXER, ALONE, MODEL])
def test_a_transcription_is_timed_beside_its_backbone(timed):
    rows, _, _ = length_cases.measure("performer", 32, settings(timed))
    assert all(row.ratio_to_transcription > 0 for row in rows)
