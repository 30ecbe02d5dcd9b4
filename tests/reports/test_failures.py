"""What ended otherwise than ok."""

from __future__ import annotations

from lra.reports.failures import failure_report
from lra.reports.report import write
from tests.helpers.records import record


def test_failures_name_status_and_reason():
    runs = [record("a", 0, None, status="failed", error="Traceback\nValueError: no"), record("b", 0, 0.5)]
    begun = {"task": {"name": "text"}, "attn": {"name": "c"}, "protocol": {"name": "lra"}, "scale": "full", "seed": 1}
    report = failure_report(
        runs, unfinished=[{**begun, "device": "cpu"}], missing={("image", "lra", "full"): "no files"}
    )
    assert report.frame["status"].tolist() == ["no data", "unfinished", "failed"]
    assert report.frame["reason"].tolist()[::2] == ["no files", "ValueError: no"]
    assert "ValueError: no" in write(report, "terminal")
