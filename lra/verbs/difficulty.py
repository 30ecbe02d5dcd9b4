"""accuracy by what makes test examples hard, floors beneath; by=length for one measure; attn=NAME,NAME for some"""

from __future__ import annotations

from dataclasses import replace

from lra.errors import InputError
from lra.records.collection import FILTERS, load_packed, select
from lra.records.record import RunRecord
from lra.reports.difficulty import difficulty_report
from lra.reports.report import Report
from lra.verbs import CHOICE, Request

OPTIONS = (*CHOICE, "by")


def answer(request: Request) -> Report:
    """Divide the test examples of the chosen runs."""
    records = _chosen(request)
    return difficulty_report(records, load_packed(request.results_dir, records), request["by"])


def _chosen(request: Request) -> list[RunRecord]:
    """Return the records of several mechanisms, whose names have commas between them.

    Raises:
        InputError: there is no such name, or none of the records has it.
    """
    every = replace(request, options={**request.options, "attn": ""}).records()
    if not request["attn"]:
        return every
    chosen = []
    for name in dict.fromkeys(request["attn"].split(",")):
        own = select(every, {**dict.fromkeys(FILTERS, ""), "attn": name})
        if not own:
            there = ", ".join(sorted({run.attn for run in every})) or "none"
            raise InputError(f"There is no record of attn={name} among those. There are: {there}.")
        chosen += own
    return chosen
