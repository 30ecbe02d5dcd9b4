"""Checks of options: an error names the option, what was expected and what came."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any


def at_least(least: int, **values: float) -> None:
    """Check the smallest values that options may have, by their names.

    Raises:
        ValueError: one of them is smaller.
    """
    if min(values.values()) < least:
        names, given = " and ".join(values), " and ".join(map(str, values.values()))
        raise ValueError(f"{names} must {f'be at least {least}' if least else 'not be negative'}, got {given}")


def one_of(choices: Collection[Any], **values: Any) -> None:
    """Check options that have a few values, by their names.

    Raises:
        ValueError: one of them has another.
    """
    for name, value in values.items():
        if value not in choices:
            raise ValueError(f"{name} must be one of {choices}, got {value!r}")
