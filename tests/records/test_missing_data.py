"""Notes of data that could not be had."""

from __future__ import annotations

from lra.records.missing_data import forget_missing, load_missing, note_missing


def test_notes_of_missing_data_come_and_go(tmp_path):
    note_missing(tmp_path, "text", "lra", "full", "no files")
    assert load_missing(tmp_path) == {("text", "lra", "full"): "no files"}
    forget_missing(tmp_path, "text", "lra", "full")
    forget_missing(tmp_path, "text", "lra", "full")
    assert load_missing(tmp_path) == {}
