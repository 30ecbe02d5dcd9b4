"""Reading what others wrote, and what may be damaged or gone: the one place that names a file and leaves it out."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from lra.errors import InputError

log = logging.getLogger(__name__)

T = TypeVar("T")


def warn(sentence: str) -> None:
    """Say in the log what is left out."""
    log.warning("Left out: %s", sentence)


def reason_of(error: Exception) -> str:
    """Put an error into one line, without where it was raised."""
    lines = [line.strip() for line in str(error).splitlines()]
    text, kind = next(filter(None, lines), ""), type(error).__name__
    return text if text and isinstance(error, OSError | ValueError) else f"{kind}: {text}".removesuffix(": ")


@contextmanager
def leaving_out(name: object, refuse: Callable[[str], None] = warn) -> Iterator[None]:
    """Leave out what the block cannot read, in one sentence that names it. What is gone meanwhile is left out quietly.

    Args:
        name: of the file, or of the line of a file.
        refuse: is told the sentence.
    """
    try:
        yield
    except FileNotFoundError:  # others move and remove runs while they are read
        pass
    except Exception as error:  # a damaged file may raise anything
        reason = reason_of(error)
        refuse(reason if str(name) in reason else f"{name}: {reason}")


def refuse_to_rewrite(damaged: Sequence[str]) -> None:
    """Raise InputError for what could not be read, in sentences, of files that are about to be written anew."""
    if damaged:
        raise InputError(f"{damaged[0].rstrip('.')}. Mend or remove it first: the file is about to be rewritten.")


def read_lines(
    path: Path, parse: Callable[[bytes], T], refuse: Callable[[str], None] = warn
) -> Iterator[tuple[str, T]]:
    """Yield what the lines of a file hold, each with its name. A damaged line is left out; a file that is not there
    has none.
    """
    content = b""
    with leaving_out(path, refuse):
        content = path.read_bytes()
    for number, line in enumerate(content.splitlines(), start=1):
        name, parsed = f"{path}, line {number}", []
        with leaving_out(name, refuse):
            parsed.append(parse(line))
        for value in parsed:
            yield name, value


def entries(folder: Path) -> list[Path]:
    """List a folder, sorted; nothing where it is gone, or is no folder. One that may not be read is named."""
    found: list[Path] = []
    with leaving_out(folder):
        if folder.is_dir():
            found += folder.iterdir()
    return sorted(found)


def files_beneath(folder: Path, *names: str) -> list[Path]:
    """List the files of these names in a folder and all beneath it, sorted."""
    return sorted(Path(place, name) for place, _, files in os.walk(folder) for name in files if name in names)
