"""The targets `attention` and `model`: the table, the ratios, processes that die, mixers."""

from __future__ import annotations

import re

import pytest

from lra.benchmarks import lengths
from lra.benchmarks.length_cases import Settings
from lra.benchmarks.roofline import Rates
from lra.benchmarks.timing import Progress
from lra.records.benchmark_rows import load_rows
from scripts import benchmark
from tests.helpers.benchmark_rows import length_case, length_row
from tests.helpers.toy_mixer import ToyMixer

SETTINGS = Settings("cpu", [64, 128, 256], 1, 16, 3, 1.0, 20.0, 4.0, {})


def row(ms: float = 12.34, **more):
    values = {"ms_quartiles": [11.0, 15.0], "ratio_to_materialised": 0.125, "least_ms": 6.17, **more}
    return length_row(ms, **values)


def test_the_table_of_lengths():
    rows = [row(), row(n=1024, ms=24.68), row(n=2048, ms=49.36), length_case("out of memory", n=4096)]
    lines = lengths.render(rows).splitlines()
    assert lines[0] == "ms of a forward and backward pass, batch 1, budget 256, float32"
    cells = [re.split(r" {2,}", line.strip()) for line in lines[3:]]
    assert cells[0] == ["foo", "512", "12.3", "11.0 to 15.0", "0.500", "0.125", "-", "3.0", "2.00"]
    assert cells[2][-2:] == ["1.00 ± 0.00", "≤ 512"]
    assert cells[3] == ["4,096", "out of memory"]
    assert lengths.render([]).startswith("No length was measured.")


def test_the_ratio_to_stored_scores_goes_by_way_of_fused_softmax():
    stored: dict[tuple[int, str], float] = {}
    rows = [
        length_row(backbone="performer", ratio_to_fused=0.5),
        length_row(backbone="softmax_materialised", ratio_to_fused=4.0),
        length_row(backbone="performer", ratio_to_fused=0.5),
        length_row(backbone="performer", ratio_to_fused=0.5, n=1024),
    ]
    ratios = [lengths.against_stored_scores(row, stored).ratio_to_materialised for row in rows]
    assert ratios == [None, 1.0, 0.125, None]
    case = length_case("out of memory")
    assert lengths.against_stored_scores(case, stored) is case


def test_a_process_that_dies_has_its_reason_for_a_status():
    rows = list(lengths.in_a_process("attention", "of_nobody", SETTINGS, Progress("attention", 1)))
    assert [(row.n, row.direction, row.status[:7]) for row in rows] == [(64, "both", "failed:")]


def test_a_mixer_has_no_queries_to_be_timed_on_and_is_sent_to_the_target_model(monkeypatch):
    made = {"toy": ToyMixer}
    real, started = lengths.factory, []
    monkeypatch.setattr(lengths, "factory", lambda name, budget: made.get(name) or real(name, budget))
    monkeypatch.setattr(lengths, "backbones", lambda: ["performer", "softmax", "softmax_materialised", "toy"])
    monkeypatch.setattr(lengths, "measure_rates", lambda device: Rates(1.0, 1.0, 1.0))
    monkeypatch.setattr(lengths, "in_a_process", lambda target, name, *_: iter(started.append((target, name)) or []))
    rows = list(lengths.measure("attention", lengths.OPTIONS["attention"]))
    assert [(row.backbone, row.n, row.status) for row in rows] == [
        ("toy", 512, "skipped: is a mixer, which has no q, k, v; the target model measures it")
    ]
    assert "is a mixer" in lengths.render(rows)
    assert list(lengths.measure("model", lengths.OPTIONS["model"])) == []
    assert [name for target, name in started if target == "attention"] == [
        "softmax", "softmax_materialised", "performer",
    ]  # fmt: skip
    assert ("model", "toy") in started


@pytest.mark.slow
def test_a_sweep_has_both_baselines_and_every_direction(tmp_path):
    benchmark.main(["attention", "attn=performer", "lengths=64,128,256", "repeats=3", "budget=16", f"out={tmp_path}"])
    rows = load_rows(tmp_path / "cpu-attention.jsonl")
    assert list(dict.fromkeys(row.backbone for row in rows)) == ["softmax", "softmax_materialised", "performer"]
    for row in rows:
        assert row.status == "ok"
        assert row.ms_quartiles[0] <= row.ms <= row.ms_quartiles[1]
        assert row.ratio_to_fused > 0
        assert row.flops >= 0
        assert row.least_ms > 0
        assert (row.peak_bytes is not None) == (row.cold_ms is not None) == (row.direction == "both")
        assert (row.ratio_to_transcription is not None) == (row.backbone == "performer")
    assert {row.direction for row in rows} == {"forward", "backward", "both"}
    stored = [row.ratio_to_materialised for row in rows if row.backbone == "softmax_materialised"]
    assert stored == [pytest.approx(1)] * 9
