"""Checks of raw rows; the errors name the row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lra.errors import InputError


def check_labels(
    labels: Sequence[Any], num_classes: int, where: str, names: Mapping[str, int] | None = None
) -> NDArray[np.int64]:
    """Return labels as an array: whole numbers, of any type and as text too, or the classes' names.

    Args:
        labels: one for each row.
        num_classes: they are 0 to num_classes - 1.
        where: names the rows in messages.
        names: the label that each name of a class stands for.

    Raises:
        InputError: one is something else.
    """
    meanings = {**(names or {}), **{f"{label}{end}": label for label in range(num_classes) for end in ("", ".0")}}
    values = np.empty(len(labels), np.int64)
    for row, label in enumerate(labels):
        text = label.decode(errors="replace") if isinstance(label, bytes) else None
        value = label if text is None else meanings.get(text, -1)
        if value not in range(num_classes) or (isinstance(value, bool) and num_classes > 2):
            among = f", or one of {', '.join(names)}" if names and text is not None else ""
            raise InputError(
                f"{where}, row {row}: expected a label of 0 to {num_classes - 1}{among}, found "
                f"{label if text is None else text[:60]!r}. Use the data set's own file."
            )
        values[row] = value
    return values


def check_rows(num_rows: int, expected: int, where: str) -> None:
    """Raise InputError where a published file is not whole."""
    if num_rows != expected:
        raise InputError(f"{where} has {num_rows:,} rows, expected {expected:,}. The copy is not whole: get it again.")


def check_text(text: bytes, where: str) -> str:
    """Return a text decoded.

    Raises:
        InputError: it is empty or not UTF-8.
    """
    if not text:
        raise InputError(f"{where}: the text is empty. Use the data set's own file.")
    try:
        return text.decode()
    except UnicodeDecodeError as error:
        raise InputError(
            f"{where}: the text is not UTF-8 (byte 0x{text[error.start]:02x} at {error.start}). Convert the file, or "
            "download it again."
        ) from None
