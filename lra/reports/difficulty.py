"""How accuracy falls with what makes an example hard: mechanisms side by side, and rules without a model beneath.

The test examples are divided by a measure of `lra.tasks.Task.difficulties`. A measure that orders nothing, or has few
values, has a bin for each value; another has five, with about as many examples in each, as far as equal values allow.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lra.errors import InputError
from lra.records.arrays import Packed
from lra.records.record import RunRecord, tested
from lra.reports.comparison import Contest, gather, left_out
from lra.reports.leaderboard import Accuracy
from lra.reports.report import TO, Report, Table
from lra.statistics import bootstrap_interval, wilson_interval
from lra.tasks.image import CLASSES

# What the names of measures mean; a task of one's own may use others.
MEASURES = {
    "length": "tokens that the model reads; of two texts, those of the longer one",
    "depth": "lists that are open, one in another, at the deepest digit",
    "operators": "operators in the expression",
    "distance": "tokens from an operator to the beginning of its last argument, the largest in the expression",
    "contour": "pixels along the contour that the first marker is on, gaps included",
    "markers": "pixels straight from one marker to the other",
    "distractors": "short contours beside the two long ones",
    "class": "the true class",
}
NAMES = {("image", "class"): CLASSES}  # of values that are no numbers, by task and measure
NOMINAL = ("class",)  # measures whose order says nothing
FEW_VALUES = 8
LEAST_SHARE = 0.01  # of the examples: fewer are no bin of their own, except where values are names
QUANTILES = 5
REMEDY = (
    "`python scripts/report.py measure_difficulty` measures it where the data are at hand, if the task says how; a run "
    "does so when it ends."
)
LEGEND = (
    "Test accuracy in % [95 % interval: Wilson's for the examples of the bin; over several seeds it also holds the "
    "bootstrap interval of their mean]. A floor is a rule that needs no model, fitted on the train split."
)


@dataclass(frozen=True)
class Bin:
    """Test examples that are about as hard.

    Attributes:
        title: of its column.
        low, high: the least and the greatest value in it.
        examples: (n,) their numbers.
    """

    title: str
    low: int
    high: int
    examples: NDArray[np.int64]


@dataclass(frozen=True)
class Line:
    """What one mechanism, or one rule without a model, reaches in each bin.

    Attributes:
        name: the mechanism and its settings, or the rule.
        keys: of the runs, by seed; none for a rule.
        bins: accuracy in each bin.
        overall: accuracy on all examples.
    """

    name: str
    keys: dict[int, str]
    bins: list[Accuracy]
    overall: Accuracy


@dataclass(frozen=True)
class Division:
    """The test examples of a contest, divided by one measure.

    Attributes:
        lines: mechanisms, the most accurate first.
        floors: rules without a model, likewise.
    """

    contest: Contest
    measure: str
    bins: list[Bin]
    lines: list[Line]
    floors: list[Line]

    @property
    def title(self) -> str:
        """Task, setting and measure, for the title of a table."""
        return f"{self.contest.title}: by {self.measure}"


def divide(values: NDArray[np.int64], names: Sequence[str] = ()) -> list[Bin]:
    """Divide N examples by a measure: each of them is in one bin, and no bin is empty.

    Args:
        values: (N,).
        names: of the values 0, 1, ..., where they are no numbers.
    """
    distinct, counts = np.unique(values, return_counts=True)
    # `last` has the greatest value of each bin.
    if names:
        last = distinct
    elif len(distinct) <= FEW_VALUES:
        last = distinct[counts >= LEAST_SHARE * len(values)]  # a rare value joins the next one,
        last[-1] = distinct[-1]  # and those at the top the last that is not rare
    else:
        shares = np.arange(1, QUANTILES + 1) / QUANTILES
        last = np.unique(np.quantile(values, shares, method="inverted_cdf"))
    place = np.searchsorted(last, values)
    bins = []
    for number in range(len(last)):
        examples = np.flatnonzero(place == number)
        low, high = int(values[examples].min()), int(values[examples].max())
        title = names[low] if names else f"{low}" if low == high else f"{low}{TO}{high}"
        bins.append(Bin(title, low, high, examples))
    return bins


def in_order(measures: Iterable[str]) -> list[str]:
    """Sort names of measures: as in MEASURES, those of one's own after them."""
    order = [*MEASURES]
    return sorted(measures, key=lambda name: (order.index(name) if name in order else len(order), name))


def divisions(contests: Sequence[Contest], packed: Packed, by: str = "") -> list[Division]:
    """Divide the test examples of each contest by each of their measures, or by one of them alone."""
    divided = []
    for contest in contests:
        for measure, values in _measures(contest, packed).items():
            if by in ("", measure):
                bins = divide(values, NAMES.get((contest.task, measure), ()))
                lines = [
                    _line(contest, bins, name, list(runs.values()), contest.keys[name])
                    for name, runs in contest.predicted.items()
                ]
                floors = [_line(contest, bins, name, [classes], {}) for name, classes in contest.floors.items()]
                divided.append(Division(contest, measure, bins, _ordered(lines), _ordered(floors)))
    return divided


def _measures(contest: Contest, packed: Packed) -> dict[str, NDArray[np.int64]]:
    """Return what is known of the test examples of a contest; what cannot be of them is left out."""
    measures = packed.measures(contest.digest)
    return {name: measures[name] for name in in_order(measures) if measures[name].shape == contest.labels.shape}


def _line(
    contest: Contest, bins: Sequence[Bin], name: str, predicted: Sequence[NDArray[np.uint8]], keys: dict[int, str]
) -> Line:
    right = [classes == contest.labels for classes in predicted]
    return Line(name, keys, [_accuracy([run[b.examples] for run in right]) for b in bins], _accuracy(right))


def _accuracy(right: Sequence[NDArray[np.bool_]]) -> Accuracy:
    """Average runs, given which of the same examples each of them classified rightly."""
    accuracies, size = [float(run.mean()) for run in right], len(right[0])
    mean = sum(accuracies) / len(accuracies)
    intervals = [wilson_interval(mean, size)]
    if len(accuracies) > 1:
        intervals.append(bootstrap_interval(accuracies, size))
    return Accuracy(mean, min(low for low, _ in intervals), max(high for _, high in intervals))


def _ordered(lines: list[Line]) -> list[Line]:
    return sorted(lines, key=lambda line: (-line.overall.mean, line.name))


def divides(run: RunRecord, packed: Packed) -> bool:
    """Say whether a run has predictions, and some measure divides its test examples."""
    measures = packed.measures(run.data["sha256"]["test"])
    is_predicted = run.status == "ok" and (run.key, tested(run)) in packed.predictions
    return is_predicted and any(len(divide(values)) > 1 for values in measures.values())


def difficulty_report(records: Sequence[RunRecord], packed: Packed, by: str = "") -> Report:
    """Lay accuracy by difficulty out: a table for each task, data, setting and measure.

    Args:
        records: the runs to show.
        packed: predictions and difficulty of their test examples.
        by: a measure; "" for all.

    Raises:
        InputError: there is no run that ended ok and has predictions, nothing is known of what makes its test examples
            hard, or there is no such measure.
    """
    contests, lacking = gather([run for run in records if run.status == "ok"], packed)
    if not contests:
        reason = f"{lacking[0]}." if lacking else "Train something first, for example with `make run`."
        raise InputError(f"No run of these names ended ok with predictions to divide. {reason}")
    known = [contest for contest in contests if _measures(contest, packed)]
    digests = {contest.digest for contest in known}
    unknown = sorted({f"{one.task} ({one.data})" for one in contests if one.digest not in digests})
    if not known:
        raise InputError(f"What makes the test examples of {', '.join(unknown)} hard is not known here. {REMEDY}")
    choices = list(dict.fromkeys(measure for contest in known for measure in _measures(contest, packed)))
    if by and by not in choices:
        tasks = ", ".join(sorted({contest.task for contest in known}))
        raise InputError(f"There is no by={by} for {tasks}. Choose from {', '.join(choices)}.")
    divided = divisions(known, packed, by)
    telling = [division for division in divided if len(division.bins) > 1]
    notes = [LEGEND, *(_meaning(name) for name in dict.fromkeys(division.measure for division in divided))]
    notes += dict.fromkeys(_alike(division) for division in divided if len(division.bins) == 1)
    if unknown:
        notes.append(f"Left out, since it is not known what makes their test examples hard: {', '.join(unknown)}.")
    rows = [row for division in divided for row in _frame_rows(division)]
    return Report([_table(one) for one in telling], pd.DataFrame(rows), notes=[*notes, *left_out(lacking)])


def _meaning(measure: str) -> str:
    return f"{measure.capitalize()}: {MEASURES.get(measure, 'a measure of the task')}."


def _alike(division: Division) -> str:
    contest, (only,) = division.contest, division.bins
    share = "every example" if only.low == only.high else "nearly every example"
    return f"{contest.task} ({contest.data}): {division.measure} is {only.high} for {share}, and divides none."


def _table(division: Division) -> Table:
    rows = [["examples", *(f"{len(b.examples):,}" for b in division.bins), f"{len(division.contest.labels):,}"]]
    for prefix, lines in (("", division.lines), ("floor: ", division.floors)):
        rows += [[prefix + line.name, *map(str, line.bins), str(line.overall)] for line in lines]
    head = [f"{division.measure}:", *(b.title for b in division.bins), "all"]
    return Table(division.title, head, rows, [division.contest.note, _seeds(division.lines)])


def _seeds(lines: Sequence[Line]) -> str:
    """Say how many seeds each mechanism is the mean of."""
    counts = {line.name: len(line.keys) for line in lines}
    if len(set(counts.values())) == 1:
        (count,) = set(counts.values())
        return f"{count} seed{'s' * (count > 1)} of each."
    return f"Seeds: {', '.join(f'{name} {count}' for name, count in counts.items())}."


def _frame_rows(division: Division) -> list[dict[str, Any]]:
    lines = [("", line) for line in division.lines] + [("floor: ", line) for line in division.floors]
    return [
        _frame_row(division, prefix, line, b, accuracy)
        for prefix, line in lines
        for b, accuracy in zip(division.bins, line.bins, strict=True)
    ]


def _frame_row(division: Division, prefix: str, line: Line, b: Bin, accuracy: Accuracy) -> dict[str, Any]:
    contest = division.contest
    return {
        **contest.setting._asdict(), "task": contest.task, "data": contest.data, "measure": division.measure,
        "bin": b.title, "least": b.low, "greatest": b.high, "examples": len(b.examples), "attn": prefix + line.name,
        "n": len(line.keys), "accuracy": accuracy.mean, "low": accuracy.low, "high": accuracy.high,
        "keys": " ".join(sorted(line.keys.values())),
    }  # fmt: skip
