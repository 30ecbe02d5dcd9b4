"""Figures of the benchmarks: time and memory against length, efficiency lengths, error against budget.

Colours are those of Okabe and Ito (2008), which colour-blind readers tell apart; every line is named where it ends. The
same rows give the same bytes.
"""

from __future__ import annotations

import json
import math
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lra.cards import families_of, family_of
from lra.errors import InputError
from lra.figures.style import COLOURS, FEW_PAGES, GREY, LOOK, End, name_ends, save
from lra.statistics import crossing, fit_exponent

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Row = Mapping[str, Any]
REFERENCES = {"softmax": ("fused softmax", "-"), "softmax_materialised": ("stored scores", ":")}
ABLATED = "Skeinformer"  # the family whose variants have a figure of their own
METHODS_SHOWN = ("skeinformer", "informer_padding_mask", "linformer", "nystromformer", "performer", "bigbird", "vmean")


def figures(path: Path) -> dict[str, Figure]:
    """Draw all figures of a file of `scripts/benchmark.py`, such as `cpu-attention.jsonl`; return them by their names.

    Raises:
        InputError: the file cannot be read.
    """
    from matplotlib import rc_context

    try:
        rows = [json.loads(line) for line in path.read_text().splitlines()]
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read: {error}. `python scripts/benchmark.py` writes such files.") from error
    with rc_context(LOOK):
        good = [row for row in rows if row["status"] == "ok"]
        return {name.removeprefix("-"): figure for name, figure in _figures(path.stem.partition("-")[2], good)}


def draw(target: str, rows: Sequence[Row], folder: Path, stem: str) -> list[Path]:
    """Draw what there is to draw of a target's rows, as SVG and PNG.

    Returns:
        The files; none where a target has no figure, or where nothing was measured.
    """
    from matplotlib import rc_context

    good = [row for row in rows if row["status"] == "ok"]
    with rc_context(LOOK):
        figures = list(_figures(target, good))
        return [path for name, figure in figures for path in save(figure, folder / f"{stem}{name}")]


def _figures(target: str, good: Sequence[Row]) -> Iterator[tuple[str, Figure]]:
    if target in ("attention", "model"):
        whole = [row for row in good if row["direction"] in ("both", "step")]
        if whole:
            what = "an optimiser step of the model" if target == "model" else "a forward and backward pass"
            yield "-time", scaling(whole, "ms", 1, f"time of {what} [ms]")
            yield "-memory", scaling(whole, "peak_bytes", 2**20, f"peak memory of {what} [MiB]")
            yield "-efficiency-length", efficiency_lengths(whole, what)
    elif target == "approximation" and good:
        yield "-methods", errors(good, METHODS_SHOWN)
        ablations = [name for name in _by_backbone(good) if family_of(name) == ABLATED]
        yield "-ablations", errors(good, ablations)


def scaling(rows: Sequence[Row], key: str, unit: float, label: str) -> Figure:
    """Draw a cost against the length, a panel for each family, with the exponents fitted to the largest lengths."""
    from matplotlib.figure import Figure

    lines = {name: list(found) for name, found in _by_backbone(rows).items()}
    families = families_of(name for name in lines if name not in REFERENCES)
    across = min(3, len(families))
    down = -(-len(families) // across)
    figure = Figure(figsize=(4.4 * across, 3.0 * down + 0.5), layout="constrained")
    axes = figure.subplots(down, across, sharex=True, sharey=True, squeeze=False)
    for place in range(len(families), axes.size):
        axes.flat[place].set_axis_off()
        axes.flat[place - across].tick_params(labelbottom=True)
    named: dict[Axes, list[End]] = {}
    for axis, family in zip(axes.flat, families, strict=False):
        axis.set_title(family)
        ends: list[End] = []
        members = [name for name in lines if family_of(name) == family and name not in REFERENCES]
        for name, (text, dashes) in REFERENCES.items():
            ends += _line(axis, lines.get(name, []), key, unit, GREY, text, dashes)
        for colour, name in zip(COLOURS, members, strict=False):
            ends += _line(axis, lines[name], key, unit, colour, name, "-")
        axis.set_xscale("log", base=2)
        axis.set_yscale("log")
        axis.grid(which="major", color="#e6e6e6", linewidth=0.6)
        named[axis] = ends
    _ticks(axes, sorted({row["n"] for row in rows}))
    for axis, ends in named.items():
        name_ends(axis, ends)
    about = rows[0]
    figure.suptitle(
        f"{label[0].upper()}{label[1:]} against the length of the sequence; batch {about['batch']}, budget "
        f"{about['budget']}, {_device(about)}\n"
        f"{'median and quartiles; ' if key == 'ms' else ''}in brackets the exponent fitted to the last lengths",
        x=0.01, ha="left",
    )  # fmt: skip
    figure.supxlabel("tokens")
    figure.supylabel(label)
    return figure


def _line(axis: Axes, rows: Sequence[Row], key: str, unit: float, colour: str, text: str, dashes: str) -> list[End]:
    """Draw a backbone; return where its line ends, if it has one."""
    # What needs no memory but a few pages has no place on a log scale.
    shown = [row for row in rows if row[key] > (FEW_PAGES if key == "peak_bytes" else 0)]
    if not shown:
        return []
    x, y = [row["n"] for row in shown], [row[key] / unit for row in shown]
    axis.plot(x, y, color=colour, linestyle=dashes, linewidth=1.4, marker="o", markersize=2.5)
    if key == "ms":
        low, high = zip(*(row["ms_quartiles"] for row in shown), strict=True)
        axis.fill_between(x, low, high, color=colour, alpha=0.2, linewidth=0)
    growth = fit_exponent(x, y)
    return [End(x[-1], y[-1], f"{text} ({growth.value:.1f})" if growth else text, colour)]


def efficiency_lengths(rows: Sequence[Row], what: str) -> Figure:
    """Draw from which length on a backbone is faster than fused softmax; `what` was timed."""
    from matplotlib.figure import Figure

    found, never = [], []
    for name, block in _by_backbone(rows).items():
        if name in REFERENCES:
            continue
        where = crossing([row["n"] for row in block], [row["ratio_to_fused"] for row in block])
        if where is None:
            never.append(name)
        else:
            found.append((where.length, where.at_most, name))
    found.sort(reverse=True)
    lengths = [row["n"] for row in rows]
    figure = Figure(figsize=(8, 1.6 + 0.19 * len(found)), layout="constrained")
    axis = figure.subplots()
    left = min(lengths) / 1.5
    for place, (length, at_most, _) in enumerate(found):
        axis.barh(place, length - left, left=left, color=COLOURS[5] if at_most else COLOURS[0], height=0.7)
        axis.text(length * 1.03, place, f"{'≤ ' if at_most else ''}{length:,.0f}", va="center")
    axis.set_yticks(range(len(found)), [name for _, _, name in found])
    axis.set_xscale("log", base=2)
    axis.set_xlim(left, max(lengths) * 1.3)
    axis.set_xticks(sorted(set(lengths)), [f"{n:,}" for n in sorted(set(lengths))])
    label = "tokens from which on it is faster than fused softmax, interpolated between lengths"
    missing = "never within the lengths measured: " + ", ".join(never)
    axis.set_xlabel("\n".join([label, *(textwrap.wrap(missing, 110) if never else [])]))
    axis.set_title(f"Efficiency length of {what}, {_device(rows[0])}" if found else "No backbone is faster")
    return figure


def errors(rows: Sequence[Row], names: Sequence[str]) -> Figure:
    """Draw the spectral error against the budget: a row of panels for each input, a column for each length."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator

    inputs, lengths = ([*dict.fromkeys(row[key] for row in rows)] for key in ("input", "n"))
    figure = Figure(figsize=(3.9 * len(lengths), 2.9 * len(inputs) + 0.6), layout="constrained")
    axes = figure.subplots(len(inputs), len(lengths), sharex=True, sharey="row", squeeze=False)
    named: dict[Axes, list[End]] = {axis: [] for axis in axes.flat}
    for down, kind in enumerate(inputs):
        for across, n in enumerate(lengths):
            axis = axes[down, across]
            here = [row for row in rows if row["input"] == kind and row["n"] == n]
            entropy = f"\nentropy {here[0]['entropy_nats']:.2f} of at most {math.log(n):.2f} nats" if here else ""
            axis.set_title(f"{kind}, n = {n:,}{entropy}")
            for colour, name in zip(COLOURS, names, strict=False):
                points = sorted((row["budget"], row) for row in here if row["backbone"] == name)
                if not points:
                    continue
                x = [d for d, _ in points]
                y = [max(row["spectral_error"], 1e-8) for _, row in points]
                half = [row["spectral_error_half_width"] for _, row in points]
                axis.plot(x, y, color=colour, linewidth=1.4, marker="o", markersize=2.5)
                low = [max(a - b, a / 10) for a, b in zip(y, half, strict=True)]
                axis.fill_between(
                    x, low, [a + b for a, b in zip(y, half, strict=True)], color=colour, alpha=0.15, linewidth=0
                )
                named[axis].append(End(x[-1], y[-1], name, colour))
            axis.set_xscale("log", base=2)
            axis.set_yscale("log")
            axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axis.yaxis.set_major_formatter("{x:g}")
            axis.grid(which="major", color="#e6e6e6", linewidth=0.6)
    _ticks(axes, sorted({row["budget"] for row in rows}))
    for axis, ends in named.items():
        name_ends(axis, ends)
    figure.suptitle(
        "Spectral norm of the error over that of exact attention's output (1: as bad as zero); mean over trials, 95 %",
        x=0.01, ha="left",
    )  # fmt: skip
    figure.supxlabel("budget d: samples, features, landmarks, keys")
    figure.supylabel("relative error")
    return figure


def _ticks(axes: Any, values: Sequence[int]) -> None:
    for axis in axes.flat:
        axis.set_xticks(values, [f"{value:,}" for value in values], rotation=45, ha="right", rotation_mode="anchor")
        axis.minorticks_off()


def _by_backbone(rows: Iterable[Row]) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row["backbone"], []).append(row)
    return found


def _device(row: Row) -> str:
    about = row.get("environment", {})
    return f"{about.get('device_name', 'unknown device')}, {about.get('num_threads', '?')} threads"
