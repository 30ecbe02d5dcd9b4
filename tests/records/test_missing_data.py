"""Notes of missing data: a sweep asks once for each task, and the next sweep asks again."""

from __future__ import annotations

from lra.records import missing_data
from lra.records.missing_data import forget_missing, load_missing, note_missing, noted_since

SETTING = ("text", "lra", "full")


def test_a_note_counts_for_the_sweep_that_left_it_and_for_no_later_one(tmp_path, monkeypatch):
    monkeypatch.setattr(missing_data, "now", lambda: "2026-11-22T05:05:35+00:00")
    note_missing(tmp_path, *SETTING, reason="no files")
    assert noted_since("2026-11-22T05:05:35+00:00", tmp_path, *SETTING)
    assert noted_since("2026-11-21T09:00:00+00:00", tmp_path, *SETTING)
    assert not noted_since("2026-11-22T05:05:36+00:00", tmp_path, *SETTING)
    assert not noted_since("2026-11-21T09:00:00+00:00", tmp_path, "text", "lra", "mini")
    forget_missing(tmp_path, *SETTING)
    assert not noted_since("2026-11-21T09:00:00+00:00", tmp_path, *SETTING)


def test_a_damaged_note_counts_for_none(tmp_path):
    note_missing(tmp_path, *SETTING, reason="no files")
    (path,) = tmp_path.rglob("missing-*.json")
    for content in ("", "{}", "[]", '{"date": 3}'):
        path.write_text(content)
        assert not noted_since("2026-11-22T05:05:35+00:00", tmp_path, *SETTING)


def test_notes_of_missing_data_come_and_go(tmp_path):
    note_missing(tmp_path, "text", "lra", "full", "no files")
    assert load_missing(tmp_path) == {("text", "lra", "full"): "no files"}
    forget_missing(tmp_path, "text", "lra", "full")
    forget_missing(tmp_path, "text", "lra", "full")
    assert load_missing(tmp_path) == {}
