"""Accuracy at each length that runs were tested on, beside the length that they were trained on."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import pandas as pd

from lra.records.record import RunRecord
from lra.records.retest_record import Retest
from lra.reports.leaderboard import Accuracy, leaderboard
from lra.reports.names import Setting
from lra.reports.report import Report, Table
from lra.tasks.lengths import longest_of

LEGEND = (
    "Test accuracy in % of the weights that were best on validation: mean over seeds [95 % interval, as in the "
    "leaderboard]. A column is the length of the longest test sequence, in tokens; where it is the one that a row was "
    "trained at, these are the run's own test examples, elsewhere `python scripts/retest.py ... task.length=` drew "
    "others. A floor is a rule that needs no model, fitted on train examples of that length."
)
NONE = (
    "No run of these was tested at several lengths, and none has task.length. Train one with task.length= and "
    "model.positions=none or sinusoidal, and test it with `python scripts/retest.py ... task.length=512,1024`."
)
COMPARED = ("task.length",)  # the setting that the curves are to compare: with it alone a run is of its scale


class Column(NamedTuple):
    """A set of test examples: their length, and the checksum that tells two sets of one length apart."""

    length: int
    sha256: str


@dataclass(frozen=True)
class Curve:
    """Runs that differ in their seed alone, at each length that they were tested on.

    Attributes:
        label: their mechanism, with its settings.
        trained: the length that they were trained at.
        points: the accuracy at each, and over how many seeds, in the order of the lengths.
    """

    label: str
    trained: int
    points: Mapping[Column, tuple[Accuracy, int]]


@dataclass(frozen=True)
class Panel:
    """Curves that may be compared.

    Attributes:
        setting: scale, protocol and device of the test.
        task: the name.
        conditions: what else was changed for the longer tests, as on the command line; "" for nothing.
        curves: by label and trained length.
        floors: the accuracy of each rule without a model, by its name and the column.
    """

    setting: Setting
    task: str
    conditions: str
    curves: Sequence[Curve]
    floors: Mapping[str, Mapping[Column, Accuracy]]

    @property
    def columns(self) -> list[Column]:
        """All sets of test examples, the shortest first."""
        return sorted({column for curve in self.curves for column in curve.points})

    @property
    def title(self) -> str:
        """What stands above a table or a figure."""
        return f"{self.task}, {self.setting.title}" + (f": {self.conditions}" if self.conditions else "")


class _Test(NamedTuple):
    """One accuracy of one run."""

    run: RunRecord
    column: Column
    accuracy: float
    num_test: int
    floors: Mapping[str, float]


def panels(retests: Iterable[Retest], records: Sequence[RunRecord]) -> list[Panel]:
    """Put together what was tested at several lengths: by retests, or by runs with a `task.length` of their own.

    Every run has its own test examples among its points.
    """
    runs = {run.key: run for run in records if run.status == "ok" and run.test_accuracy is not None}
    groups: dict[tuple[Setting, str, str], dict[tuple[str, Column], _Test]] = {}
    for retest in retests:
        if (tested := runs.get(retest.run)) and "length" in retest.changes:
            setting = Setting.of(tested, COMPARED)._replace(device=retest.device)
            group = groups.setdefault((setting, tested.task, _conditions(retest.changes)), {})
            _add(group, _own_test(tested))
            _add(group, _retest(tested, retest))
    retested = {key for group in groups.values() for key, _ in group}
    for run in runs.values():
        place = (Setting.of(run, COMPARED), run.task, "")
        if _task(run).get("length") is not None and (place in groups or run.key not in retested):
            _add(groups.setdefault(place, {}), _own_test(run))
    labels = {standing.group: standing.label for standing in leaderboard(list(runs.values()))}
    ordered = sorted(groups.items(), key=lambda item: (item[0][0].order, item[0][1:]))
    return [_panel(*key, list(tests.values()), labels) for key, tests in ordered]


def length_frame(drawn: Iterable[Panel]) -> pd.DataFrame:
    """Put curves in a data frame, a row a point.

    Returns:
        scale, protocol, device, task, conditions, label (or the floor's name), trained (the length; NaN for a floor),
        tested (likewise), data (the test split's checksum), n, accuracy (the mean, a fraction), low and high.
    """
    rows: list[dict[str, Any]] = []
    for panel in drawn:
        shared = {**panel.setting._asdict(), "task": panel.task, "conditions": panel.conditions}
        lines: list[tuple[str, int | None, Mapping[Column, tuple[Accuracy, int]]]]
        lines = [(curve.label, curve.trained, curve.points) for curve in panel.curves]
        lines += [
            (f"floor: {name}", None, {column: (accuracy, 0) for column, accuracy in by_column.items()})
            for name, by_column in panel.floors.items()
        ]
        rows += [
            {**shared, "label": label, "trained": trained, "tested": column.length, "data": column.sha256, "n": n,
             "accuracy": accuracy.mean, "low": accuracy.low, "high": accuracy.high}
            for label, trained, points in lines
            for column, (accuracy, n) in points.items()
        ]  # fmt: skip
    return pd.DataFrame(rows)


def length_report(retests: Iterable[Retest], records: Sequence[RunRecord]) -> Report:
    """Lay curves out: a table for each task, scale, protocol and device, a column a length, floors beneath."""
    drawn = panels(retests, records)
    return Report([_table(panel) for panel in drawn], length_frame(drawn), notes=[LEGEND if drawn else NONE])


def _add(group: dict[tuple[str, Column], _Test], test: _Test) -> None:
    group[test.run.key, test.column] = test


def _own_test(run: RunRecord) -> _Test:
    assert run.test_accuracy is not None
    return _Test(run, _column(_task(run), run.data), run.test_accuracy, run.data["sizes"]["test"], run.floors)


def _retest(run: RunRecord, retest: Retest) -> _Test:
    column = _column({**_task(run), **retest.changes}, retest.data)
    return _Test(run, column, retest.accuracy, retest.data["sizes"]["test"], retest.floors)


def _task(run: RunRecord) -> Mapping[str, Any]:
    return run.config.get("task", {})


def _column(settings: Mapping[str, Any], data: Mapping[str, Any]) -> Column:
    return Column(longest_of(settings) or 0, data["sha256"]["test"])


def _conditions(changes: Mapping[str, Any]) -> str:
    return " ".join(f"task.{name}={json.dumps(value)}" for name, value in changes.items() if name != "length")


def _panel(setting: Setting, task: str, conditions: str, tests: Sequence[_Test], labels: Mapping[str, str]) -> Panel:
    by_group: dict[str, list[_Test]] = {}
    floors: dict[str, dict[Column, Accuracy]] = {}
    for test in sorted(tests, key=lambda test: test.column):
        by_group.setdefault(test.run.group, []).append(test)
        for name, accuracy in test.floors.items():
            floors.setdefault(name, {})[test.column] = Accuracy.of([accuracy], test.num_test)
    curves = [Curve(labels[group], longest_of(_task(own[0].run)) or 0, _points(own)) for group, own in by_group.items()]
    return Panel(setting, task, conditions, sorted(curves, key=lambda curve: (curve.label, curve.trained)), floors)


def _points(tests: Sequence[_Test]) -> dict[Column, tuple[Accuracy, int]]:
    """Average over seeds, for each set of test examples."""
    seeds: dict[Column, list[_Test]] = {}
    for test in tests:
        seeds.setdefault(test.column, []).append(test)
    return {
        column: (Accuracy.of([test.accuracy for test in own], own[0].num_test), len(own))
        for column, own in seeds.items()
    }


def _table(panel: Panel) -> Table:
    columns = panel.columns
    counts = Counter(column.length for column in columns)
    heads = [
        f"{column.length:,}" if counts[column.length] == 1 else f"{column.length:,} ({column.sha256[:8]})"
        for column in columns
    ]
    rows = [
        [curve.label, f"{curve.trained:,}", *(_cell(curve.points.get(column)) for column in columns)]
        for curve in panel.curves
    ]
    rows += [
        [f"floor: {name}", "", *(str(by_column.get(column, "")) for column in columns)]
        for name, by_column in panel.floors.items()
    ]
    return Table(panel.title, ["attn", "trained at", *heads], rows)


def _cell(point: tuple[Accuracy, int] | None) -> str:
    return f"{point[0]} (n={point[1]})" if point else ""
