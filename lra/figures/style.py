"""The style of all figures: colours, fonts, names at the ends of lines, files."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure


class End(NamedTuple):
    """The end of a line, the text to write there, and its colour."""

    x: float
    y: float
    text: str
    colour: str


COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C6D00")
GREY = "#8a8a8a"


LOOK: Any = {
    "svg.hashsalt": "lra", "svg.fonttype": "path", "font.size": 8, "axes.spines.top": False, "axes.spines.right": False,
    "axes.titlesize": 9, "axes.titleweight": "bold", "axes.titlelocation": "left",
}  # fmt: skip


LEADER = {"arrowstyle": "-", "linewidth": 0.5, "shrinkA": 0, "shrinkB": 2}
FEW_PAGES = 2**16  # bytes


def save(figure: Figure, path: Path) -> list[Path]:
    """Write a figure as SVG and PNG, the same bytes each time."""
    from matplotlib import rc_context

    path.parent.mkdir(parents=True, exist_ok=True)
    files = [path.with_name(f"{path.name}.{kind}") for kind in ("svg", "png")]
    with rc_context(LOOK):
        figure.savefig(files[0], metadata={"Date": None})
        figure.savefig(files[1], dpi=110, metadata={"Software": None})
    return files


def name_ends(axis: Axes, ends: Iterable[End], size: float = 7) -> None:
    """Write names beside the axes, each at the height of its point, moved apart so that none covers another."""
    axis.autoscale_view()  # transforms do not wait for it
    to_axes = axis.transData + axis.transAxes.inverted()
    placed = sorted((float(to_axes.transform((end.x, end.y))[1]), end) for end in ends)
    if not placed:
        return
    gap = min(0.062 * size / 7, 1 / max(1, len(placed) - 1))
    heights = [height for height, _ in placed]
    for index in range(1, len(heights)):
        heights[index] = max(heights[index], heights[index - 1] + gap)
    if heights[-1] > 1:  # too many at the top: push them down again
        heights[-1] = 1
        for index in range(len(heights) - 2, -1, -1):
            heights[index] = min(heights[index], heights[index + 1] - gap)
    for (_, end), height in zip(placed, heights, strict=True):
        axis.annotate(
            end.text, (end.x, end.y), (1.03, height), textcoords="axes fraction", fontsize=size, va="center",
            color=end.colour if end.colour != GREY else "#555555", annotation_clip=False,
            arrowprops={**LEADER, "color": end.colour},
        )  # fmt: skip
