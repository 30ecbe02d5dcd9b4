"""What run.py prints of a finished run."""

from __future__ import annotations

from lra.records.folder import RunFolder
from lra.runs.summary import summarize
from tests.helpers.records import record


def test_a_run_without_a_model_is_summarized(tmp_path):
    """There may be no memory for as much as the weights."""
    failed = record("linformer", 0, None, status="out_of_memory", steps=0, num_params=None)
    summary = summarize(failed, RunFolder.of(tmp_path, failed))
    assert "out_of_memory, 0 steps\n" in summary
    assert "record.json" in summary
