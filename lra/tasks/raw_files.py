"""Raw files: where a task's are, their fingerprints, and what a file is that is not what its name says."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

from lra.errors import InputError
from lra.tasks.checksums import file_sha256

# Where the release's folders are below the one they were unpacked in. The archive holds some twice; LRA's is the inner.
RELEASE = ("lra_release/lra_release", "lra_release", ".")


class Layout(NamedTuple):
    """How the raw files of a task may lie.

    Attributes:
        names: of folders that hold this task's files and no other's: ours, and that of LRA's release.
        holds: says whether a folder holds such files.
        shelf: a folder in which folders of these names may be.
    """

    names: tuple[str, ...]
    holds: Callable[[Path], bool]
    shelf: str | None = None

    def places(self, root: Path) -> list[Path]:
        """List where the files may be, below a folder that is given: there, or in a folder with one of the names."""
        roots = [root, root / self.shelf] if self.shelf else [root]
        return [root, *(above / inner / name for above in roots for name in self.names for inner in RELEASE)]


class RawFolder(NamedTuple):
    """The folder of a task's raw files, None where there is none; and a sentence on where it was looked for."""

    path: Path | None
    remark: str = ""


def find_folder(data_dir: str | Path | None, layout: Layout) -> RawFolder:
    """Find the folder of a task's raw files below `data_dir`, else below `LRA_DATA`.

    The first of the places that holds such files is taken; else the first that has the task's name. Where neither is
    there, `data_dir` must be the folder itself, and `LRA_DATA` has nothing for this task.

    Raises:
        InputError: what is given is no folder, or cannot be read.
    """
    given = data_dir or os.environ.get("LRA_DATA")
    if not given:
        return RawFolder(None)
    setting = f"{'task.data_dir' if data_dir else 'LRA_DATA'}={given}"
    names = " or ".join(layout.names)
    try:
        root = Path(given).expanduser()
        os.scandir(root).close()
        places = layout.places(root)
        named = (place for place in places if place.name in layout.names and place.is_dir())
        found = next((place for place in places if layout.holds(place)), None) or next(named, None)
        if found:
            os.scandir(found).close()
            return RawFolder(found)
    except (OSError, ValueError, RuntimeError) as error:  # the latter two where a path cannot be one, as ~nobody
        reason = getattr(error, "strerror", None) or error
        remedy = "" if data_dir else " or unset it: without, data are generated or downloaded"
        raise InputError(
            f"Cannot read the folder of {setting} ({reason}). It must be a folder with the raw files, one that has a "
            f"folder {names} of them, or LRA's release, unpacked. Correct it{remedy}."
        ) from error
    if data_dir:
        return RawFolder(root)
    shelf = f", nor its {layout.shelf}" if layout.shelf else ""
    remark = f"{setting} has no folder {names}, nor has its lra_release or lra_release/lra_release{shelf}."
    return RawFolder(None, remark)


def fingerprint(paths: Iterable[Path], hint: str = "") -> dict[str, Any]:
    """Return size in bytes and SHA-256 of each file, by its name.

    Args:
        paths: the files.
        hint: what else to say where one cannot be read.

    Raises:
        InputError: one of them cannot be read, or is no data, or two are the same.
    """
    files: dict[str, Any] = {}
    for path in paths:
        try:
            check_nature(path)
            files[path.name] = {"bytes": path.stat().st_size, "sha256": file_sha256(path)}
        except OSError as error:
            raise unreadable(path, error, hint) from error
        for name, other in files.items():
            if name != path.name and other == files[path.name]:
                raise InputError(
                    f"{path} has the very content of {name}: one of them is a copy of the other, under a wrong name. "
                    "Get the file that is missing."
                )
    return files


def unreadable(path: Path, error: Exception, hint: str = "") -> InputError:
    """Make the error for a file that is missing, forbidden or damaged.

    Args:
        path: the file.
        error: what reading it raised.
        hint: what to do, besides.
    """
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    remedy = "Check the file, copy or download it again"
    if isinstance(error, FileNotFoundError):
        remedy = "Check the folder"
        if path.parent.is_dir():
            names = sorted(other.name for other in path.parent.iterdir())
            reason += f"; {path.parent} holds {', '.join(names[:8]) or 'nothing'}"
            if packed := [name for name in names if name.startswith(f"{path.name}.")]:
                remedy = f"If {packed[0]} is that file, unpack it"
    elif isinstance(error, PermissionError):
        remedy = "Make it readable"
    elif path.is_dir():
        remedy = "A file must be there, not a folder"
    elif nature := foreign(path):
        return InputError(nature)
    return InputError(
        f"Cannot read {path} ({reason}). {remedy}, or choose another folder with task.data_dir=.{hint and ' '}{hint}"
    )


GZIP = b"\x1f\x8b"
# How files begin that are something else than their name says; what they are, and what to do.
_NATURES = (
    (b"version https://git-lfs", "a pointer of Git LFS, not the file itself", "Run git lfs pull where it comes from"),
    (b"/annex/objects/", "a pointer of git-annex, not the file itself", "Run git annex get where it comes from"),
    (GZIP, "compressed with gzip", "Unpack it with gunzip (its name must end in .gz)"),
    (b"PK\x03\x04", "a zip archive", "Unpack it"),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd", "Unpack it with unzstd"),
    (b"BZh", "compressed with bzip2", "Unpack it with bunzip2"),
    (b"\xfd7zXZ", "compressed with xz", "Unpack it with unxz"),
    (b"\x00\x05\x16\x07", "what a Mac writes beside a file (AppleDouble)", "Use the file named without ._"),
    (b"\xff\xfe", "text in UTF-16", "Convert it: iconv -f UTF-16 -t UTF-8"),
    (b"\xfe\xff", "text in UTF-16", "Convert it: iconv -f UTF-16 -t UTF-8"),
    (b"<!doctype html", "a web page, as a failed download leaves it", "Download the file itself"),
    (b"<html", "a web page, as a failed download leaves it", "Download the file itself"),
)


def foreign(path: Path, expected: bytes | None = None) -> str:
    """Say what a file is that cannot be data of any kind, and what to do; empty where nothing is known against it.

    Args:
        path: the file.
        expected: a beginning that is right for it, where that of another nature is.
    """
    try:
        with path.open("rb") as file:
            start = file.read(256)
    except OSError:
        return ""
    for beginning, nature, remedy in _NATURES:
        if beginning != expected and (start.startswith(beginning) or start.strip().lower().startswith(beginning)):
            return f"{path} is {nature}. {remedy}."
    return ""


def check_nature(path: Path) -> None:
    """Raise InputError for a file that cannot be data of any kind."""
    if nature := foreign(path):
        raise InputError(nature)
