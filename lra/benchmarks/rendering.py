"""Tables for the terminal: columns as wide as they must be, numbers to the right."""

from __future__ import annotations

from collections.abc import Sequence


def table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Lay out lines under a head; a column whose cells are all numbers, or empty, is set to the right."""
    columns = list(zip(head, *lines, strict=True))
    widths = [max(map(len, column)) for column in columns]
    right = [all(_is_number(cell) for cell in column[1:]) for column in columns]

    def lay_out(cells: Sequence[str]) -> str:
        return "  ".join(
            cell.rjust(width) if numeric else cell.ljust(width)
            for cell, width, numeric in zip(cells, widths, right, strict=True)
        ).rstrip()

    return "\n".join([lay_out(head), "  ".join("-" * width for width in widths), *map(lay_out, lines)])


def number(value: float | None, digits: int = 3) -> str:
    """Write a number with so many significant digits, without exponents; "-" for none."""
    if value is None:
        return "-"
    if value == 0:
        return "0"
    decimals = max(0, digits - 1 - _first_place(abs(value)))
    return f"{value:,.{decimals}f}"


def _first_place(value: float) -> int:
    """Return the place of the first digit."""
    return int(f"{value:e}".partition("e")[2])


def mebibytes(value: float | None) -> str:
    """Write bytes as MiB."""
    return "-" if value is None else f"{value / 2**20:,.1f}"


def _is_number(cell: str) -> bool:
    return cell in ("", "-") or cell.lstrip("≤-").replace(",", "").split(" ")[0].replace(".", "", 1).isdigit()
