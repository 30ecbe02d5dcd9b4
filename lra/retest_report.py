"""What runs reached on other examples of their task, beside what they reached on their own."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from lra.intervals import sampling_half_width
from lra.layout import Report, Table, each
from lra.record import RunRecord
from lra.retest import Retest
from lra.tables import TABLE_COLUMNS, label, leaderboard, scale_order

HEAD = ("attn", "seed", "on its own %", "on these %")
LEGEND = (
    "The best weights of a run, tested again by `python scripts/retest.py`. On its own: on the run's own test split. "
    "±: half the 95 % interval that the number of examples alone implies. A floor is a rule that needs no model, "
    "fitted on the train split of the changed task; same: the share of these examples in the same class."
)


def retest_frame(retests: Sequence[Retest], records: Sequence[RunRecord]) -> pd.DataFrame:
    """Put retests beside their runs, a row a retest.

    Returns:
        Names of the run, label (name and settings), tested (the changes, as on the command line), data (source, variant
        and checksum of these examples), examples, own_accuracy and own_examples of the run, accuracy and loss here,
        floors and same (both by name), key (of the run). Retests of runs that are not among the records are left out.
    """
    runs = {run.key: run for run in records if run.test_accuracy is not None}
    names = {row.group: label(row.attn, row.settings) for row in each(leaderboard(records))}
    rows = [
        {
            **{name: getattr(run, name) for name in ("scale", "protocol", "task", "attn", "seed")},
            "device": one.device,
            "label": names[run.group],
            "tested": " ".join(f"task.{name}={value}" for name, value in one.changes.items()),
            "data": f"{one.data['source']}, {one.data['variant']}, {one.data['sha256']['test'][:8]}",
            "examples": one.data["sizes"]["test"],
            "own_accuracy": run.test_accuracy,
            "own_examples": run.data["sizes"]["test"],
            "accuracy": one.accuracy,
            "loss": one.loss,
            "floors": one.floors,
            "same": one.same_as_floors,
            "key": run.key,
        }
        for one in retests
        if (run := runs.get(one.run)) is not None
    ]
    return pd.DataFrame(rows)


def retest_report(retests: Sequence[Retest], records: Sequence[RunRecord]) -> Report:
    """Lay them out: a table for each set of examples, scale, protocol and device, the most accurate first."""
    frame = retest_frame(retests, records)
    if frame.empty:
        return Report([], frame, notes=["No run was tested again yet: see `python scripts/retest.py`."])
    tables = []
    groups = {tuple(map(str, place)): rows for place, rows in frame.groupby([*TABLE_COLUMNS, "task", "tested", "data"])}
    for place in sorted(groups, key=lambda place: (scale_order(place[0]), place)):
        scale, protocol, device, task, tested, data = place
        rows = groups[place]
        floors = rows["floors"].iloc[0]
        best = max(floors, key=floors.get)
        examples = rows["examples"].iloc[0]
        lines = [
            [row.label, str(row.seed), _percent(row.own_accuracy, row.own_examples), _percent(row.accuracy, examples),
             f"{100 * row.same[best]:.1f}"]
            for row in each(rows.sort_values("accuracy", ascending=False, kind="stable"))
        ]  # fmt: skip
        lines += [
            [f"floor: {name}", "", "", _percent(floors[name], examples), ""]
            for name in sorted(floors, key=lambda name: -floors[name])
        ]
        title = f"{task}, scale={scale}, protocol={protocol}, on {device}: {tested or 'the examples of the run'}"
        notes = [f"{examples:,} examples: {data}."]
        tables.append(Table(title, [*HEAD, f"same as {best} %"], lines, notes))
    return Report(tables, frame.drop(columns=["floors", "same"]), notes=[LEGEND])


def _percent(accuracy: float, examples: int) -> str:
    return f"{100 * accuracy:.1f} ± {100 * sampling_half_width(accuracy, examples):.1f}"
