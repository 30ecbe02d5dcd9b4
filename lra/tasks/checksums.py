"""SHA-256 of files and arrays, with the progress shown where that takes long."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

BLOCK = 1 << 20


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        return _sha256(iter(lambda: file.read(BLOCK), b""), path.stat().st_size, path.name)


def arrays_sha256(arrays: Iterable[NDArray[Any]]) -> str:
    """Return the SHA-256 of the bytes of contiguous arrays, one after the other."""
    flat = [array.reshape(-1).view(np.uint8) for array in arrays]
    blocks = (array[start : start + BLOCK] for array in flat for start in range(0, len(array), BLOCK))
    return _sha256(blocks, sum(map(len, flat)), "arrays")


def _sha256(blocks: Iterator[Any], total: int, name: str) -> str:
    digest = hashlib.sha256()
    with tqdm(desc=f"checking {name}", total=total, unit="B", unit_scale=True, delay=2, leave=False) as bar:
        for block in blocks:
            digest.update(block)
            bar.update(len(block))
    return digest.hexdigest()
