"""Benchmarks beside published costs."""

from __future__ import annotations

import json
import re
from pathlib import Path

from lra.papers.tables import paper_report
from lra.reports.report import write
from tests.helpers.configurations import EXPERIMENTS
from tests.helpers.published import MODELS, TABLES
from tests.helpers.records import record


def benchmark_file(folder: Path, target: str, rows: list[dict]) -> None:
    folder.mkdir(exist_ok=True)
    lines = [json.dumps({"status": "ok", "device": "cpu", "direction": "step", **row}) for row in rows]
    (folder / f"cpu-{target}.jsonl").write_text("\n".join(lines) + "\n")


def test_speed_ups_are_over_stored_scores_of_the_same_length_and_file(tmp_path):
    benchmark_file(tmp_path, "model", [
        {"backbone": "softmax_materialised", "n": 1024, "ms": 30.0},
        {"backbone": "linformer", "n": 1024, "ms": 12.0},
        {"backbone": "linformer", "n": 1024, "ms": 1.0, "direction": "forward"},
        {"backbone": "softmax_materialised", "n": 4096, "status": "not started (predicted 29 s)"},
        {"backbone": "linformer", "n": 4096, "ms": 50.0},
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
    benchmark_file(tmp_path, "flops", [
        {"backbone": "informer", "quadratic": 9.0, "linear": 9.0, "reason": ""},
        {"backbone": "informer_padding_mask", "quadratic": 1.0, "linear": 2.031, "reason": "it scores all"},
        {"backbone": "softmax_materialised", "quadratic": 2.0, "linear": 0.001, "reason": ""},
    ])  # fmt: skip
    text = write(paper_report(TABLES["skeinformer_table3"], MODELS, None, [], tmp_path), "markdown")
    assert re.search(r"\| informer +\| informer_padding_mask +\| 1.00 n² p \+ 2.03 n d p \| +3 \| it scores all", text)
    assert re.search(r"\| standard +\| softmax_materialised +\| 2.00 n² p +\| +2 \|\n", text)
    assert r"2.00 n$^2$ p" in write(paper_report(TABLES["skeinformer_table3"], MODELS, None, [], tmp_path), "latex")


def test_largest_batches_stand_apart_from_what_training_measured(tmp_path):
    benchmark_file(tmp_path, "max_batch", [{"backbone": "vmean", "task": "image", "largest": 128}])
    run = record("vmean", 0, 0.5, scale="full", ms_per_step=600.0)
    report = paper_report(TABLES["skeinformer_table2"], MODELS, EXPERIMENTS["skeinformer_table1"], [run], tmp_path)
    assert re.search(r"\| vmean +\| vmean +\| +128 \| +256 \|", write(report, "markdown"))
    assert report.frame["value"].dropna().tolist() == [10.0, 128.0]


def test_what_no_benchmark_has_measured_is_said(tmp_path):
    for name, target in (("lra_table2", "model"), ("skeinformer_table3", "flops")):
        text = write(paper_report(TABLES[name], MODELS, None, [], tmp_path), "markdown")
        assert f"by `python scripts/benchmark.py {target}`; not measured yet." in text
