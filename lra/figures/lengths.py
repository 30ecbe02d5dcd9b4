"""Accuracy against the length that is tested, a line a mechanism; the same numbers as `report.py length`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lra.figures.style import COLOURS, GREY, LOOK, End, name_ends
from lra.reports.lengths import Curve, Panel
from lra.reports.names import TASK_TITLES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def length_curves(panels: Sequence[Panel]) -> Figure:
    """Draw a panel for each of `panels`: curves with their 95 % intervals, floors in grey.

    A curve's open point is the length that it was trained at; a run that was tested at no other is that point alone.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(LOOK):
        figure = Figure(figsize=(5.6, 3.4 * len(panels)), layout="constrained")
        for panel, axis in zip(panels, figure.subplots(len(panels), squeeze=False)[:, 0], strict=True):
            _draw(axis, panel)
        figure.supxlabel(
            "tokens of the longest test sequence; open: the length trained at; bars: 95 % intervals", fontsize=8
        )
    return figure


def _draw(axis: Axes, panel: Panel) -> None:
    labels = list(dict.fromkeys(curve.label for curve in panel.curves))
    several = len({curve.trained for curve in panel.curves}) > 1
    ends = []
    for curve in panel.curves:
        colour = COLOURS[labels.index(curve.label) % len(COLOURS)]
        name = f"{curve.label}, trained at {curve.trained:,}" if several else curve.label
        ends.append(_curve(axis, curve, colour)._replace(text=name))
    for name, by_column in panel.floors.items():
        lengths = [column.length for column in by_column]
        means = [100 * accuracy.mean for accuracy in by_column.values()]
        axis.plot(lengths, means, color=GREY, linewidth=1, linestyle="--")
        ends.append(End(lengths[-1], means[-1], f"floor: {name}", GREY))
    axis.set_xscale("log", base=2)
    lengths = sorted({column.length for column in panel.columns})
    axis.set_xticks(lengths, [f"{length:,}" for length in lengths])
    axis.minorticks_off()
    axis.set_ylabel("test accuracy, %")
    axis.set_title(panel.title.replace(panel.task, TASK_TITLES.get(panel.task, panel.task), 1))
    axis.margins(0.06)
    name_ends(axis, ends)


def _curve(axis: Axes, curve: Curve, colour: str) -> End:
    """Draw one curve, and return its end."""
    lengths = [column.length for column in curve.points]
    accuracies = [accuracy for accuracy, _ in curve.points.values()]
    means = [100 * accuracy.mean for accuracy in accuracies]
    axis.plot(lengths, means, color=colour, linewidth=1.2)
    for length, accuracy, mean in zip(lengths, accuracies, means, strict=True):
        face = "white" if length == curve.trained else colour
        axis.plot([length] * 2, [100 * accuracy.low, 100 * accuracy.high], color=colour, linewidth=1.6, alpha=0.5)
        axis.plot(length, mean, "o", color=colour, markerfacecolor=face, markersize=4)
    return End(lengths[-1], means[-1], curve.label, colour)
