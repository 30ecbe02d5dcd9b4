"""The papers' tables beside ours, laid out: what was measured at the published size, and apart from it at smaller ones.

A number of a smaller scale never stands in a column with published ones: there the published value is a reference, in a
column that says so.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from lra.papers.matching import AVERAGE, PUBLISHED_SCALE, Row, match
from lra.papers.matching_costs import SOURCES, benchmarked, sections
from lra.papers.published import METRICS, Metric, Model, PaperTable, printed
from lra.records.record import BASELINE, RunRecord
from lra.reports.experiments import Experiment
from lra.reports.leaderboard import CELL_LEGEND, cell, floors, leaderboard
from lra.reports.names import TASK_TITLES, caption, label, scale_order
from lra.reports.report import Report, Table, each

# Of the frame: a published number is of the published size, whatever the scale of the row's own value.
COLUMNS = {
    **{name: name for name in ("table", "scale", "metric", "unit", "task", "length", "model", "attn")},
    **{name: name for name in ("value", "low", "high", "n", "learned")},
    "published": "published_at_full_size", "status": "published_status",
    **{name: name for name in ("difference", "remarks", "note", "tested", "device", "data", "keys")},
}  # fmt: skip
NOT_MEASURED = "not measured"
NOT_PUBLISHED = "(not in the paper)"
LEGEND = (
    "Difference: ours less the paper's; * where it exceeds our interval, together with the sampling error of the "
    "paper's test set where that is not ours. Remarks name what differs from the paper's runs; settings are those of "
    "our command line. Floors need no model."
)
COST_LEGEND = (
    "Ours: mean over n runs that ended ok. Difference: ours as a multiple of the paper's, on another machine. The "
    "papers' code computes padding to a fixed length, ours leaves out what changes nothing; data.padding=max has it."
)


def paper_report(
    table: PaperTable,
    models: Mapping[tuple[str, str, str], Model],
    experiment: Experiment | None,
    records: Sequence[RunRecord],
    benchmarks: Path,
) -> Report:
    """Set what was measured beside what was published.

    Args:
        table: the published one; its numbers may be none.
        models: what the papers' rows are here.
        experiment: the runs behind it; None if it is measured without training.
        records: all there are; those of the experiment's protocol are taken.
        benchmarks: folder of the figures of `scripts/benchmark.py`.
    """
    tables, notes = _as_published(table), _paper_notes(table)
    costs = benchmarked(table, models, benchmarks)
    tables += sections(costs)
    rows: list[Row] = []
    if experiment is None:
        mine, intro = [], [_without_training(table, costs)]
    else:
        mine = [run for run in records if run.protocol == experiment.protocol]
        rows = match(table, models, experiment, mine)
        intro = [f"Ours: `{experiment.command}`, protocol={experiment.protocol}."]
        if not any(row["scale"] == PUBLISHED_SCALE and row["n"] for row in rows):
            intro.append("Nothing is measured at the published size (scale=full) yet.")
    parts: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        parts.setdefault((row["scale"], row["metric"], row["task"]), []).append(row)
    for (scale, metric, task), part in sorted(parts.items(), key=lambda item: scale_order(item[0][0])):
        if any(row["text"] for row in part):
            here = [run for run in mine if (run.task, run.scale) == (task, scale)]
            tables.append(_section(scale, METRICS[metric], task, part, here, bool(table.source)))
    shown = {METRICS[row["metric"]].is_accuracy for row in rows if row["text"]}
    notes += [f"{model}: {note} (attn={attn})." for model, attn, note in _differences(rows + costs)]
    notes += [f"{CELL_LEGEND} {LEGEND}"] * (True in shown) + [COST_LEGEND] * (False in shown)
    frame = pd.DataFrame(rows + costs, columns=list(COLUMNS)).rename(columns=COLUMNS)
    return Report(tables, frame, table.title, intro, notes)


def _as_published(table: PaperTable) -> list[Table]:
    """Lay out the paper's own numbers, a table a metric."""
    tables = []
    for metric in table.metrics:
        rows = table.numbers[table.numbers["metric"] == metric]
        columns = list(dict.fromkeys(zip(rows["task"], rows["length"], strict=True)))
        cells = {(row.model, row.task, row.length): printed(row) for row in each(rows)}
        head = ["model", *(f"{task} {length}".strip() for task, length in columns)]
        lines = [
            [name, *(cells.get((name, *column), "") for column in columns)] for name in dict.fromkeys(rows["model"])
        ]
        if lines:
            tables.append(Table(f"As published: {METRICS[metric].title}", head, lines))
    return tables


def _section(
    scale: str, metric: Metric, task: str, rows: Sequence[Row], records: Sequence[RunRecord], has_paper: bool
) -> Table:
    """Lay out one task at one scale; columns without content are left out."""
    comparable = scale == PUBLISHED_SCALE
    head = [
        "model",
        "attn",
        "ours",
        "paper" if comparable else "paper, full size, for reference",
        "difference",
        "remarks",
    ]
    lines = [
        [
            row["model"] or NOT_PUBLISHED,
            row["attn"],
            row["text"] or NOT_MEASURED,
            row["printed"],
            row.get("difference", ""),
            row["remarks"],
        ]
        for row in rows
    ]
    notes = []
    if metric.is_accuracy and task != AVERAGE:
        lines += _beneath(records)
        notes.append(caption(row["tested"] for row in rows if row["text"]))
    if has_paper and not comparable:
        notes.append("Of another size than the paper's: ours and the reference are not comparable.")
    unneeded = {"attn"} if not has_paper else set()
    kept = [i for i, name in enumerate(head) if name not in unneeded and any(line[i] for line in lines)]
    title = f"{TASK_TITLES.get(task, task)}, scale={scale}: {metric.title}"
    return Table(title, [head[i] for i in kept], [[line[i] for i in kept] for line in lines], notes)


def _beneath(records: Sequence[RunRecord]) -> list[list[str]]:
    """Lay out baselines and floors."""
    baselines = leaderboard([run for run in records if run.attn.startswith(BASELINE)])
    lines = [[label(row.attn, row.settings), "", cell(row), "", "", ""] for row in each(baselines)]
    found = floors(records)
    several = found["data"].nunique() > 1
    beneath = [
        [f"floor: {row.name}" + (f" ({row.data})" if several else ""), "", row.text, "", "", ""] for row in each(found)
    ]
    return lines + beneath


def _without_training(table: PaperTable, costs: Sequence[Row]) -> str:
    targets = dict.fromkeys(SOURCES[metric].target for metric in table.metrics if metric in SOURCES)
    commands = " and ".join(f"`python scripts/benchmark.py {target}`" for target in targets)
    return f"Measured without training, by {commands}{'' if costs else '; not measured yet'}."


def _paper_notes(table: PaperTable) -> list[str]:
    """Gather what the published numbers' notes say: of many numbers once, of a single one with its name."""
    fragments: Counter[str] = Counter()
    places = {}
    for row in each(table.numbers):
        for text in row.note.split("; "):
            fragments[text] += 1
            places[text] = f"{row.model}, {row.task}{f' {row.length}' if row.length else ''}"
    general = [text for text, count in fragments.items() if count > 2 and not text.startswith("length ")]
    notes = [f"The paper's numbers: {'; '.join(general)}."] if general else []
    return notes + [f"{places[text]}: {text}." for text, count in fragments.items() if 0 < count <= 2 and text]


def _differences(rows: Sequence[Row]) -> list[tuple[str, str, str]]:
    return list(dict.fromkeys((row["model"], row["attn"], row["note"]) for row in rows if row["note"]))
