"""The cache of prepared data: built once, verified at every load, and built again when it is not sound.

One entry is a folder `<cache>/<task>/<hash of the specification>/` of three Arrow files, written and memory-mapped with
HF `datasets`, and a `manifest.json`. The specification names all that decides the content: the task, its version, and
the parameters or the fingerprint of the raw files. A row of a file is one example: `tokens`, a list of I lists of
bytes, and `label`. Each file is one record batch with 64-bit offsets, so that its buffers are the flat arrays of
`lra.tasks.Split`, however long, and reading copies nothing.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from filelock import FileLock, Timeout

from lra.errors import InputError
from lra.tasks import PARTS, Part, Split
from lra.tasks.checksums import arrays_sha256, file_sha256

log = logging.getLogger(__name__)

LAYOUT = 1  # raised by hand when the layout of an entry's files changes
MANIFEST = "manifest.json"


class Entry(NamedTuple):
    """A verified entry.

    Attributes:
        folder: where it lies.
        sizes: examples in each split.
        sha256: checksum of each split's arrays, see `checksum`.
        splits: the arrays themselves, read-only views of the mapped files.
    """

    folder: Path
    sizes: dict[Part, int]
    sha256: dict[Part, str]
    splits: dict[Part, Split]


class _UnsoundError(Exception):
    """An entry that must not be used; the message says why."""


def cache_root(cache_dir: str | Path | None = None) -> Path:
    """Return the cache's folder: `cache_dir`, else `LRA_CACHE`, else `lra` in the user's cache directory.

    Raises:
        InputError: its path begins with a home folder that is not known.
    """
    usual = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "lra"
    chosen = Path(cache_dir or os.environ.get("LRA_CACHE") or usual)
    try:
        return chosen.expanduser()
    except RuntimeError as error:
        raise InputError(
            f"Prepared data cannot be kept in {chosen}: there is no such home folder here. Choose another folder with "
            "cache_dir= or the environment variable LRA_CACHE."
        ) from error


def checksum(split: Split) -> str:
    """Return the SHA-256 of a split's tokens, offsets and labels, little-endian: the same on every machine."""
    dtypes = ((split.tokens, "u1"), (split.offsets, "<i8"), (split.labels, "<i8"))
    return arrays_sha256(np.ascontiguousarray(array, dtype) for array, dtype in dtypes)


def fetch(
    specification: Mapping[str, Any],
    build: Callable[[], Iterable[tuple[Part, Split]]],
    *,
    num_inputs: int = 1,
    cache_dir: str | Path | None = None,
) -> Entry:
    """Return the entry of a specification, building it if there is no sound one.

    Safe to call from several processes: one builds, the others wait and then read what it built.

    Args:
        specification: all that decides the content, as JSON values; `task` among them names the folder.
        build: makes the splits; called at most once, and only when needed. It may yield one split at a time.
        num_inputs: sequences in one example.
        cache_dir: see `cache_root`.

    Raises:
        InputError: the cache cannot be written, or `build` raises it; what was there before is left as it was.
    """
    text = json.dumps({**specification, "layout": LAYOUT, "num_inputs": num_inputs}, sort_keys=True)
    full: dict[str, Any] = json.loads(text)  # as it is read from a manifest
    folder = cache_root(cache_dir) / full["task"] / hashlib.sha256(text.encode()).hexdigest()[:12]
    # A sound entry needs no lock, so a read-only cache will do.
    with suppress(_UnsoundError):
        if entry := _load(folder, full):
            return entry
    with _locked(folder):
        try:
            if entry := _load(folder, full):
                return entry
        except _UnsoundError as reason:
            log.warning("The cache entry %s is not sound (%s) and is built again.", folder, reason)
        log.info("Preparing %s in %s.", full["task"], folder)
        start = time.perf_counter()
        entry = _build(folder, full, build)
        log.info("Prepared %s in %.1f s.", full["task"], time.perf_counter() - start)
        return entry


def _load(folder: Path, specification: dict[str, Any]) -> Entry | None:
    """Map an entry and verify it; None where there is none.

    Raises:
        _UnsoundError: an entry is there, but it is not what the specification and its own manifest say.
    """
    try:
        manifest = json.loads((folder / MANIFEST).read_bytes())
        if manifest.pop("seal") != _seal(manifest):
            raise _UnsoundError(f"{MANIFEST} was altered")
        if manifest["specification"] != specification:
            raise _UnsoundError(f"{MANIFEST} is of another version or specification")
        # Checked before anything is mapped: Arrow trusts the lengths in a damaged file, and reads past its end.
        for part in PARTS:
            if file_sha256(folder / f"{part}.arrow") != manifest["splits"][part]["file_sha256"]:
                raise _UnsoundError(f"{part}.arrow differs from its checksum in {MANIFEST}")
        splits = {part: _map(folder / f"{part}.arrow") for part in PARTS}
    except (OSError, ValueError, TypeError, LookupError, AttributeError) as error:
        if isinstance(error, FileNotFoundError | NotADirectoryError) and not folder.exists():
            return None
        raise _UnsoundError(f"unreadable: {type(error).__name__}: {error}") from error
    return _entry(folder, manifest, splits)


def _entry(folder: Path, manifest: dict[str, Any], splits: dict[Part, Split]) -> Entry:
    described = manifest["splits"]
    sizes = {part: described[part]["examples"] for part in PARTS}
    return Entry(folder, sizes, {part: described[part]["sha256"] for part in PARTS}, splits)


def _map(path: Path) -> Split:
    """Map one Arrow file into memory; nothing is copied."""
    # Importing datasets takes about a second.
    from datasets import Dataset

    table = Dataset.from_file(str(path)).data
    (tokens,), (labels,) = table.column("tokens").chunks, table.column("label").chunks
    return Split(
        tokens.values.values.to_numpy(zero_copy_only=True),
        tokens.values.offsets.to_numpy(zero_copy_only=True),
        labels.to_numpy(zero_copy_only=True),
    )


def _seal(manifest: dict[str, Any]) -> str:
    """Return the checksum that a manifest carries of itself."""
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the lock of an entry, after removing what processes that died while building have left beside it."""
    with _writing(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        for leftover in (*folder.parent.glob(".*.new"), *folder.parent.glob(".*.old")):
            # A process that still builds holds the lock.
            with suppress(Timeout), _lock(leftover.with_suffix("")).acquire(timeout=0):
                shutil.rmtree(leftover, ignore_errors=True)
        lock = _lock(folder.with_name(f".{folder.name}"))
        try:
            lock.acquire(timeout=0)
        except Timeout:
            log.info("Waiting for another process that prepares %s.", folder)
            lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _lock(hidden: Path) -> FileLock:
    return FileLock(f"{hidden}.lock", mode=0o666)  # for whoever shares the cache


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """Turn a failure to write into an error that says where and what to do."""
    try:
        yield
    except (OSError, NotImplementedError) as error:  # the latter where a file system has no locks
        raise InputError(
            f"Cannot prepare the cache entry {folder}: {error}. Make room or make the folder writable, or choose "
            "another with cache_dir= or the environment variable LRA_CACHE."
        ) from error


def _build(folder: Path, specification: dict[str, Any], build: Callable[[], Iterable[tuple[Part, Split]]]) -> Entry:
    """Write an entry into a folder beside its own, verify what the disk holds, and rename it."""
    new = folder.with_name(f".{folder.name}.new")
    old = folder.with_name(f".{folder.name}.old")
    described: dict[str, Any] = {}
    try:
        with _writing(folder):
            new.mkdir()
        for part, split in build():
            path = new / f"{part}.arrow"
            with _writing(folder):
                _write(path, split, specification["num_inputs"])
                described[part] = {
                    "examples": len(split.labels),
                    "sha256": checksum(split),
                    "file_sha256": file_sha256(path),
                }
        with _writing(folder):
            manifest = {"specification": specification, "splits": described}
            (new / MANIFEST).write_text(json.dumps({**manifest, "seal": _seal(manifest)}, indent=2) + "\n")
            for path in (*new.iterdir(), new):
                _flush(path)
            splits = {part: _map(new / f"{part}.arrow") for part in PARTS}
            if any(checksum(splits[part]) != described[part]["sha256"] for part in PARTS):
                raise _UnsoundError("not the arrays that were written")
            if folder.exists():
                folder.replace(old)
            new.replace(folder)
            _flush(folder.parent)
    except _UnsoundError as reason:
        raise InputError(
            f"{folder} was written but does not read back ({reason}). Check the disk, or choose another folder with "
            "cache_dir= or the environment variable LRA_CACHE."
        ) from reason
    finally:
        for path in (new, old):
            shutil.rmtree(path, ignore_errors=True)
    return _entry(folder, manifest, splits)


def _write(path: Path, split: Split, num_inputs: int) -> None:
    """Write a split as one record batch."""
    import pyarrow as pa
    from datasets import Features, LargeList, List, Value
    from datasets.arrow_writer import ArrowWriter

    tokens, offsets, labels = split
    assert tokens.dtype == np.uint8
    assert offsets.dtype == labels.dtype == np.int64
    assert offsets[0] == 0
    assert offsets[-1] == len(tokens)
    assert len(offsets) == len(labels) * num_inputs + 1
    sequences = pa.LargeListArray.from_arrays(pa.array(offsets), pa.array(tokens))
    examples = pa.FixedSizeListArray.from_arrays(sequences, num_inputs)
    features = Features({"tokens": List(LargeList(Value("uint8")), length=num_inputs), "label": Value("int64")})
    with ArrowWriter(path=str(path), features=features) as writer:
        writer.write_table(pa.table({"tokens": examples, "label": pa.array(labels)}), writer_batch_size=len(labels))
        writer.finalize()


def _flush(path: Path) -> None:
    """Make sure that a file or a folder is on the disk before the next step."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
