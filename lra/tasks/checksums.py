"""The SHA-256 of a file, with its progress shown where the file is large."""

from __future__ import annotations

import hashlib
from pathlib import Path

from tqdm import tqdm

BLOCK = 1 << 20


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes.

    Raises:
        OSError: it cannot be read.
    """
    digest = hashlib.sha256()
    total = path.stat().st_size
    with (
        path.open("rb") as file,
        tqdm(desc=f"checking {path.name}", total=total, unit="B", unit_scale=True, delay=2, leave=False) as bar,
    ):
        while block := file.read(BLOCK):
            digest.update(block)
            bar.update(len(block))
    return digest.hexdigest()
