"""Mistakes that the user can mend: the exception for them, and the checks of single values."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any


class InputError(ValueError):
    """Bad input: the message names the thing, what was expected, what came, and what to do about it."""


class MissingDataError(InputError):
    """The raw data of a task are not at hand and cannot be got; a sweep goes on without the task."""


class UnsuitedError(InputError):
    """A sound setting that this mechanism cannot take, though others can; a sweep goes on without the pair."""


def check_integer(name: str, value: Any, least: int, most: int = 2**31 - 1) -> None:
    """Raise InputError for an argument that is no integer of the range."""
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise InputError(f"{name} must be an integer, at least {least}. Got {value!r}.")
    if value > most:
        raise InputError(f"{name} must be an integer, at most {most}. Got {value!r}.")


def check_choice(name: str, value: Any, choices: Collection[Any]) -> None:
    """Raise InputError for an argument that is none of the choices; true and 1 are two choices."""
    if not any(value == choice and isinstance(value, bool) == isinstance(choice, bool) for choice in choices):
        raise InputError(f"{name} must be one of {', '.join(map(str, choices))}. Got {value!r}.")
