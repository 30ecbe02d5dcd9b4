"""Examples: token ids, packing, and subsets chosen by hashes, whatever the machine and the order of the rows."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from lra.errors import InputError
from lra.tasks import Part, Split

_TO_IDS = bytes((byte + 1) % 256 for byte in range(256))


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
    """Choose examples with the smallest keys, each class by its share; examples of one key stay together.

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
        InputError: the split has fewer.
    """
    if size is None:
        return np.ones(len(labels), bool)
    if size > len(labels):
        raise InputError(f"task.num_{part}={size}, but the {part} split has {len(labels)} examples. Ask for fewer.")
    return choose(keys, labels, size)
