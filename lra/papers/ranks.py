"""Does a smaller scale rank mechanisms as a published table does? Spearman's correlation, task by task."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from lra.papers.matching import AVERAGE, Row, match
from lra.papers.published import METRICS, Model, PaperTable
from lra.records.record import RunRecord
from lra.reports.experiments import Experiment
from lra.reports.leaderboard import floors
from lra.reports.names import TASK_TITLES, data_name, scale_order
from lra.reports.report import MINUS, Report, Table
from lra.statistics import NORMAL_QUANTILE

LEAST = 4  # below it the interval of a correlation is not defined
HEAD = (
    "scale, device",
    "task",
    "mechanisms",
    "Spearman's correlation",
    "above every floor",
    "spread of ours",
    "half interval",
)
LEGEND = (
    "Spearman's correlation of our accuracies with the paper's, with its 95 % interval over mechanisms (Fisher's z, "
    "variance of Bonett and Wright 2000), as if they were independent and their accuracies exact. Above every floor: "
    "mechanisms whose interval lies above it. Spread: the highest of our accuracies less the lowest, in points; half "
    "interval: the median half width of an accuracy's own. Where the spread is hardly wider than the intervals, ranks "
    "are mostly chance, and so is their correlation."
)
COLUMNS = [
    "table",
    "scale",
    "task",
    "data",
    "device",
    "n",
    "correlation",
    "low",
    "high",
    "above_floor",
    "spread",
    "half_width",
    "keys",
]


def rank_report(
    tables: Sequence[PaperTable],
    models: Mapping[tuple[str, str, str], Model],
    experiments: Mapping[str, Experiment],
    records: Sequence[RunRecord],
) -> Report:
    """Compare ranks: a table for each published one of accuracies, a row for each scale and task with enough runs."""
    found = []
    for table in tables:
        if table.source and table.experiment and any(METRICS[name].is_accuracy for name in table.metrics):
            experiment = experiments[table.experiment]
            mine = [run for run in records if run.protocol == experiment.protocol]
            found += _compare(table, match(table, models, experiment, mine), mine)
    frame = pd.DataFrame(found, columns=COLUMNS)
    titles = {table.name: table.title for table in tables}
    laid_out = [
        Table(titles[name], HEAD, [_line(row) for row in found if row["table"] == name])
        for name in dict.fromkeys(row["table"] for row in found)
    ]
    if not found:
        return Report([], frame, notes=[f"No task has {LEAST} mechanisms of a published table yet."])
    return Report(laid_out, frame, "Ranks here, and ranks in the papers", notes=[LEGEND])


def spearman(ours: Sequence[float], theirs: Sequence[float]) -> tuple[float, float, float]:
    """Return the correlation of two rankings and its 95 % interval; ties share their mean rank.

    NaN where one of them ranks nothing, all its values being equal, and for the interval of a perfect correlation.
    The interval is Fisher's z with variance (1 + r^2 / 2) / (n - 3), Bonett and Wright 2000 (Psychometrika 65).
    """
    n = len(ours)
    if len(set(ours)) < 2 or len(set(theirs)) < 2:
        return math.nan, math.nan, math.nan
    r = float(pd.Series(ours, dtype=float).rank().corr(pd.Series(theirs, dtype=float).rank()))
    r = min(max(r, -1.0), 1.0)
    if abs(r) == 1.0:  # Fisher's z is infinite
        return r, math.nan, math.nan
    half = NORMAL_QUANTILE * math.sqrt((1 + r * r / 2) / (n - 3))
    return r, math.tanh(math.atanh(r) - half), math.tanh(math.atanh(r) + half)


def _compare(table: PaperTable, rows: Sequence[Row], records: Sequence[RunRecord]) -> list[dict[str, Any]]:
    places: dict[tuple[str, str, str, str], dict[str, Row]] = {}
    for row in rows:
        if METRICS[row["metric"]].is_accuracy and row["task"] != AVERAGE and row["n"] and not pd.isna(row["published"]):
            mine = places.setdefault((row["scale"], row["task"], row["data"], row["device"]), {})
            # Of several settings of a mechanism that with the most runs counts; of these the first.
            if row["n"] > mine.get(row["model"], {"n": 0})["n"]:
                mine[row["model"]] = row
    found = []
    for (scale, task, data, device), mine in sorted(places.items(), key=lambda item: scale_order(item[0][0])):
        if len(mine) < LEAST:
            continue
        ours = [row["value"] for row in mine.values()]
        r, low, high = spearman(ours, [row["published"] for row in mine.values()])
        beneath = floors(run for run in records if (run.task, run.scale, data_name(run)) == (task, scale, data))
        highest = 100 * beneath["accuracy"].max()
        found.append(
            {
                "table": table.name, "scale": scale, "task": task, "data": data, "device": device, "n": len(mine),
                "correlation": r, "low": low, "high": high,
                "above_floor": sum(row["low"] > highest for row in mine.values()),
                "spread": max(ours) - min(ours),
                "half_width": float(pd.Series([(row["high"] - row["low"]) / 2 for row in mine.values()]).median()),
                "keys": " ".join(row["keys"] for row in mine.values()),
            }
        )  # fmt: skip
    return found


def _line(row: Mapping[str, Any]) -> list[str]:
    correlation = "none: all are equal"
    if not math.isnan(row["correlation"]):
        interval = "" if math.isnan(row["low"]) else f" [{row['low']:+.2f}, {row['high']:+.2f}]"
        correlation = f"{row['correlation']:+.2f}{interval}".replace("-", MINUS)
    return [
        f"{row['scale']}, {row['device']}", TASK_TITLES.get(row["task"], row["task"]), str(row["n"]), correlation,
        f"{row['above_floor']} of {row['n']}", f"{row['spread']:.1f}", f"{row['half_width']:.1f}",
    ]  # fmt: skip
