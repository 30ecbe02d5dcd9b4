"""Figures of records: the board, accuracy against cost, learning curves, seeds; the same numbers as the tables."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from lra.cards import EXACT, family_of
from lra.errors import InputError
from lra.figures.difficulty import difficulty_figures
from lra.figures.lengths import length_curves
from lra.figures.style import COLOURS, GREY, LOOK, End, name_ends, save
from lra.files import writing
from lra.records.collection import load_packed, load_retests
from lra.records.record import RunRecord, accuracy_of, tested
from lra.reports.costs import COSTS as LETTERS
from lra.reports.costs import machine_of, run_costs
from lra.reports.leaderboard import Standing, floors, leaderboard
from lra.reports.lengths import Panel, panels
from lra.reports.names import TASK_TITLES, Setting, comparable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COSTS = {"ms_per_step": ("ms a step", 1.0), "peak_memory_bytes": ("peak memory, MiB", 2.0**-20)}
BOARD_LEAST_WIDTH = 7.2  # inches: what the line beneath it takes


def write_figures(results_dir: Path, records: Sequence[RunRecord]) -> list[Path]:
    """Draw every figure of every set of comparable records, and of every task accuracy by difficulty, into `figures/`,
    as SVG and PNG; return the files.

    Raises:
        InputError: there are no records, or the folder cannot be written.
    """
    if not records:
        raise InputError("No records to draw. Train something first, for example with `make run`.")
    folder = results_dir / "figures"
    files = []
    with writing(folder, "Make it writable."):
        for setting, runs in comparable(records).items():
            figures = {
                "board": board(runs),
                "time": accuracy_against(runs, "ms_per_step"),
                "memory": accuracy_against(runs, "peak_memory_bytes"),
                "curves": learning_curves(results_dir, runs),
                "seeds": seeds(runs),
            }
            for name, figure in figures.items():
                files += save(figure, folder / f"{'-'.join(setting)}-{name}")
        for task, figure in difficulty_figures(records, load_packed(results_dir, records)):
            files += save(figure, folder / f"difficulty-{task}")
        by_setting: dict[Setting, list[Panel]] = {}
        for panel in panels(load_retests(results_dir), records):
            by_setting.setdefault(panel.setting, []).append(panel)
        for setting, own in by_setting.items():
            files += save(length_curves(own), folder / f"{'-'.join(setting)}-lengths")
    return files


def board(records: Sequence[RunRecord]) -> Figure:
    """Draw the leaderboard of one scale, protocol and device: a row a mechanism, a panel a task, 95 % intervals.

    Rows are in the order of their mean rank over the tasks, the best on top; baselines beneath. What needs no model is
    grey. Where no run ended ok, the cell gives the reason.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    standings = leaderboard(records)
    heights = {name: -height for height, name in enumerate(_order(standings))}
    beneath = floors(records)
    tasks = list(TASK_TITLES)
    panels = sorted(
        {(row.task, row.data) for row in standings},
        key=lambda panel: (tasks.index(panel[0]) if panel[0] in tasks else len(tasks), panel),
    )
    data_sets = Counter(task for task, _ in panels)
    with rc_context(LOOK):
        width = max(1.6 + 1.75 * len(panels), BOARD_LEAST_WIDTH)
        figure = Figure(figsize=(width, 0.9 + 0.21 * len(heights)), layout="constrained")
        axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
        for (task, data), axis in zip(panels, axes, strict=True):
            axis.set_title(TASK_TITLES.get(task, task) + (f", {data}" if data_sets[task] > 1 else ""))
            rows = [row for row in standings if (row.task, row.data) == (task, data)]
            reached = [floor.accuracy.mean for floor in beneath if (floor.task, floor.data) == (task, data)]
            _column(axis, rows, heights, 100 * max(reached, default=math.nan))
        axes[0].set_yticks(list(heights.values()), list(heights))
        axes[0].set_ylim(min(heights.values()) - 0.7, 0.7)
        figure.suptitle(_board_title(records[0], [row.n for row in standings]), x=0.01, ha="left")
        marks = "grey: reached without a model; black: exact softmax; green: small models without attention"
        figure.supxlabel(f"%, with 95 % intervals; {marks}", fontsize=8)
    return figure


def _order(standings: Sequence[Standing]) -> list[str]:
    """Name the rows of the board from the top: by their mean rank over the tasks; baselines beneath."""
    rows = pd.DataFrame(
        {
            "panel": [f"{row.task}, {row.data}" for row in standings],
            "label": [row.label for row in standings],
            "baseline": [row.is_baseline for row in standings],
            "accuracy": [row.accuracy.mean if row.accuracy else math.nan for row in standings],
        }
    )
    by_panel = rows.groupby("panel")["accuracy"]
    # From 0, the best, to 1, however many mechanisms a task was run with.
    rows["rank"] = (by_panel.rank(ascending=False) - 0.5) / by_panel.transform("count")
    means = rows.groupby(["baseline", "label"], as_index=False)[["rank"]].mean()
    return means.sort_values(["baseline", "rank"], kind="stable")["label"].tolist()


def _column(axis: Axes, rows: Sequence[Standing], heights: Mapping[str, int], floor: float) -> None:
    """Draw a task of the board: points with their intervals, and what the floors reach."""
    for row in rows:
        height = heights[row.label]
        if row.accuracy is None:
            axis.text(0.5, height, row.failures, transform=axis.get_yaxis_transform(), ha="center", va="center",
                      color=COLOURS[1], fontsize=6.5)  # fmt: skip
            continue
        colour = "black" if family_of(row.attn) == EXACT else COLOURS[2] if row.is_baseline else COLOURS[0]
        axis.plot(
            [100 * row.accuracy.low, 100 * row.accuracy.high], [height] * 2, color=colour, linewidth=1.6, alpha=0.5
        )
        axis.plot(100 * row.accuracy.mean, height, "D" if row.is_baseline else "o", color=colour, markersize=3.5)
    axis.margins(x=0.12)
    left, right = axis.get_xlim()
    left = min(left, floor - 0.06 * (right - left))
    axis.axvspan(left, floor, color=GREY, alpha=0.15, linewidth=0)
    axis.set_xlim(left, right)
    axis.grid(axis="x", color="#e6e6e6", linewidth=0.6)
    axis.set_axisbelow(True)
    axis.tick_params(axis="y", length=0)


def _board_title(run: RunRecord, counts: Iterable[int]) -> str:
    numbers = sorted({count for count in counts if count})
    if len(numbers) > 1:
        seeds = f"{numbers[0]} to {numbers[-1]} seeds"
    else:
        seeds = {(): "no seeds", (1,): "1 seed"}.get(tuple(numbers)) or f"{numbers[0]} seeds"
    weights = {"best": "weights best on validation", "last": "last weights"}[tested(run)]
    return f"Test accuracy at {Setting.of(run).title}; {seeds}; {weights}"


def accuracy_against(records: Sequence[RunRecord], cost: str = "ms_per_step") -> Figure:
    """Draw every run's accuracy against a key of COSTS, a panel a task and machine; runs on the front are filled."""
    title, factor = COSTS[cost]
    letter = LETTERS[cost]
    costs = run_costs(records)
    figure, axes = _panels([run for run in records if accuracy_of(run) is not None], machine_of)
    for panel, axis in axes.items():
        ends = []
        for row in costs:
            run, price = row.run, getattr(row.run, cost)
            if row.accuracy is None or price is None or (run.task, run.scale, run.protocol, row.machine) != panel:
                continue
            x, y = factor * price, 100 * row.accuracy
            axis.plot(x, y, "o", color=COLOURS[0], markerfacecolor=COLOURS[0] if letter in row.front else "none")
            ends.append(End(x, y, run.attn, GREY))
        axis.set_xlabel(title)
        axis.set_ylabel("test accuracy, %")
        axis.margins(0.08)
        name_ends(axis, ends)
    return figure


def learning_curves(results_dir: Path, records: Sequence[RunRecord]) -> Figure:
    """Draw validation accuracy against the step, where the folder has curves; a line a run, named where it ends."""
    curves = load_packed(results_dir, records).curves
    figure, axes = _panels(records)
    for panel, axis in axes.items():
        runs = [run for run in records if (run.task, run.scale, run.protocol) == panel]
        names = list(dict.fromkeys(run.attn for run in runs))
        ends = {}
        for run in runs:
            points = [point for point in curves.get(run.key, []) if point.get("val_accuracy") is not None]
            colour = COLOURS[names.index(run.attn) % len(COLOURS)]
            values = [100 * point["val_accuracy"] for point in points]
            axis.plot([point["step"] for point in points], values, color=colour)
            if points:
                ends[run.attn] = End(points[-1]["step"], values[-1], run.attn, colour)
        name_ends(axis, ends.values())
        axis.set_xlabel("step")
        axis.set_ylabel("validation accuracy, %")
    return figure


def seeds(records: Sequence[RunRecord]) -> Figure:
    """Draw each seed's accuracy, and mean and interval of its group beside it."""
    figure, axes = _panels([run for run in records if accuracy_of(run) is not None])
    standings = leaderboard(records)
    for panel, axis in axes.items():
        rows = [row for row in standings if (row.task, *row.setting[:2]) == panel and row.n]
        for height, row in enumerate(rows):
            assert row.accuracy is not None
            runs = sorted(row.runs, key=lambda run: run.key)
            accuracies = [100 * value for run in runs if (value := accuracy_of(run)) is not None]
            axis.plot(accuracies, [height] * len(accuracies), "o", color=COLOURS[5], markersize=5)
            axis.plot([100 * row.accuracy.low, 100 * row.accuracy.high], [height - 0.2] * 2, color=COLOURS[0])
            axis.plot(100 * row.accuracy.mean, height - 0.2, "|", color=COLOURS[0], markersize=10)
        axis.set_yticks(range(len(rows)), [row.attn for row in rows])
        axis.set_xlabel("test accuracy, %: seeds, mean, interval")
        axis.margins(y=0.2)
    return figure


def _panels(
    records: Sequence[RunRecord], further: Callable[[RunRecord], str] | None = None
) -> tuple[Figure, Mapping[tuple[str, ...], Any]]:
    """Make a panel for each task, scale and protocol, and for each value of `further`."""
    from matplotlib.figure import Figure

    panels = list(
        dict.fromkeys((run.task, run.scale, run.protocol, *([further(run)] if further else [])) for run in records)
    )
    across = max(1, min(2, len(panels)))
    down = max(1, -(-len(panels) // across))
    figure = Figure(figsize=(5 * across, 3.6 * down), layout="constrained")
    axes = list(figure.subplots(down, across, squeeze=False).flat)
    for spare in axes[len(panels) :]:
        spare.set_axis_off()
    for panel, axis in zip(panels, axes, strict=False):
        task, scale, protocol, *further_names = panel
        title = f"{TASK_TITLES.get(task, task)}, scale={scale}, protocol={protocol}"
        axis.set_title("\n".join([title, *further_names]), fontsize=10)
        axis.spines[["top", "right"]].set_visible(False)
    return figure, dict(zip(panels, axes, strict=False))
