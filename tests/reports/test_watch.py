"""The state of a sweep in the terminal."""

from __future__ import annotations

import json
import os
import socket
import time

import pytest

from lra.records.identity import run_key
from lra.reports.watch import watch_report
from scripts import report
from tests.helpers.records import record, saved

CONFIG = {
    "task": {"name": "listops"}, "protocol": {"name": "skeinformer"}, "scale": "mini", "device": "cpu",
    "trainer": {"steps": 100},
}  # fmt: skip


def begun(results_dir, attn: str, holder: str, *points: dict):
    config = {**CONFIG, "attn": {"name": attn}, "seed": 0}
    folder = results_dir / "runs" / "listops" / attn / run_key(config)
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / ".holder").write_text(holder)
    (folder / ".lock").touch()
    (folder / "metrics.jsonl").write_text("".join(json.dumps(point) + "\n" for point in points) + '{"step": 3')
    return folder


def holder(process: int, host: str = "") -> str:
    about = {"process": process, "host": host or socket.gethostname(), "since": "2026-11-22T05:05:35+00:00"}
    return json.dumps(about)


def test_a_run_under_way_has_its_step_and_the_time_left(tmp_path):
    begun(tmp_path, "softmax", holder(os.getpid()), {"step": 25, "train_seconds": 50.0, "val_accuracy": 0.25})
    (row,) = watch_report(tmp_path).frame.to_dict("records")
    assert (row["status"], row["steps"], row["of"]) == ("running", 25, 100)
    assert row["seconds_left"] == 150.0


def test_a_killed_run_and_one_elsewhere_are_told_apart(tmp_path):
    gone = os.fork()
    if not gone:
        os._exit(0)
    os.waitpid(gone, 0)
    begun(tmp_path, "softmax", holder(gone))
    begun(tmp_path, "vmean", holder(1, "another-machine"))
    begun(tmp_path, "bigbird", "")
    frame = watch_report(tmp_path).frame.set_index("attn")
    assert frame["status"].to_dict() == {"softmax": "stopped", "vmean": "elsewhere", "bigbird": "stopped"}
    assert frame["seconds_left"].isna().all()


def test_what_ended_is_counted_and_printed_once(tmp_path, capsys):
    failed = record("bigbird", 0, None, status="out_of_memory")
    saved(tmp_path, record("softmax", 0, 0.4), failed, record("vmean", 0, None, status="failed"))
    begun(tmp_path, "performer", holder(os.getpid()))
    assert report.main(["watch", "once=true", f"results_dir={tmp_path}"]) == 0
    text = " ".join(capsys.readouterr().out.split())  # lines are broken to the terminal's width
    assert "1 running, 1 failed, 1 out of memory, 1 ok" in text
    assert text.index("Under way") < text.index("not running") < text.index("Ended ok")


def test_nothing_is_changed_by_looking(tmp_path):
    folder = begun(tmp_path, "softmax", holder(os.getpid()))
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    watch_report(tmp_path)
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before


def test_it_refreshes_until_it_is_interrupted(tmp_path, capsys, monkeypatch):
    (tmp_path / "runs").mkdir()
    pauses = []

    def sleep(seconds):
        pauses.append(seconds)
        if len(pauses) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(time, "sleep", sleep)
    assert report.main(["watch", f"results_dir={tmp_path}"]) == 0
    assert capsys.readouterr().out.count("Nothing has begun") == 2


def test_once_is_true_or_false(tmp_path):
    with pytest.raises(report.InputError, match="once must be true or false"):
        report.main(["watch", f"results_dir={tmp_path}", "once=yes"])
