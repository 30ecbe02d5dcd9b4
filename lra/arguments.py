"""The scripts' command line: a verb first, then key=value, as on run.py's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches

from lra.errors import InputError


def parse(arguments: Sequence[str], *, verbs: Sequence[str], options: Mapping[str, str]) -> tuple[str, dict[str, str]]:
    """Split a command line.

    Args:
        arguments: the words after the script's name.
        verbs: the verbs it knows; the first is meant where none is given.
        options: the keys it knows, with their defaults.

    Returns:
        The verb, and a value for every key.

    Raises:
        InputError: a word is no known verb and no `key=value` of a known key.
    """
    verb, values = verbs[0], dict(options)
    for place, word in enumerate(arguments):
        key, equals, value = word.partition("=")
        if equals and key in options:
            values[key] = value
        elif place == 0 and word in verbs:
            verb = word
        else:
            known = [*verbs, *(f"{name}=" for name in options)]
            close = get_close_matches(word if not equals else f"{key}=", known, n=1)
            hint = f" Did you mean {close[0]}?" if close else ""
            raise InputError(f"Unknown argument {word!r}.{hint} Known: {' '.join(known)}")
    return verb, values
