"""What papers print, read once for all tests."""

from __future__ import annotations

from lra.files import ROOT
from lra.papers.methods import Method
from lra.papers.published import PublishedNumber, load_models, load_numbers, load_tables, read_numbers

RESULTS = ROOT / "results"


NUMBERS, MODELS, TABLES = load_numbers(RESULTS), load_models(RESULTS), load_tables(RESULTS)
ROWS = read_numbers(RESULTS)

METHOD = {
    "source": "ours", "model": "mixer", "method": "mixer", "origin": "first_hand", "prior": "1d", "pretrained": "no",
    "average_tasks": "", "failed_as": "", "comparable": "yes", "caveat": "",
}  # fmt: skip


def method(**changes: str) -> Method:
    """A row of `methods.csv`."""
    return Method.of({**METHOD, **changes})


def number(
    task: str, printed: str, *, source: str = "ours", metric: str = "accuracy", **changes: str
) -> PublishedNumber:
    """An accuracy that a source prints for a method; `printed` may be FAIL, `changes` are to METHOD."""
    own = method(source=source, **changes)
    value, status = (None, "fail") if printed == "FAIL" else (float(printed), "reported")
    text = "" if value is None else printed
    return PublishedNumber(
        source, "2026", "Table 1", own.name, task, "", metric, value, "percent", status, "", text, own
    )
