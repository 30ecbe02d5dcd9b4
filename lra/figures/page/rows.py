"""What stands in the page's two tables: measured rows, a group of seeds each, and published numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lra.papers.matching import PUBLISHED_SCALE
from lra.papers.published import METRICS, find_model, load_models, load_numbers, load_tables, printed
from lra.records.record import RunRecord
from lra.reports.costs import machine_of
from lra.reports.leaderboard import floors, leaderboard
from lra.reports.names import TABLE_COLUMNS, TASK_TITLES, comparable, label
from lra.reports.report import each

MISSING = "\N{EN DASH}"
NAN = math.nan


class Cell(NamedTuple):
    """A column's title, what to print, and of a number what to sort by (NaN: not there)."""

    title: str
    text: str
    order: float | None = None


class Line(NamedTuple):
    """A row: its cells by column, and what is behind it; `point` is for the plots."""

    key: str
    cells: dict[str, Cell]
    detail: dict[str, Any] | None = None
    point: dict[str, Any] | None = None


def measured_lines(records: Sequence[RunRecord], results_dir: Path) -> list[Line]:
    """Make a row of every group of runs, and of every floor."""
    if not records:
        return []
    papers = _papers(results_dir)
    runs = {run.key: run for run in records}
    lines = [_measured(row, [runs[key] for key in row.keys.split()], papers) for row in each(leaderboard(records))]
    for place, chosen in comparable(records).items():
        for row in each(floors(chosen)):
            value, interval = row.text.split(" ", 1)
            cells = _cells(f"floor: {row.name}", row.task, place, row.data, float(value), interval)
            lines.append(Line("", cells))
    return lines


def _measured(row: Any, runs: Sequence[RunRecord], papers: dict[tuple[str, str, str], list[list[str]]]) -> Line:
    place = tuple(getattr(row, name) for name in TABLE_COLUMNS)
    good = [run for run in runs if run.status == "ok"]
    costs = {
        name: _mean([value * factor for run in good if (value := getattr(run, name)) is not None])
        for name, factor in (("ms_per_step", 1), ("peak_memory_bytes", 2**-20), ("training_flops", 1e-6))
    }
    name = label(row.attn, row.settings)
    accuracy, low, high = (100 * value if row.n else NAN for value in (row.accuracy or 0, row.low or 0, row.high or 0))
    interval = f"[{low:.1f}, {high:.1f}]" if row.n else row.failures
    beside = papers.get((row.attn, row.protocol, row.task), []) if row.scale == PUBLISHED_SCALE else []
    cells = _cells(
        name, row.task, place, row.data, accuracy, interval, n=row.n, costs=costs, failures=row.failures,
        paper="; ".join(f"{value} ({source})" for source, _, value, _ in beside),
    )  # fmt: skip
    detail = {
        "title": f"{name} on {TASK_TITLES.get(row.task, row.task)}",
        "facts": [
            ["Scale, protocol, device", ", ".join(place)],
            ["Test accuracy", f"{accuracy:.1f} % {interval}, seeds: {row.n}" if row.n else row.failures],
            ["Weights tested", row.tested], ["Data", row.data], ["Failures", row.failures],
            *([f"Published, {source}: {model}", f"{value} {note}"] for source, model, value, note in beside),
        ],
        "runs": [run.key for run in sorted(runs, key=lambda run: run.seed)],
    }  # fmt: skip
    point = {
        "name": name, "task": row.task, "accuracy": accuracy, "low": low, "high": high,
        "place": [*place, row.data, machine_of(runs[0])],
        "costs": list(costs.values()),
    }  # fmt: skip
    return Line(row.group, cells, detail, point if row.n else None)


def _cells(
    name: str,
    task: str,
    place: Sequence[str],
    data: str,
    accuracy: float,
    interval: str,
    *,
    n: int | None = None,
    costs: dict[str, float] | None = None,
    failures: str = "",
    paper: str = "",
) -> dict[str, Cell]:
    time, memory, flops = (costs or dict.fromkeys("tmf", NAN)).values()
    scale, protocol, device = place
    return {
        "name": Cell("mechanism", name),
        "task": Cell("task", task),
        "accuracy": Cell("accuracy %", _number(accuracy, "{:.1f}"), accuracy),
        "interval": Cell("95 % interval", interval),
        "n": Cell("seeds", "" if n is None else f"{n}", NAN if n is None else n),
        "paper": Cell("published %", paper),
        "ms": Cell("ms / step", _number(time, "{:,.1f}"), time),
        "memory": Cell("peak MiB", _number(memory, "{:,.0f}"), memory),
        "flops": Cell("MFLOP", _number(flops, "{:,.0f}"), flops),
        "scale": Cell("scale", scale),
        "protocol": Cell("protocol", protocol),
        "device": Cell("device", device),
        "failures": Cell("failures", failures),
        "data": Cell("data", data),
    }


def published_lines(results_dir: Path) -> list[Line]:
    """Make a row of every published number."""
    models = load_models(results_dir)
    tables = {(table.source, row.table): name for name, table in load_tables(results_dir).items()
              for row in each(table.numbers.head(1))}  # fmt: skip
    lines = []
    for index, row in enumerate(each(load_numbers(results_dir))):
        model = find_model(models, row.source, row.model, row.task)
        metric = METRICS[row.metric].title if row.metric in METRICS else row.metric.replace("_", " ")
        facts = [
            ["Publication", f"{row.source} {row.year}, {row.table}"], ["What", metric],
            ["Value as printed", f"{printed(row)} {row.unit}"], ["Length", row.length], ["Note", row.note],
            ["Mechanism here", f"{model.attn}, protocol={model.protocol}" if model else "none"],
            ["How it differs", model.note if model else ""],
        ]  # fmt: skip
        commands = []
        if model and row.task in TASK_TITLES and row.task != "avg":
            commands.append(f"python run.py task={row.task} attn={model.attn} protocol={model.protocol}")
        if (row.source, row.table) in tables:
            commands.append(f"python scripts/report.py table={tables[row.source, row.table]}")
        cells = {
            "name": Cell("model", row.model),
            "task": Cell("task", row.task),
            "value": Cell("value as printed", printed(row), row.value),
            "unit": Cell("unit", row.unit),
            "metric": Cell("metric", row.metric.replace("_", " ")),
            "source": Cell("source", row.source),
            "year": Cell("year", row.year),
            "table": Cell("table", row.table),
            "attn": Cell("attn here", model.attn if model else ""),
        }
        detail = {"title": f"{row.model}, {row.task}, as published", "facts": facts, "commands": commands, "runs": []}
        lines.append(Line(f"published-{index}", cells, detail))
    return lines


def _papers(results_dir: Path) -> dict[tuple[str, str, str], list[list[str]]]:
    """Gather published accuracies by our mechanism, protocol and task: source, model, value, note."""
    models = load_models(results_dir)
    found: dict[tuple[str, str, str], list[list[str]]] = {}
    for row in each(load_numbers(results_dir)):
        model = find_model(models, row.source, row.model, row.task)
        if model and row.metric == "accuracy":
            place = (model.attn, model.protocol, row.task)
            found.setdefault(place, []).append([row.source, row.model, printed(row), model.note])
    return found


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else NAN


def _number(value: float, form: str) -> str:
    return MISSING if math.isnan(value) else form.format(value)
