"""Reading the options of benchmarks, and naming what is wrong with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lra.errors import InputError


def count(options: Mapping[str, str], name: str, least: int = 1) -> int:
    """Read an option that counts something."""
    return _count(name, options[name], least)


def counts(options: Mapping[str, str], name: str, least: int = 1) -> list[int]:
    """Read several numbers, in ascending order, each once."""
    return sorted({_count(name, word, least) for word in options[name].split(",")})


def amount(options: Mapping[str, str], name: str) -> float:
    """Read a positive number."""
    try:
        value = float(options[name])
    except ValueError:
        value = -1.0
    if not 0 < value < float("inf"):
        raise InputError(f"{name} must be a positive number. Got {options[name]!r}.")
    return value


def chosen(options: Mapping[str, str], name: str, known: Sequence[str]) -> list[str]:
    """Read several names of known things; `all` is all of them."""
    names = list(known) if options[name] == "all" else list(dict.fromkeys(options[name].split(",")))
    if unknown := [word for word in names if word not in known]:
        raise InputError(f"{name} has no {', '.join(map(repr, unknown))}. Choose all, or from {', '.join(known)}.")
    return names


def _count(name: str, word: str, least: int) -> int:
    if not word.isdecimal() or int(word) < least:
        raise InputError(f"{name} must be an integer, at least {least}. Got {word!r}.")
    return int(word)
