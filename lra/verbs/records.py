"""the highest published number of each task, who repeated it; and published averages, recomputed"""

from __future__ import annotations

from lra.papers.best import records_report
from lra.papers.published import read_numbers
from lra.reports.report import Report
from lra.verbs import Request

OPTIONS = ()


def answer(request: Request) -> Report:
    """Find the records."""
    return records_report(read_numbers(request.results_dir))
