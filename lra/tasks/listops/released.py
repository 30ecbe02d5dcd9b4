"""Reads LRA's released ListOps files and checks every target in them.

`listops-1000/basic_{train,val,test}.tsv` of the LRA archive, with the header `Source<TAB>Target`, hold 96,000, 2,000
and 2,000 rows. A source has some 7,000 characters, so a line becomes ids by replacing bytes, not token by token.
"""

from __future__ import annotations

import hashlib
from io import BufferedReader
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from lra.errors import InputError
from lra.tasks import PARTS, Part, Split
from lra.tasks.listops.grammar import DIGIT, MIN, VOCABULARY, encode, evaluate, shorten

# Each operator becomes one control character, which no text has; these and the digits become ids, all else 255.
_CONTROLS = {token.encode(): bytes([i]) for i, token in enumerate(VOCABULARY[MIN:], 1)}
_TO_ID = bytearray([255] * 256)
_TO_ID[1 : 1 + len(_CONTROLS)] = range(MIN, MIN + len(_CONTROLS))
_TO_ID[ord("0") : ord("9") + 1] = range(DIGIT, DIGIT + 10)


def fingerprint(data_dir: Path) -> dict[str, Any]:
    """Return size in bytes and SHA-256 of each of the three files.

    Raises:
        InputError: one of them is not there.
    """
    files: dict[str, Any] = {}
    for part in PARTS:
        with _open(data_dir, part) as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            files[part] = {"bytes": file.tell(), "sha256": digest}
    return files


def read(data_dir: Path, part: Part, max_length: int) -> Split:
    """Read one file.

    Raises:
        InputError: a column is missing, a source is malformed or has `max_length` tokens or more, a target is no digit
            or not the source's value, or there is no row. The message names file and line.
    """
    # Compiling takes seconds, and is not needed where a cache entry is.
    from lra.tasks.listops.evaluator import evaluate_all

    path = data_dir / f"basic_{part}.tsv"
    sequences: list[bytes] = []
    targets: list[int] = []
    with _open(data_dir, part) as file:
        source_column, target_column = _columns(path, file.readline())
        for number, line in enumerate(tqdm(file, desc=f"reading {path.name}", unit="row", delay=2, leave=False), 2):
            fields = line.rstrip(b"\r\n").split(b"\t")
            where = f"{path}, line {number}"
            if len(fields) <= max(source_column, target_column):
                raise InputError(
                    f"{where}: expected a Source and a Target divided by a tab, found {_quote(line)}. Get the file "
                    "again."
                )
            sequences.append(_encode(fields[source_column], where))
            targets.append(_target(fields[target_column], where))
            if len(sequences[-1]) >= max_length:
                raise InputError(
                    f"{where}: {len(sequences[-1])} tokens without parentheses, expected fewer than {max_length}. "
                    "Raise task.max_length, or use the released files."
                )
    if not sequences:
        raise InputError(f"{path} has no rows; LRA's has thousands. Unpack it again.")
    offsets = np.concatenate([[0], np.cumsum([len(sequence) for sequence in sequences])])
    tokens = np.frombuffer(b"".join(sequences), np.uint8)
    labels = np.array(targets, np.int64)
    wrong = np.flatnonzero(evaluate_all(tokens, offsets) != labels)
    if len(wrong):
        _raise_wrong_target(path, int(wrong[0]), targets)
    return Split(tokens, offsets, labels)


def _open(data_dir: Path, part: Part) -> BufferedReader:
    path = data_dir / f"basic_{part}.tsv"
    try:
        return path.open("rb")
    except OSError as error:
        names = ", ".join(f"basic_{part}.tsv" for part in PARTS)
        raise InputError(
            f"Cannot read {path} ({error.strerror}). task.data_dir must be the folder of LRA's {names}; "
            "without task.data_dir the examples are generated."
        ) from error


def _columns(path: Path, header: bytes) -> tuple[int, int]:
    """Find Source and Target in the header."""
    names = header.rstrip(b"\r\n").split(b"\t")
    for name in (b"Source", b"Target"):
        if name not in names:
            raise InputError(
                f"{path}: no column {name.decode()} in the first line, found {_quote(header)}. Get the file again."
            )
    return names.index(b"Source"), names.index(b"Target")


def _encode(source: bytes, where: str) -> bytes:
    """Turn one source into ids."""
    replaced = source
    for token, control in _CONTROLS.items():
        replaced = replaced.replace(token, control)
    ids = replaced.translate(_TO_ID, b"() ")
    # Where tokens are not divided by single spaces, as in `12`, the slow path judges; a 255 will have no value.
    num_tokens = len(ids) + source.count(b"(") + source.count(b")")
    if source.count(b" ") != num_tokens - 1:
        try:
            return encode(source.decode(errors="replace")).tobytes()
        except InputError as error:
            raise InputError(f"{where}: {error}") from None
    return ids


def _target(field: bytes, where: str) -> int:
    if len(field) != 1 or not field.isdigit():
        raise InputError(f"{where}: expected a target of 0 to 9, found {_quote(field)}. Get the file again.")
    return int(field)


def _quote(text: bytes) -> str:
    return shorten(text.decode(errors="replace").rstrip("\r\n"))


def _raise_wrong_target(path: Path, row: int, targets: list[int]) -> None:
    with path.open("rb") as file:
        source_column, _ = _columns(path, file.readline())
        lines = (line for i, line in enumerate(file) if i == row)
        source = next(lines).rstrip(b"\r\n").split(b"\t")[source_column].decode()
    where = f"{path}, line {row + 2}"
    try:
        value = evaluate(source)
    except InputError as error:
        raise InputError(f"{where}: {error}") from None
    raise InputError(
        f"{where}: the target is {targets[row]}, but the value of {shorten(source)} is {value}. Get the file again."
    )
