"""The leaderboard as one HTML file that needs no network: tables, plots, and for every row its runs.

The tables are plain HTML, which DataTables sorts and filters; Plotly draws. Both are in the file in full, with their
licences. A policy in the file allows only these scripts, by their hashes, and no connection at all.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
from collections.abc import Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

from lra.cards import families_of, family_of
from lra.errors import InputError
from lra.figures.benchmarks import REFERENCES
from lra.figures.page.difficulty import difficulty_section
from lra.figures.page.rows import Line, measured_lines, published_lines
from lra.files import write_atomically, writing
from lra.records.benchmark_rows import LengthRow, comparable, load_rows_of, measured
from lra.records.collection import load_packed
from lra.records.record import RunRecord, accuracy_of, tested
from lra.reports.leaderboard import CELL_LEGEND
from lra.reports.names import scale_order

ASSETS = files("lra.figures.page") / "assets"
NAME = "leaderboard.html"
CURVES = ("step", "train_loss", "val_loss", "train_accuracy", "val_accuracy")
MEASURES = ("steps", "best_step", "train_seconds", "ms_per_step", "peak_memory_bytes", "num_params")
BENCHMARK = "attention"  # whose rows are shown
DIGITS = 6


def write_page(results_dir: Path, records: Sequence[RunRecord]) -> Path:
    """Write `leaderboard.html` into the results folder.

    Raises:
        InputError: the libraries are not installed, or the file cannot be written.
    """
    path, text = results_dir / NAME, page(results_dir, records)
    with writing(path, "Make it writable."):
        write_atomically(path, text)
    return path


def page(results_dir: Path, records: Sequence[RunRecord]) -> str:
    """Return the page's text.

    Args:
        results_dir: where curves, published numbers and benchmarks are.
        records: the runs to show.

    Raises:
        InputError: the libraries are not installed.
    """
    plotly, tables, tables_style = _libraries()
    published = published_lines(results_dir)
    measured = measured_lines(records, results_dir)
    packed = load_packed(results_dir, records)
    curves = packed.curves
    scaling = _scaling(results_dir / "benchmarks")
    data = {
        "points": {line.key: line.point for line in measured if line.point},
        "details": {line.key: line.detail for line in [*measured, *published] if line.detail},
        "runs": {run.key: _run(run, curves.get(run.key, [])) for run in records},
        "scaling": scaling,
        "families": families_of(line["name"] for line in scaling if not line["reference"]),
    }
    scripts = [plotly, tables, (ASSETS / "page.js").read_text()]
    parts = {
        "policy": " ".join(_hash(script) for script in scripts),
        "tables_style": tables_style,
        "style": (ASSETS / "page.css").read_text(),
        "measured": _panel("measured", measured, ("task", "scale", "protocol", "device")),
        "published": _panel("published", published, ("task", "source", "metric"), "value"),
        "difficulty": difficulty_section(records, packed),
        "legend": escape(CELL_LEGEND),
        "data": json.dumps(_clean(data), allow_nan=False, separators=(",", ":")).replace("<", r"\u003c"),
        **dict(zip(("plotly", "tables", "glue"), scripts, strict=True)),
    }
    return Template((ASSETS / "page.html").read_text()).substitute(parts)


def _libraries() -> tuple[str, str, str]:
    """Return Plotly, DataTables as a script whose name is global, and its style."""
    try:
        plotly = (files("plotly") / "package_data" / "plotly.min.js").read_text()
        folder = files("itables") / "html"
    except ModuleNotFoundError as error:
        raise InputError(f"{error.name} is needed for the page. Install it: pip install -e '.[page]'.") from error
    bundle, count = re.subn(
        r"export\{[^}]*?([\w$]+) as jQuery[^}]*\}",
        lambda match: f"globalThis.DataTable={match[1]}.fn.dataTable",
        (folder / "dt_bundle.js").read_text(),
    )
    assert count == 1, "the bundle of itables exports jQuery no more"
    return _inline(plotly), _inline(bundle), (folder / "dt_bundle.css").read_text()


def _inline(script: str) -> str:
    """Escape what would end a script element; inside strings and patterns the escaped text means the same."""
    return script.replace("</script", r"<\/script").replace("<!--", r"<\!--")


def _hash(script: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"


def _panel(name: str, lines: Sequence[Line], filters: Sequence[str], order: str = "") -> str:
    """Lay a table out with a select for each filter; only one scale is shown at a time.

    Rows are in the order of the lines, or by task and then from the highest value of the column `order` down.
    """
    if not lines:
        return f'<section id="{name}" class="panel"><p>Nothing is {name} yet.</p></section>'
    columns = list(lines[0].cells)
    selects = []
    for column in filters:
        values = {line.cells[column].text for line in lines}
        options = [*sorted(values, key=scale_order if column == "scale" else str)]
        default_options = [] if column == "scale" else ["all"]
        chosen = {"metric": "accuracy"}.get(column, default_options[0] if default_options else _fullest(lines))
        selects.append(
            f'<label>{column}<select data-column="{columns.index(column)}" data-name="{column}">'
            + "".join(
                f'<option value="{"" if value == "all" else escape(value)}"{" selected" * (value == chosen)}>'
                f"{escape(value)}</option>"
                for value in [*default_options, *options]
            )
            + "</select></label>"
        )
    head = "".join(f'<th scope="col" data-name="{column}">{lines[0].cells[column].title}</th>' for column in columns)
    body = "\n".join(_row(line) for line in lines)
    return (
        f'<section id="{name}" class="panel" aria-label="{name} numbers">'
        f'<form class="filters">{"".join(selects)}</form>'
        f'<table data-task="{columns.index("task")}" data-best="{columns.index(order) if order else ""}">'
        f'<caption class="unseen">{name.title()} numbers</caption>'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody></table></section>"
    )


def _fullest(lines: Sequence[Line]) -> str:
    """Return the published scale if it has measurements, else the largest that has."""
    scales = {line.cells["scale"].text for line in lines}
    return min(scales, key=scale_order)


def _row(line: Line) -> str:
    name, *other_cells = line.cells.values()
    button = f'<button type="button">{escape(name.text)}</button>' if line.detail else escape(name.text)
    cells = "".join(
        f'<td class="{"number" if cell.order is not None else ""}" data-order="{_order(cell.order, cell.text)}">'
        f"{escape(cell.text)}</td>"
        for cell in other_cells
    )
    attributes = f' data-key="{escape(line.key)}"' if line.detail else ' class="floor"'
    return f'<tr{attributes}><th scope="row" data-order="{escape(name.text)}">{button}</th>{cells}</tr>'


def _order(order: float | None, text: str) -> str:
    """Return the sort key of a cell; "" where it is missing, which comes last in either direction."""
    if order is None:
        return escape(text)
    return "" if math.isnan(order) else repr(float(order))


def _run(run: RunRecord, curve: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return {
        "seed": run.seed, "status": run.status, "tested": tested(run), "accuracy": accuracy_of(run),
        **{name: getattr(run, name) for name in MEASURES},
        "command": run.command, "commit": run.commit, "date": run.date, "error": run.error,
        "config": run.config, "environment": run.environment,
        "curve": {name: [point.get(name) for point in curve] for name in CURVES} if curve else None,
    }  # fmt: skip


def _scaling(folder: Path) -> list[dict[str, Any]]:
    """Read time and memory of every mechanism by length, where a benchmark measured them."""
    lines: dict[tuple[str, str], dict[str, Any]] = {}
    for rows in load_rows_of(folder, f"*-{BENCHMARK}.jsonl").values():
        for row in measured(comparable(rows), LengthRow):
            machine, name = row.origin.machine, row.backbone
            reference = REFERENCES[name][0] if name in REFERENCES else ""
            names = {"machine": machine, "name": name, "reference": reference, "family": family_of(name)}
            line = lines.setdefault((machine, name), {**names, "n": [], "ms": [], "mib": []})
            line["n"].append(row.n)
            line["ms"].append(row.ms)
            line["mib"].append((row.peak_bytes or 0) / 2**20)
    return list(lines.values())


def _clean(value: Any) -> Any:
    """Round numbers, and replace by None those that JSON cannot hold."""
    if isinstance(value, dict):
        return {name: _clean(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_clean(inner) for inner in value]
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None
    return value
