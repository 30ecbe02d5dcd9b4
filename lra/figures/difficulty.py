"""The figure of accuracy by difficulty: a row for each set of comparable runs of a task, a column for each measure."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from lra.cards import EXACT, family_of
from lra.figures.style import COLOURS, GREY, LOOK, End, name_ends
from lra.records.arrays import Packed
from lra.records.record import RunRecord
from lra.reports.comparison import gather
from lra.reports.difficulty import NOMINAL, Division, Line, divisions, in_order
from lra.reports.names import TASK_TITLES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FIRST = ("softmax", "skeinformer", "s4d")  # are drawn wherever they ran; the most accurate others after them
LINES = 6  # in a panel: more cannot be told apart
WIDTH, HEIGHT, LEAST_WIDTH = 3.3, 2.5, 7.2  # of a panel, and of a figure, inches
LONG = 8  # letters of a bin's title: five longer ones do not fit
LETTERS, LETTERS_OF_LEGEND = 45, 17  # in the width of a panel, and in an inch
LEGEND = (
    "%, with 95 % intervals; beneath a bin how many examples it has. Grey: the best floor of each bin; black: exact "
    f"softmax. Drawn: {', '.join(FIRST)} and the most accurate others, {LINES} in all."
)


def difficulty_figures(records: Sequence[RunRecord], packed: Packed) -> Iterator[tuple[str, Figure]]:
    """Draw a figure for each task of these records whose test examples can be divided; yield them with their tasks."""
    contests, _ = gather([run for run in records if run.status == "ok"], packed)
    telling = [one for one in divisions(contests, packed) if len(one.bins) > 1]
    for task in sorted({one.contest.task for one in telling}):
        yield task, difficulty_figure([one for one in telling if one.contest.task == task])


def difficulty_figure(divided: Sequence[Division]) -> Figure:
    """Draw accuracy against the bins of each measure, with 95 % intervals; what floors reach in a bin is grey.

    Args:
        divided: test examples of one task, with more than one bin each.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    panels = {(one.contest.setting, one.contest.data, one.measure): one for one in divided}
    rows = list(dict.fromkeys((setting, data) for setting, data, _ in panels))
    columns = in_order({measure for *_, measure in panels})
    with rc_context(LOOK):
        width, letters = max(WIDTH * len(columns), LEAST_WIDTH), LETTERS * len(columns)
        figure = Figure(figsize=(width, 0.8 + HEIGHT * len(rows)), layout="constrained")
        axes = figure.subplots(len(rows), len(columns), squeeze=False)
        for (setting, data), line in zip(rows, axes, strict=True):
            for measure, axis in zip(columns, line, strict=True):
                if (setting, data, measure) in panels:
                    _panel(axis, panels[setting, data, measure])
                else:
                    axis.set_axis_off()
            line[0].set_title(textwrap.fill(f"{setting.title} ({data})", max(letters, 2 * LETTERS)))
        task = TASK_TITLES.get(divided[0].contest.task, divided[0].contest.task)
        figure.suptitle(f"{task}: test accuracy by what makes an example hard", x=0.01, ha="left")
        figure.supxlabel(textwrap.fill(LEGEND, int(LETTERS_OF_LEGEND * width)), fontsize=8)
    return figure


def drawn(division: Division) -> list[Line]:
    """Choose the mechanisms that a panel shows, the most accurate first."""
    names = [line.name for line in division.lines]
    if "softmax" in names:  # another exact attention would be a second black line
        names = [name for name in names if name == "softmax" or family_of(name) != EXACT]
    names = sorted(names, key=lambda name: name not in FIRST)[:LINES]
    return [line for line in division.lines if line.name in names]


def _panel(axis: Axes, division: Division) -> None:
    """Draw the lines of some mechanisms; dots alone where the order of the bins says nothing."""
    places = range(len(division.bins))
    floors = [max((100 * floor.bins[n].mean for floor in division.floors), default=0.0) for n in places]
    axis.bar(places, floors, width=1.0, color=GREY, alpha=0.2, linewidth=0)
    lines, ends = drawn(division), []
    for number, line in enumerate(lines):
        colour = "black" if family_of(line.name) == EXACT else COLOURS[number % len(COLOURS)]
        beside = [place + 0.06 * (number - (len(lines) - 1) / 2) for place in places]
        means = [100 * accuracy.mean for accuracy in line.bins]
        errors = [
            [100 * (accuracy.mean - accuracy.low) for accuracy in line.bins],
            [100 * (accuracy.high - accuracy.mean) for accuracy in line.bins],
        ]
        style = "" if division.measure in NOMINAL else "-"
        axis.errorbar(beside, means, errors, color=colour, linestyle=style, marker="o", markersize=3, linewidth=1.1,
                      elinewidth=0.7)  # fmt: skip
        ends.append(End(beside[-1], means[-1], line.name, colour))
    size = 5 if max(len(b.title) for b in division.bins) > LONG else 6.5
    axis.set_xticks(places, [f"{b.title}\n{len(b.examples):,}" for b in division.bins], fontsize=size)
    axis.set_xlabel(division.measure)
    axis.set_xlim(-0.5, len(places) - 0.5)
    lowest = min(100 * accuracy.low for line in lines for accuracy in line.bins)
    axis.set_ylim(bottom=max(0.0, min(lowest, *floors) - 3))
    axis.tick_params(axis="x", length=0)
    name_ends(axis, ends, 6.5)
