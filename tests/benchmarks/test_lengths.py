"""The targets `attention` and `model`: ratios, processes that die, what is timed of whom."""

from __future__ import annotations

import pytest

from lra.benchmarks import lengths
from lra.benchmarks.length_cases import Settings
from lra.benchmarks.passes import ALONE, MIXER
from lra.benchmarks.roofline import Rates
from lra.benchmarks.timing import Progress
from lra.records.benchmark_rows import load_rows
from scripts import benchmark
from tests.helpers.benchmark_rows import length_case, length_row
from tests.helpers.toy_mixer import ToyMixer

SETTINGS = Settings(MIXER, "cpu", [64, 128, 256], 1, 16, 3, 1.0, 20.0, 4.0, {})


def test_the_ratio_to_stored_scores_goes_by_way_of_fused_softmax():
    stored: dict[tuple[int, str, bool], float] = {}
    rows = [
        length_row(backbone="performer", ratio_to_fused=0.5),
        length_row(backbone="softmax_materialised", ratio_to_fused=4.0),
        length_row(backbone="performer", ratio_to_fused=0.5),
        length_row(backbone="performer", ratio_to_fused=0.5, n=1024),
        length_row(backbone="performer", ratio_to_fused=0.5, as_mixer=True),
    ]
    ratios = [lengths.against_stored_scores(row, stored).ratio_to_materialised for row in rows]
    assert ratios == [None, 1.0, 0.125, None, None]
    case = length_case("out of memory")
    assert lengths.against_stored_scores(case, stored) is case


def test_a_process_that_dies_has_its_reason_for_a_status():
    rows = list(lengths.in_a_process("attention", "of_nobody", SETTINGS, Progress("attention", 1)))
    assert [(row.n, row.direction, row.as_mixer, row.status[:7]) for row in rows] == [(64, "both", True, "failed:")]


def test_all_are_timed_as_mixers_and_attentions_alone_too(monkeypatch):
    made = {"toy": ToyMixer}
    real, started = lengths.factory, []
    monkeypatch.setattr(lengths, "factory", lambda name, budget: made.get(name) or real(name, budget))
    monkeypatch.setattr(lengths, "backbones", lambda: ["performer", "softmax", "softmax_materialised", "toy"])
    monkeypatch.setattr(lengths, "measure_rates", lambda device: Rates(1.0, 1.0, 1.0))

    def in_a_process(target, name, settings, progress):
        started.append((target, settings.timed, name))
        return iter([])

    monkeypatch.setattr(lengths, "in_a_process", in_a_process)
    for target in lengths.OPTIONS:
        assert list(lengths.measure(target, lengths.OPTIONS[target])) == []
    order = ["softmax", "softmax_materialised", "performer", "toy"]
    assert [name for target, timed, name in started if timed == MIXER] == order
    assert [name for target, timed, name in started if timed == ALONE] == order[:3]
    assert [name for target, timed, name in started if target == "model"] == order


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
    cases = [(row.backbone, row.n, row.as_mixer, row.direction) for row in rows]
    assert len(set(cases)) == len(cases) == 3 * 3 * 2 * 3
    stored = [row.ratio_to_materialised for row in rows if row.backbone == "softmax_materialised"]
    assert stored == [pytest.approx(1)] * 18
