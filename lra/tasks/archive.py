"""Downloads the released files of Long Range Arena: 7.7 GiB, resumable, of which only what is needed is unpacked.

The archive is a tar file of 18.6 GB; its inner folder `lra_release/lra_release/` holds `listops-1000`, `tsv_data` and
`pathfinder32` to `pathfinder256`. Its server is known to answer 403, so some folders have a mirror. Nobody vouches for
what a mirror holds: the files' checksums go into the record, and `origin` says where they came from.
"""

from __future__ import annotations

import errno
import gzip
import http.client
import json
import os
import shutil
import tarfile
import urllib.error
import urllib.request
import zlib
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from filelock import FileLock
from tqdm import tqdm

from lra.errors import InputError, MissingDataError
from lra.tasks.cache import cache_root
from lra.tasks.checksums import file_sha256
from lra.tasks.raw_files import GZIP, foreign

ARCHIVE = "https://storage.googleapis.com/long-range-arena/lra_release.gz"
# Where the files of a folder can be downloaded one by one, by the folder's name in the archive.
MIRRORS = {
    "tsv_data": "https://huggingface.co/datasets/OpenNLPLab/lra/resolve/6cb133c44f406da743661488df9e977b87d98775/data/aan/"
}
INNER = ("lra_release", "lra_release")
ORIGIN = "origin.json"
TIMEOUT_SECONDS = 30
ATTEMPTS = 5
BLOCK = 1 << 20
DEPTH, NAME_BYTES = 16, 255


class Download(NamedTuple):
    """A file to download; `size` in bytes and `sha256` are None where they are not known."""

    url: str
    size: int | None = None
    sha256: str | None = None


class _RefusedError(Exception):
    """A source cannot serve the files; the message says why."""


def released(
    folder: str,
    names: Sequence[str],
    *,
    cache_dir: str | Path | None = None,
    archive: Download | None = None,
    mirror: str | None = None,
) -> Path:
    """Return a local folder of released files, downloading them unless they are there.

    Args:
        folder: its name in the archive's inner folder, such as `tsv_data`.
        names: the files that must be in it; a mirror is asked for these.
        cache_dir: see `lra.tasks.cache.cache_root`; the files go to `raw/<folder>` in it.
        archive: another place to get the archive from.
        mirror: another place to get the single files from, a URL that ends in a slash.

    Raises:
        InputError: every source refuses, what it serves is damaged or unsafe, or the folder cannot be written.
    """
    raw = cache_root(cache_dir) / "raw"
    target = raw / folder
    if _complete(target, names):
        return target
    archive, mirror = archive or Download(ARCHIVE), mirror or MIRRORS.get(folder)
    refusals: list[str] = []
    try:
        raw.mkdir(parents=True, exist_ok=True)
        with FileLock(raw / ".lock", mode=0o666):
            if _complete(target, names):  # another process has downloaded it meanwhile
                return target
            for url in filter(None, (archive.url, mirror)):
                try:
                    _fetch(target, names, mirror=mirror if url == mirror else None, archive=archive)
                    return target
                except _RefusedError as error:
                    refusals.append(f"{url}: {error}")
    except OSError as error:
        raise InputError(
            f"Cannot write the downloaded files to {raw}: {error}. Make room (the archive needs 8.3 GB, and what is "
            "unpacked from it more), or choose another folder with cache_dir= or the environment variable LRA_CACHE."
        ) from error
    raise MissingDataError(
        f"Cannot get LRA's folder {folder}. Tried {'; '.join(refusals)}. Get {', '.join(names)} elsewhere (in the "
        f"archive they are in {'/'.join(INNER)}/{folder}/) and name their folder with task.data_dir=, or put them into "
        f"{target}."
    )


def _fetch(target: Path, names: Sequence[str], *, mirror: str | None, archive: Download) -> None:
    """Download a folder from the mirror, or from the archive where there is none, whole or not at all.

    Raises:
        _RefusedError: the source refuses, is damaged, or lacks a file.
        OSError: the folder cannot be written.
    """
    raw, new = target.parent, target.with_name(f".{target.name}.new")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir()
    try:
        if mirror is None:
            unpack(download(archive, raw / "lra_release.gz"), target.name, new)
        else:
            for path in [download(Download(mirror + name), raw / name) for name in names]:
                path.replace(new / path.name)
        if absent := [name for name in names if not (new / name).is_file()]:
            raise _RefusedError(f"it does not hold {', '.join(absent)}")
        if natures := list(filter(None, (foreign(new / name) for name in names))):
            raise _RefusedError(f"it serves no data: {natures[0]}")
    except _RefusedError:
        shutil.rmtree(new)
        raise
    (new / ORIGIN).write_text(json.dumps({"origin": mirror or archive.url, "mirror": mirror is not None}) + "\n")
    shutil.rmtree(target, ignore_errors=True)
    new.replace(target)


def _complete(folder: Path, names: Sequence[str]) -> bool:
    return all((folder / name).is_file() for name in names)


def origin(folder: Path) -> dict[str, Any]:
    """Return where a folder was downloaded from: `origin`, and whether that is a `mirror`; empty if it was not."""
    path = folder / ORIGIN
    return json.loads(path.read_text()) if path.is_file() else {}


def download(source: Download, path: Path) -> Path:
    """Download a file, going on where an earlier attempt ended.

    What has arrived so far is in `<path>.part`. After a broken connection it tries again, as long as something arrives.

    Raises:
        _RefusedError: the server refuses or cannot be reached, or the file is not the expected one.
        OSError: the file cannot be written.
    """
    part = path.with_name(f"{path.name}.part")
    if not path.exists():
        failures = 0
        while not _attempt(source, part):
            failures += 1
            if failures == ATTEMPTS:
                raise _RefusedError(f"the connection broke {ATTEMPTS} times; the next call goes on from {part}")
        if source.sha256 and (digest := file_sha256(part)) != source.sha256:
            part.unlink()
            raise _RefusedError(f"the file's SHA-256 is {digest}, expected {source.sha256}")
        part.replace(path)
    return path


def _attempt(source: Download, part: Path) -> bool:
    """Request what is missing of a file; return whether it is whole now."""
    start = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(source.url, headers={"Range": f"bytes={start}-"} if start else {})
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as response:
            if response.status != http.HTTPStatus.PARTIAL_CONTENT:
                start = 0  # the server knows no ranges
            length = response.headers["Content-Length"]
            total = None if length is None else start + int(length)
            if source.size is not None and total not in (None, source.size):
                part.unlink(missing_ok=True)
                raise _RefusedError(f"the file has {total} bytes, expected {source.size}")
            with (
                part.open("ab" if start else "wb") as file,
                tqdm(
                    desc=part.stem, initial=start, total=total, unit="B", unit_scale=True, delay=2, leave=False
                ) as bar,
            ):
                while block := response.read(BLOCK):
                    file.write(block)
                    bar.update(len(block))
            return total is None or part.stat().st_size == total
    except urllib.error.HTTPError as error:
        if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            if error.headers["Content-Range"] == f"bytes */{start}":
                return True  # nothing is missing
            part.unlink()
            return False
        raise _RefusedError(f"HTTP {error.code} {error.reason}") from error
    except (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError) as error:
        reason = getattr(error, "reason", error)
        if part.exists() and part.stat().st_size > start:
            return False
        raise _RefusedError(f"no connection ({reason})") from error


def unpack(archive: Path, folder: str, target: Path) -> None:
    """Unpack one folder of the archive's inner folder into `target`, and check the archive's checksum at its end.

    Raises:
        _RefusedError: the archive is damaged, and was removed; or a member would leave the target, or cannot be in it.
        OSError: the target cannot be written.
    """
    prefix = (*INNER, folder)
    try:
        with gzip.open(archive) as stream:
            with tarfile.open(fileobj=stream, mode="r|") as members:
                for member in tqdm(members, desc=f"unpacking {folder}", unit="file", delay=2, leave=False):
                    path = PurePosixPath(member.name)
                    if path.is_absolute() or ".." in path.parts:
                        raise _RefusedError(f"the archive has a member {_short(member)}, which would leave its folder")
                    if path.parts[: len(prefix)] == prefix and member.isfile() and not path.name.startswith("."):
                        _extract(members, member, path.parts[len(prefix) :], target)
            while stream.read(BLOCK):  # up to the end, where the checksum is
                pass
    except _DAMAGE as error:
        reason = "; ".join(filter(None, (str(error), foreign(archive, expected=GZIP))))
        archive.unlink()
        message = f"the archive is damaged ({reason}) and was removed; the next call downloads it anew"
        raise _RefusedError(message) from error


# What gzip and tarfile raise for damaged files: their own exceptions, and those of the numbers and texts inside.
_DAMAGE = (EOFError, gzip.BadGzipFile, zlib.error, tarfile.TarError, ValueError, ArithmeticError, RecursionError)


def _extract(members: tarfile.TarFile, member: tarfile.TarInfo, parts: tuple[str, ...], target: Path) -> None:
    """Unpack one member to its place in the target.

    Raises:
        _RefusedError: there can be no such file.
        OSError: the target cannot be written.
    """
    # LRA's are four deep. Much deeper folders could not even be removed again.
    if not 0 < len(parts) <= DEPTH or max(len(os.fsencode(part)) for part in parts) > NAME_BYTES:
        raise _RefusedError(
            f"the archive has a member {_short(member)}, which is no file of its folder: expected 1 to {DEPTH} names "
            f"below it, of at most {NAME_BYTES} bytes each"
        )
    try:
        members.extract(member.replace(name=str(PurePosixPath(*parts)), deep=False), target, filter="data")
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.EIO, errno.EFBIG):
            raise
        raise _RefusedError(
            f"the archive has a member {_short(member)}, which cannot stand beside the others ({error.strerror})"
        ) from error


def _short(member: tarfile.TarInfo) -> str:
    """Quote a member's name, without its middle if it is long."""
    name = repr(member.name)
    return name if len(name) <= 120 else f"{name[:60]} … {name[-50:]}"
