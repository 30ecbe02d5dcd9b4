"""The papers' tables beside ours: what was measured at the published size, and apart from it at smaller ones.

A number of a smaller scale never stands in a column with published ones: there the published value is a reference, in a
column that says so.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from lra.papers.matching import Match, match_table
from lra.papers.matching_costs import COUNTERPARTS, benchmarked, sections
from lra.papers.measuring import Ours
from lra.papers.methods import AVERAGE, ORIGIN_LEGEND
from lra.papers.published import METRICS, Metric, Models, PaperTable, PublishedNumber
from lra.records.record import RunRecord
from lra.reports.experiments import Experiment
from lra.reports.leaderboard import CELL_LEGEND, floors, interval_note, leaderboard
from lra.reports.names import TASK_TITLES, caption, scale_order, several_processors
from lra.reports.own_settings import PUBLISHED_SCALE, shown_scale
from lra.reports.report import Report, Table

COLUMNS = [
    "table", "scale", "metric", "unit", "task", "length", "model", "attn", "value", "low", "high", "n", "learned",
    "published_at_full_size", "published_status", "difference", "remarks", "note", "tested", "device", "data", "keys",
]  # fmt: skip
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
    models: Models,
    experiment: Experiment | None,
    records: Sequence[RunRecord],
    benchmarks: Path,
) -> Report:
    """Lay out our measurements beside the published ones.

    Args:
        table: the published one; it may have no numbers.
        models: our mechanisms for the papers' rows.
        experiment: our runs for it; None if it is measured without training.
        records: all there are; those of the experiment's protocol are taken.
        benchmarks: folder of the files of `scripts/benchmark.py`.
    """
    costs = benchmarked(table, models, benchmarks)
    matches: list[Match] = []
    runs: list[RunRecord] = []
    if experiment is None:
        intro = [_without_training(table, costs)]
    else:
        runs = [run for run in records if run.protocol == experiment.protocol]
        matches = match_table(table, models, experiment, runs)
        intro = [f"Ours: `{experiment.command}`, protocol={experiment.protocol}."]
        if not any(match.scale == PUBLISHED_SCALE and match.ours and match.ours.n for match in matches):
            intro.append("Nothing is measured at the published size (scale=full) yet.")
    tables = [*_as_published(table), *sections(costs), *_sections(matches, runs, bool(table.source))]
    notes = [*_notes(table, matches, costs), *several_processors(runs)]
    return Report(tables, _frame([*matches, *costs]), table.title, intro, notes)


def _frame(matches: Sequence[Match]) -> pd.DataFrame:
    """Put matches in a data frame, a row each; a published number is of the published size, whatever ours is."""
    return pd.DataFrame([_frame_row(match) for match in matches], columns=COLUMNS)


def _frame_row(match: Match) -> dict[str, Any]:
    ours = match.ours or Ours(None, "", n=0)
    return {
        "table": match.table, "scale": match.scale, "metric": match.metric, "unit": match.unit, "task": match.task,
        "length": match.length, "model": match.model, "attn": match.attn, "value": ours.value, "low": ours.low,
        "high": ours.high, "n": ours.n, "learned": ours.learned, "published_at_full_size": match.published,
        "published_status": match.number.status if match.number else "", "difference": match.difference,
        "remarks": ours.remarks, "note": match.note, "tested": ours.tested, "device": ours.device, "data": ours.data,
        "keys": ours.keys,
    }  # fmt: skip


def _as_published(table: PaperTable) -> list[Table]:
    """Lay out the paper's own numbers, a table a metric."""
    tables = []
    for metric in table.metrics:
        numbers = table.numbers_of(metric)
        columns = list(dict.fromkeys((number.task, number.length) for number in numbers))
        cells = {(number.model, number.task, number.length): number.text for number in numbers}
        head = ["model", "label", *(f"{task} {length}".strip() for task, length in columns)]
        rows = [
            [model, _label(numbers, model), *(cells.get((model, *column), "") for column in columns)]
            for model in dict.fromkeys(number.model for number in numbers)
        ]
        averages = dict.fromkeys(number.method.average_label(metric) for number in numbers if number.task == AVERAGE)
        notes = [f"{AVERAGE}: {average}." for average in averages]
        if rows:
            tables.append(Table(f"As published: {METRICS[metric].title}", head, rows, notes))
    return tables


def _label(numbers: Sequence[PublishedNumber], model: str) -> str:
    """Say what the numbers of a row are."""
    own = [number for number in numbers if number.model == model and number.task != AVERAGE]
    return "; ".join(dict.fromkeys(label for number in own for label in number.labels))


def _sections(matches: Sequence[Match], records: Sequence[RunRecord], has_paper: bool) -> list[Table]:
    """Lay matches out: a table for each scale, metric and task of which anything was measured."""
    parts: dict[tuple[str, str, str], list[Match]] = {}
    for match in matches:
        parts.setdefault((match.scale, match.metric, match.task), []).append(match)
    tables = []
    for (scale, metric, task), part in sorted(parts.items(), key=lambda item: scale_order(item[0][0])):
        if any(match.text for match in part):
            runs = [run for run in records if (run.task, shown_scale(run)) == (task, scale)]
            tables.append(_section(scale, METRICS[metric], task, part, runs, has_paper))
    return tables


def _section(
    scale: str, metric: Metric, task: str, matches: Sequence[Match], records: Sequence[RunRecord], has_paper: bool
) -> Table:
    """Lay out one task at one scale; columns without content are left out."""
    is_published_size = scale == PUBLISHED_SCALE
    paper = "paper" if is_published_size else "paper, full size, for reference"
    head = ["model", "attn", "ours", paper, "difference", "remarks"]
    rows = [
        [
            match.model or NOT_PUBLISHED, match.attn, match.text or NOT_MEASURED, match.printed, match.difference or "",
            match.remarks,
        ]
        for match in matches
    ]  # fmt: skip
    notes = []
    if metric.is_accuracy and task != AVERAGE:
        rows += _beneath(records)
        notes.append(
            caption(match.ours.tested for match in matches if match.ours and match.ours.text and match.ours.tested)
        )
    if metric.is_accuracy:
        notes += interval_note(match.ours.n for match in matches if match.ours)
    if has_paper and not is_published_size:
        notes.append("Of another size than the paper's: ours and the reference are not comparable.")
    unneeded = {"attn"} if not has_paper else set()
    columns = [i for i, name in enumerate(head) if name not in unneeded and any(row[i] for row in rows)]
    title = f"{TASK_TITLES.get(task, task)}, scale={scale}: {metric.title}"
    return Table(title, [head[i] for i in columns], [[row[i] for i in columns] for row in rows], notes)


def _beneath(records: Sequence[RunRecord]) -> list[list[str]]:
    """Lay out baselines and floors."""
    baselines = leaderboard([run for run in records if run.is_baseline])
    record_floors = floors(records)
    has_several_data = len({floor.data for floor in record_floors}) > 1
    names = [f"floor: {floor.name}" + (f" ({floor.data})" if has_several_data else "") for floor in record_floors]
    return [
        *([standing.label, "", standing.cell, "", "", ""] for standing in baselines),
        *([name, "", str(floor.accuracy), "", "", ""] for name, floor in zip(names, record_floors, strict=True)),
    ]


def _without_training(table: PaperTable, costs: Sequence[Match]) -> str:
    targets = dict.fromkeys(COUNTERPARTS[metric].target for metric in table.metrics if metric in COUNTERPARTS)
    commands = " and ".join(f"`python scripts/benchmark.py {target}`" for target in targets)
    return f"Measured without training, by {commands}{'' if costs else '; not measured yet'}."


def _notes(table: PaperTable, matches: Sequence[Match], costs: Sequence[Match]) -> list[str]:
    """Gather the paper's notes on its numbers, how our mechanisms differ, and how to read the tables."""
    notes = [*([ORIGIN_LEGEND] if table.numbers else []), *_paper_notes(table)]
    differing = dict.fromkeys((match.model, match.attn, match.note) for match in (*matches, *costs) if match.note)
    notes += [f"{model}: {note} (attn={attn})." for model, attn, note in differing]
    has_accuracy = {METRICS[match.metric].is_accuracy for match in matches if match.text}
    notes += [f"{CELL_LEGEND} {LEGEND}"] * (True in has_accuracy) + [COST_LEGEND] * (False in has_accuracy)
    return notes


def _paper_notes(table: PaperTable) -> list[str]:
    """Gather the notes of the published numbers: once those of many numbers, and with its name those of one or two."""
    counts: Counter[str] = Counter()
    names = {}
    for number in table.numbers:
        for text in number.note.split("; "):
            counts[text] += 1
            names[text] = f"{number.model}, {number.task}{f' {number.length}' if number.length else ''}"
    general = [text for text, count in counts.items() if count > 2 and not text.startswith("length ")]
    notes = [f"The paper's numbers: {'; '.join(general)}."] if general else []
    return notes + [f"{names[text]}: {text}." for text, count in counts.items() if 0 < count <= 2 and text]
