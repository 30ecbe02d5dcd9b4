"""What was measured, matched with what was published: a row for each number of a paper's table and each way we have it.

A number of a smaller scale is never subtracted from a published one. What else differs is said in words, in `remarks`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from lra.papers.published import METRICS, Metric, Model, PaperTable, find_model, printed
from lra.records.record import BASELINE, RunRecord, accuracy_of
from lra.reports.experiments import Experiment
from lra.reports.leaderboard import cell, leaderboard
from lra.reports.report import MINUS, TIMES, each
from lra.statistics import sampling_half_width

PUBLISHED_SCALE = "full"
AVERAGE = "avg"
NOT_AVERAGED = {AVERAGE, "pathx"}
# What a command line may set without changing what is compared.
HARMLESS = {
    "task", "attn", "protocol", "scale", "seed", "experiment", "device", "results_dir", "cache_dir", "task.data_dir",
    "trainer.micro_batch", "trainer.eval_batch_size", "trainer.checkpoint_seconds", "trainer.profile",
}  # fmt: skip
HARMLESS_NODES = ("hydra.", "hydra/launcher", "wandb.")

OWN_DATA = ("generated", "aan-mini")  # sources whose test examples are not the papers'
Row = dict[str, Any]


def match(
    table: PaperTable,
    models: Mapping[tuple[str, str, str], Model],
    experiment: Experiment,
    records: Sequence[RunRecord],
) -> list[Row]:
    """Match a table with records of its protocol.

    Returns:
        Rows with table, metric, unit, model, attn, task, scale, published (a number or None), printed (as the paper has
        it), note (how our mechanism differs from the paper's), and, where something was measured, value, low, high, n,
        learned, tested, device, data, text (for a cell), difference (at the published scale alone), remarks, keys. A
        number that was not measured at the published scale has a row there whose n is 0. A mechanism that the paper has
        not follows the others, and its model is "".
    """
    return [row for metric in table.metrics for row in _rows(table, models, experiment, records, metric)]


def _rows(
    table: PaperTable,
    models: Mapping[tuple[str, str, str], Model],
    experiment: Experiment,
    records: Sequence[RunRecord],
    metric: str,
) -> Iterator[Row]:
    about = METRICS[metric]
    board = _board(records, about)
    published = table.numbers[table.numbers["metric"] == metric]
    wanted = [(row.model, row.task, row) for row in each(published) if row.task != AVERAGE]
    if not table.source:
        wanted = [(attn, task, None) for task in experiment.tasks for attn in experiment.attns]
    averages: dict[tuple[str, str], dict[str, Row]] = {}
    named = set()
    for name, task, number in wanted:
        model = find_model(models, table.source, name, task)
        here = {
            **published_row(table, metric, name, task, number),
            "attn": name if not table.source else model.attn if model else "",
            "note": model.note if model else "",
        }
        named.add((here["attn"], task))
        found = [row for row in board if (row.attn, row.task) == (here["attn"], task)]
        if all(row.scale != PUBLISHED_SCALE for row in found):
            yield {**here, "scale": PUBLISHED_SCALE, "n": 0, "text": "", "remarks": "", "keys": ""}
        for row in found:
            full = {**here, **_measured(row, about)}
            full["paper_error"] = _sampling_error(full["published"], row.own_test) if about.is_accuracy else 0.0
            if row.scale == PUBLISHED_SCALE:
                full["difference"] = _difference(full, about)
            yield full
            if about.is_accuracy and row.n:
                averages.setdefault((name, row.scale), {}).setdefault(task, full)
    for row in board if table.source else []:
        new = (row.attn, row.task) not in named and not row.attn.startswith(BASELINE)
        if new and row.task in set(published["task"]):
            nothing = {**published_row(table, metric, "", row.task, None), "unit": published["unit"].iloc[0]}
            yield {**nothing, "attn": row.attn, "note": "", **_measured(row, about)}
    tasks = sorted(set(published["task"]) - NOT_AVERAGED)
    for number in each(published[published["task"] == AVERAGE]):
        for (name, scale), cells in averages.items():
            if name == number.model and tasks and all(task in cells for task in tasks):
                row = {**published_row(table, metric, name, AVERAGE, number), "attn": "", "note": ""}
                yield _averaged(row, scale, [cells[task] for task in tasks], about)


def published_row(table: PaperTable, metric: str, model: str, task: str, number: Any) -> Row:
    """Begin a row with what the paper says; `number` is a row of `numbers.csv`, or None where it says nothing."""
    return {
        "table": table.name, "metric": metric, "unit": number.unit if number else "percent", "model": model,
        "task": task, "length": number.length if number else "", "published": number.value if number else None,
        "status": number.status if number else "", "printed": printed(number) if number else "",
    }  # fmt: skip


def _board(records: Sequence[RunRecord], metric: Metric) -> list[Any]:
    """Return the leaderboard's rows, with the metric's value in its published unit and what sets them apart."""
    board = leaderboard(records)
    if board.empty:
        return []
    runs: dict[str, list[RunRecord]] = {}
    for run in records:
        runs.setdefault(run.group, []).append(run)
    firsts = [runs[group][0] for group in board["group"]]
    own = [_own_settings(runs[group]) for group in board["group"]]
    board["own"] = own
    # As many as the paper's at the published scale, where alone they are compared.
    board["own_test"] = [run.data["sizes"]["test"] if run.data["source"] in OWN_DATA else 0 for run in firsts]
    board["remarks"] = [
        "; ".join(filter(None, [_data_remark(first), mine or settings, first.device if first.device != "cuda" else ""]))
        for first, mine, settings in zip(firsts, own, board["settings"], strict=True)
    ]
    if metric.is_accuracy:
        board["value"] = 100 * board["accuracy"].astype(float)
    else:
        measure = metric.measure or (lambda run: None)
        values = [
            [value for run in runs[group] if accuracy_of(run) is not None and (value := measure(run)) is not None]
            for group in board["group"]
        ]
        board["n"] = [len(value) for value in values]
        board["value"] = [sum(value) / len(value) if value else None for value in values]
        board = board[board["n"] > 0]
    return each(board.sort_values("own", key=lambda own: own != "", kind="stable"))


def _measured(row: Any, metric: Metric) -> Row:
    return {
        "scale": row.scale, "device": row.device, "data": row.data, "tested": row.tested, "n": row.n,
        "value": row.value if row.n else None,
        "low": 100 * row.low if metric.is_accuracy and row.n else None,
        "high": 100 * row.high if metric.is_accuracy and row.n else None,
        "learned": row.learned, "text": cell(row) if metric.is_accuracy else f"{row.value:,.2f} (n={row.n})",
        "remarks": row.remarks, "keys": row.keys,
    }  # fmt: skip


def _averaged(row: Row, scale: str, cells: Sequence[Row], metric: Metric) -> Row:
    """Average over tasks, whose errors are independent; of several ways to have one, that without own settings."""
    value = sum(cell["value"] for cell in cells) / len(cells)
    low = value - math.hypot(*(cell["value"] - cell["low"] for cell in cells)) / len(cells)
    high = value + math.hypot(*(cell["high"] - cell["value"] for cell in cells)) / len(cells)
    row |= {
        "scale": scale, "n": min(cell["n"] for cell in cells), "value": value, "low": low, "high": high,
        "text": f"{value:.1f} [{low:.1f}, {high:.1f}]",
        "remarks": "; ".join(dict.fromkeys(cell["remarks"] for cell in cells if cell["remarks"])),
        "keys": " ".join(cell["keys"] for cell in cells),
        "paper_error": math.hypot(*(cell["paper_error"] for cell in cells)) / len(cells),
    }  # fmt: skip
    if scale == PUBLISHED_SCALE:
        row["difference"] = _difference(row, metric)
    return row


def _difference(row: Row, metric: Metric) -> str:
    ours, theirs = row["value"], row["published"]
    if ours is None or theirs is None or pd.isna(theirs):
        return ""
    if not metric.is_accuracy:
        return f"{TIMES} {ours / theirs:.2f}" if theirs else ""
    ours_error = ours - row["low"] if theirs < ours else row["high"] - ours
    outside = abs(ours - theirs) > math.hypot(ours_error, row["paper_error"])
    return f"{round(ours - theirs, 1) + 0.0:+.1f}".replace("-", MINUS) + ("*" if outside else "")


def _sampling_error(published: float | None, own_test: int) -> float:
    """Return how far, in points, a paper's own test set may have led it, if it is not ours and theirs was as large."""
    if not own_test or published is None or pd.isna(published):
        return 0.0
    return 100 * sampling_half_width(published / 100, own_test)


def _data_remark(run: RunRecord) -> str:
    """Say where the data are not the released ones."""
    source, variant = run.data["source"], run.data["variant"]
    if source in OWN_DATA:
        return f"{source} data"
    return variant.split(", ", 1)[1] if ", not the official" in variant else ""


def _own_settings(runs: Sequence[RunRecord]) -> str:
    """Return what the commands set beyond what an experiment does."""
    found = set()
    for run in runs:
        for word in (run.command or "").split():
            key, equals, _ = word.lstrip("+~").partition("=")
            if equals and key not in HARMLESS and not key.startswith(HARMLESS_NODES):
                found.add(word)
    return "; ".join(sorted(found))
