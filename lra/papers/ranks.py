"""Compares the ranks of mechanisms at each scale with those in published tables, by Spearman's correlation."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import pandas as pd

from lra.papers.matching import Match, match_table
from lra.papers.methods import AVERAGE
from lra.papers.published import METRICS, Models, PaperTable
from lra.records.record import RunRecord
from lra.reports.experiments import Experiment
from lra.reports.leaderboard import Accuracy, floors
from lra.reports.names import TASK_TITLES, data_name, scale_order
from lra.reports.own_settings import shown_scale
from lra.reports.report import MINUS, Report, Table
from lra.statistics import NORMAL_QUANTILE

LEAST = 4  # below it the interval of a correlation is not defined
LEGEND = (
    "Spearman's correlation of our accuracies with the paper's, with its 95 % interval over mechanisms (Fisher's z, "
    "variance of Bonett and Wright 2000), as if they were independent and their accuracies exact. Above every floor: "
    "mechanisms whose interval lies above it. Spread: the highest of our accuracies less the lowest, in points; half "
    "interval: the median half width of an accuracy's own. Where the spread is hardly wider than the intervals, ranks "
    "are mostly chance, and so is their correlation."
)
COLUMNS = [
    "table", "scale", "task", "data", "device", "n", "correlation", "low", "high", "above_floor", "spread",
    "half_width", "keys",
]  # fmt: skip


class Contest(NamedTuple):
    """Where mechanisms are ranked: they ran on the same data at the same scale, on the same kind of device."""

    scale: str
    task: str
    data: str
    device: str


@dataclass(frozen=True)
class RankedAccuracy:
    """Our accuracy of a mechanism, in percent, and the paper's."""

    ours: Accuracy
    published: float
    n: int
    keys: str


@dataclass(frozen=True)
class RankComparison:
    """The ranks of mechanisms here and in a published table.

    Attributes:
        table: its name.
        n: mechanisms that both have.
        correlation, low, high: Spearman's, with its 95 % interval; NaN where they are not defined.
        above_floor: mechanisms whose interval lies above every floor.
        spread: the highest of our accuracies less the lowest, in points.
        half_width: the median half width of an accuracy's interval, in points.
        keys: of the records behind it.
    """

    table: str
    contest: Contest
    n: int
    correlation: float
    low: float
    high: float
    above_floor: int
    spread: float
    half_width: float
    keys: str

    @property
    def correlation_text(self) -> str:
        """The correlation with its interval."""
        if math.isnan(self.correlation):
            return "none: all are equal"
        interval = "" if math.isnan(self.low) else f" [{_signed(self.low)}, {_signed(self.high)}]"
        return f"{_signed(self.correlation)}{interval}"


RANK_COLUMNS: dict[str, Callable[[RankComparison], str]] = {
    "scale, device": lambda row: f"{row.contest.scale}, {row.contest.device}",
    "task": lambda row: TASK_TITLES.get(row.contest.task, row.contest.task),
    "mechanisms": lambda row: str(row.n),
    "Spearman's correlation": lambda row: row.correlation_text,
    "above every floor": lambda row: f"{row.above_floor} of {row.n}",
    "spread of ours": lambda row: f"{row.spread:.1f}",
    "half interval": lambda row: f"{row.half_width:.1f}",
}


def rank_report(
    tables: Sequence[PaperTable], models: Models, experiments: Mapping[str, Experiment], records: Sequence[RunRecord]
) -> Report:
    """Compare ranks: a table for each published one of accuracies, a row for each scale and task with enough runs."""
    rows = []
    for table in tables:
        if table.source and table.experiment and any(METRICS[name].is_accuracy for name in table.metrics):
            experiment = experiments[table.experiment]
            runs = [run for run in records if run.protocol == experiment.protocol]
            rows += _compare(table, match_table(table, models, experiment, runs), runs)
    frame = pd.DataFrame([_frame_row(row) for row in rows], columns=COLUMNS)
    if not rows:
        return Report([], frame, notes=[f"No task has {LEAST} mechanisms of a published table yet."])
    titles = {table.name: table.title for table in tables}
    laid_out = [
        Table.of(titles[name], RANK_COLUMNS, [row for row in rows if row.table == name])
        for name in dict.fromkeys(row.table for row in rows)
    ]
    return Report(laid_out, frame, "Ranks here, and ranks in the papers", notes=[LEGEND])


def spearman(ours: Sequence[float], published: Sequence[float]) -> tuple[float, float, float]:
    """Return the correlation of two rankings and its 95 % interval; ties share their mean rank.

    NaN where one of them ranks nothing, all its values being equal, and for the interval of a perfect correlation.
    The interval is Fisher's z with variance (1 + r^2 / 2) / (n - 3), Bonett and Wright 2000 (Psychometrika 65).
    """
    n = len(ours)
    if len(set(ours)) < 2 or len(set(published)) < 2:
        return math.nan, math.nan, math.nan
    r = float(pd.Series(ours, dtype=float).rank().corr(pd.Series(published, dtype=float).rank()))
    r = min(max(r, -1.0), 1.0)
    if abs(r) == 1.0:  # Fisher's z is infinite
        return r, math.nan, math.nan
    half = NORMAL_QUANTILE * math.sqrt((1 + r * r / 2) / (n - 3))
    return r, math.tanh(math.atanh(r) - half), math.tanh(math.atanh(r) + half)


def _ranked(matches: Sequence[Match]) -> dict[Contest, dict[str, RankedAccuracy]]:
    """Gather the accuracies that can be ranked, by contest and by the paper's name of the mechanism."""
    contests: dict[Contest, dict[str, RankedAccuracy]] = {}
    for match in matches:
        ours, published = match.ours, match.published
        if not METRICS[match.metric].is_accuracy or match.task == AVERAGE or ours is None or published is None:
            continue
        if not ours.n or ours.accuracy is None:
            continue
        by_model = contests.setdefault(Contest(match.scale, match.task, ours.data or "", ours.device or ""), {})
        # Of several settings of a mechanism the one with the most runs counts; of several such, the first.
        if match.model not in by_model or ours.n > by_model[match.model].n:
            by_model[match.model] = RankedAccuracy(ours.accuracy, published, ours.n, ours.keys)
    return contests


def _compare(table: PaperTable, matches: Sequence[Match], records: Sequence[RunRecord]) -> list[RankComparison]:
    rows = []
    for contest, by_model in sorted(_ranked(matches).items(), key=lambda item: scale_order(item[0].scale)):
        pairs = list(by_model.values())
        if len(pairs) < LEAST:
            continue
        names = (contest.task, contest.scale, contest.data)
        contest_floors = floors(run for run in records if (run.task, shown_scale(run), data_name(run)) == names)
        highest = max((100 * floor.accuracy.mean for floor in contest_floors), default=math.nan)
        accuracies = [pair.ours for pair in pairs]
        means = [accuracy.mean for accuracy in accuracies]
        rows.append(
            RankComparison(
                table.name,
                contest,
                len(pairs),
                *spearman(means, [pair.published for pair in pairs]),
                above_floor=sum(accuracy.low > highest for accuracy in accuracies),
                spread=max(means) - min(means),
                half_width=statistics.median((accuracy.high - accuracy.low) / 2 for accuracy in accuracies),
                keys=" ".join(pair.keys for pair in pairs),
            )
        )
    return rows


def _frame_row(row: RankComparison) -> dict[str, Any]:
    return {
        "table": row.table, **row.contest._asdict(), "n": row.n, "correlation": row.correlation, "low": row.low,
        "high": row.high, "above_floor": row.above_floor, "spread": row.spread, "half_width": row.half_width,
        "keys": row.keys,
    }  # fmt: skip


def _signed(correlation: float) -> str:
    return f"{correlation:+.2f}".replace("-", MINUS)
