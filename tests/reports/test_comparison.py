"""McNemar's test against its definition, and the ranks that it supports."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lra.errors import InputError
from lra.records.collection import collect, load_records
from lra.records.record import FLOOR, LABELS
from lra.reports.comparison import compare, compare_report, holm, mcnemar
from tests.helpers.records import GENERATED, LABELLED, record, saved
from tests.helpers.shown import printed


def test_mcnemar_is_the_binomial_test():
    assert mcnemar(0, 0) == mcnemar(3, 3) == 1.0
    assert mcnemar(0, 5) == mcnemar(5, 0) == 2 / 32
    assert mcnemar(2, 8) == pytest.approx(2 * sum(math.comb(10, k) for k in range(3)) / 2**10)
    assert 0 < mcnemar(4000, 4400) < 1e-4
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])


def test_comparing_pairs_the_seeds_that_both_have():
    a = {0: np.array([True, True, False]), 1: np.array([True, True, True]), 2: np.array([True] * 3)}
    b = {0: np.array([True, False, True]), 1: np.array([False, False, False])}
    pair = compare(a, b)
    assert (pair.only_a, pair.only_b, pair.seeds) == (4, 1, (0, 1))
    assert pair.p == min(1.0, mcnemar(1, 1) + mcnemar(3, 0))
    with pytest.raises(InputError, match="share no seed"):
        compare(a, {7: b[0]})


def test_ranks_are_told_apart_only_where_the_difference_is_significant(tmp_path, capsys):
    near = [record(name, seed, accuracy) for name, accuracy in (("a", 0.41), ("b", 0.405)) for seed in (0, 1)]
    saved(tmp_path, *near, record("far", 0, 0.3), record("unknown", 0, 0.2), labels=LABELLED)
    for path in tmp_path.glob("runs/listops/unknown/*/predictions.npz"):
        path.unlink()
    (table,) = compare_report(tmp_path, load_records(tmp_path)).tables
    ranks = [(row[1], row[0]) for row in table.rows]
    assert ranks == [("a", "1\N{EN DASH}2"), ("b", "1\N{EN DASH}2"), ("far", "3")]
    text = printed(capsys, "compare", "a=a", "b=far", f"results_dir={tmp_path}", "format=csv")
    assert text.splitlines()[1].startswith("a,far,0.41,0.3,")
    before = compare_report(tmp_path, load_records(tmp_path)).frame
    collect(tmp_path)
    shutil.rmtree(tmp_path / "runs")
    after = compare_report(tmp_path, load_records(tmp_path)).frame  # from what is committed alone
    assert after["p"].tolist() == before["p"].tolist()


def test_a_model_that_follows_a_rule_without_a_model_shows_in_the_comparison(tmp_path, capsys):
    saved(tmp_path, record("a", 0, 0.4), record("a", 1, 0.4), record("b", 0, 0.3), labels=LABELLED)
    add_floors(tmp_path, rule=lambda best, labels: best, majority=lambda best, labels: np.zeros_like(labels))
    (table,) = compare_report(tmp_path, load_records(tmp_path)).tables
    column = {row[1]: row for row in table.rows}
    assert table.head[-1] == "same as floor %"
    assert set(column) == {"a", "b", "floor: rule"}  # the better of the two floors
    assert column["a"][0] == column["floor: rule"][0] == "1\N{EN DASH}2"
    assert float(column["floor: rule"][2]) == pytest.approx(40.0)
    predicted = [np.load(path)["best"] for path in sorted(tmp_path.glob("runs/listops/a/*/predictions.npz"))]
    between_seeds = (predicted[0] == predicted[1]).mean()
    assert float(column["a"][-1]) == pytest.approx(50 * (1 + between_seeds), abs=0.06)
    before = printed(capsys, "compare", f"results_dir={tmp_path}")
    collect(tmp_path)
    shutil.rmtree(tmp_path / "runs")
    assert printed(capsys, "compare", f"results_dir={tmp_path}") == before
    assert "a,floor: rule,0.4,0.4," in printed(capsys, "compare", "a=a", "b=b", f"results_dir={tmp_path}", "format=csv")


def add_floors(results_dir: Path, **rules: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> None:
    """Add what rules make of the first seed of `a` to every run's predictions."""
    with np.load(results_dir / "runs/listops/a/listops-a-0/predictions.npz") as arrays:
        floors = {FLOOR + name: rule(arrays["best"], arrays[LABELS]) for name, rule in rules.items()}
    for path in results_dir.glob("runs/*/*/*/predictions.npz"):
        with np.load(path) as arrays:
            everything = {**arrays, **floors}
        np.savez_compressed(path, **everything)


def test_runs_on_other_data_or_without_true_classes_are_not_compared(tmp_path):
    other = {**GENERATED, "sha256": {"test": "cd" * 32}}
    saved(tmp_path, record("a", 0, 0.4), record("b", 0, 0.4, data=other), labels=LABELLED)
    saved(tmp_path, record("c", 0, 0.4, group="c"))
    with pytest.raises(InputError, match="No two mechanisms.*c, seed 0 .c-0.: no predictions"):
        compare_report(tmp_path, load_records(tmp_path))
