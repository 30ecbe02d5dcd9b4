"""Image: name the object in a grey CIFAR-10 image that is read pixel by pixel; ten classes.

Krizhevsky 2009, as in Long Range Arena (Tay et al. 2021, arXiv:2011.04006): TensorFlow's grey values, 0 to 255, are the
tokens, row by row; no normalisation, no id set apart. There is no padding: 0 is a black pixel.

LRA's validation set is the last tenth of train in the order of TensorFlow Datasets, which sorts by the MD5 of an
example's place in the original files. It can be rebuilt only from a copy whose original order is known: the labels and
first images of each file of 10,000 identify the file (the Hugging Face hub may have them in another order), and a
column `original_position` may say that images were moved. From any other copy the same rule takes other images, and
the variant says so.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from lra.errors import InputError, check_choice
from lra.tasks import Part, Split
from lra.tasks.cached import CachedTask
from lra.tasks.checks import check_labels, check_rows
from lra.tasks.checksums import file_sha256
from lra.tasks.columns import Columns, Kinds
from lra.tasks.examples import hash_key, limit
from lra.tasks.lengths import check_agreement, side_of
from lra.tasks.raw_files import unreadable
from lra.tasks.sources import RAW_PARTS, Hub, RawPart, SourceName, Tfds, choose_source

HUB = Hub("uoft-cs/cifar10", "0b2714987fa478483af9968de7c934580d0bb9a2", folder_name="cifar10")
ROWS: dict[RawPart, int] = {"train": 50_000, "test": 10_000}
VALIDATION_SHARE = 10  # one example in ten
SIDE = 32
SIDES = (8, 16, 32, 64, 128)
REPEATED = "The pixels are repeated: sequences are longer than {own:,} tokens, and there is no more in them."

# For data_batch_1 to _5: the beginning of the SHA-256 of its labels, one byte each, and of its first images' pixels.
FILES = {
    "d829dbdf32167c9d": "bf1670ce9acbb481",
    "5d18f7371ed35ea9": "1a42f6ba0779316e",
    "32cf77b0ee2e790b": "3d2d65cf1b81d4b4",
    "d2815e3f8f656272": "1fcf5efacd1c84ae",
    "2ddf3ab27d5d0440": "9c4eefe44cd473b6",
}
FIRST_IMAGES = 64
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


class Image(CachedTask):
    """The task.

    Args:
        cache_dir: folder of the cache; None for `LRA_CACHE` or the user's own.
        data_dir: folder of `train.parquet` and `test.parquet` with the columns `img` and `label`, or one that has it as
            `cifar10`; with `source="tfds"`, TensorFlow Datasets' folder. None for `LRA_DATA`'s, else the hub.
        source: "auto", "parquet", "hub" or "tfds".
        side: pixels of an image's side: 32, or 16 or 8 for means of 2x2 or 4x4 grey values, or 64 or 128, where each
            grey value is repeated in 2x2 or 4x4 pixels, which makes sequences longer and tells no more.
        num_train: at most so many training examples, chosen by hash; None for all.
        num_val: the same for validation.
        num_test: the same for test.
        length: None, or the length that `at_length` made `side` for.

    Raises:
        InputError: an argument has another value.
    """

    name = "image"
    num_classes = 10
    vocab_size = 256

    def __init__(
        self,
        *,
        cache_dir: str | Path | None,
        data_dir: str | Path | None = None,
        source: SourceName = "auto",
        side: int = SIDE,
        num_train: int | None = None,
        num_val: int | None = None,
        num_test: int | None = None,
        length: int | None = None,
    ) -> None:
        super().__init__(cache_dir=cache_dir, limits={"train": num_train, "val": num_val, "test": num_test})
        check_choice("task.side", side, SIDES)
        check_agreement(length, side * side)
        self.source = choose_source(source, data_dir, hub=HUB, tfds=("cifar10", {"img": "image"}))
        repeated = REPEATED.format(own=SIDE * SIDE) if side > SIDE else ""
        self.remark = f"{self.source.remark} {repeated}".strip()
        self.side = self.image_side = side
        self.max_len = side * side

    @classmethod
    def at_length(cls, length: int) -> dict[str, Any]:
        """Return the side of an image of so many pixels."""
        return {"side": side_of(length), "length": length}

    def place(self) -> str:
        """Say where the images are."""
        return self.source.place()

    def _difficulties(self) -> dict[str, NDArray[np.int64]]:
        """Return as `class` the label of each test image."""
        return {"class": self.split("test").labels.copy()}

    def _specification(self) -> dict[str, Any]:
        # The hub's commit is known to be in the original order; `_build` checks that, so nothing is downloaded here.
        files: list[Path] = []
        official = isinstance(self.source, Hub)
        if not official:
            read = [self._read(part) for part in RAW_PARTS]
            official = original_places(read[0], self.source.where("train")) is not None
            files = [image for columns in read for image in columns["img"] if isinstance(image, Path)]
        return {
            "task": self.name,
            "version": self.version,
            "source": self.source.name,
            "variant": self._size() + ("" if official else ", not the official validation images"),
            "official_validation": official,
            "limits": self.limits,
            **self.source.specification(),
            **({"image_files_sha256": _digest_of(files)} if files else {}),
        }

    def _size(self) -> str:
        return f"{self.side}x{self.side}{' of repeated pixels' if self.side > SIDE else ''}"

    def _build(self) -> Iterator[tuple[Part, Split]]:
        columns = self._read("train")
        places = original_places(columns)
        if places is None:
            if isinstance(self.source, Hub):
                raise InputError(
                    f"{self.source.where('train')} is not in the order of the original files. Use another copy with "
                    "task.data_dir=, and please report this."
                )
            places = np.arange(ROWS["train"])
        rows = np.argsort(places)[tfds_order("train", ROWS["train"])]
        held_out = ROWS["train"] // VALIDATION_SHARE
        with tqdm(desc="decoding", total=sum(ROWS.values()), unit="image", delay=2, leave=False) as bar:
            yield "train", self._split("train", columns, rows[:-held_out], bar)
            yield "val", self._split("val", columns, rows[-held_out:], bar)
            yield "test", self._split("test", self._read("test"), np.arange(ROWS["test"]), bar)

    def _read(self, part: RawPart) -> Columns:
        where = self.source.where(part)
        known_by: Kinds = {"id": "text"} if isinstance(self.source, Tfds) else {"original_position": "flag"}
        columns = self.source.read(part, {"img": "image", "label": "label"}, known_by)
        names = {name: label for label, name in enumerate(CLASSES)}
        columns["label"] = check_labels(columns["label"], self.num_classes, where, names).tolist()
        check_rows(len(columns["label"]), ROWS[part], where)
        return columns

    def _split(self, part: Part, columns: Columns, rows: NDArray[np.int64], bar: tqdm) -> Split:
        where = self.source.where("test" if part == "test" else "train")
        tokens = np.empty((len(rows), self.max_len), np.uint8)
        keys = np.empty(len(rows), np.uint64)
        for start in range(0, len(rows), 500):
            block = rows[start : start + 500].tolist()
            pixels = np.stack([decode(columns["img"][row], f"{where}, row {row}") for row in block])
            tokens[start : start + 500] = resize(grey(pixels), self.side).reshape(len(block), -1)
            keys[start : start + 500] = [hash_key(image.tobytes()) for image in pixels]
            bar.update(len(block))
        labels = np.array(columns["label"], np.int64)[rows]
        is_kept = limit(keys, labels, part, self.limits[part])
        offsets = np.arange(is_kept.sum() + 1, dtype=np.int64) * self.max_len
        return Split(tokens[is_kept].ravel(), offsets, labels[is_kept])


def tfds_order(part: RawPart, size: int) -> NDArray[np.int64]:
    """Return the places 0 to size - 1 in the order in which TensorFlow Datasets stores their examples."""
    return np.array(sorted(range(size), key=lambda place: hashlib.md5(f"{part}{place}".encode()).digest()))


def original_places(columns: Columns, where: str = "train") -> NDArray[np.int64] | None:
    """Return the place of every train row in data_batch_1 to _5, one after the other; None if it cannot be known.

    TensorFlow Datasets names it in the feature `id`, as in `train_16399`. `where` names the rows in messages.
    """
    if "id" in columns:
        return np.array([int(name.decode().rpartition("_")[2]) for name in columns["id"]])
    if not all(columns.get("original_position", ())):
        return None
    size = ROWS["train"] // len(FILES)
    blocks = range(0, ROWS["train"], size)
    labels = [_digest(bytes(columns["label"][start : start + size])) for start in blocks]
    images = [
        _digest(b"".join(decode(columns["img"][row], f"{where}, row {row}").tobytes() for row in first))
        for first in (range(start, start + FIRST_IMAGES) for start in blocks)
    ]
    if dict(zip(labels, images, strict=True)) != FILES:
        return None
    files = np.array([list(FILES).index(digest) for digest in labels])
    return (files[:, None] * size + np.arange(size)).ravel()


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def _digest_of(files: list[Path]) -> str:
    """Return the SHA-256 of the SHA-256 of files, which are not in the table that the fingerprint is of."""
    progress = tqdm(files, desc="checking image files", unit="file", delay=2, leave=False)
    return hashlib.sha256("".join(map(file_sha256, progress)).encode()).hexdigest()


def decode(image: bytes | Path | NDArray[np.uint8], where: str) -> NDArray[np.uint8]:
    """Return the pixels of an image, (32, 32, 3), given as those or as an encoded file's bytes or path.

    Raises:
        InputError: it cannot be decoded, or is no colour image of this size.
    """
    from PIL import Image as Pillow

    if isinstance(image, np.ndarray):
        # What has its three colours first can be nothing else.
        pixels = image.transpose(1, 2, 0) if image.shape == (3, SIDE, SIDE) else image
    else:
        try:
            with Pillow.open(image if isinstance(image, Path) else io.BytesIO(image)) as opened:
                pixels = np.asarray(opened)
        except (OSError, ValueError, SyntaxError) as error:  # what Pillow raises for damaged files
            if isinstance(image, Path):
                raise unreadable(image, error) from error
            if len(image) == SIDE * SIDE * 3:
                raise InputError(
                    f"{where}: the image is bare pixels, {len(image):,} bytes, and nothing says in which order their "
                    "colours are. Write it as lists of 32 x 32 x 3 numbers, or as PNG."
                ) from error
            raise InputError(f"{where}: the image cannot be decoded ({error}). Get the file again.") from error
    if pixels.shape != (SIDE, SIDE, 3) or pixels.dtype != np.uint8:
        raise InputError(
            f"{where}: expected an RGB image of 32x32 pixels, found {pixels.dtype} of shape {pixels.shape}. "
            "Is this CIFAR-10?"
        )
    return pixels


def grey(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the grey values of colours, (..., 3) to (...), as TensorFlow has them.

    `tf.image.rgb_to_grayscale` weighs in float32, scales to 255.5 and rounds down. For about a quarter of the pixels
    that is one less than in Pillow and torchvision.
    """
    scaled = pixels * np.float32(1 / 255)
    red, green, blue = (np.float32(weight) * scaled[..., i] for i, weight in enumerate((0.2989, 0.5870, 0.1140)))
    return ((red + green + blue) * np.float32(255.5)).astype(np.uint8)


def resize(values: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Return the rounded means of squares of grey values, (N, 32, 32) to (N, side, side), or each value repeated."""
    if side > SIDE:
        return values.repeat(side // SIDE, 1).repeat(side // SIDE, 2)
    factor = SIDE // side
    sums = values.reshape(len(values), side, factor, side, factor).sum((2, 4), dtype=np.int64)
    return ((sums + factor * factor // 2) // (factor * factor)).astype(np.uint8)
