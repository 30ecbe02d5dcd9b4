"""Checks of raw rows; the errors name the row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lra.errors import InputError


def check_labels(labels: Sequence[Any], num_classes: int, where: str) -> NDArray[np.int64]:
    """Return labels as an array.

    Raises:
        InputError: one is not an integer of 0 to num_classes - 1.
    """
    for row, label in enumerate(labels):
        if not isinstance(label, int | np.integer) or isinstance(label, bool) or not 0 <= label < num_classes:
            raise InputError(
                f"{where}, row {row}: expected a label of 0 to {num_classes - 1}, found {label!r}. Get the file again."
            )
    return np.array(labels, np.int64)


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
        raise InputError(f"{where}: the text is empty. Download the file again, or remove the row.")
    try:
        return text.decode()
    except UnicodeDecodeError as error:
        raise InputError(
            f"{where}: the text is not UTF-8 (byte 0x{text[error.start]:02x} at {error.start}). Convert the file, or "
            "download it again."
        ) from None
