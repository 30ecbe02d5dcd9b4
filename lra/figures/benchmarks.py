"""Figures of the benchmarks: time and memory against length, efficiency lengths, error against budget.

Colours are those of Okabe and Ito (2008), which colour-blind readers tell apart; every line is named where it ends. The
same rows give the same bytes.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from lra.cards import families_of, family_of
from lra.figures.style import COLOURS, FEW_PAGES, GREY, LOOK, End, name_ends, save
from lra.records.benchmark_rows import (
    ApproximationRow,
    BenchmarkRow,
    LengthRow,
    Origin,
    comparable,
    load_rows,
    measured,
    target_of,
)
from lra.statistics import crossing, fit_exponent

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Row = TypeVar("Row", LengthRow, ApproximationRow)
REFERENCES = {"softmax": ("fused softmax", "-"), "softmax_materialised": ("stored scores", ":")}
ABLATED = "Skeinformer"  # the family whose variants have a figure of their own
METHODS_SHOWN = ("skeinformer", "informer_padding_mask", "linformer", "nystromformer", "performer", "bigbird", "vmean")


class Cost(NamedTuple):
    """What is drawn against the length.

    Attributes:
        label: of the axis; what was timed stands in its braces.
        value: of a row, in the label's unit.
        least: what is no more than that has no place on a log scale.
        quartiles: of a row, likewise; None where there are none.
    """

    label: str
    value: Callable[[LengthRow], float]
    least: float
    quartiles: Callable[[LengthRow], Sequence[float]] | None = None


TIME = Cost("time of {} [ms]", lambda row: row.ms, 0.0, lambda row: row.ms_quartiles)
# What needs no memory but a few pages is not drawn.
MEMORY = Cost("peak memory of {} [MiB]", lambda row: (row.peak_bytes or 0) / 2**20, FEW_PAGES / 2**20)


def figures(path: Path, families: Collection[str] | None = None) -> dict[str, Figure]:
    """Draw all figures of a file of `scripts/benchmark.py`, such as `cpu-attention.jsonl`; return them by their names.

    Args:
        path: the file.
        families: draw only these, beside exact softmax; None for all.

    Raises:
        InputError: the file cannot be read.
    """
    from matplotlib import rc_context

    rows = [
        row
        for row in load_rows(path)
        if families is None or (name := getattr(row, "backbone", "")) in REFERENCES or family_of(name) in families
    ]
    with rc_context(LOOK):
        return {name.removeprefix("-"): figure for name, figure in _figures(target_of(path), rows)}


def draw(target: str, rows: Sequence[BenchmarkRow], folder: Path, stem: str) -> list[Path]:
    """Draw what there is to draw of a target's rows, as SVG and PNG.

    Returns:
        The files; none where a target has no figure, or where nothing was measured.
    """
    from matplotlib import rc_context

    with rc_context(LOOK):
        drawn = list(_figures(target, rows))
        return [path for name, figure in drawn for path in save(figure, folder / f"{stem}{name}")]


def _figures(target: str, rows: Sequence[BenchmarkRow]) -> Iterator[tuple[str, Figure]]:
    whole = measured(comparable(rows), LengthRow)
    distances = measured(rows, ApproximationRow)
    if target in ("attention", "model") and any(row.backbone not in REFERENCES for row in whole):
        what = whole[0].what
        yield "-time", scaling(whole, TIME, what)
        yield "-memory", scaling(whole, MEMORY, what)
        yield "-efficiency-length", efficiency_lengths(whole, what)
    elif target == "approximation" and distances:
        yield "-methods", errors(distances, METHODS_SHOWN)
        yield "-ablations", errors(distances, [name for name in _by_backbone(distances) if family_of(name) == ABLATED])


def scaling(rows: Sequence[LengthRow], cost: Cost, what: str) -> Figure:
    """Draw a cost against the length, a panel for each family, with the exponents fitted to the largest lengths."""
    lines = _by_backbone(rows)
    families = families_of(name for name in lines if name not in REFERENCES)
    figure, axes = _panels_of_families(len(families))
    ends: dict[Axes, list[End]] = {}
    for axis, family in zip(axes.flat, families, strict=False):
        axis.set_title(family)
        members = [name for name in lines if family_of(name) == family and name not in REFERENCES]
        ends[axis] = []
        for name, (text, dashes) in REFERENCES.items():
            ends[axis] += _line(axis, lines.get(name, []), cost, GREY, text, dashes)
        for colour, name in zip(COLOURS, members, strict=False):
            ends[axis] += _line(axis, lines[name], cost, colour, name, "-")
        _log_scales(axis)
    _ticks(axes, sorted({row.n for row in rows}))
    for axis, line_ends in ends.items():
        name_ends(axis, line_ends)
    label, about = cost.label.format(what), rows[0]
    figure.suptitle(
        f"{label[0].upper()}{label[1:]} against the length of the sequence; batch {about.batch}, budget "
        f"{about.budget}, {_device(about.origin)}\n"
        f"{'median and quartiles; ' if cost.quartiles else ''}in brackets the exponent fitted to the last lengths",
        x=0.01, ha="left",
    )  # fmt: skip
    figure.supxlabel("tokens")
    figure.supylabel(label)
    return figure


def _panels_of_families(count: int) -> tuple[Figure, Any]:
    """Make so many panels, three in a row at most, and hide the places that are left."""
    from matplotlib.figure import Figure

    across = min(3, count)
    down = -(-count // across)
    figure = Figure(figsize=(4.4 * across, 3.0 * down + 0.5), layout="constrained")
    axes = figure.subplots(down, across, sharex=True, sharey=True, squeeze=False)
    for index in range(count, axes.size):
        axes.flat[index].set_axis_off()
        axes.flat[index - across].tick_params(labelbottom=True)
    return figure, axes


def _line(axis: Axes, rows: Sequence[LengthRow], cost: Cost, colour: str, text: str, dashes: str) -> list[End]:
    """Draw a backbone; return where its line ends, if it has one."""
    shown = [row for row in rows if cost.value(row) > cost.least]
    if not shown:
        return []
    x, y = [row.n for row in shown], [cost.value(row) for row in shown]
    axis.plot(x, y, color=colour, linestyle=dashes, linewidth=1.4, marker="o", markersize=2.5)
    if cost.quartiles:
        low, high = zip(*map(cost.quartiles, shown), strict=True)
        axis.fill_between(x, low, high, color=colour, alpha=0.2, linewidth=0)
    growth = fit_exponent(x, y)
    return [End(x[-1], y[-1], f"{text} ({growth.value:.1f})" if growth else text, colour)]


def efficiency_lengths(rows: Sequence[LengthRow], what: str) -> Figure:
    """Draw from which length on a backbone is faster than fused softmax; `what` was timed."""
    from matplotlib.figure import Figure

    crossings, never = [], []
    for name, block in _by_backbone(rows).items():
        if name in REFERENCES:
            continue
        start = crossing([row.n for row in block], [row.ratio_to_fused for row in block])
        if start is None:
            never.append(name)
        else:
            crossings.append((start.length, start.at_most, name))
    crossings.sort(reverse=True)
    lengths = sorted({row.n for row in rows})
    figure = Figure(figsize=(8, 1.6 + 0.19 * len(crossings)), layout="constrained")
    axis = figure.subplots()
    left = min(lengths) / 1.5
    for height, (length, at_most, _) in enumerate(crossings):
        axis.barh(height, length - left, left=left, color=COLOURS[5] if at_most else COLOURS[0], height=0.7)
        axis.text(length * 1.03, height, f"{'≤ ' if at_most else ''}{length:,.0f}", va="center")
    axis.set_yticks(range(len(crossings)), [name for _, _, name in crossings])
    axis.set_xscale("log", base=2)
    axis.set_xlim(left, max(lengths) * 1.3)
    axis.set_xticks(lengths, [f"{n:,}" for n in lengths])
    label = "tokens from which on it is faster than fused softmax, interpolated between lengths"
    missing = "never within the lengths measured: " + ", ".join(never)
    axis.set_xlabel("\n".join([label, *(textwrap.wrap(missing, 110) if never else [])]))
    title = f"Efficiency length of {what}, {_device(rows[0].origin)}" if crossings else "No backbone is faster"
    axis.set_title(title)
    return figure


def errors(rows: Sequence[ApproximationRow], names: Sequence[str]) -> Figure:
    """Draw the spectral error against the budget: a row of panels for each input, a column for each length."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator

    inputs, lengths = list(dict.fromkeys(row.input for row in rows)), list(dict.fromkeys(row.n for row in rows))
    figure = Figure(figsize=(3.9 * len(lengths), 2.9 * len(inputs) + 0.6), layout="constrained")
    axes = figure.subplots(len(inputs), len(lengths), sharex=True, sharey="row", squeeze=False)
    ends: dict[Axes, list[End]] = {}
    for axis, (kind, n) in zip(axes.flat, ((kind, n) for kind in inputs for n in lengths), strict=True):
        panel = [row for row in rows if row.input == kind and row.n == n]
        entropy = f"\nentropy {panel[0].entropy_nats:.2f} of at most {math.log(n):.2f} nats" if panel else ""
        axis.set_title(f"{kind}, n = {n:,}{entropy}")
        ends[axis] = _error_lines(axis, _by_backbone(panel), names)
        _log_scales(axis)
        axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.yaxis.set_major_formatter("{x:g}")
    _ticks(axes, sorted({row.budget for row in rows}))
    for axis, line_ends in ends.items():
        name_ends(axis, line_ends)
    figure.suptitle(
        "Spectral norm of the error over that of exact attention's output (1: as bad as zero); mean over trials, 95 %",
        x=0.01, ha="left",
    )  # fmt: skip
    figure.supxlabel("budget d: samples, features, landmarks, keys")
    figure.supylabel("relative error")
    return figure


def _error_lines(axis: Axes, rows: Mapping[str, Sequence[ApproximationRow]], names: Sequence[str]) -> list[End]:
    """Draw the errors of these backbones, as far as there are rows of them; return where the lines end."""
    ends = []
    for colour, name in zip(COLOURS, names, strict=False):
        points = sorted(rows.get(name, []), key=lambda row: row.budget)
        if not points:
            continue
        x = [row.budget for row in points]
        y = [max(row.spectral_error, 1e-8) for row in points]
        half = [row.spectral_error_half_width for row in points]
        axis.plot(x, y, color=colour, linewidth=1.4, marker="o", markersize=2.5)
        low = [max(a - b, a / 10) for a, b in zip(y, half, strict=True)]
        high = [a + b for a, b in zip(y, half, strict=True)]
        axis.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)
        ends.append(End(x[-1], y[-1], name, colour))
    return ends


def _log_scales(axis: Axes) -> None:
    axis.set_xscale("log", base=2)
    axis.set_yscale("log")
    axis.grid(which="major", color="#e6e6e6", linewidth=0.6)


def _ticks(axes: Any, values: Sequence[int]) -> None:
    for axis in axes.flat:
        axis.set_xticks(values, [f"{value:,}" for value in values], rotation=45, ha="right", rotation_mode="anchor")
        axis.minorticks_off()


def _by_backbone(rows: Iterable[Row]) -> dict[str, list[Row]]:
    blocks: dict[str, list[Row]] = {}
    for row in rows:
        blocks.setdefault(row.backbone, []).append(row)
    return blocks


def _device(origin: Origin) -> str:
    return f"{origin.machine}, {origin.environment.get('num_threads', '?')} threads"
