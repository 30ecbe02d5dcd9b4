"""What one setting changes, mechanism by mechanism: positions, a stem, pre-training, or any other key of a run.

Runs are compared that differ in nothing else, apart from the mechanism and the seed. A difference is taken example by
example and seed by seed, so that what all runs have in common, an easy test set or a lucky seed, cancels.
"""

from __future__ import annotations

import copy
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lra.errors import InputError
from lra.records.arrays import Packed
from lra.records.collection import load_packed
from lra.records.identity import ABSENT, NEUTRAL, as_typed, at, fingerprint, hashed
from lra.records.record import LABELS, RunRecord, tested
from lra.reports.leaderboard import Standing, flat
from lra.reports.names import Setting, data_name
from lra.reports.own_settings import own_settings
from lra.reports.report import MINUS, Report, Table
from lra.statistics import NORMAL_QUANTILE, student_interval

LEGEND = (
    "Test accuracy in %, as on the leaderboard. Gain: the difference to the first value, over the seeds that both have "
    "and example by example, ± half its 95 % interval (Student's t over the seeds, and the sampling of the test set; "
    "with one seed the sampling alone). *: the interval leaves 0 out. Seconds: the median of training, pre-training "
    "included. Own: settings that the command of no experiment has."
)
BEHIND = (
    " Behind: how far below {to} of the same value. Closes: by how much that is less than at the first value, ± as "
    "above."
)
Right = Mapping[int, NDArray[np.bool_]]  # by seed, whether each test example was classified rightly


class Estimate(NamedTuple):
    """A difference of accuracies, half the width of its 95 % interval, and how many seeds it is over."""

    value: float
    half_width: float
    seeds: int

    def __str__(self) -> str:
        sign = MINUS if self.value < 0 else "+"
        star = "*" if abs(self.value) > self.half_width else ""
        return f"{sign}{100 * abs(self.value):.1f}{star} ± {100 * self.half_width:.1f}"


def contrast(*terms: tuple[int, Right]) -> Estimate | None:
    """Add accuracies, each with a factor, over the seeds that all have; None if they share no seed.

    Both errors are counted: the spread over seeds by Student's t, and the spread over test examples, of the mean over
    the seeds, by the normal distribution. The first has a part of the second: the interval is too wide rather than too
    narrow.
    """
    seeds = sorted(set.intersection(*(set(right) for _, right in terms)))
    if not seeds:
        return None
    differences = np.stack([sum(factor * right[seed].astype(int) for factor, right in terms) for seed in seeds])
    mean, over_seeds = student_interval(differences.mean(axis=1).tolist())
    by_example = differences.mean(axis=0)
    sampling = NORMAL_QUANTILE * float(by_example.std()) / math.sqrt(by_example.size)
    return Estimate(mean, math.hypot(over_seeds, sampling), len(seeds))


@dataclass
class Cell:
    """Runs of one mechanism with one value of the setting: their summary, and which examples they got right."""

    runs: list[RunRecord] = field(default_factory=list)
    right: dict[int, NDArray[np.bool_]] = field(default_factory=dict)

    @property
    def standing(self) -> Standing:
        """The summary."""
        return Standing.of(self.runs, "")

    @property
    def seconds(self) -> float | None:
        """Of training, pre-training included, the median over the runs that ended ok."""
        times = [seconds for run in self.runs if run.status == "ok" and (seconds := _seconds_of(run)) is not None]
        return statistics.median(times) if times else None


def _seconds_of(run: RunRecord) -> float | None:
    """Return what a run trained, and its encoder before it, whoever pre-trained that; None where one is unknown."""
    before = 0.0 if run.pretraining is None else run.pretraining["train_seconds"]
    return None if run.train_seconds is None or before is None else run.train_seconds + before


@dataclass
class Panel:
    """Mechanisms under one set of conditions: one task, data set and configuration but for the setting.

    Attributes:
        title: task and setting.
        data: the name of the data.
        conditions: what the runs' configurations have in common, flat.
        names: of the values.
        cells: by mechanism, and by the text of the value.
    """

    title: str
    data: str
    conditions: dict[str, Any]
    names: _Names
    cells: dict[str, dict[str, Cell]] = field(default_factory=dict)

    @property
    def runs(self) -> list[RunRecord]:
        """All runs."""
        return [run for row in self.cells.values() for cell in row.values() for run in cell.runs]

    def values(self, first: Any) -> list[str]:
        """Name the values that occur, the first one in front where it does; numbers by their size."""
        found = {value for row in self.cells.values() for value in row}
        return sorted(found, key=lambda value: (value != self.names.of(first), _number(value), value))


def effect_report(results_dir: Path, records: Sequence[RunRecord], of: str, default: Any, to: str = "") -> Report:
    """Lay out what a setting changes: a table for each set of conditions under which it was varied.

    Args:
        results_dir: where the predictions are.
        records: among which to look.
        of: the path of a key or of a node, such as `model.positions`.
        default: the value with which the others are compared, where a run has it.
        to: a mechanism; the others' distance to it is shown for each value.

    Raises:
        InputError: no run has such a key, or nothing was run with two values of it.
    """
    having = [run for run in records if at(run.config, of, ABSENT) is not ABSENT]
    if not having:
        raise InputError(
            f"No record has a setting {of!r}. of= takes a path as in configs/config.yaml: model.positions."
        )
    panels, lacking = _panels(having, load_packed(results_dir, having), of)
    varied = [panel for panel in panels if len(panel.values(default)) > 1]
    if not varied:
        names = _Names([at(run.config, of) for run in having]).all()
        raise InputError(
            f"Nothing was run with two values of {of}: all {len(having)} runs have {', '.join(names)}, or differ in "
            "something else, too."
        )
    tables, frame = [], []
    for panel in varied:
        values = panel.values(default)
        conditions = ", ".join(_told_apart(panel, varied))
        own = own_settings(panel.runs, (of,))
        beneath = [f"Data: {panel.data}.", *[f"With {conditions}."] * bool(conditions), *[f"Own: {own}."] * bool(own)]
        tables.append(_table(panel, values, to, beneath))
        frame += _frame_rows(panel, values, to, conditions)
    notes = [LEGEND + (BEHIND.format(to=to) if any(to in panel.cells for panel in varied) else "")]
    if lacking:
        notes.append(f"Without predictions, so in no difference: {', '.join(lacking[:5])}.")
    return Report(tables, pd.DataFrame(frame), title=f"What {of} changes", notes=notes)


class _Names:
    """Short texts of the values of a setting; a node is named by its kind and by what tells it from others of this."""

    def __init__(self, values: Sequence[Any]) -> None:
        self._values = values
        self._nodes = [dict(value) for value in values if isinstance(value, Mapping)]

    def of(self, value: Any) -> str:
        """Name a value."""
        text = as_typed(value)
        if not isinstance(value, Mapping):
            return text
        alike = [flat(node) for node in self._nodes if as_typed(node) == text]
        return ", ".join(filter(None, [text, *_differing(flat(dict(value)), alike, " ")])) or "as configured"

    def all(self) -> list[str]:
        """Name all values, each once."""
        return sorted({self.of(value) for value in self._values})


def _number(text: str) -> float:
    """Return the number that a text is, so that numbers sort by size and in front of what is none."""
    try:
        return float(text)
    except ValueError:
        return math.inf


def _differing(own: Mapping[str, Any], others: Sequence[Mapping[str, Any]], between: str) -> list[str]:
    """Name the settings of one flat configuration that another one lacks or has another value of."""
    return [f"{key}{between}{own[key]}" for key in own if any(other.get(key, ABSENT) != own[key] for other in others)]


def _panels(records: Sequence[RunRecord], packed: Packed, of: str) -> tuple[list[Panel], list[str]]:
    """Gather runs by what they have in common; name those without predictions."""
    groups: dict[tuple[Any, ...], list[tuple[RunRecord, dict[str, Any]]]] = {}
    for run in records:
        rest = _rest(run.config, of)
        setting = Setting(run.scale, run.protocol, run.device)
        key = (setting.order, run.task, data_name(run), fingerprint({**rest, "attn": None}))
        groups.setdefault(key, []).append((run, rest))
    lacking: list[str] = []
    return [_panel(groups[key], packed, of, lacking) for key in sorted(groups)], lacking


def _panel(runs: Sequence[tuple[RunRecord, dict[str, Any]]], packed: Packed, of: str, lacking: list[str]) -> Panel:
    """Gather runs by mechanism, value and seed.

    Args:
        runs: each with what determines it beside the setting.
        packed: predictions.
        of: the setting.
        lacking: gets the keys of runs without predictions.
    """
    (any_run, rest), *_ = runs
    conditions = flat({name: node for name, node in rest.items() if name != "attn"})
    names = _Names([at(run.config, of) for run, _ in runs])
    setting = Setting(any_run.scale, any_run.protocol, any_run.device)
    panel = Panel(f"{any_run.task}, {setting.title}", data_name(any_run), conditions, names)
    for run, rest in runs:
        namesakes = [flat(other["attn"]) for one, other in runs if one.attn == run.attn]
        differing = ", ".join(_differing(flat(rest["attn"]), namesakes, "="))
        attn = f"{run.attn} [{differing}]" if differing else run.attn
        cell = panel.cells.setdefault(attn, {}).setdefault(names.of(at(run.config, of)), Cell())
        cell.runs.append(run)
        truth = packed.predictions.get((run.data["sha256"]["test"], LABELS))
        classes = packed.predictions.get((run.key, tested(run)))
        if run.status == "ok" and truth is not None and classes is not None and len(truth) == len(classes):
            cell.right[run.seed] = classes == truth
        elif run.status == "ok":
            lacking.append(run.key)
    return panel


def _rest(config: Mapping[str, Any], of: str) -> dict[str, Any]:
    """Return what determines a run, without its seed and the setting."""
    rest = copy.deepcopy({key: value for key, value in config.items() if key != "seed"})
    *parents, name = of.split(".")
    node: Any = rest
    for depth, parent in enumerate(parents, 1):  # a run that is older than a node gets it, to be as others without `of`
        node = node.setdefault(parent, copy.deepcopy(NEUTRAL.get(".".join(parents[:depth]), {})))
    node.pop(name, None)
    return hashed(rest)


def _told_apart(panel: Panel, panels: Sequence[Panel]) -> list[str]:
    """Name the conditions that tell a panel from others of its title."""
    others = [other.conditions for other in panels if other.title == panel.title and other is not panel]
    own = {key: value for key, value in panel.conditions.items() if not key.startswith("prepared.")}
    return _differing(own, others, "=")


def _table(panel: Panel, values: Sequence[str], to: str, notes: Sequence[str]) -> Table:
    """Lay a panel out: a row a mechanism, the most accurate on top."""
    columns: dict[str, Callable[[str], str]] = {"attn": str}
    columns |= {f"{value} %": partial(_cell, panel, value) for value in values}
    others = values[1:]
    columns |= {f"gain by {value}": partial(_gain_text, panel, values[0], value) for value in others}
    if to in panel.cells:
        columns |= {f"behind, {value}": partial(_gain_text, panel, value, value, to=to) for value in values}
        columns |= {f"closes by {value}": partial(_closes_text, panel, values[0], value, to) for value in others}
    columns |= {f"{value}, s": partial(_seconds, panel, value) for value in values}
    accuracies = {
        attn: max((cell.standing.accuracy.mean for cell in row.values() if cell.standing.accuracy), default=-1.0)
        for attn, row in panel.cells.items()
    }
    return Table.of(panel.title, columns, sorted(panel.cells, key=lambda attn: -accuracies[attn]), notes)


def _gain(panel: Panel, base: str, value: str, attn: str, to: str = "") -> Estimate | None:
    """Return what `attn`, or in its place `to`, has more with `value` than `attn` has with `base`."""
    above, below = panel.cells[to or attn].get(value), panel.cells[attn].get(base)
    return contrast((1, above.right), (-1, below.right)) if above and below and above is not below else None


def _closes(panel: Panel, base: str, value: str, to: str, attn: str) -> Estimate | None:
    """Return by how much `attn` is nearer to `to` with `value` than with `base`."""
    cells = [panel.cells[name].get(which) for name in (to, attn) for which in (base, value)]
    if attn == to or not all(cells):
        return None
    return contrast(*zip((1, -1, -1, 1), (cell.right for cell in cells if cell), strict=True))


def _cell(panel: Panel, value: str, attn: str) -> str:
    cell = panel.cells[attn].get(value)
    return cell.standing.cell if cell else ""


def _gain_text(panel: Panel, base: str, value: str, attn: str, to: str = "") -> str:
    gain = _gain(panel, base, value, attn, to)
    return "" if gain is None else str(gain)


def _closes_text(panel: Panel, base: str, value: str, to: str, attn: str) -> str:
    closes = _closes(panel, base, value, to, attn)
    return "" if closes is None else str(closes)


def _seconds(panel: Panel, value: str, attn: str) -> str:
    cell = panel.cells[attn].get(value)
    return "" if cell is None or cell.seconds is None else f"{cell.seconds:,.0f}"


def _frame_rows(panel: Panel, values: Sequence[str], to: str, conditions: str) -> list[dict[str, Any]]:
    """Put a panel in rows of a data frame: a row a mechanism and value."""
    rows = []
    for attn, row in panel.cells.items():
        for value in values:
            if value not in row:
                continue
            standing = row[value].standing
            gain = _gain(panel, values[0], value, attn) if value != values[0] else None
            closes = _closes(panel, values[0], value, to, attn) if to in panel.cells and value != values[0] else None
            mean, low, high = standing.accuracy or (None, None, None)
            rows.append(
                {
                    "place": panel.title, "data": panel.data, "conditions": conditions, "attn": attn, "value": value,
                    "n": standing.n,
                    "accuracy": mean, "low": low, "high": high, "failures": standing.failures,
                    "gain": gain and gain.value, "gain_half_width": gain and gain.half_width,
                    "closes": closes and closes.value, "closes_half_width": closes and closes.half_width,
                    "seconds": row[value].seconds, "keys": standing.keys,
                }
            )  # fmt: skip
    return rows
