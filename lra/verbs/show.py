"""task x attn: mean, interval, n, failures, floors (the default);
table=NAME: a paper's table, or an experiment's, beside ours
"""

from __future__ import annotations

from collections.abc import Sequence

from lra.errors import InputError
from lra.papers.published import load_models, load_tables
from lra.papers.tables import paper_report
from lra.records.record import RunRecord
from lra.reports.experiments import choose
from lra.reports.leaderboard import leaderboard_report
from lra.reports.report import Report
from lra.verbs import CHOICE, Request

OPTIONS = (*CHOICE, "table")


def answer(request: Request) -> Report:
    """Lay out the leaderboard, or a table."""
    records = request.records()
    return paper_table(request, request["table"], records) if request["table"] else leaderboard_report(records)


def paper_table(request: Request, name: str, records: Sequence[RunRecord]) -> Report:
    """Set one table of `published/tables.csv` beside ours.

    Raises:
        InputError: there is none of this name.
    """
    tables = load_tables(request.results_dir)
    if name not in tables:
        raise InputError(f"There is no table {name!r}. Choose from {', '.join(tables)}.")
    table = tables[name]
    experiment = choose(request.experiments(), table.experiment) if table.experiment else None
    models = load_models(request.results_dir)
    return paper_report(table, models, experiment, records, request.results_dir / "benchmarks")
