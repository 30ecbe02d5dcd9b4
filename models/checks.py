"""Checks of the options under `model`, whose messages name the key."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


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
