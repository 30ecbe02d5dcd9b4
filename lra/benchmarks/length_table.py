"""Rows of the targets `attention` and `model` as a table, and which backbones grow faster than their cards say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby

from lra.benchmarks.numbers import mebibytes, number
from lra.benchmarks.passes import FUSED
from lra.cards import card_of, is_near_linear
from lra.records.benchmark_rows import WHOLE, BenchmarkRow, LengthCase, LengthRow, comparable, measured
from lra.reports.report import terminal
from lra.statistics import Exponent, crossing, fit_exponent

HEAD = (
    "backbone", "n", "ms", "quartiles", "x fused softmax", "x stored scores", "x transcription", "peak MiB",
    "x least time", "exponent", "faster than fused from",
)  # fmt: skip
HEAD_ALONE = ("alone: ms", "x fused softmax", "peak MiB", "exponent")
# L log L grows as L^1.12 from 2,048 to 16,384 tokens, the lengths that an exponent is fitted to by default.
STEEPEST = 1.15

Blocks = Mapping[str, Sequence[LengthRow]]


def render(rows: Sequence[BenchmarkRow]) -> str:
    """Lay out forward and backward together: a line for each length, a backbone's growth on its last one.

    Beside a mixer stands its attention alone, if it has one.
    """
    shown = comparable(rows)
    if not shown:
        return f"No length was measured.\n{terminal(HEAD, [])}"
    alone: Blocks | None = _alone(rows) if shown[0].as_mixer else None
    lines = []
    for name, group in groupby(shown, key=lambda row: row.backbone):
        block = list(group)
        good = measured(block, LengthRow)
        for row in block:
            growth = _growth(good) if good and row is good[-1] else ("", "")
            beside = () if alone is None else _cells_alone(row.n, alone.get(name, []))
            lines.append([name if row is block[0] else "", f"{row.n:,}", *_cells(row), *growth, *beside])
    title = f"ms of {shown[0].what}, batch {shown[0].batch}, budget {shown[0].budget}, float32"
    if alone is None:
        return f"{title}\n{terminal(HEAD, lines)}"
    return f"{title}\n{terminal((*HEAD, *HEAD_ALONE), lines)}\n{_steep(measured(shown, LengthRow), alone)}"


def _alone(rows: Sequence[BenchmarkRow]) -> Blocks:
    """Take the rows of attentions without projections, by backbone."""
    good = [row for row in measured(rows, LengthRow) if row.direction in WHOLE and not row.as_mixer]
    return {name: list(group) for name, group in groupby(good, key=lambda row: row.backbone)}


def _cells(row: LengthCase) -> list[str]:
    if not isinstance(row, LengthRow):
        return ["", row.status, "", "", "", "", ""]
    low, high = row.ms_quartiles
    least = row.ms / row.least_ms if row.least_ms else None
    return [
        number(row.ms), f"{number(low)} to {number(high)}", number(row.ratio_to_fused),
        number(row.ratio_to_materialised), number(row.ratio_to_transcription), mebibytes(row.peak_bytes), number(least),
    ]  # fmt: skip


def _cells_alone(n: int, rows: Sequence[LengthRow]) -> list[str]:
    """Write what an attention alone cost at a length; nothing if there is none."""
    for row in rows:
        if row.n == n:
            growth = _exponent(rows) if row is rows[-1] else ""
            return [number(row.ms), number(row.ratio_to_fused), mebibytes(row.peak_bytes), growth]
    return ["-" if rows else "", "", "", ""]


def _growth(rows: Sequence[LengthRow]) -> tuple[str, str]:
    """Write a backbone's exponent, and its efficiency length."""
    from_length = crossing([row.n for row in rows], [row.ratio_to_fused for row in rows])
    if rows[0].backbone == FUSED:
        from_length = None
    return (
        _exponent(rows),
        f"{'≤ ' if from_length.at_most else ''}{from_length.length:,.0f}" if from_length else "-",
    )


def _fit(rows: Sequence[LengthRow]) -> Exponent | None:
    return fit_exponent([row.n for row in rows], [row.ms for row in rows])


def _exponent(rows: Sequence[LengthRow]) -> str:
    growth = _fit(rows)
    return f"{growth.value:.2f} ± {growth.half_width:.2f}" if growth else "-"


def _steep(mixers: Sequence[LengthRow], alone: Blocks) -> str:
    """Name the backbones whose time, with projections or alone, grows faster than a card of O(L log L) allows."""
    said, lines = 0, []
    for name, group in groupby(mixers, key=lambda row: row.backbone):
        card = card_of(name)
        if card is None or not is_near_linear(card.time):
            continue
        said += 1
        both = [list(group), alone.get(name, [])]
        if any(growth.value > STEEPEST for growth in map(_fit, both) if growth):
            beside = f", alone {_exponent(both[1])}" if both[1] else ""
            lines.append(f"  {name}: {_exponent(both[0])}{beside}; its card: {card.time}")
    title = f"Cards of {said} backbones say O(L) or O(L log L), of some setting at least. Steeper than L^{STEEPEST}: "
    return "\n".join([f"{title}{len(lines)}{':' if lines else '.'}", *lines])
