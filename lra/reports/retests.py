"""What runs reached on other examples of their task, beside what they reached on their own."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pandas as pd

from lra.records.record import RunRecord
from lra.records.retest_record import Retest
from lra.reports.leaderboard import leaderboard
from lra.reports.names import data_name, label, scale_order
from lra.reports.report import Report, Table, each
from lra.statistics import sampling_half_width

PLACE = ["scale", "protocol", "device", "task", "data"]
HEAD = ("attn", "seed", "on its own %", "on these %")
LEGEND = (
    "The weights of a run that were best on validation, tested again by `python scripts/retest.py`. On its own: the "
    "same weights on the run's own test split. ±: half the 95 % interval that the number of examples alone implies. A "
    "floor is a rule that needs no model, fitted on the train split of the changed task; same: the share of these "
    "examples in the same class."
)


def retest_frame(retests: Sequence[Retest], records: Sequence[RunRecord]) -> pd.DataFrame:
    """Put retests beside their runs, a row a retest.

    Returns:
        Names of the run and where it was tested, label (name and settings), tested (the changes, as on the command
        line), data (source, variant and checksum of these examples), examples and trained_on (how many), own_accuracy
        and own_half_width of the run, accuracy, half_width and loss here, of the best floor its name, accuracy, half
        width and the share in the same class, key (of the run), commit and date. Retests of runs that are not among
        the records are left out.
    """
    runs = {run.key: run for run in records if run.test_accuracy is not None}
    names = {row.group: label(row.attn, row.settings) for row in each(leaderboard(records))}
    return pd.DataFrame([_row(one, runs[one.run], names) for one in retests if one.run in runs])


def _row(one: Retest, run: RunRecord, names: dict[str, str]) -> dict[str, Any]:
    examples = one.data["sizes"]["test"]
    floor = max(one.floors, key=lambda name: one.floors[name])
    assert run.test_accuracy is not None
    return {
        **{name: getattr(run, name) for name in ("scale", "protocol")},
        "device": one.device,
        **{name: getattr(run, name) for name in ("task", "attn", "seed")},
        "label": names[run.group],
        "tested": " ".join(
            f"task.{name}={value if isinstance(value, str) else json.dumps(value)}"
            for name, value in one.changes.items()
        ),
        "data": data_name(one),
        "examples": examples,
        "trained_on": one.trained_on,
        "own_accuracy": run.test_accuracy,
        "own_half_width": sampling_half_width(run.test_accuracy, run.data["sizes"]["test"]),
        "accuracy": one.accuracy,
        "half_width": sampling_half_width(one.accuracy, examples),
        "loss": one.loss,
        "floor": floor,
        "floor_accuracy": one.floors[floor],
        "floor_half_width": sampling_half_width(one.floors[floor], examples),
        "same_as_floor": one.same_as_floors[floor],
        "key": run.key,
        "commit": one.commit,
        "date": one.date,
    }


def retest_report(retests: Sequence[Retest], records: Sequence[RunRecord]) -> Report:
    """Lay them out: a table for each set of examples, scale, protocol and device, the most accurate first."""
    frame = retest_frame(retests, records)
    if frame.empty:
        return Report([], frame, notes=["None of these runs was tested again yet: see `python scripts/retest.py`."])
    groups = {tuple(map(str, place)): rows for place, rows in frame.groupby(PLACE)}
    tables = []
    for place in sorted(groups, key=lambda place: (scale_order(place[0]), place)):
        scale, protocol, device, task, data = place
        rows = each(groups[place].sort_values("accuracy", ascending=False, kind="stable"))
        first = rows[0]
        lines = [
            [row.label, str(row.seed), _percent(row.own_accuracy, row.own_half_width),
             _percent(row.accuracy, row.half_width), f"{100 * row.same_as_floor:.1f}"]
            for row in rows
        ]  # fmt: skip
        lines.append([f"floor: {first.floor}", "", "", _percent(first.floor_accuracy, first.floor_half_width), ""])
        title = f"{task}, scale={scale}, protocol={protocol}, on {device}: {first.tested or 'the examples of the run'}"
        notes = [f"{first.examples:,} examples: {data}."]
        if tainted := [f"{row.label}, seed {row.seed}, {row.trained_on:,}" for row in rows if row.trained_on]:
            notes.append(f"Trained on some of these examples: {'; '.join(tainted)}.")
        tables.append(Table(title, [*HEAD, f"same as {first.floor} %"], lines, notes))
    return Report(tables, frame, notes=[LEGEND])


def _percent(accuracy: float, half_width: float) -> str:
    return f"{100 * accuracy:.1f} ± {100 * half_width:.1f}"
