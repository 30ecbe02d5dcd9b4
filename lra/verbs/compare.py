"""ranks as far as McNemar's test supports them; a=NAME b=NAME for two mechanisms in detail"""

from __future__ import annotations

from lra.reports.comparison import compare_report
from lra.reports.report import Report
from lra.verbs import CHOICE, Request

OPTIONS = (*CHOICE, "a", "b")


def answer(request: Request) -> Report:
    """Compare two mechanisms, or rank all."""
    return compare_report(request.results_dir, request.records(), request["a"], request["b"])
