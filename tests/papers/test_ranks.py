"""Rank correlations with published tables."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from lra.papers.ranks import rank_report, spearman
from lra.reports.report import write
from tests.helpers.configurations import EXPERIMENTS
from tests.helpers.published import MODELS, TABLES
from tests.helpers.records import GENERATED, record

NAMES = (
    "softmax",
    "vmean",
    "bigbird",
    "performer",
    "skeinformer",
)  # published on ListOps: 38.17 28.78 38.86 37.70 38.73

TASKS = ("text", "listops", "retrieval", "pathfinder", "image")


def ranked(*records):
    return rank_report(list(TABLES.values()), MODELS, EXPERIMENTS, records)


def test_spearman_is_that_of_scipy_ties_included():
    rng = np.random.default_rng(0)
    for n in (4, 9, 16):
        ours, theirs = rng.integers(0, 6, n).astype(float), rng.normal(size=n)
        r, low, high = spearman(ours.tolist(), theirs.tolist())
        assert r == pytest.approx(stats.spearmanr(ours, theirs).statistic)
        assert -1 < low < r < high < 1
    for values, r in (([10, 20, 30, 40], 1), ([4, 3, 2, 1], -1)):  # perfect: Fisher's z has no interval
        assert spearman([1, 2, 3, 4], values) == pytest.approx((r, math.nan, math.nan), nan_ok=True)
    assert math.isnan(spearman([1, 1, 1, 1], [1, 2, 3, 4])[0])


def test_a_smaller_scale_is_ranked_against_the_published_table():
    runs = [record(name, 0, 0.3 + 0.01 * place) for place, name in enumerate(NAMES)]
    report = ranked(*runs)
    (row,) = report.frame[report.frame["task"] == "listops"].to_dict("records")
    assert (row["table"], row["scale"], row["n"]) == ("skeinformer_table1", "mini", 5)
    assert row["correlation"] == pytest.approx(stats.spearmanr([0, 1, 2, 3, 4], [38.17, 28.78, 38.86, 37.7, 38.73])[0])
    assert row["spread"] == pytest.approx(4.0)
    assert row["above_floor"] == 5  # the operator's floor is at 25 %
    assert set(row["keys"].split()) == {run.key for run in runs}
    text = write(report, "markdown")
    assert "Skeinformer, Table 1" in text
    assert "5 of 5" in text


def test_too_few_mechanisms_other_protocols_and_failures_are_not_ranked():
    few = [record(name, 0, 0.4) for name in NAMES[:3]]
    assert "No task has 4 mechanisms" in write(ranked(*few), "markdown")
    assert ranked(*few, record("bigbird", 0, None, status="diverged")).frame.empty
    assert ranked(*few, record("bigbird", 0, 0.4, protocol="controlled")).frame.empty
    equal = ranked(*(record(name, 0, 0.4) for name in NAMES))
    assert "none: all are equal" in write(equal, "markdown")


def test_the_average_other_data_and_fewer_runs_of_other_settings_do_not_mix_in():
    runs = [record(name, 0, 0.3 + 0.01 * place) for place, name in enumerate(NAMES)]
    old = record("softmax", 0, 0.9, group="older", data={**GENERATED, "sha256": {"test": "cd" * 32}})
    again = [record("softmax", seed, 0.3, group="listops-softmax") for seed in (1, 2)]
    (row,) = ranked(old, *runs, *again).frame.to_dict("records")
    assert row["spread"] == pytest.approx(4.0)
    assert (row["n"], row["above_floor"]) == (5, 5)
    every = [record(name, 0, 0.6, task=task) for name in NAMES for task in TASKS]
    assert set(ranked(*every).frame["task"]) == set(TASKS)


def test_mechanisms_at_the_floor_are_counted_as_such():
    runs = [record(name, 0, 0.25 if name == "vmean" else 0.4) for name in NAMES]
    assert list(ranked(*runs).frame["above_floor"]) == [4]
