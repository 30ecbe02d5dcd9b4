"""What run.py prints of a finished run."""

from __future__ import annotations

import pytest

from lra.records.folder import RunFolder
from lra.records.record import accuracy_of
from lra.runs.summary import summarize
from tests.helpers.records import record


@pytest.mark.parametrize(("tested", "shown"), [("best", "15.0%"), ("last", "10.0%")])
def test_the_accuracy_that_is_printed_first_is_the_one_of_the_table(tested, shown, tmp_path):
    config = {"attn": {"name": "vmean"}, "protocol": {"name": "skeinformer", "tested": tested}}
    run = record("vmean", 0, 0.15, last_test_accuracy=0.10, best_step=3, steps=9, config=config)
    _, first, second, *_ = summarize(run, RunFolder.of(tmp_path, run)).splitlines()
    assert first.startswith("test accuracy")
    assert f" {shown} ± " in first
    assert "(test sampling only, one seed)" in first
    assert f"{100 * accuracy_of(run):.1f}%" == shown
    assert shown not in second


def test_a_run_without_a_model_is_summarized(tmp_path):
    """There may be no memory for as much as the weights."""
    failed = record("linformer", 0, None, status="out_of_memory", steps=0, num_params=None)
    summary = summarize(failed, RunFolder.of(tmp_path, failed))
    assert "out_of_memory, 0 steps\n" in summary
    assert "record.json" in summary
