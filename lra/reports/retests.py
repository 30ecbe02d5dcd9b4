"""The accuracies of runs on other examples of their task, beside those on their own test split."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from lra.records.record import RunRecord
from lra.records.retest_record import Retest
from lra.reports.leaderboard import leaderboard
from lra.reports.names import Setting, data_name
from lra.reports.report import Report, Table
from lra.statistics import ONE_SEED, sampling_half_width

LEGEND = (
    "The weights of a run that were best on validation, tested again by `python scripts/retest.py`. On its own: the "
    f"same weights on the run's own test split. ±: {ONE_SEED}. A "
    "floor is a rule that needs no model, fitted on the train split of the changed task; same: the share of these "
    "examples in the same class."
)


@dataclass(frozen=True)
class RetestedRun:
    """A retest beside the run whose weights it tested.

    Attributes:
        label: the run's mechanism and settings.
        own_accuracy: of these weights on the run's own test split.
    """

    retest: Retest
    run: RunRecord
    label: str
    own_accuracy: float

    @property
    def setting(self) -> Setting:
        """Scale and protocol of the run, and the device of the retest."""
        return Setting.of(self.run)._replace(device=self.retest.device)

    @property
    def tested(self) -> str:
        """The changed settings of the task, as on the command line."""
        return " ".join(
            f"task.{name}={value if isinstance(value, str) else json.dumps(value)}"
            for name, value in self.retest.changes.items()
        )

    @property
    def num_examples(self) -> int:
        """How many examples it was tested on."""
        return self.retest.data["sizes"]["test"]

    @property
    def own_half_width(self) -> float:
        """Half the 95 % interval that the size of the run's own test split implies."""
        return sampling_half_width(self.own_accuracy, self.run.data["sizes"]["test"])

    @property
    def floor(self) -> str:
        """The name of the best floor."""
        return max(self.retest.floors, key=lambda name: self.retest.floors[name])

    @property
    def floor_accuracy(self) -> float:
        """The accuracy of the best floor on these examples."""
        return self.retest.floors[self.floor]

    @property
    def same_as_floor(self) -> float:
        """The share of the examples that run and best floor put into the same class."""
        return self.retest.same_as_floors[self.floor]

    def half_width(self, accuracy: float) -> float:
        """Return half the 95 % interval of an accuracy that the number of examples implies."""
        return sampling_half_width(accuracy, self.num_examples)


def retested_runs(retests: Sequence[Retest], records: Sequence[RunRecord]) -> list[RetestedRun]:
    """Join retests with their runs; those of runs that are not among the records are left out."""
    runs = {run.key: run for run in records}
    labels = {standing.group: standing.label for standing in leaderboard(records)}
    return [
        RetestedRun(retest, run, labels[run.group], run.test_accuracy)
        for retest in retests
        if (run := runs.get(retest.run)) and run.test_accuracy is not None
    ]


def retest_frame(rows: Sequence[RetestedRun]) -> pd.DataFrame:
    """Put retests in a data frame, a row each.

    Returns:
        Names of the run and where it was tested, label (name and settings), tested (the changes, as on the command
        line), data (source, variant and checksum of these examples), examples and trained_on (how many), own_accuracy
        and own_half_width of the run, accuracy, half_width and loss here, of the best floor its name, accuracy, half
        width and the share in the same class, key (of the run), commit and date.
    """
    return pd.DataFrame([_frame_row(row) for row in rows])


def retest_report(retests: Sequence[Retest], records: Sequence[RunRecord]) -> Report:
    """Lay retests out: a table for each set of examples, scale, protocol and device, the most accurate best."""
    rows = retested_runs(retests, records)
    if not rows:
        notes = ["None of these runs was tested again yet: see `python scripts/retest.py`."]
        return Report([], pd.DataFrame(), notes=notes)
    parts: dict[tuple[Setting, str, str], list[RetestedRun]] = {}
    for row in rows:
        parts.setdefault((row.setting, row.run.task, data_name(row.retest)), []).append(row)
    tables = [
        _table(setting, task, data, sorted(part, key=lambda row: -row.retest.accuracy))
        for (setting, task, data), part in sorted(parts.items(), key=lambda item: (item[0][0].order, item[0][1:]))
    ]
    return Report(tables, retest_frame(rows), notes=[LEGEND])


def _table(setting: Setting, task: str, data: str, rows: Sequence[RetestedRun]) -> Table:
    best = rows[0]
    columns = {
        "attn": lambda row: row.label,
        "seed": lambda row: str(row.run.seed),
        "on its own %": lambda row: _percent(row.own_accuracy, row.own_half_width),
        "on these %": lambda row: _percent(row.retest.accuracy, row.half_width(row.retest.accuracy)),
        f"same as {best.floor} %": lambda row: f"{100 * row.same_as_floor:.1f}",
    }
    notes = [f"{best.num_examples:,} examples: {data}."]
    if tainted := [
        f"{row.label}, seed {row.run.seed}, {row.retest.trained_on:,}" for row in rows if row.retest.trained_on
    ]:
        notes.append(f"Trained on some of these examples: {'; '.join(tainted)}.")
    table = Table.of(f"{task}, {setting.title}: {best.tested or 'the examples of the run'}", columns, rows, notes)
    floor = _percent(best.floor_accuracy, best.half_width(best.floor_accuracy))
    table.rows = [*table.rows, [f"floor: {best.floor}", "", "", floor, ""]]
    return table


def _frame_row(row: RetestedRun) -> dict[str, Any]:
    run, retest = row.run, row.retest
    return {
        **row.setting._asdict(), "task": run.task, "attn": run.attn, "seed": run.seed, "label": row.label,
        "tested": row.tested, "data": data_name(retest), "examples": row.num_examples,
        "trained_on": retest.trained_on, "own_accuracy": row.own_accuracy, "own_half_width": row.own_half_width,
        "accuracy": retest.accuracy, "half_width": row.half_width(retest.accuracy), "loss": retest.loss,
        "floor": row.floor, "floor_accuracy": row.floor_accuracy,
        "floor_half_width": row.half_width(row.floor_accuracy), "same_as_floor": row.same_as_floor, "key": run.key,
        "commit": retest.commit, "date": retest.date,
    }  # fmt: skip


def _percent(accuracy: float, half_width: float) -> str:
    return f"{100 * accuracy:.1f} ± {100 * half_width:.1f}"
