"""accuracy at each length that runs were tested on, by scripts/retest.py or with a task.length of their own"""

from __future__ import annotations

from lra.records.collection import load_retests
from lra.reports.lengths import length_report
from lra.reports.report import Report
from lra.verbs import CHOICE, Request

OPTIONS = CHOICE


def answer(request: Request) -> Report:
    """Lay the accuracies out by length."""
    records = request.records()
    return length_report(load_retests(request.results_dir), records)
