"""The target `train`."""

from __future__ import annotations

import pytest

from lra.records.benchmark_rows import load_rows
from scripts import benchmark


@pytest.mark.slow
def test_the_loop_and_the_start_of_a_training_are_measured(tmp_path):
    benchmark.main(["train", "parts=loop,start", "repeats=1", "steps=20", f"out={tmp_path}"])
    rows = load_rows(tmp_path / "cpu-train.jsonl")
    assert [row.part for row in rows] == ["loop overhead"] * 2 + ["to the first step"] * 2
    assert all(row.target_text and row.met in (True, False) for row in rows)
    assert all(1 < row.value < 60 for row in rows[2:])
