"""Checks of options: an error names the option, what it must be and what it is."""

from __future__ import annotations

import math
from collections.abc import Collection
from itertools import pairwise
from typing import Any

MOST = 2**20  # of whatever is counted: far above every sensible value, and no product of two overflows
MOST_ROUNDS = 1000  # of what is done again and again, so that no value means hours of silence


class UnsuitedError(ValueError):
    """A sound setting that this mechanism cannot take, though others can."""


def at_least(least: int, most: int = MOST, **values: Any) -> None:
    """Check that options are integers in a range. A name with a dot is given as `**{"model.depth": depth}`.

    Raises:
        ValueError: one of them is no integer, or beyond the range.
    """
    for name, value in values.items():
        if not isinstance(value, int) or isinstance(value, bool):
            raise ValueError(f"{name} must be an integer, at least {least}. Got {value!r}.")
        if value < least:
            raise ValueError(f"{name} must be at least {least}. Got {value}.")
        if value > most:
            raise ValueError(f"{name} must be at most {most}. Got {value}.")


def odd(most: int = MOST, **values: Any) -> None:
    """Check that options are odd and positive, such as the widths of centred windows.

    Raises:
        ValueError: one of them is not.
    """
    at_least(1, most, **values)
    for name, value in values.items():
        if value % 2 == 0:
            raise ValueError(f"{name} must be odd. Got {value}.")


def even(most: int = MOST, **values: Any) -> None:
    """Check that options are even and positive, such as the numbers of states that come in pairs.

    Raises:
        ValueError: one of them is not.
    """
    at_least(2, most, **values)
    for name, value in values.items():
        if value % 2:
            raise ValueError(f"{name} must be even. Got {value}.")


def ordered(**values: Any) -> None:
    """Check that options are positive and finite numbers, none of which is below the one before it.

    Raises:
        ValueError: one of them is not.
    """
    positive(**values)
    for (least_name, least), (name, value) in pairwise(values.items()):
        if value < least:
            raise ValueError(f"{name} must be at least {least_name}={least!r}. Got {value!r}.")


def positive(**values: Any) -> None:
    """Check that options are finite numbers above 0.

    Raises:
        ValueError: one of them is not.
    """
    for name, value in values.items():
        if not _is_number(value) or not 0 < value < math.inf:
            raise ValueError(f"{name} must be positive and finite. Got {value!r}.")


def finite(**values: Any) -> None:
    """Check that options are finite numbers.

    Raises:
        ValueError: one of them is not.
    """
    for name, value in values.items():
        if not _is_number(value) or not math.isfinite(value):
            raise ValueError(f"{name} must be a finite number. Got {value!r}.")


def not_negative(**values: Any) -> None:
    """Check that options are finite numbers, at least 0.

    Raises:
        ValueError: one of them is not.
    """
    for name, value in values.items():
        if not _is_number(value) or not 0 <= value < math.inf:
            raise ValueError(f"{name} must be at least 0 and finite. Got {value!r}.")


def rate(**values: Any) -> None:
    """Check that options are at least 0 and below 1. A name with a dot is given as `**{"model.dropout": dropout}`.

    Raises:
        ValueError: one of them is not.
    """
    for name, value in values.items():
        if not _is_number(value) or not 0 <= value < 1:
            raise ValueError(f"{name} must be at least 0 and below 1. Got {value!r}.")


def one_of(choices: Collection[Any], **values: Any) -> None:
    """Check that options have one of a few values. A name with a dot is given as `**{"model.pooling": pooling}`.

    Raises:
        ValueError: one of them has another value.
    """
    for name, value in values.items():
        if value not in choices:
            raise ValueError(f"{name} must be one of {', '.join(map(str, choices))}. Got {value!r}.")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
