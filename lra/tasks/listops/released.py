"""Reads LRA's released ListOps files and checks every target in them.

`listops-1000/basic_{train,val,test}.tsv` of the LRA archive, with the header `Source<TAB>Target`, hold 96,000, 2,000
and 2,000 rows. A source has some 7,000 characters, so a line becomes ids by replacing bytes, not token by token.
"""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from lra.errors import InputError
from lra.tasks import PARTS, Part, Split, raw_files
from lra.tasks.listops.grammar import DIGIT, MIN, VOCABULARY, encode, evaluate, shorten
from lra.tasks.tsv import Row, read_rows

# Each operator becomes one control character, which no text has; these and the digits become ids, all else 255.
_CONTROLS = {token.encode(): bytes([i]) for i, token in enumerate(VOCABULARY[MIN:], 1)}
_TO_ID = bytearray([255] * 256)
_TO_ID[1 : 1 + len(_CONTROLS)] = range(MIN, MIN + len(_CONTROLS))
_TO_ID[ord("0") : ord("9") + 1] = range(DIGIT, DIGIT + 10)


def fingerprint(data_dir: Path) -> dict[str, Any]:
    """Return size in bytes and SHA-256 of each of the three files.

    Raises:
        InputError: one of them is not there, or is no text, or two are the same.
    """
    names = ", ".join(_path(data_dir, part).name for part in PARTS)
    hint = f"It must be the folder of LRA's {names}; without task.data_dir and LRA_DATA the examples are generated."
    files = raw_files.fingerprint((_path(data_dir, part) for part in PARTS), hint)
    return dict(zip(PARTS, files.values(), strict=True))


def _path(data_dir: Path, part: Part) -> Path:
    return data_dir / f"basic_{part}.tsv"


def read(data_dir: Path, part: Part, max_length: int) -> Split:
    """Read one file.

    Raises:
        InputError: a column is missing, a source is malformed or has `max_length` tokens or more, a target is no digit
            or not the source's value, or there is no row. The message names file and line.
    """
    # Compiling takes seconds, and is not needed where a cache entry is.
    from lra.tasks.listops.evaluator import evaluate_all

    path = _path(data_dir, part)
    sequences: list[bytes] = []
    targets: list[int] = []
    rows = read_rows(path)
    source_column, target_column = _columns(path, next(rows, None))
    for number, fields, _ in rows:
        where = f"{path}, line {number}"
        if len(fields) <= max(source_column, target_column):
            raise InputError(
                f"{where}: expected a Source and a Target divided by a tab, found {_quote(fields)}. Get the file again."
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


def _columns(path: Path, header: Row | None) -> tuple[int, int]:
    """Find Source and Target in the header."""
    names = header.fields if header else []
    for name in (b"Source", b"Target"):
        if name not in names:
            raise InputError(
                f"{path}: no column {name.decode()} in the first line, found {_quote(names)}. Get the file again."
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
        raise InputError(f"{where}: expected a target of 0 to 9, found {_quote([field])}. Get the file again.")
    return int(field)


def _quote(fields: list[bytes]) -> str:
    return shorten(b"\t".join(fields).decode(errors="replace"))


def _raise_wrong_target(path: Path, row: int, targets: list[int]) -> None:
    rows = read_rows(path)
    source_column, _ = _columns(path, next(rows))
    number, fields, _ = next(islice(rows, row, None))
    source = fields[source_column].decode(errors="replace")
    where = f"{path}, line {number}"
    try:
        value = evaluate(source)
    except InputError as error:
        raise InputError(f"{where}: {error}") from None
    raise InputError(
        f"{where}: the target is {targets[row]}, but the value of {shorten(source)} is {value}. Get the file again."
    )
