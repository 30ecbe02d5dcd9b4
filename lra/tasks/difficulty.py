"""Keeps what makes the test examples of a prepared task hard, in its cache entry, so that it is measured once.

The file is beside those of the splits and in no checksum of theirs: an entry with it and one without are the same data.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lra.files import write_atomically

log = logging.getLogger(__name__)

VERSION = 1  # raised by hand when the definition of a measure changes
NAME = f"difficulty-{VERSION}.npz"


def kept(
    folder: Path, num_examples: int, measure: Callable[[], dict[str, NDArray[np.int64]]]
) -> dict[str, NDArray[np.int64]]:
    """Return the measures in a cache entry; where it has none, or damaged ones, measure and keep them there.

    Args:
        folder: of the entry; where it cannot be written, the measures are returned all the same.
        num_examples: of the test split.
        measure: returns an array (num_examples,) for each measure.
    """
    path = folder / NAME
    try:
        measures = read(path)
        if all(values.shape == (num_examples,) for values in measures.values()):
            return measures
        log.warning("%s is of another split and is made again.", path)
    except FileNotFoundError:
        pass
    except Exception as error:  # a damaged file may raise anything
        log.warning("%s cannot be read (%s) and is made again.", path, error)
    measures = measure()
    try:
        write_atomically(path, packed(measures))
    except OSError as error:
        log.info("The difficulty of the test examples is not kept: %s.", error)
    return measures


def packed(measures: dict[str, NDArray[np.int64]]) -> bytes:
    """Return the content of a file of measures."""
    stream = io.BytesIO()
    np.savez_compressed(stream, allow_pickle=False, **measures)
    return stream.getvalue()


def read(path: Path) -> dict[str, NDArray[np.int64]]:
    """Read a file of measures.

    Raises:
        ValueError: it holds something else than whole numbers for each example.
        Exception: it is damaged.
    """
    with path.open("rb") as stream, np.load(stream) as arrays:
        measures = {name: values.astype(np.int64, casting="safe") for name, values in arrays.items()}
    if len({values.shape for values in measures.values()}) > 1 or any(values.ndim != 1 for values in measures.values()):
        raise ValueError("it must hold one whole number for each example under every name")
    return measures
