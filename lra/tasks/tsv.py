"""Reads text files of fields divided by tabs, as Windows, a Mac, editors and spreadsheets leave them too."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from lra.errors import InputError
from lra.tasks.raw_files import check_nature, unreadable

_MARK = b"\xef\xbb\xbf"  # the byte-order mark of UTF-8


class Row(NamedTuple):
    """A line: its number, from 1, its fields, and whether it has an end, which only the last may lack."""

    number: int
    fields: list[bytes]
    is_ended: bool


def read_rows(path: Path) -> Iterator[Row]:
    """Read a file line by line, without byte-order mark, line ends and blank lines at the end.

    Raises:
        InputError: the file cannot be read, is not in UTF-8 or ASCII, or has a blank line between others.
    """
    blank = 0
    try:
        check_nature(path)
        total = path.stat().st_size
        with (
            path.open("rb") as file,
            tqdm(desc=f"reading {path.name}", total=total, unit="B", unit_scale=True, delay=2, leave=False) as bar,
        ):
            for number, line in enumerate(file, 1):
                bar.update(len(line))
                text = (line.removeprefix(_MARK) if number == 1 else line).rstrip(b"\r\n")
                if number == 1 and b"\0" in text[:64]:
                    raise InputError(f"{path} has zero bytes: it is no text in UTF-8. Convert it, or get it again.")
                if not text.strip():
                    blank = blank or number
                    continue
                if blank:
                    raise InputError(f"{path}, line {blank}: the line is blank. Remove it, or get the file again.")
                yield Row(number, text.split(b"\t"), line.endswith((b"\n", b"\r")))
    except OSError as error:
        raise unreadable(path, error) from error
