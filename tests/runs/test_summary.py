"""What run.py prints of a finished run."""

from __future__ import annotations

import json
import shutil

import pytest

from lra.records.folder import RunFolder
from lra.records.record import accuracy_of
from lra.runs.summary import describe_sweep, summarize
from tests.helpers.records import record, saved


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


def test_a_sweep_counts_the_finished_runs_that_other_source_made(tmp_path, monkeypatch):
    """Asked for since the sweep began, that is, as their folders say; what is asked for by nobody does not count."""
    monkeypatch.setattr("lra.records.record.source_of", lambda target: {"models.attention.foo": "2"})
    old = {"date": "2026-01-01T00:00:00+00:00", "environment": {"source": {"models.attention.foo": "1"}}}
    new = {"date": "2026-01-03T00:00:00+00:00", "environment": {"source": {"models.attention.foo": "2"}}}
    unknown = {"date": old["date"]}
    runs = [record("softmax", 0, 0.3, **old), record("vmean", 0, 0.3, **old), record("none", 0, 0.3, **unknown)]
    runs += [record("softmax", 1, 0.3, **new)]
    saved(tmp_path, *runs)
    for run in (runs[0], *runs[2:]):
        holder = {"process": 1, "host": "a", "since": "2026-01-02T00:00:01+00:00"}
        (RunFolder.of(tmp_path, run).path / ".holder").write_text(json.dumps(holder))
    since = "2026-01-02T00:00:00+00:00"
    sentence = "1 finished before with other source, which force=true trains again"
    assert describe_sweep(tmp_path, since) == f"sweep: 1 ok, {sentence}"
    shutil.rmtree(RunFolder.of(tmp_path, runs[-1]).path)
    assert describe_sweep(tmp_path, since) == f"sweep: {sentence}"
    assert describe_sweep(tmp_path, "2026-01-04T00:00:00+00:00") == ""
