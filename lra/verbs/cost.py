"""accuracy, time, memory, operations and parameters of every run; the Pareto front marked"""

from __future__ import annotations

from lra.reports.costs import cost_report
from lra.reports.report import Report
from lra.verbs import CHOICE, Request

OPTIONS = CHOICE


def answer(request: Request) -> Report:
    """Lay out what every run cost."""
    return cost_report(request.records())
