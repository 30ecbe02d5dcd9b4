"""runs tested again on other examples, by `scripts/retest.py`"""

from __future__ import annotations

from lra.records.collection import load_retests
from lra.reports.report import Report
from lra.reports.retests import retest_report
from lra.verbs import CHOICE, Request

OPTIONS = CHOICE


def answer(request: Request) -> Report:
    """Set retests beside their runs."""
    records = request.records()
    return retest_report(load_retests(request.results_dir), records)
