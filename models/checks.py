"""Checks of options: an error names the option, what was expected and what came."""

from __future__ import annotations

from collections.abc import Collection, Sequence
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


def check_choice(name: str, value: Any, choices: Sequence[str]) -> None:
    """Check that `model.<name>` is one of the choices.

    Raises:
        ValueError: it is none.
    """
    if value not in choices:
        raise ValueError(f"model.{name} must be one of {', '.join(choices)}. Got {value!r}.")


def check_size(name: str, value: Any) -> None:
    """Check that `model.<name>` is a positive integer.

    Raises:
        ValueError: it is not.
    """
    if not isinstance(value, int) or value < 1:
        raise ValueError(f"model.{name} must be an integer, at least 1. Got {value!r}.")
