"""The checkout's folder, and writing files: whole or not at all, with an error that says what to do."""

from __future__ import annotations

import fcntl
import logging
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from lra.errors import InputError

log = logging.getLogger(__name__)

ROOT = Path(__file__).resolve().parent.parent  # of the checkout
PART = ".part"  # how the name of a file ends that is being written


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a file so that a reader, or a crash at any moment, sees the old content or the new, never a part."""
    with replacing(path) as stream:
        stream.write(content.encode() if isinstance(content, str) else content)


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Yield a stream for the new content of a file, which replaces the old one at the end, or not at all.

    What writers that were killed left of the same file is removed. A folder of the file's name is set aside.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _sweep(path)
    stream, temporary = _begin(path)
    try:
        with stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
            temporary.chmod(0o644)
            if path.is_dir():
                log.warning("%s is a folder where a file belongs: it is %s now.", path, set_aside(path))
            temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def set_aside(path: Path, why: str = "damaged") -> Path:
    """Give a file, or a folder in its place, a name that nothing reads, `<name>.<why>` or the like; return it.

    Raises:
        OSError: it cannot be renamed.
    """
    names = (path.with_name(f"{path.name}.{why}{number}") for number in ("", *(f"-{n}" for n in range(2, 10**6))))
    return path.rename(next(name for name in names if not name.exists()))


def _begin(path: Path) -> tuple[BinaryIO, Path]:
    """Make the file that is to replace another one; it is locked for as long as its writer lives."""
    while True:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=PART)
        with suppress(OSError):  # a file system without locks: nobody sweeps there
            fcntl.flock(handle, fcntl.LOCK_EX)
        if os.fstat(handle).st_nlink:
            return os.fdopen(handle, "wb"), Path(name)
        os.close(handle)  # another writer swept it before it was locked


def _sweep(path: Path) -> None:
    """Remove what killed writers of a file left: what is locked no more."""
    pattern = re.compile(re.escape(f".{path.name}.") + "[a-z0-9_]{8}" + re.escape(PART))
    for left in path.parent.iterdir():
        if not pattern.fullmatch(left.name):
            continue
        with suppress(OSError), left.open("rb") as stream:  # another writer may sweep too
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            left.unlink()


@contextmanager
def writing(name: object, remedy: str = "") -> Iterator[None]:
    """Turn an OSError of the block into an InputError: "<name> cannot be written: <reason>. <remedy>"."""
    try:
        yield
    except OSError as error:
        raise InputError(f"{name} cannot be written: {error.strerror or error}. {remedy}".rstrip()) from error
