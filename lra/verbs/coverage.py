"""which runs of every experiment exist, and which are of none; experiment=NAME for one alone"""

from __future__ import annotations

from lra.records.collection import unfinished
from lra.records.missing_data import load_missing
from lra.reports.coverage import coverage
from lra.reports.experiments import choose
from lra.reports.report import Report
from lra.verbs import CHOICE, Request

OPTIONS = (*CHOICE, "experiment")


def answer(request: Request) -> Report:
    """Count the runs of all experiments, or of one."""
    records, experiments, name = request.records(), request.experiments(), request["experiment"]
    configs, reasons = unfinished(request.results_dir), load_missing(request.results_dir)
    chosen = [choose(experiments, name)] if name else list(experiments.values())
    return coverage(chosen, records, unfinished=configs, missing=reasons, others=not name)
