"""Numbers as the tables of benchmarks print them."""

from __future__ import annotations


def number(value: float | None, digits: int = 3) -> str:
    """Write a number with so many significant digits, without exponents; "-" for none."""
    if value is None:
        return "-"
    if value == 0:
        return "0"
    decimals = max(0, digits - 1 - _first_place(abs(value)))
    return f"{value:,.{decimals}f}"


def mebibytes(value: float | None) -> str:
    """Write bytes as MiB; "-" for none."""
    return "-" if value is None else f"{value / 2**20:,.1f}"


def _first_place(value: float) -> int:
    """Return the place of the first digit."""
    return int(f"{value:e}".partition("e")[2])
