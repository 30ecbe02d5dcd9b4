"""Tensors on disk with a checksum, which is verified before they are used.

The file is one of `torch.save`, and `torch.load` reads it: the SHA-256 of its content stands behind its end. What torch
itself checks would let a flipped bit of a weight through.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import torch

from lra.files import replacing
from lra.machine.memory import is_out_of_memory

MARK = b"sha256:"
LENGTH = len(MARK) + 64


class _Summed:
    """As much of a stream as torch needs, which adds what is written to a checksum."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.sum = hashlib.sha256()
        self.flush = stream.flush

    def write(self, content: Any) -> int:
        self.sum.update(content)
        return self._stream.write(content)


def save(value: Any, path: Path) -> None:
    """Write containers of tensors and plain values, whole or not at all.

    Raises:
        OSError: the file cannot be written.
    """
    with replacing(path) as stream:
        summed = _Summed(stream)
        try:
            torch.save(value, summed)  # type: ignore[arg-type]
        except RuntimeError as error:  # torch's own do not say that a disk is full
            raise next(filter(_is_of_the_disk, _causes(error)), error) from None
        stream.write(MARK + summed.sum.hexdigest().encode())


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__context__


def _is_of_the_disk(error: BaseException) -> bool:
    return isinstance(error, OSError)


def load(path: Path, device: torch.device) -> Any:
    """Read what `save` wrote. Nothing in it is run: it may hold tensors and plain values alone.

    Raises:
        ValueError: the content is not what was written, or something else was.
        OSError: the file cannot be read.
        RuntimeError: the device has no memory for it.
    """
    content = path.read_bytes()
    end = content[-LENGTH:]
    if not end.startswith(MARK):
        raise ValueError("it has no checksum at its end: it is cut off, or was written by other means")
    if hashlib.sha256(memoryview(content)[:-LENGTH]).hexdigest().encode() != end[len(MARK) :]:
        raise ValueError("its content does not have the checksum that it was written with")
    try:
        return torch.load(io.BytesIO(content), map_location=device, weights_only=True)
    except Exception as error:  # whatever was saved there
        if is_out_of_memory(error):
            raise
        raise ValueError(f"torch cannot read it: {next(iter(str(error).splitlines()), '')}") from error
