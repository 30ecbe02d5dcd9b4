"""Benchmarks beside published costs."""

from __future__ import annotations

import re

from lra.papers.tables import paper_report
from lra.records.benchmark_rows import LengthRow
from lra.reports.report import write
from tests.helpers.benchmark_rows import batch_row, flops_row, length_case, length_row, written
from tests.helpers.configurations import EXPERIMENTS
from tests.helpers.published import MODELS, TABLES
from tests.helpers.records import record


def step(backbone: str, n: int, ms: float, direction: str = "step") -> LengthRow:
    return length_row(ms, backbone=backbone, n=n, direction=direction)


def test_speed_ups_are_over_stored_scores_of_the_same_length_and_file(tmp_path):
    written(tmp_path / "cpu-model.jsonl", [
        step("softmax_materialised", 1024, 30.0),
        step("linformer", 1024, 12.0),
        step("linformer", 1024, 1.0, "forward"),
        length_case("not started (predicted 29 s)", backbone="softmax_materialised", n=4096, direction="step"),
        step("linformer", 4096, 50.0),
    ])  # fmt: skip
    report = paper_report(TABLES["lra_table2"], MODELS, None, [], tmp_path)
    text = write(report, "markdown")
    assert re.search(r"\| linformer +\| linformer +\| +2.5 \| +1.2 \|", text)
    assert "text 4000: ours" not in text
    found = report.frame.set_index("model")
    assert found.loc["linformer", ["value", "length", "published_at_full_size", "device"]].tolist() == [
        2.5, "1000", 1.2, "cpu",
    ]  # fmt: skip
    assert set(found["keys"]) == {f"{tmp_path.name}/cpu-model.jsonl"}


def test_counted_operations_show_both_terms_and_why_they_are_not_the_papers(tmp_path):
    written(tmp_path / "cpu-flops.jsonl", [
        flops_row("informer", 9.0, 9.0),
        flops_row("informer_padding_mask", 1.0, 2.031, "it scores all"),
        flops_row("softmax_materialised", 2.0, 0.001),
        flops_row("skeinformer", None, None, "is a mixer"),  # as if: what has no terms is left out
    ])  # fmt: skip
    text = write(paper_report(TABLES["skeinformer_table3"], MODELS, None, [], tmp_path), "markdown")
    assert re.search(r"\| informer +\| informer_padding_mask +\| 1.00 n² p \+ 2.03 n d p \| +3 \| it scores all", text)
    assert re.search(r"\| standard +\| softmax_materialised +\| 2.00 n² p +\| +2 \|\n", text)
    assert "is a mixer" not in text
    assert r"2.00 n$^2$ p" in write(paper_report(TABLES["skeinformer_table3"], MODELS, None, [], tmp_path), "latex")


def test_largest_batches_stand_apart_from_what_training_measured(tmp_path):
    written(tmp_path / "cpu-max_batch.jsonl", [batch_row("vmean", "image", 128)])
    run = record("vmean", 0, 0.5, scale="full", ms_per_step=600.0)
    report = paper_report(TABLES["skeinformer_table2"], MODELS, EXPERIMENTS["skeinformer_table1"], [run], tmp_path)
    assert re.search(r"\| vmean +\| vmean +\| +128 \| +256 \|", write(report, "markdown"))
    assert report.frame["value"].dropna().tolist() == [10.0, 128.0]


def test_what_no_benchmark_has_measured_is_said(tmp_path):
    for name, target in (("lra_table2", "model"), ("skeinformer_table3", "flops")):
        text = write(paper_report(TABLES[name], MODELS, None, [], tmp_path), "markdown")
        assert f"by `python scripts/benchmark.py {target}`; not measured yet." in text
