"""Figures of records: the board, accuracy against cost, learning curves, seeds; the same numbers as the tables."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lra.cards import EXACT, family_of
from lra.errors import InputError
from lra.figures.style import COLOURS, GREY, LOOK, End, name_ends, save
from lra.records.collection import load_packed
from lra.records.record import BASELINE, RunRecord, accuracy_of, tested
from lra.reports.costs import COSTS as LETTERS
from lra.reports.costs import cost_frame, machine_of
from lra.reports.leaderboard import floors, leaderboard
from lra.reports.names import TASK_TITLES, comparable, label
from lra.reports.report import each

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COSTS = {"ms_per_step": ("ms a step", 1.0), "peak_memory_bytes": ("peak memory, MiB", 2.0**-20)}
BOARD_LEAST_WIDTH = 7.2  # inches: what the line beneath it takes


def write_figures(results_dir: Path, records: Sequence[RunRecord]) -> list[Path]:
    """Draw every figure of every set of comparable records into `figures/`, as SVG and PNG; return the files.

    Raises:
        InputError: there are no records, or the folder cannot be written.
    """
    if not records:
        raise InputError("No records to draw: train something first, for example with `make run`.")
    folder = results_dir / "figures"
    made = []
    try:
        for place, runs in comparable(records).items():
            figures = {
                "board": board(runs),
                "time": accuracy_against(runs, "ms_per_step"),
                "memory": accuracy_against(runs, "peak_memory_bytes"),
                "curves": learning_curves(results_dir, runs),
                "seeds": seeds(runs),
            }
            for name, figure in figures.items():
                made += save(figure, folder / f"{'-'.join(place)}-{name}")
    except OSError as error:
        raise InputError(f"{folder} cannot be written: {error.strerror or error}.") from error
    return made


def board(records: Sequence[RunRecord]) -> Figure:
    """Draw the leaderboard of one scale, protocol and device: a row a mechanism, a panel a task, 95 % intervals.

    Rows are in the order of their mean place over the tasks, the best on top; baselines beneath. Grey lies what needs
    no model. Where no run of a cell ended ok, its reason stands there.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    rows = leaderboard(records)
    rows = rows.assign(
        label=[label(attn, settings) for attn, settings in zip(rows["attn"], rows["settings"], strict=True)],
        baseline=rows["attn"].str.startswith(BASELINE),
        accuracy=rows["accuracy"].astype(float),
    )
    alike = rows.groupby(["task", "data"])["accuracy"]
    # From 0, the best, to 1: however many mechanisms a task was run with.
    rows["place"] = (alike.rank(ascending=False) - 0.5) / alike.transform("count")
    order = rows.groupby(["baseline", "label"], as_index=False)[["place"]].mean()
    names = order.sort_values(["baseline", "place"], kind="stable")["label"]
    heights = {name: -height for height, name in enumerate(names)}
    beneath = floors(records)
    shown = set(zip(rows["task"], rows["data"], strict=True))
    known = list(TASK_TITLES)
    panels = sorted(shown, key=lambda panel: (known.index(panel[0]) if panel[0] in known else len(known), panel))
    several = Counter(task for task, _ in panels)
    with rc_context(LOOK):
        width = max(1.6 + 1.75 * len(panels), BOARD_LEAST_WIDTH)
        figure = Figure(figsize=(width, 0.9 + 0.21 * len(heights)), layout="constrained")
        axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
        for (task, data), axis in zip(panels, axes, strict=True):
            axis.set_title(TASK_TITLES.get(task, task) + (f", {data}" if several[task] > 1 else ""))
            mine = [row for row in each(rows) if (row.task, row.data) == (task, data)]
            floor = beneath[(beneath["task"] == task) & (beneath["data"] == data)]["accuracy"].max()
            _column(axis, mine, heights, 100 * floor)
        axes[0].set_yticks(list(heights.values()), list(heights))
        axes[0].set_ylim(min(heights.values()) - 0.7, 0.7)
        figure.suptitle(_board_title(records[0], rows["n"]), x=0.01, ha="left")
        marks = "grey: reached without a model; black: exact softmax; green: small models without attention"
        figure.supxlabel(f"%, with 95 % intervals; {marks}", fontsize=8)
    return figure


def _column(axis: Axes, rows: Sequence[Any], heights: Mapping[str, int], floor: float) -> None:
    """Draw a task of the board: points with their intervals, and what the floors reach."""
    for row in rows:
        height = heights[row.label]
        if not row.n:
            axis.text(0.5, height, row.failures, transform=axis.get_yaxis_transform(), ha="center", va="center",
                      color=COLOURS[1], fontsize=6.5)  # fmt: skip
            continue
        colour = "black" if family_of(row.attn) == EXACT else COLOURS[2] if row.baseline else COLOURS[0]
        axis.plot([100 * row.low, 100 * row.high], [height] * 2, color=colour, linewidth=1.6, alpha=0.5)
        axis.plot(100 * row.accuracy, height, "D" if row.baseline else "o", color=colour, markersize=3.5)
    axis.margins(x=0.12)
    left, right = axis.get_xlim()
    left = min(left, floor - 0.06 * (right - left))
    axis.axvspan(left, floor, color=GREY, alpha=0.15, linewidth=0)
    axis.set_xlim(left, right)
    axis.grid(axis="x", color="#e6e6e6", linewidth=0.6)
    axis.set_axisbelow(True)
    axis.tick_params(axis="y", length=0)


def _board_title(run: RunRecord, counts: Iterable[int]) -> str:
    found = sorted({count for count in counts if count})
    runs = " to ".join(str(count) for count in (found[:1] + found[-1:])[-len(found) :]) or "no"
    runs += " seed" if found == [1] else " seeds"
    weights = {"best": "weights best on validation", "last": "last weights"}[tested(run)]
    return f"Test accuracy at scale={run.scale}, protocol={run.protocol}, on {run.device}; {runs}; {weights}"


def accuracy_against(records: Sequence[RunRecord], cost: str = "ms_per_step") -> Figure:
    """Draw every run's accuracy against a key of COSTS, a panel a task and machine; what is on the front is filled."""
    title, factor = COSTS[cost]
    letter = LETTERS[cost]
    frame = cost_frame(records)
    figure, axes = _panels([run for run in records if accuracy_of(run) is not None], machine_of)
    for place, axis in axes.items():
        ends = []
        for row in each(frame[frame["accuracy"].notna() & frame[cost].notna()]):
            if (row.task, row.scale, row.protocol, row.device_name) == place:
                x, y = factor * getattr(row, cost), 100 * row.accuracy
                axis.plot(x, y, "o", color=COLOURS[0], markerfacecolor=COLOURS[0] if letter in row.front else "none")
                ends.append(End(x, y, row.attn, GREY))
        axis.set_xlabel(title)
        axis.set_ylabel("test accuracy, %")
        axis.margins(0.08)
        name_ends(axis, ends)
    return figure


def learning_curves(results_dir: Path, records: Sequence[RunRecord]) -> Figure:
    """Draw validation accuracy against the step, where the folder has curves; a line a run, named where it ends."""
    curves = load_packed(results_dir, records).curves
    figure, axes = _panels(records)
    for place, axis in axes.items():
        here = [run for run in records if (run.task, run.scale, run.protocol) == place]
        names = list(dict.fromkeys(run.attn for run in here))
        ends = {}
        for run in here:
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
        axis.set_xlabel("test accuracy, %: seeds, mean, interval")
        axis.margins(y=0.2)
    return figure


def _panels(
    records: Sequence[RunRecord], further: Callable[[RunRecord], str] | None = None
) -> tuple[Figure, Mapping[tuple[str, ...], Any]]:
    """Make a panel for each task, scale and protocol, and for what `further` tells apart."""
    from matplotlib.figure import Figure

    places = list(
        dict.fromkeys((run.task, run.scale, run.protocol, *([further(run)] if further else [])) for run in records)
    )
    across = max(1, min(2, len(places)))
    down = max(1, -(-len(places) // across))
    figure = Figure(figsize=(5 * across, 3.6 * down), layout="constrained")
    axes = list(figure.subplots(down, across, squeeze=False).flat)
    for spare in axes[len(places) :]:
        spare.set_axis_off()
    for place, axis in zip(places, axes, strict=False):
        task, scale, protocol, *rest = place
        title = f"{TASK_TITLES.get(task, task)}, scale={scale}, protocol={protocol}"
        axis.set_title("\n".join([title, *rest]), fontsize=10)
        axis.spines[["top", "right"]].set_visible(False)
    return figure, dict(zip(places, axes, strict=False))
