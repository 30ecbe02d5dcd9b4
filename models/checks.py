"""Checks of options: an error names the option, what it must be and what it is."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any


def at_least(least: int, **values: Any) -> None:
    """Check that options are integers of a least size. A name with a dot is given as `**{"model.depth": depth}`.

    Raises:
        ValueError: one of them is no integer, or is smaller.
    """
    for name, value in values.items():
        if not isinstance(value, int) or isinstance(value, bool):
            raise ValueError(f"{name} must be an integer, at least {least}. Got {value!r}.")
        if value < least:
            raise ValueError(f"{name} must be at least {least}. Got {value}.")


def one_of(choices: Collection[Any], **values: Any) -> None:
    """Check that options have one of a few values. A name with a dot is given as `**{"model.pooling": pooling}`.

    Raises:
        ValueError: one of them has another value.
    """
    for name, value in values.items():
        if value not in choices:
            raise ValueError(f"{name} must be one of {', '.join(map(str, choices))}. Got {value!r}.")
