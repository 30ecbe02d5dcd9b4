"""Figures of records: the board, accuracy against cost, learning curves, seeds; the same numbers as the tables."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

from lra.cards import EXACT, families_of, family_of
from lra.errors import InputError
from lra.figures.difficulty import difficulty_figures
from lra.figures.lengths import length_curves
from lra.figures.style import COLOURS, GREY, LOOK, End, name_ends, save
from lra.files import writing
from lra.records.collection import load_packed, load_retests
from lra.records.record import RunRecord, accuracy_of, tested
from lra.reports.costs import COSTS as LETTERS
from lra.reports.costs import RunCost, contests, price_of, run_costs
from lra.reports.leaderboard import Standing, floors, in_order, interval_text, leaderboard
from lra.reports.lengths import Panel, panels
from lra.reports.names import TASK_TITLES, Setting, comparable, label, task_order

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TIME, OPERATIONS = "ms_per_step", "training_flops"
COSTS = {
    TIME: ("ms a step", 1.0),
    "peak_memory_bytes": ("peak memory, MiB", 2.0**-20),
    OPERATIONS: ("operations of training, MFLOP an example", 1e-6),
}
BLACK, PALE = "#000000", "#d0d0d0"
LINES = tuple(colour for colour in COLOURS if colour != BLACK)
LEAST_WIDTH = 7.2  # inches: what the lines above and beneath a figure take


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
            for name, figure in _figures(results_dir, runs):
                files += save(figure, folder / f"{setting.stem}-{name}")
        for task, figure in difficulty_figures(records, load_packed(results_dir, records)):
            files += save(figure, folder / f"difficulty-{task}")
        by_setting: dict[Setting, list[Panel]] = {}
        for panel in panels(load_retests(results_dir), records):
            by_setting.setdefault(panel.setting, []).append(panel)
        for setting, own in by_setting.items():
            files += save(length_curves(own), folder / f"{setting.stem}-lengths")
    return files


def _figures(results_dir: Path, runs: Sequence[RunRecord]) -> Iterator[tuple[str, Figure]]:
    """Draw the figures of one setting, the costs and the curves task by task; yield them with their names."""
    yield "board", board(runs)
    yield "seeds", seeds(runs)
    for task in sorted({run.task for run in runs}, key=task_order):
        here = [run for run in runs if run.task == task]
        yield f"{task}-curves", learning_curves(results_dir, here)
        for name, cost in (("time", TIME), ("memory", "peak_memory_bytes"), ("operations", OPERATIONS)):
            yield f"{task}-{name}", accuracy_against(here, cost)


def board(records: Sequence[RunRecord]) -> Figure:
    """Draw the leaderboard of one scale, protocol and device: a row a mechanism, a panel a task, with intervals.

    Rows are in the order of their mean rank over the tasks, the best on top; baselines beneath. What needs no model is
    grey. Where no run ended ok, the cell gives the reason.
    """
    standings = leaderboard(records)
    heights = {name: -height for height, name in enumerate(in_order(standings))}
    beneath = floors(records)
    panels = _panels(standings)
    data_sets = Counter(task for task, _ in panels)
    with _look():
        figure, axes = _board_axes(len(panels), len(heights))
        for (task, data), axis in zip(panels, axes, strict=True):
            axis.set_title(TASK_TITLES.get(task, task) + (f", {data}" if data_sets[task] > 1 else ""))
            rows = [row for row in standings if (row.task, row.data) == (task, data)]
            reached = [floor.accuracy.mean for floor in beneath if (floor.task, floor.data) == (task, data)]
            _column(axis, rows, heights, 100 * max(reached, default=math.nan))
        axes[0].set_yticks(list(heights.values()), list(heights))
        axes[0].set_ylim(min(heights.values()) - 0.7, 0.7)
        figure.suptitle(_board_title(records[0], [row.n for row in standings]), x=0.01, ha="left")
        marks = "grey: reached without a model; black: exact softmax; green: small models without attention"
        figure.supxlabel(f"%, with intervals: {interval_text(standings)}\n{marks}", fontsize=8)
    return figure


def _column(axis: Axes, rows: Sequence[Standing], heights: Mapping[str, int], floor: float) -> None:
    """Draw a task of the board: points with their intervals, and what the floors reach."""
    for row in rows:
        height = heights[row.label]
        if row.accuracy is None:
            axis.text(0.5, height, row.failures, transform=axis.get_yaxis_transform(), ha="center", va="center",
                      color=COLOURS[1], fontsize=6.5)  # fmt: skip
            continue
        colour = "black" if family_of(row.attn) == EXACT else COLOURS[2] if row.is_baseline else COLOURS[0]
        _interval(axis, row, height, colour)
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
    """Draw accuracies against a key of COSTS: a panel a family for each task, data, setting and machine.

    Runs of the family have colours and names, exact softmax is black, all others of the panel's contest are pale
    behind. Runs on the front are filled, and a grey line joins them. Where the times of half of a contest do not count,
    its panels have the operations of training instead, and say so.
    """
    rows = {row.run.key: row for row in run_costs(records) if row.accuracy is not None}
    panels = [
        (contest, family, [rows[run.key] for run in runs])
        for contest, runs in contests(row.run for row in rows.values()).items()
        for family in _families(runs)
    ]
    several = len({contest for contest, *_ in panels}) > 1
    with _look():
        figure, axes = _small_multiples(len(panels))
        for (contest, family, costs), axis in zip(panels, axes, strict=False):
            axis.set_title("\n".join([family, *([_contest_title(contest)] if several else [])]))
            _accuracies(axis, costs, family, *_cost_shown(costs, cost))
        _title(
            figure,
            records,
            "Test accuracy against cost",
            "filled, and joined: the front; black: exact softmax; pale: other families",
        )
        figure.supylabel("test accuracy, %")
    return figure


def _cost_shown(rows: Sequence[RunCost], cost: str) -> tuple[str, str]:
    """Choose what the accuracies of a contest are drawn against, and the label of its axis."""
    left_out = sum(price_of(row.run, cost) is None for row in rows)
    if cost != TIME or not left_out:
        return cost, COSTS[cost][0]
    if left_out < len(rows) / 2:
        return cost, f"{COSTS[cost][0]} ({left_out} of {len(rows)}, which do not count, left out)"
    return OPERATIONS, f"{COSTS[OPERATIONS][0]}\n(no times: those of {left_out} of {len(rows)} runs do not count)"


def _accuracies(axis: Axes, rows: Sequence[RunCost], family: str, cost: str, text: str) -> None:
    """Draw a panel."""
    letter, factor = LETTERS[cost], COSTS[cost][1]
    points = [(factor * price, row) for row in rows if (price := price_of(row.run, cost)) is not None]
    colours = _colours([row.run for _, row in points], family)
    ends: dict[str, End] = {}
    for x, row in sorted(points, key=lambda point: point[1].accuracy or 0):
        name, y = label(row.run), 100 * (row.accuracy or 0)
        colour = colours.get(name, PALE)
        filled = colour if letter in row.front else "white"
        axis.plot(x, y, "o", color=colour, markerfacecolor=filled, markersize=4, zorder=2 if colour == PALE else 3)
        if colour != PALE:
            ends[name] = End(x, y, name, colour)
    front = sorted((x, 100 * (row.accuracy or 0)) for x, row in points if letter in row.front)
    if len(front) > 1:
        axis.plot(*zip(*front, strict=True), color=GREY, linewidth=0.7, linestyle=":", zorder=1)
    axis.set_xlabel(text)
    axis.margins(0.08)
    name_ends(axis, ends.values())


def learning_curves(results_dir: Path, records: Sequence[RunRecord]) -> Figure:
    """Draw validation accuracy against the step, where the folder has curves: a panel a family for each task.

    A line a run, named where it ends; exact softmax is in every panel, in black.
    """
    curves = load_packed(results_dir, records).curves
    by_task: dict[tuple[str, Setting], list[RunRecord]] = {}
    for run in records:
        if any(point.get("val_accuracy") is not None for point in curves.get(run.key, [])):
            by_task.setdefault((run.task, Setting.of(run)), []).append(run)
    panels = [(*name, runs, family) for name, runs in by_task.items() for family in _families(runs)]
    with _look():
        figure, axes = _small_multiples(len(panels))
        for (task, setting, runs, family), axis in zip(panels, axes, strict=False):
            place = [f"{TASK_TITLES.get(task, task)}, {setting.title}"] if len(by_task) > 1 else []
            axis.set_title("\n".join([family, *place]))
            colours = _colours(runs, family)
            ends = {}
            for run in runs:
                if (name := label(run)) in colours:
                    points = [point for point in curves[run.key] if point.get("val_accuracy") is not None]
                    values = [100 * point["val_accuracy"] for point in points]
                    axis.plot([point["step"] for point in points], values, color=colours[name], linewidth=1.1)
                    ends[name] = End(points[-1]["step"], values[-1], name, colours[name])
            name_ends(axis, ends.values())
        _title(figure, records, "Validation accuracy while training", "black: exact softmax")
        figure.supxlabel("step")
        figure.supylabel("validation accuracy, %")
    return figure


def seeds(records: Sequence[RunRecord]) -> Figure:
    """Draw each seed's accuracy, and mean and interval of its group beneath it: rows and panels are the board's."""
    standings = [row for row in leaderboard(records) if row.n]
    order = in_order(standings) if standings else []
    panels = _panels(standings)
    with _look():
        figure, axes = _board_axes(len(panels), len(order))
        for (task, data), axis in zip(panels, axes, strict=False):
            axis.set_title(TASK_TITLES.get(task, task))
            for row in standings:
                if (row.task, row.data) == (task, data):
                    _seeds(axis, row, -order.index(row.label))
        axes[0].set_yticks([-height for height in range(len(order))], order)
        axes[0].set_ylim(-len(order) + 0.3, 0.7)
        figure.suptitle(f"Every seed at {Setting.of(records[0]).title}; mean and interval beneath", x=0.01, ha="left")
        figure.supxlabel(f"test accuracy, %; intervals: {interval_text(standings)}", fontsize=8)
    return figure


def _seeds(axis: Axes, row: Standing, height: float) -> None:
    """Draw the seeds of a row."""
    assert row.accuracy is not None
    runs = sorted(row.runs, key=lambda run: run.key)
    accuracies = [100 * value for run in runs if (value := accuracy_of(run)) is not None]
    axis.plot(accuracies, [height] * len(accuracies), "o", color=COLOURS[5], markersize=4)
    _interval(axis, row, height - 0.3, COLOURS[0], alpha=1.0)
    axis.plot(100 * row.accuracy.mean, height - 0.3, "|", color=COLOURS[0], markersize=6)
    axis.grid(axis="x", color="#e6e6e6", linewidth=0.6)
    axis.set_axisbelow(True)


def _panels(standings: Iterable[Standing]) -> list[tuple[str, str]]:
    """Name tasks and data in the order in which a board shows them."""
    return sorted({(row.task, row.data) for row in standings}, key=lambda panel: (task_order(panel[0]), panel))


def _board_axes(panels: int, rows: int) -> tuple[Figure, Sequence[Axes]]:
    """Make the panels of a board, side by side."""
    from matplotlib.figure import Figure

    width = max(1.6 + 1.75 * panels, LEAST_WIDTH)
    figure = Figure(figsize=(width, 0.95 + 0.21 * rows), layout="constrained")
    return figure, figure.subplots(1, max(1, panels), sharey=True, squeeze=False)[0]


def _interval(axis: Axes, row: Standing, height: float, colour: str, alpha: float = 0.5) -> None:
    """Draw an interval; that of a single seed, which is of the test's sampling alone, is dashed."""
    assert row.accuracy is not None
    axis.plot(
        [100 * row.accuracy.low, 100 * row.accuracy.high], [height] * 2, color=colour, linewidth=1.6, alpha=alpha,
        linestyle=(0, (1, 0.6)) if row.n == 1 else "-",
    )  # fmt: skip


def _families(runs: Iterable[RunRecord]) -> list[str]:
    """Name the families that have a panel: exact softmax has one of its own only where there is nothing else."""
    families = families_of(run.attn for run in runs)
    return [family for family in families if family != EXACT] or families


def _colours(runs: Iterable[RunRecord], family: str) -> dict[str, str]:
    """Give the members of a family colours, by their labels, and exact softmax black."""
    members = list(dict.fromkeys(label(run) for run in runs if family_of(run.attn) == family != EXACT))
    exact = {label(run): BLACK for run in runs if family_of(run.attn) == EXACT}
    return {**exact, **{name: LINES[index % len(LINES)] for index, name in enumerate(members)}}


def _contest_title(contest: tuple[str, ...]) -> str:
    """Name a contest in the title of a panel."""
    *setting, task, data, machine = contest
    return f"{TASK_TITLES.get(task, task)}, {', '.join(setting)}\n{data.rpartition(', ')[2]}; {machine}"


def _title(figure: Figure, records: Sequence[RunRecord], what: str, marks: str) -> None:
    """Write above a figure what it is of."""
    places = dict.fromkeys((TASK_TITLES.get(run.task, run.task), Setting.of(run).title) for run in records)
    where = f", {', '.join(next(iter(places)))}" if len(places) == 1 else ""
    figure.suptitle(f"{what}{where}\n{marks}", x=0.01, ha="left")


def _small_multiples(count: int) -> tuple[Figure, list[Axes]]:
    """Make so many panels, three in a row at most."""
    from matplotlib.figure import Figure

    across = max(1, min(3, count))
    down = max(1, -(-count // across))
    figure = Figure(figsize=(max(3.9 * across, LEAST_WIDTH), 2.3 * down + 0.7), layout="constrained")
    axes = list(figure.subplots(down, across, squeeze=False).flat)
    for spare in axes[count:]:
        spare.set_axis_off()
    return figure, axes[:count]


def _look() -> AbstractContextManager[None]:
    from matplotlib import rc_context

    return rc_context(LOOK)
