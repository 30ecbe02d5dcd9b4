"""Other lengths of a task: `task.length`, for which each task says what settings it stands for."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from lra.errors import InputError, check_integer

SHORTEST, LONGEST = 256, 16384  # tokens
SIDES = (16, 32, 64, 128)


def check_length(length: int, most: int = LONGEST, reason: str = "") -> None:
    """Raise InputError for what is no length; `reason` says why a task has none beyond `most`."""
    check_integer("task.length", length, SHORTEST)
    if length > most:
        raise InputError(f"task.length must be at most {most}{reason}. Got {length}.")


def side_of(length: int) -> int:
    """Return the side of the square image of `length` pixels.

    Raises:
        InputError: there is none among `SIDES`.
    """
    check_length(length)
    side = math.isqrt(length)
    if side not in SIDES or side * side != length:
        raise InputError(
            f"task.length must be one of {', '.join(str(side * side) for side in SIDES)}: the pixels of a square image "
            f"with a side of {', '.join(map(str, SIDES))}. Got {length}."
        )
    return side


def check_agreement(length: int | None, max_len: int) -> None:
    """Raise InputError where `task.length` is set, and other settings make the longest sequence another."""
    if length not in (None, max_len):
        raise InputError(
            f"task.length={length} and the task's other settings disagree: with these no sequence is longer than "
            f"{max_len}. Leave one of them out."
        )


def longest_of(settings: Mapping[str, Any]) -> int | None:
    """Return how long the sequences of a task with these settings may be; None where the settings do not say."""
    if settings.get("length"):
        return settings["length"]
    side = settings.get("side") or settings.get("resolution")
    return side * side if side else settings.get("max_length")
