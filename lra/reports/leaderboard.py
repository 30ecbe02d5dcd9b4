"""From records to the leaderboard: one row a backbone, one column a task, failures and floors included."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import pandas as pd

from lra.records.identity import hashed
from lra.records.record import BASELINE, RunRecord, accuracy_of, tested
from lra.reports.names import STATUS_TEXT, TABLE_COLUMNS, caption, comparable, data_name, label, scale_order
from lra.reports.report import Report, Table, each, write
from lra.statistics import bootstrap_interval

# On these tasks a run learns, or stays at chance: their cells say how many runs were above this accuracy.
LEARNED, LEARNING_TASKS = 0.6, ("pathfinder", "pathx")
SHOWN_SETTINGS = 3
CELL_LEGEND = (
    "Test accuracy in %: mean over n seeds [bootstrap 95 % interval over the seeds, widened by the sampling error of "
    f"the test set; one seed shows that error alone]. Learned: runs above {100 * LEARNED:.0f} % on Pathfinder and "
    "Path-X, where the others stay at chance."
)


def to_frame(records: Iterable[RunRecord]) -> pd.DataFrame:
    """Put records in a data frame: a row a run, a column a field."""
    return pd.DataFrame([record.as_dict() for record in records])


def leaderboard(records: Sequence[RunRecord]) -> pd.DataFrame:
    """Summarise runs that differ in their seed alone.

    Returns:
        A row for each `group`, with scale, protocol, device, task, data (see `data_name`), attn, settings (what tells
        the row from others of the same name, "" where it has none), tested (`best` or `last`), n (runs that ended ok),
        accuracy (mean, a fraction), low and high (of its 95 % interval; all three None if n is 0), learned (runs above
        60 %; None but on Pathfinder and Path-X), failures (the other statuses, as text), ms_per_step (median over
        runs), keys (of all its runs).
    """
    groups: dict[str, list[RunRecord]] = {}
    for record in records:
        groups.setdefault(record.group, []).append(record)
    firsts = [runs[0] for runs in groups.values()]
    return pd.DataFrame([_summary(runs, firsts) for runs in groups.values()])


def _summary(runs: Sequence[RunRecord], firsts: Sequence[RunRecord]) -> dict[str, Any]:
    first = runs[0]
    accuracies = [accuracy for run in runs if (accuracy := accuracy_of(run)) is not None]
    times = [run.ms_per_step for run in runs if run.status == "ok" and run.ms_per_step is not None]
    failures = Counter(STATUS_TEXT.get(run.status, run.status) for run in runs if run.status != "ok")
    low, high = bootstrap_interval(accuracies, first.data["sizes"]["test"]) if accuracies else (None, None)
    return {
        "group": first.group,
        **{name: getattr(first, name) for name in TABLE_COLUMNS},
        "task": first.task,
        "data": data_name(first),
        "attn": first.attn,
        "settings": _settings(first, firsts),
        "tested": tested(first),
        "n": len(accuracies),
        "accuracy": sum(accuracies) / len(accuracies) if accuracies else None,
        "low": low,
        "high": high,
        "learned": sum(value > LEARNED for value in accuracies) if first.task in LEARNING_TASKS else None,
        "failures": ", ".join(f"{count} {status}" for status, count in failures.items()),
        "ms_per_step": pd.Series(times).median() if times else None,
        "keys": " ".join(sorted(run.key for run in runs)),
    }


def leaderboard_report(records: Sequence[RunRecord]) -> Report:
    """Lay the leaderboard out: a table for each scale, protocol and kind of device, floors beneath."""
    if not records:
        return Report([], pd.DataFrame(), notes=["No records yet: train something first, for example with `make run`."])
    board = leaderboard(records)
    parts = comparable(records)
    tables = []
    for scale, protocol, device in sorted(parts, key=lambda name: (scale_order(name[0]), name)):
        rows = board[(board["scale"] == scale) & (board["protocol"] == protocol) & (board["device"] == device)]
        title = f"scale={scale}, protocol={protocol}, on {device}"
        tables.append(Table(title, *_grid(rows, parts[scale, protocol, device]), [caption(rows["tested"])]))
    notes = [f"{CELL_LEGEND} Floors need no model. Numbers of two tables are not comparable."]
    return Report(tables, board, notes=notes)


def render(records: Sequence[RunRecord]) -> str:
    """Print the leaderboard as Markdown."""
    return write(leaderboard_report(records), "markdown")


def cell(row: Any) -> str:
    """Print a row of the leaderboard in one cell: mean, interval, n, runs that learned, failures."""
    if row.n == 0:
        return row.failures
    learned = "" if pd.isna(row.learned) else f", {row.learned:.0f} learned"
    failures = f", {row.failures}" if row.failures else ""
    return f"{100 * row.accuracy:.1f} [{100 * row.low:.1f}, {100 * row.high:.1f}] (n={row.n}{learned}){failures}"


def floors(records: Iterable[RunRecord]) -> pd.DataFrame:
    """Collect what needs no model: task, data, name, accuracy, and the text of its cell; the highest first."""
    rows = {
        (run.task, data_name(run), name): (accuracy, bootstrap_interval([accuracy], run.data["sizes"]["test"]))
        for run in records
        for name, accuracy in run.floors.items()
    }
    return pd.DataFrame(
        [
            (task, data, name, a, f"{100 * a:.1f} [{100 * low:.1f}, {100 * high:.1f}]")
            for (task, data, name), (a, (low, high)) in sorted(rows.items(), key=lambda item: -item[1][0])
        ],
        columns=["task", "data", "name", "accuracy", "text"],
    )


def _grid(rows: pd.DataFrame, records: Sequence[RunRecord]) -> tuple[list[str], list[list[str]]]:
    columns = list(dict.fromkeys(zip(rows["task"], rows["data"], strict=True)))
    several = Counter(task for task, _ in columns)
    heads = [task if several[task] == 1 else f"{task} ({data})" for task, data in columns]
    labels = [label(attn, settings) for attn, settings in zip(rows["attn"], rows["settings"], strict=True)]
    rows = rows.assign(label=labels, baseline=rows["attn"].str.startswith(BASELINE))
    means = rows.groupby(["label", "baseline"], as_index=False)[["accuracy"]].mean()
    order = sorted(each(means), key=lambda row: (row.baseline, -row.accuracy if pd.notna(row.accuracy) else 1))
    found = {(row.label, row.task, row.data): cell(row) for row in each(rows)}
    lines = [[name, *(found.get((name, *column), "") for column in columns)] for name in (row.label for row in order)]
    beneath = floors(records)
    by_place = {(row.name, row.task, row.data): row.text for row in each(beneath)}
    floor_lines = [
        [f"floor: {name}", *(by_place.get((name, *column), "") for column in columns)]
        for name in dict.fromkeys(beneath["name"])
    ]
    return ["attn", *heads], lines + floor_lines


def _settings(run: RunRecord, others: Sequence[RunRecord]) -> str:
    """Name the settings in which a run differs from others of the same name, task, data, scale, protocol and device."""
    alike = [
        _flat(hashed(other.config))
        for other in others
        if (other.attn, other.task, data_name(other)) == (run.attn, run.task, data_name(run))
        and all(getattr(other, name) == getattr(run, name) for name in TABLE_COLUMNS)
    ]
    mine = _flat({name: value for name, value in hashed(run.config).items() if name not in ("seed", "prepared")})
    differing = [f"{name}={mine[name]}" for name in mine if any(other.get(name) != mine[name] for other in alike)]
    if len(alike) > 1 and not differing:  # in something that only the others have
        return run.group
    if len(differing) > SHOWN_SETTINGS:
        return f"{', '.join(differing[:SHOWN_SETTINGS])}, {len(differing) - SHOWN_SETTINGS} more: {run.group}"
    return ", ".join(differing)


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat
