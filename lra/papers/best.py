"""The highest published number of each task: whose it is, where it stands, and whether anybody repeated it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import pandas as pd

from lra.papers.averages import FIVE, SIX, PaperRow, paper_rows, text_of
from lra.papers.methods import AVERAGE, COLOUR, COPIED, FIRST_HAND, ORIGIN_LEGEND, ORIGINS, RERUN, Method
from lra.papers.published import PublishedNumber
from lra.reports.names import TASK_TITLES
from lra.reports.report import Report, Table

AVERAGES = {"average of 5": FIVE, "average of 6": SIX}
NEXT = 3
ALL, PLAIN, REPEATED = "all", "1-D, from scratch", "repeated by others"
NOBODY = "nobody"
HEAD = ("task", "among", "accuracy %", "method", "source", "label", "repeated by", "next best")
LEGEND = (
    "Computed from `published/numbers.csv` and `methods.csv`: what is not there is not known here. Where the highest "
    "is of a pre-trained model or one with a 2-D prior, the highest of the others follows; where nobody repeated it, "
    "the highest that somebody did. Repeated by: numbers of the same method from other sources that ran it, equal or "
    "not. A copied number counts only where the authors' own publication is not in the files, and of several copies "
    "the one with the most digits. Next best: the best of other methods; nothing in brackets means first-hand. "
    "Averages are recomputed. Left out: colour images, and what is not comparable."
)
AVERAGES_LEGEND = (
    "Averages over five tasks (without Path-X) and six are recomputed from the row; an average over a task that "
    "failed is none. As printed: the source's own, and of what; * it is not the average of the row's figures."
)
COLUMNS = [
    "task", "among", "rank", "value", "method", "source", "year", "table", "model", "labels", "repeated_by",
]  # fmt: skip


class Result(NamedTuple):
    """An accuracy of a method on a task, or the average of a row.

    Attributes:
        task: its name, or a key of AVERAGES.
        text: the accuracy as it is printed; of an average, with two decimals.
        number: the published number; of an average, one of those behind it.
    """

    task: str
    value: float
    text: str
    number: PublishedNumber

    @property
    def method(self) -> Method:
        """The method, and what makes it comparable."""
        return self.number.method

    @property
    def is_plain(self) -> bool:
        """Whether the model was trained from scratch and knows nothing of two dimensions."""
        task = AVERAGE if self.task in AVERAGES else self.task
        return not (self.method.pretrained or self.method.has_2d_prior(task))

    @property
    def labels(self) -> tuple[str, ...]:
        """What the result is; that it is an average need not be said."""
        prior_task = "image" if self.task in AVERAGES else self.task
        return self.method.labels(prior_task, "accuracy")

    @property
    def brief(self) -> str:
        """The accuracy with the method, and what it is where that is not first-hand."""
        labels = ", ".join(label for label in self.labels if label != ORIGINS[FIRST_HAND])
        return f"{self.text} {self.method.name}" + (f" ({labels})" if labels else "")


class Record(NamedTuple):
    """The highest result of a task among some, the next best methods, and who repeated it."""

    among: str
    best: Result
    repeated: Sequence[Result]
    following: Sequence[Result]

    @property
    def row(self) -> list[str]:
        """The row of the table."""
        best, number = self.best, self.best.number
        return [
            TASK_TITLES.get(best.task, best.task.capitalize()), self.among, best.text, best.method.name,
            f"{number.source} {number.year}".strip() + f", {number.table}", "; ".join(best.labels),
            _repeats(self.repeated), "; ".join(result.brief for result in self.following),
        ]  # fmt: skip


def records_report(numbers: Sequence[PublishedNumber]) -> Report:
    """Lay out the records, and every average that is printed or can be computed."""
    rows = paper_rows(numbers)
    results = _results(numbers, rows)
    records = [record for task in (*SIX, *AVERAGES) for record in find_records(results, task)]
    tables = [
        Table("Highest known", HEAD, [record.row for record in records], [LEGEND, ORIGIN_LEGEND]),
        _averages_table(rows),
    ]
    frame = pd.DataFrame([line for record in records for line in _frame_rows(record, results)], columns=COLUMNS)
    return Report(tables, frame, "Published numbers: the highest known, and averages")


def find_records(results: Iterable[Result], task: str) -> list[Record]:
    """Find the highest result of a task; also of a plain model, and of a repeated method, where those are others."""
    here = [result for result in results if result.task == task]
    pools = {
        ALL: here,
        PLAIN: [result for result in here if result.is_plain],
        REPEATED: [result for result in best_of_each_method(here) if repetitions(result, here)],
    }
    records = [_record(among, pool, here) for among, pool in pools.items() if pool]
    return [record for i, record in enumerate(records) if record.best not in [other.best for other in records[:i]]]


def best_of_each_method(results: Iterable[Result]) -> list[Result]:
    """Return the best result of each method, the highest first.

    A copy of a method's number counts only where those who measured it are not there, and of copies those with the
    most digits: others are rounded from them.
    """
    by_method: dict[str, list[Result]] = {}
    for result in results:
        by_method.setdefault(result.method.name, []).append(result)
    best = [max(_original(own), key=lambda result: result.value) for own in by_method.values()]
    return sorted(best, key=lambda result: -result.value)


def _original(results: Sequence[Result]) -> list[Result]:
    """Leave out copies, but for the most exact ones of what the authors' own publication is not there for."""
    copies = [result for result in results if result.method.origin == COPIED]
    others = [result for result in results if result.method.origin != COPIED]
    if not copies or any(result.method.origin == FIRST_HAND for result in others):
        return others or copies
    digits = max(_num_decimals(result) for result in copies)
    return [*others, *(result for result in copies if _num_decimals(result) == digits)]


def _num_decimals(result: Result) -> int:
    return len(result.text.partition(".")[2])


def _record(among: str, results: Sequence[Result], every: Sequence[Result]) -> Record:
    """Rank results; a repetition may be one of `every`."""
    best, *others = best_of_each_method(results)
    return Record(among, best, repetitions(best, every), others[:NEXT])


def repetitions(result: Result, results: Iterable[Result]) -> list[Result]:
    """Return the numbers that other sources have of a method on the same task and did not copy."""
    return [
        other
        for other in results
        if (other.method.name, other.task) == (result.method.name, result.task)
        and other.number.source != result.number.source
        and other.method.origin in (FIRST_HAND, RERUN)
        and not _is_copy(result, other)
    ]


def _is_copy(result: Result, original: Result) -> bool:
    """Whether a copied number is the other one, rounded at most."""
    half_unit = 0.5 * 10.0 ** -_num_decimals(result)
    return result.method.origin == COPIED and abs(result.value - original.value) <= half_unit + 1e-9


def _repeats(results: Iterable[Result]) -> str:
    return "; ".join(f"{result.text} {result.number.source}" for result in results) or NOBODY


def _results(numbers: Iterable[PublishedNumber], rows: Iterable[PaperRow]) -> list[Result]:
    """Gather the comparable accuracies on each task, and the averages of rows that have all of them."""
    results = [
        Result(number.task, number.value, number.printed, number)
        for number in numbers
        if number.metric == "accuracy" and number.task in SIX and number.value is not None and not number.length
    ]
    for row in rows:
        for name, tasks in AVERAGES.items():
            if (mean := row.mean(tasks)) is not None:
                results.append(Result(name, mean, text_of(mean), row.any))
    return [result for result in results if result.method.comparable]


def _averages_table(rows: Iterable[PaperRow]) -> Table:
    """Lay out the rows that have an average, printed or computed, the highest over five tasks first."""
    shown = [row for row in rows if row.printed or row.mean(FIVE) is not None]
    shown.sort(key=lambda row: -(row.mean(FIVE) or 0))
    head = ["model", "source", "label", *(TASK_TITLES[task] for task in SIX), "of 5", "of 6", "as printed", "of what"]
    return Table("Averages", head, [_average_row(row) for row in shown], [AVERAGES_LEGEND])


def _average_row(row: PaperRow) -> list[str]:
    number, printed = row.any, row.printed
    return [
        number.model, number.source, "; ".join(number.method.labels("image", "accuracy")),
        *(_figure(row.numbers.get(task)) for task in SIX), row.text(FIVE), row.text(SIX),
        "" if printed is None else f"{printed.text}{'*' if row.is_misprinted else ''}",
        "" if printed is None else number.method.average_label(printed.metric).removeprefix("average of "),
    ]  # fmt: skip


def _figure(number: PublishedNumber | None) -> str:
    """Print one task's figure."""
    if number is None:
        return ""
    return f"{number.text} (colour)" if number.metric == COLOUR else number.text


def _frame_rows(record: Record, results: Sequence[Result]) -> list[dict[str, Any]]:
    return [
        {
            "task": result.task, "among": record.among, "rank": rank, "value": result.value,
            "method": result.method.name, "source": result.number.source, "year": result.number.year,
            "table": result.number.table, "model": result.number.model, "labels": "; ".join(result.labels),
            "repeated_by": _repeats(repetitions(result, results)),
        }
        for rank, result in enumerate([record.best, *record.following], 1)
    ]  # fmt: skip
