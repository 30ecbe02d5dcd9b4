"""A figure of what a setting changes: a panel a task, a row a mechanism, a point with its interval for each value."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

import pandas as pd

from lra.errors import InputError
from lra.figures.style import COLOURS, LOOK

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MARKERS = "osD^vP"
LETTERS = 36  # in the width of a panel
SPREAD = 0.5  # of the height of a row, which its values share


def effect_figure(title: str, frame: pd.DataFrame) -> Figure:
    """Draw the rows of an effect's report.

    Args:
        title: stands above.
        frame: as `lra.reports.effect.effect_report` makes it.

    Raises:
        InputError: there are more values than can be told apart.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    frame = frame.dropna(subset=["accuracy"])
    values = list(dict.fromkeys(frame["value"]))
    places = list(dict.fromkeys(zip(frame["place"], frame["conditions"], strict=True)))
    if len(values) > min(len(MARKERS), len(COLOURS)):
        raise InputError(f"A figure tells {len(MARKERS)} values apart. Got {len(values)}: {', '.join(values)}.")
    # The best on average on top.
    means = frame.groupby(["attn", "place", "conditions"])["accuracy"].max().groupby("attn").mean()
    order = list(means.sort_values(ascending=False, kind="stable").index)
    with rc_context(LOOK):
        size = (2.2 + 2.6 * len(places), 1.1 + 0.34 * len(order))
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.subplots(1, len(places), sharey=True, squeeze=False)[0]
        for (place, conditions), axis in zip(places, axes, strict=True):
            axis.set_title("\n".join(filter(None, [place.partition(",")[0], textwrap.fill(conditions, LETTERS)])))
            _draw(axis, frame[(frame["place"] == place) & (frame["conditions"] == conditions)], order, values)
        axes[0].set_yticks([-height for height in range(len(order))], order)
        axes[0].set_ylim(-len(order) + 0.4, 0.6)
        figure.suptitle(title, x=0.01, ha="left")
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=len(values), frameon=False)
    return figure


def _draw(axis: Axes, rows: pd.DataFrame, order: list[str], values: list[str]) -> None:
    """Draw a panel; the values of a mechanism stand a little above one another."""
    step = SPREAD / max(1, len(values) - 1)
    for number, value in enumerate(values):
        part = rows[rows["value"] == value]
        heights = [-order.index(attn) + SPREAD / 2 - number * step for attn in part["attn"]]
        colour = COLOURS[number]
        axis.plot(100 * part["accuracy"], heights, MARKERS[number], markersize=4, color=colour, label=value)
        axis.hlines(heights, 100 * part["low"], 100 * part["high"], color=colour, linewidth=1.4, alpha=0.5)
    axis.set_xlabel("test accuracy in %, with 95 % intervals", fontsize=8)
    axis.grid(axis="x", color="#e6e6e6", linewidth=0.6)
    axis.set_axisbelow(True)
    axis.tick_params(axis="y", length=0)
