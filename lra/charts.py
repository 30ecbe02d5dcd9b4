"""Figures of records for a notebook: accuracy against cost, learning curves, seeds; the same numbers as the tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lra.collected import MEASURED
from lra.costs import cost_frame
from lra.layout import each
from lra.packed import Packed
from lra.record import RunRecord
from lra.tables import TASK_TITLES, accuracy_of, leaderboard

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COSTS = {"ms_per_step": ("ms a step", 1.0), "peak_memory_bytes": ("peak memory, MiB", 2.0**-20)}
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")


def accuracy_against(records: Sequence[RunRecord], cost: str = "ms_per_step") -> Figure:
    """Draw every run's accuracy against a key of COSTS, a panel a task, scale and protocol; the front is filled."""
    title, factor = COSTS[cost]
    letter = {"ms_per_step": "t", "peak_memory_bytes": "m"}[cost]
    frame = cost_frame(records)
    figure, axes = _panels([run for run in records if accuracy_of(run) is not None])
    for place, axis in axes.items():
        for row in each(frame[frame["accuracy"].notna() & frame[cost].notna()]):
            if (row.task, row.scale, row.protocol) == place:
                x, y = factor * getattr(row, cost), 100 * row.accuracy
                axis.plot(x, y, "o", color=COLOURS[0], markerfacecolor=COLOURS[0] if letter in row.front else "none")
                axis.annotate(row.attn, (x, y), xytext=(5, 3), textcoords="offset points", fontsize=8)
        axis.set_xlabel(title)
        axis.set_ylabel("test accuracy, %")
        axis.margins(x=0.25)
    return figure


def learning_curves(results_dir: Path, records: Sequence[RunRecord]) -> Figure:
    """Draw validation accuracy against the step, where the folder has curves; a line a run."""
    packed = Packed.load((results_dir / MEASURED).parent)
    for run in records:
        packed.add_run(run, results_dir / "runs" / run.task / run.attn / run.key)
    figure, axes = _panels(records)
    for place, axis in axes.items():
        here = [run for run in records if (run.task, run.scale, run.protocol) == place]
        names = list(dict.fromkeys(run.attn for run in here))
        for run in here:
            points = [point for point in packed.curves.get(run.key, []) if point.get("val_accuracy") is not None]
            colour = COLOURS[names.index(run.attn) % len(COLOURS)]
            values = [100 * point["val_accuracy"] for point in points]
            axis.plot([point["step"] for point in points], values, color=colour, label=run.attn)
        lines = {line.get_label(): line for line in axis.lines}
        axis.legend(lines.values(), lines.keys(), fontsize=8, frameon=False)
        axis.set_xlabel("step")
        axis.set_ylabel("validation accuracy, %")
    return figure


def seeds(records: Sequence[RunRecord]) -> Figure:
    """Draw each seed's accuracy, and mean and interval of its group beside it."""
    figure, axes = _panels(records)
    runs = {run.key: run for run in records}
    board = leaderboard(records)
    for place, axis in axes.items():
        rows = [row for row in each(board) if (row.task, row.scale, row.protocol) == place and row.n]
        for height, row in enumerate(rows):
            found = [100 * value for key in row.keys.split() if (value := accuracy_of(runs[key])) is not None]
            axis.plot(found, [height] * len(found), "o", color=COLOURS[5], markersize=5)
            axis.plot([100 * row.low, 100 * row.high], [height - 0.2] * 2, color=COLOURS[0])
            axis.plot(100 * row.accuracy, height - 0.2, "|", color=COLOURS[0], markersize=10)
        axis.set_yticks(range(len(rows)), [row.attn for row in rows])
        axis.set_xlabel("test accuracy, %: seeds, and their mean with its interval")
        axis.margins(y=0.2)
    return figure


def _panels(records: Sequence[RunRecord]) -> tuple[Figure, Mapping[tuple[str, str, str], Any]]:
    """Make a panel for each task, scale and protocol."""
    from matplotlib.figure import Figure

    places = list(dict.fromkeys((run.task, run.scale, run.protocol) for run in records))
    across = max(1, min(2, len(places)))
    down = max(1, -(-len(places) // across))
    figure = Figure(figsize=(5 * across, 3.6 * down), layout="constrained")
    axes = figure.subplots(down, across, squeeze=False).flat
    for spare in axes[len(places) :]:
        spare.set_axis_off()
    for place, axis in zip(places, axes, strict=False):
        task, scale, protocol = place
        axis.set_title(f"{TASK_TITLES.get(task, task)}, scale={scale}, protocol={protocol}", fontsize=10)
        axis.spines[["top", "right"]].set_visible(False)
    return figure, dict(zip(places, axes, strict=False))
