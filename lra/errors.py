"""The one exception for mistakes that the user can mend."""

from __future__ import annotations


class InputError(ValueError):
    """Bad input: the message names the thing, what was expected, what came, and what to do about it."""


class MissingDataError(InputError):
    """The raw data of a task are not at hand and cannot be got; a sweep goes on without the task."""
