"""what ended otherwise than ok, never ended, or had no data"""

from __future__ import annotations

from lra.records.collection import unfinished
from lra.records.missing_data import load_missing
from lra.reports.failures import failure_report
from lra.reports.report import Report
from lra.verbs import CHOICE, Request

OPTIONS = CHOICE


def answer(request: Request) -> Report:
    """List the failures."""
    configs, reasons = unfinished(request.results_dir), load_missing(request.results_dir)
    return failure_report(request.records(), unfinished=configs, missing=reasons)
