"""whether each scale ranks mechanisms as the published tables do"""

from __future__ import annotations

from collections.abc import Sequence

from lra.papers.published import load_models, load_tables
from lra.papers.ranks import rank_report
from lra.records.record import RunRecord
from lra.reports.report import Report
from lra.verbs import CHOICE, Request

OPTIONS = CHOICE


def answer(request: Request) -> Report:
    """Compare the ranks of the chosen records."""
    return ranks(request, request.records())


def ranks(request: Request, records: Sequence[RunRecord]) -> Report:
    """Compare the ranks of mechanisms with those of every published table of accuracies."""
    tables, models = load_tables(request.results_dir), load_models(request.results_dir)
    return rank_report(list(tables.values()), models, request.experiments(), records)
