"""Reads the released Pathfinder images, and divides them as others did.

`pathfinder{32,64,128,256}/{curv_baseline,curv_contour_length_9,curv_contour_length_14}` of the LRA archive each hold
`imgs/<batch>/sample_<n>.png` and `metadata/<batch>.npy`. Despite the name, the latter is plain text in the archive, one
image a line; what the published generator writes anew is a NumPy array of strings. Columns: folder, file, number,
label, and parameters of the stimulus. The archive holds `pathfinder128` twice; the inner one is LRA's.
"""

from __future__ import annotations

import hashlib
import io
import logging
import os
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from lra.errors import InputError
from lra.tasks import PARTS, Part
from lra.tasks.raw_files import Layout, check_nature, unreadable

log = logging.getLogger(__name__)

_CONDITIONS = {
    "easy": "curv_baseline",
    "intermediate": "curv_contour_length_9",
    "hard": "curv_contour_length_14",
}
_NUMPY_MAGIC = b"\x93NUMPY"
_LABEL_COLUMN = 3


class Sample(NamedTuple):
    """One image: its folder and file as the metadata name them, its row in its metadata file, from 1, and its label."""

    folder: str
    file: str
    row: int
    label: int


def layout(resolution: int, difficulty: str) -> Layout:
    """Return how the images of a resolution and difficulty may lie."""
    name, condition = f"pathfinder{resolution}", _CONDITIONS[difficulty]

    def holds(folder: Path) -> bool:
        # A folder of another resolution has the same conditions in it.
        is_other = folder.name != name and folder.name.startswith("pathfinder")
        return not is_other and (folder / condition).is_dir()

    return Layout((name,), holds, shelf="pathfinder")


def fingerprint(data_dir: Path, resolution: int, difficulty: str, division: str) -> dict[str, Any]:
    """Return as `released` the number of images, their bytes and the SHA-256 of their names and labels; and as
    `split_sha256` the SHA-256 of each part's names in order, one `folder/file` a line.

    Raises:
        InputError: a folder or a file is missing, or metadata are wrong.
    """
    condition = find(data_dir, resolution, difficulty)
    samples, num_bytes = _samples(condition)
    listing = "".join(f"{sample.folder}/{sample.file} {sample.label}\n" for sample in samples)
    parts = divide(samples, division, difficulty)
    return {
        "released": {
            "images": len(samples),
            "image_bytes": num_bytes,
            "metadata_sha256": hashlib.sha256(listing.encode()).hexdigest(),
        },
        "split_sha256": {
            part: hashlib.sha256("".join(f"{s.folder}/{s.file}\n" for s in parts[part]).encode()).hexdigest()
            for part in PARTS
        },
    }


def read(
    data_dir: Path, resolution: int, difficulty: str, division: str, part: Part
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Read one part: pixels (N * R * R,), row by row, and labels (N,).

    Raises:
        InputError: an image cannot be read, is of another size, or is not grey. The message names the file.
    """
    condition = find(data_dir, resolution, difficulty)
    samples = divide(_samples(condition)[0], division, difficulty)[part]
    pixels = np.empty((len(samples), resolution**2), np.uint8)

    def load(n: int) -> None:
        pixels[n] = _pixels(condition / samples[n].folder / samples[n].file, resolution)

    description = f"reading {resolution}x{resolution} images, {part}"
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        progress = tqdm(total=len(samples), desc=description, unit="image", delay=2, leave=False)
        try:
            for _ in pool.map(load, range(len(samples))):
                progress.update()
        finally:
            progress.close()
            pool.shutdown(cancel_futures=True)
    return pixels.reshape(-1), np.array([sample.label for sample in samples], np.int64)


def find(data_dir: Path, resolution: int, difficulty: str) -> Path:
    """Return the folder of a difficulty in that of a resolution.

    Raises:
        InputError: there is none.
    """
    if not layout(resolution, difficulty).holds(data_dir):
        raise InputError(
            f"No folder pathfinder{resolution}/{_CONDITIONS[difficulty]} in {data_dir}. task.data_dir must be the "
            "folder of LRA's pathfinder32 and its like, or the one of them that is meant; without task.data_dir and "
            "LRA_DATA the images are generated."
        )
    return data_dir / _CONDITIONS[difficulty]


def divide(samples: list[Sample], division: str, difficulty: str) -> dict[Part, list[Sample]]:
    """Divide images 80 : 10 : 10.

    Args:
        samples: in the order of their metadata files.
        division: `canonical` sorts by the SHA-256 of `folder/file`. `lra` sorts as tensorflow-datasets did for LRA, by
            the MD5 of the TFDS split's name and the key `folder_file_row`. `s4` is torch's `random_split` with seed 42
            over the order of the files. Both follow the published code; they were not compared with published files.
        difficulty: names the TFDS split.
    """
    num_samples = len(samples)
    if division == "s4":
        import torch

        tenth = int(0.1 * num_samples)
        order = torch.randperm(num_samples, generator=torch.Generator().manual_seed(42)).tolist()
        cuts = (num_samples - 2 * tenth, num_samples - tenth)
    else:
        if division == "lra":
            keys = [hashlib.md5(f"{difficulty}{s.folder}_{s.file}_{s.row}".encode()).digest() for s in samples]
        else:
            keys = [hashlib.sha256(f"{s.folder}/{s.file}".encode()).digest() for s in samples]
        order = sorted(range(num_samples), key=keys.__getitem__)
        cuts = (num_samples * 8 // 10, num_samples * 9 // 10)
    bounds = [0, *cuts, num_samples]
    return {part: [samples[i] for i in order[a:b]] for part, a, b in zip(PARTS, bounds, bounds[1:], strict=False)}


def _samples(condition: Path) -> tuple[list[Sample], int]:
    """Return all images that metadata name and that are not empty, and their bytes; metadata files by number.

    An image that is named twice is an error, even with the same label: no released metadata do so, and LRA's division
    rests on the numbers of the rows.
    """
    paths = sorted(_visible(condition / "metadata", "*.npy"), key=_number)
    if not paths:
        raise InputError(f"No metadata in {condition / 'metadata'}: LRA's has <batch>.npy there. Unpack it again.")
    samples: list[Sample] = []
    num_bytes = 0
    named: dict[tuple[PurePosixPath, str], str] = {}
    for path in tqdm(paths, desc="reading metadata", unit="file", delay=2, leave=False):
        sizes: dict[str, dict[str, int]] = {}
        for sample in _rows(path):
            where = f"{path}, row {sample.row}"
            earlier = named.setdefault((PurePosixPath(sample.folder), sample.file), where)
            if earlier != where:
                raise InputError(
                    f"{where}: {sample.folder}/{sample.file} is named in {earlier} too. Unpack the metadata again, or "
                    "remove a row."
                )
            if sample.folder not in sizes:
                sizes[sample.folder] = _sizes(condition / sample.folder, path)
            size = sizes[sample.folder].get(sample.file)
            if size is None:
                raise InputError(f"{path} names {sample.folder}/{sample.file}, which is not there. Unpack it again.")
            if size == 0:
                log.warning("Left out %s, which is empty.", condition / sample.folder / sample.file)
                continue
            samples.append(sample)
            num_bytes += size
    _warn_of_unnamed(condition, named)
    if len(samples) < 10:
        raise InputError(
            f"{condition} has {len(samples)} images; LRA's has 200,000, and at least ten are needed to divide them. "
            "Unpack it again."
        )
    return samples, num_bytes


def _visible(folder: Path, pattern: str) -> list[Path]:
    """Return the files of a pattern but for the hidden ones, as a Mac leaves `._1.npy` beside `1.npy`."""
    return [path for path in folder.glob(pattern) if not path.name.startswith(".")]


def _warn_of_unnamed(condition: Path, named: Mapping[tuple[PurePosixPath, str], str]) -> None:
    """Warn of folders with images of which no metadata speak, as when a metadata file is lost."""
    folders = {condition / folder for folder, _ in named}
    for folder in sorted({path.parent for path in _visible(condition, "imgs/*/sample_0.png")} - folders):
        log.warning("Left out the images of %s, which no metadata name. Unpack the metadata again.", folder)


def _number(path: Path) -> int:
    try:
        return int(path.stem)
    except ValueError:
        raise InputError(f"{path}: expected metadata files to be named <number>.npy. Unpack them again.") from None


def _sizes(folder: Path, named_in: Path) -> dict[str, int]:
    try:
        with os.scandir(folder) as entries:
            return {entry.name: entry.stat().st_size for entry in entries}
    except OSError as error:
        raise InputError(
            f"Cannot read {folder} ({error.strerror}), which {named_in} names. Unpack it again."
        ) from error


def _rows(path: Path) -> Iterable[Sample]:
    """Read a metadata file in either form."""
    check_nature(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise unreadable(path, error) from error
    if content.startswith(_NUMPY_MAGIC):
        try:
            array = np.load(io.BytesIO(content), allow_pickle=False)
        except (ValueError, EOFError) as error:
            raise InputError(f"{path} is no NumPy array of strings: {error}") from error
        if array.ndim != 2 or array.dtype.kind not in "US":
            raise InputError(f"{path}: expected strings in rows and columns, found {array.dtype} of {array.shape}")
        rows = np.char.decode(array, "utf-8").tolist() if array.dtype.kind == "S" else array.tolist()
    else:
        rows = [line.split() for line in content.decode("utf-8-sig", errors="replace").rstrip().splitlines()]
    for number, row in enumerate(rows, 1):
        if len(row) <= _LABEL_COLUMN:
            raise InputError(f"{path}, row {number}: expected folder, file, number, label, ..., found {row[:4]}.")
        folder, file, label = row[0], row[1], row[_LABEL_COLUMN]
        if label not in ("0", "1"):
            raise InputError(f"{path}, row {number}: expected a label of 0 or 1 in column 3, found {label!r}.")
        is_inside = not Path(folder).is_absolute() and ".." not in Path(folder).parts and Path(file).name == file
        if not is_inside or "\0" in folder + file:
            raise InputError(f"{path}, row {number}: {f'{folder}/{file}'!r:.200} is no file inside the folder.")
        yield Sample(folder, file, number, int(label))


def _pixels(path: Path, resolution: int) -> NDArray[np.uint8]:
    try:
        with Image.open(path) as image:
            if image.mode != "L":
                raise InputError(f"{path}: expected 8-bit grey (L), found {image.mode}.")
            if image.size != (resolution, resolution):
                width, height = image.size
                raise InputError(f"{path}: expected {resolution}x{resolution} pixels, found {width}x{height}.")
            return np.asarray(image).reshape(-1)
    except (OSError, SyntaxError) as error:  # the latter for a PNG whose checksum is wrong
        raise unreadable(path, error) from error
