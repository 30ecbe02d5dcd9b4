"""What the tasks share: the cache entry, the majority floor, checks of raw data, and how a subset is chosen.

A subset is chosen by hashes of the examples, so it does not depend on the order of the rows, and is the same on every
machine.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lra import cache
from lra.errors import InputError, check_integer
from lra.tasks import Part, Split, Task

_TO_IDS = bytes((byte + 1) % 256 for byte in range(256))


class CachedTask(Task):
    """A task whose splits are built once, from raw files or by a generator, and then read from the cache.

    Args:
        cache_dir: folder of the cache; None for `LRA_CACHE` or the user's own.
        limits: at most so many examples of each split, where they are cut from more; None for all.

    Raises:
        InputError: a limit is not a positive integer.
    """

    def __init__(self, *, cache_dir: str | Path | None, limits: Mapping[Part, int | None] | None = None) -> None:
        self.cache_dir = cache_dir
        self.limits = dict(limits or {})
        for part, limit in self.limits.items():
            if limit is not None:
                check_integer(f"task.num_{part}", limit, 1)
        self._entry: cache.Entry | None = None

    def prepare(self) -> Path:
        """Read and check the raw data, unless a sound cache entry exists.

        Raises:
            InputError: the raw data cannot be had or are wrong, or the cache cannot be written.
        """
        specification = self._specification()
        self._entry = cache.fetch(
            specification, self._build, num_inputs=self.num_inputs, cache_dir=self.cache_dir
        )  # fmt: skip
        specification.pop("files", None)
        self._description = {**specification, "sizes": self._entry.sizes, "sha256": self._entry.sha256}
        return self._entry.folder

    def split(self, part: Part) -> Split:
        """Return one split, preparing the data first if `prepare` was not called."""
        return self._prepared().splits[part]

    def describe(self) -> dict[str, Any]:
        """Return what was prepared."""
        self._prepared()
        return dict(self._description)

    def floor_predictions(self) -> dict[str, NDArray[np.uint8]]:
        """Predict by `majority`, the most frequent train label; the smallest wins a tie."""
        majority = np.bincount(self.split("train").labels).argmax()
        return {"majority": np.full(len(self.split("test").labels), majority, np.uint8)}

    def _prepared(self) -> cache.Entry:
        if self._entry is None:
            self.prepare()
        assert self._entry is not None
        return self._entry

    def _specification(self) -> dict[str, Any]:
        """Say what decides the arrays, with a fingerprint of the raw files under `files`."""
        raise NotImplementedError

    def _build(self) -> Iterator[tuple[Part, Split]]:
        raise NotImplementedError


def check_labels(labels: Sequence[Any], num_classes: int, where: str) -> NDArray[np.int64]:
    """Return labels as an array.

    Raises:
        InputError: one is not an integer of 0 to num_classes - 1.
    """
    for row, label in enumerate(labels):
        if not isinstance(label, int | np.integer) or isinstance(label, bool) or not 0 <= label < num_classes:
            raise InputError(f"{where}, row {row}: expected a label of 0 to {num_classes - 1}, found {label!r}")
    return np.array(labels, np.int64)


def check_rows(found: int, expected: int, where: str) -> None:
    """Raise InputError where a published file is not whole."""
    if found != expected:
        raise InputError(f"{where} has {found:,} rows, expected {expected:,}: the copy is not whole, get it again")


def check_text(text: bytes, where: str) -> str:
    """Return a text decoded.

    Raises:
        InputError: it is empty or not UTF-8.
    """
    if not text:
        raise InputError(f"{where}: the text is empty: download the file again, or remove the row")
    try:
        return text.decode()
    except UnicodeDecodeError as error:
        raise InputError(
            f"{where}: the text is not UTF-8 (byte 0x{text[error.start]:02x} at {error.start}): convert the file, or "
            "download it again"
        ) from None


def byte_ids(text: bytes) -> bytes:
    """Return the token ids of a text in UTF-8: byte + 1. Bytes 254 and 255 never occur, so an id fits a byte."""
    return text.translate(_TO_IDS)


def pack(sequences: Iterable[bytes], labels: Sequence[int] | NDArray[np.int64]) -> Split:
    """Lay sequences one after the other; each is read once and not kept."""
    tokens = bytearray()
    offsets = [0]
    for sequence in sequences:
        tokens += sequence
        offsets.append(len(tokens))
    return Split(np.frombuffer(tokens, np.uint8), np.array(offsets, np.int64), np.asarray(labels, np.int64))


def hash_key(example: bytes) -> int:
    """Return 64 bits that depend on nothing but the example."""
    return int.from_bytes(hashlib.sha256(example).digest()[:8], "big")


def choose(keys: NDArray[np.uint64], labels: NDArray[np.int64], size: int) -> NDArray[np.bool_]:
    """Choose examples, every class by its share, the smallest keys first; examples of one key stay together.

    Args:
        keys: (N,) hashes of the examples.
        labels: (N,) classes.
        size: how many; where examples share a key, a few may be missing.

    Returns:
        (N,) whether it is chosen; a permutation of the examples permutes it likewise.
    """
    distinct, group, counts = np.unique(keys, return_inverse=True, return_counts=True)
    stratum = np.full(len(distinct), np.iinfo(np.int64).max)
    np.minimum.at(stratum, group, labels)
    # Shares rounded so that they add up.
    quotas = np.diff(size * np.cumsum(np.bincount(stratum, counts).astype(np.int64)) // len(labels), prepend=0)
    chosen = np.zeros(len(distinct), bool)
    for i in range(len(distinct)):
        if counts[i] <= quotas[stratum[i]]:
            quotas[stratum[i]] -= counts[i]
            chosen[i] = True
    return chosen[group]


def limit(keys: NDArray[np.uint64], labels: NDArray[np.int64], part: Part, size: int | None) -> NDArray[np.bool_]:
    """Choose `size` examples of a split, or all.

    Raises:
        InputError: there are not so many.
    """
    if size is None:
        return np.ones(len(labels), bool)
    if size > len(labels):
        raise InputError(f"task.num_{part}={size}, but the {part} split has {len(labels)} examples: ask for fewer")
    return choose(keys, labels, size)
