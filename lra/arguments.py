"""The command line of the scripts, a verb and then key=value as on run.py's, and the command that a record keeps."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from difflib import get_close_matches

from lra.errors import InputError

# Options that are no part of what repeats a run: where things are on this machine, and what to do with what is there.
LEFT_OUT = ("results_dir=", "cache_dir=", "task.data_dir=", "force=")


def repeating(script: str, words: Sequence[str]) -> str:
    """Return the command that repeats what a script did with these words, on any machine."""
    return " ".join([f"python {script}", *(word for word in words if not word.startswith(LEFT_OUT))])


def help_if_asked(text: str | None) -> None:
    """Print a script's docstring, and end the program, where its command line has -h or --help."""
    if {"-h", "--help"} & {*sys.argv[1:]}:
        print((text or "").strip())
        sys.exit(0)


def parse(arguments: Sequence[str], *, verbs: Sequence[str], options: Mapping[str, str]) -> tuple[str, dict[str, str]]:
    """Split a command line.

    Args:
        arguments: the words after the script's name.
        verbs: the verbs it knows, the default first.
        options: the keys it knows, with their defaults.

    Returns:
        The verb, and a value for every key.

    Raises:
        InputError: a word is no known verb and no `key=value` of a known key.
    """
    verb = verbs[0]
    if arguments and arguments[0] in verbs:
        verb, *arguments = arguments
    _, values = parse_several(arguments, verbs=(), options=tuple(options), known=verbs)
    return verb, {**options, **values}


def parse_several(
    arguments: Sequence[str], *, verbs: Sequence[str], options: Sequence[str], known: Sequence[str] = ()
) -> tuple[list[str], dict[str, str]]:
    """Split a command line with any number of verbs.

    Args:
        arguments: the words after the script's name.
        verbs: the verbs it knows.
        options: the keys it knows.
        known: further words to name in an error.

    Returns:
        The verbs, each once, and the values of the keys.

    Raises:
        InputError: a word is no known verb and no `key=value` of a known key.
    """
    chosen_verbs: dict[str, None] = {}
    values = {}
    for word in arguments:
        key, equals, value = word.partition("=")
        if equals and key in options:
            values[key] = value
        elif word in verbs:
            chosen_verbs[word] = None
        else:
            words = [*verbs, *known, *(f"{name}=" for name in options)]
            close = get_close_matches(word if not equals else f"{key}=", words, n=1)
            hint = f" Did you mean {close[0]}?" if close else ""
            raise InputError(f"Unknown argument {word!r}.{hint} Known: {' '.join(words)}")
    return list(chosen_verbs), values
