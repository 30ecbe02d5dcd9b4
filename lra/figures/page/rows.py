"""The rows of the page's two tables: measured ones, a group of seeds each, and published numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lra.papers.methods import AVERAGE, FIRST_HAND, ORIGINS
from lra.papers.published import METRICS, Model, PublishedNumber, find_model, load_models, load_tables, read_numbers
from lra.records.record import RunRecord
from lra.reports.costs import machine_of, times_count
from lra.reports.leaderboard import Floor, Standing, floors, in_order, leaderboard
from lra.reports.names import TASK_TITLES, Setting, comparable, task_order
from lra.reports.own_settings import PUBLISHED_SCALE

MISSING = "\N{EN DASH}"
NAN = math.nan


class Cell(NamedTuple):
    """A column's title, the cell's text, and for a number the value to sort by (NaN if it is missing)."""

    title: str
    text: str
    order: float | None = None


class Line(NamedTuple):
    """A row: its cells by column, and the details to show when it is chosen; `point` is for the plots."""

    key: str
    cells: dict[str, Cell]
    detail: dict[str, Any] | None = None
    point: dict[str, Any] | None = None


class Costs(NamedTuple):
    """Means over the runs of a group, NaN where there are none; `loaded` if any of its times does not count."""

    ms_per_step: float = NAN
    peak_mib: float = NAN
    mflop: float = NAN
    loaded: bool = False

    @property
    def mark(self) -> str:
        """What marks a time that others' work is in."""
        return "*" if self.loaded else ""

    @classmethod
    def of(cls, runs: Sequence[RunRecord]) -> Costs:
        """Average the costs of the runs that ended ok."""
        ok = [run for run in runs if run.status == "ok"]
        return cls(
            _mean([run.ms_per_step for run in ok if run.ms_per_step is not None]),
            _mean([run.peak_memory_bytes / 2**20 for run in ok if run.peak_memory_bytes is not None]),
            _mean([run.training_flops * 1e-6 for run in ok if run.training_flops is not None]),
            loaded=not all(map(times_count, ok)),
        )


NO_COSTS = Costs()


class Paper(NamedTuple):
    """An accuracy that a paper prints for one of our mechanisms: source, the paper's name, value, what it is, how the
    mechanism differs.
    """

    source: str
    model: str
    value: str
    labels: tuple[str, ...]
    note: str

    @property
    def text(self) -> str:
        """The value with its source, and what it is where that is not first-hand."""
        labels = [label for label in self.labels if label != ORIGINS[FIRST_HAND]]
        return f"{self.value} ({', '.join([self.source, *labels])})"


def measured_lines(records: Sequence[RunRecord], results_dir: Path) -> list[Line]:
    """Make a row of every group of runs, and of every floor: setting by setting in the order of its leaderboard."""
    papers = _papers(results_dir)
    lines = []
    for setting, runs in sorted(comparable(records).items(), key=lambda item: item[0].order):
        standings = leaderboard(runs)
        order = {name: place for place, name in enumerate(in_order(standings))}
        for task in sorted({row.task for row in standings}, key=task_order):
            here = sorted((row for row in standings if row.task == task), key=lambda row: order[row.label])
            lines += [_measured(standing, papers) for standing in here]
            lines += [_floor(floor, setting) for floor in floors(runs) if floor.task == task]
    return lines


def _floor(floor: Floor, setting: Setting) -> Line:
    reached = round(100 * floor.accuracy.mean, 1)
    name = f"floor: {floor.name}"
    return Line("", _cells(name, floor.task, setting, floor.data, reached, floor.accuracy.interval))


def _measured(standing: Standing, papers: Mapping[tuple[str, str, str], Sequence[Paper]]) -> Line:
    setting, task, name = standing.setting, standing.task, standing.label
    costs = Costs.of(sorted(standing.runs, key=lambda run: run.key))
    accuracy, low, high = (100 * value for value in standing.accuracy or (NAN, NAN, NAN))
    interval = standing.interval
    published: Sequence[Paper] = []
    if setting.scale == PUBLISHED_SCALE:
        published = papers.get((standing.attn, setting.protocol, task), [])
    cells = _cells(
        name, task, setting, standing.data, accuracy, interval, n=standing.n, costs=costs, failures=standing.failures,
        paper="; ".join(paper.text for paper in published),
    )  # fmt: skip
    reached = f"{accuracy:.1f} % {interval}, seeds: {standing.n}" if standing.n else standing.failures
    detail = {
        "title": f"{name} on {TASK_TITLES.get(task, task)}",
        "facts": [
            ["Scale, protocol, device", ", ".join(setting)], ["Test accuracy", reached],
            ["Weights tested", standing.tested], ["Own settings", standing.own], ["Data", standing.data],
            ["Failures", standing.failures],
            *(
                [f"Published, {paper.source}: {paper.model}", f"{paper.value} ({'; '.join(paper.labels)}) {paper.note}"]
                for paper in published
            ),
        ],
        "runs": [run.key for run in sorted(standing.runs, key=lambda run: (run.seed, run.key))],
    }  # fmt: skip
    point = {
        "name": name, "task": task, "accuracy": accuracy, "low": low, "high": high,
        "place": [*setting, standing.data, machine_of(min(standing.runs, key=lambda run: run.key))],
        "costs": [NAN if costs.loaded else costs.ms_per_step, costs.peak_mib, costs.mflop],
    }  # fmt: skip
    return Line(standing.group, cells, detail, point if standing.n else None)


def _cells(
    name: str,
    task: str,
    setting: Setting,
    data: str,
    accuracy: float,
    interval: str,
    *,
    n: int | None = None,
    costs: Costs = NO_COSTS,
    failures: str = "",
    paper: str = "",
) -> dict[str, Cell]:
    return {
        "name": Cell("mechanism", name),
        "task": Cell("task", task),
        "accuracy": Cell("accuracy %", _number(accuracy, "{:.1f}"), accuracy),
        "interval": Cell("interval", interval),
        "n": Cell("seeds", "" if n is None else f"{n}", NAN if n is None else n),
        "paper": Cell("published %", paper),
        "ms": Cell("ms / step", _number(costs.ms_per_step, "{:,.1f}") + costs.mark, costs.ms_per_step),
        "memory": Cell("peak MiB", _number(costs.peak_mib, "{:,.0f}"), costs.peak_mib),
        "flops": Cell("MFLOP", _number(costs.mflop, "{:,.0f}"), costs.mflop),
        "scale": Cell("scale", setting.scale),
        "protocol": Cell("protocol", setting.protocol),
        "device": Cell("device", setting.device),
        "failures": Cell("failures", failures),
        "data": Cell("data", data),
    }


def published_lines(results_dir: Path) -> list[Line]:
    """Make a row of every published number."""
    models = load_models(results_dir)
    tables = {
        (number.source, number.table): name
        for name, table in load_tables(results_dir).items()
        for number in table.numbers[:1]
    }
    lines = []
    for index, number in enumerate(read_numbers(results_dir)):
        model = find_model(models, number.source, number.model, number.task)
        cells = {
            "name": Cell("model", number.model),
            "task": Cell("task", number.task),
            "value": Cell("value as printed", number.text, NAN if number.value is None else number.value),
            "unit": Cell("unit", number.unit),
            "label": Cell("label", "; ".join(number.labels)),
            "metric": Cell("metric", number.metric.replace("_", " ")),
            "source": Cell("source", number.source),
            "year": Cell("year", number.year),
            "table": Cell("table", number.table),
            "attn": Cell("attn here", model.attn if model else ""),
        }
        detail = _published_detail(number, model, tables.get((number.source, number.table)))
        lines.append(Line(f"published-{index}", cells, detail))
    return lines


def _published_detail(number: PublishedNumber, model: Model | None, table: str | None) -> dict[str, Any]:
    """Describe a published number, our mechanism for it, and the commands for ours; `table` is that of report.py."""
    metric = METRICS[number.metric].title if number.metric in METRICS else number.metric.replace("_", " ")
    facts = [
        ["Publication", f"{number.source} {number.year}, {number.table}"], ["What", metric],
        ["Value as printed", f"{number.text} {number.unit}"], ["Length", number.length],
        ["Method", number.method.name], ["Label", "; ".join(number.labels)], ["Note", number.note],
        ["Mechanism here", f"{model.attn}, protocol={model.protocol}" if model else "none"],
        ["How it differs", model.note if model else ""],
    ]  # fmt: skip
    commands = []
    if model and number.task in TASK_TITLES and number.task != AVERAGE:
        commands.append(f"python run.py task={number.task} attn={model.attn} protocol={model.protocol}")
    if table is not None:
        commands.append(f"python scripts/report.py table={table}")
    title = f"{number.model}, {number.task}, as published"
    return {"title": title, "facts": facts, "commands": commands, "runs": []}


def _papers(results_dir: Path) -> dict[tuple[str, str, str], list[Paper]]:
    """Gather published accuracies by our mechanism, protocol and task."""
    models = load_models(results_dir)
    papers: dict[tuple[str, str, str], list[Paper]] = {}
    for number in read_numbers(results_dir):
        model = find_model(models, number.source, number.model, number.task)
        if model and number.metric == "accuracy":
            paper = Paper(number.source, number.model, number.text, number.labels, model.note)
            papers.setdefault((model.attn, model.protocol, number.task), []).append(paper)
    return papers


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else NAN


def _number(value: float, form: str) -> str:
    return MISSING if math.isnan(value) else form.format(value)
