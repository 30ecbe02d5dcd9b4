"""Pathfinder and Path-X: are the two marked ends those of one dashed contour? Two classes, pixels as tokens.

Linsley et al. 2018 (arXiv:1805.08315), in Long Range Arena (Tay et al. 2021, arXiv:2011.04006) at 32x32 and, as Path-X,
at 128x128, both of the hard kind. The released images are read where a folder of them is given; otherwise other images
of the same stimulus are drawn: `source` says which. A token is a grey level, 0 to 255, row by row; 0 is a black pixel,
not padding.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lra.errors import InputError, check_choice, check_integer
from lra.tasks import PARTS, Part, Split, cache
from lra.tasks.cached import CachedTask
from lra.tasks.lengths import check_agreement, side_of
from lra.tasks.pathfinder import released
from lra.tasks.raw_files import find_folder

RESOLUTIONS = (16, 32, 64, 128, 256)
DIFFICULTIES = ("easy", "intermediate", "hard")
SPLITS = ("canonical", "lra", "s4")


class Pathfinder(CachedTask):
    """The task, from the released folders or from the generator.

    Args:
        cache_dir: folder of the cache; None for `LRA_CACHE` or the user's own.
        data_dir: folder that holds `pathfinder32` and its like, or one of these, or one that has the former as
            `pathfinder`. None for `LRA_DATA`'s, else to generate.
        resolution: 32, 64, 128 or 256; or 16, which is generated only and not published.
        difficulty: easy, intermediate or hard: contours of 6, 9 or 14 paddles.
        split: how released images are divided, see `released.divide`: `canonical`, or as LRA (`lra`) or S4
            (`s4`) did. Generated images are divided by their numbers, which is `canonical` too.
        data_seed: of the generator; the model's seed is another.
        num_train: generated training images; released ones are all used, 80 % to train.
        num_val: generated validation images.
        num_test: generated test images.
        length: None, or the length that `at_length` made `resolution` for.

    Raises:
        InputError: an argument is out of range.
    """

    name = "pathfinder"
    vocab_size = 256
    num_classes = 2

    def __init__(
        self,
        *,
        cache_dir: str | Path | None,
        data_dir: str | Path | None = None,
        resolution: int = 32,
        difficulty: str = "hard",
        split: str = "canonical",
        data_seed: int = 0,
        num_train: int = 160000,
        num_val: int = 20000,
        num_test: int = 20000,
        length: int | None = None,
    ) -> None:
        super().__init__(cache_dir=cache_dir)
        check_choice("task.resolution", resolution, RESOLUTIONS)
        check_agreement(length, resolution**2)
        check_choice("task.difficulty", difficulty, DIFFICULTIES)
        if split in ("mlpen", "skeinformer"):
            raise InputError(
                f"The split of {split} cannot be made again: its code shuffled the images without a seed. "
                f"task.split must be one of {', '.join(SPLITS)}."
            )
        check_choice("task.split", split, SPLITS)
        self.data_dir, self.remark = find_folder(data_dir, released.layout(resolution, difficulty))
        if self.data_dir is None and split != "canonical":
            raise InputError(
                f"task.split={split} divides the released images. Set task.data_dir, or use task.split=canonical. "
                f"{self.remark}"
            )
        self.num_examples: dict[Part, int] = {"train": num_train, "val": num_val, "test": num_test}
        check_integer("task.data_seed", data_seed, 0)
        for part, size in self.num_examples.items():
            check_integer(f"task.num_{part}", size, 1)
        self.resolution = resolution
        self.difficulty = difficulty
        self.division = split
        self.data_seed = data_seed
        self.max_len = resolution**2
        self.image_side = resolution

    @classmethod
    def at_length(cls, length: int) -> dict[str, Any]:
        """Return the resolution of an image of so many pixels."""
        return {"resolution": side_of(length), "length": length}

    def place(self) -> str:
        """Say where the released images are."""
        return f"in {self.data_dir}" if self.data_dir else ""

    def _difficulties(self) -> dict[str, NDArray[np.int64]]:
        """Measure the test images, see `difficulty`: generated ones by drawing them again, released ones by pixels."""
        # Compiling takes seconds, and is not needed where a cache entry is.
        from lra.tasks.pathfinder.difficulty import measure, measure_pixels

        if self.data_dir is not None:
            return measure_pixels(self.split("test").tokens, self.resolution)
        first = self.num_examples["train"] + self.num_examples["val"]
        last = first + self.num_examples["test"]
        return measure(self.resolution, self.difficulty, self.data_seed, first, last)

    def _specification(self) -> dict[str, Any]:
        """Say what decides the arrays, with a fingerprint of the released files."""
        specification: dict[str, Any] = {
            "task": self.name,
            "version": self.version,
            "source": "generated" if self.data_dir is None else "released",
            "variant": f"{self.resolution}-{self.difficulty}-{self.division}",
            "resolution": self.resolution,
            "difficulty": self.difficulty,
            "split": self.division,
        }
        if self.data_dir is None:
            return {**specification, "generator": {"data_seed": self.data_seed, "num_examples": self.num_examples}}
        return {
            **specification,
            **released.fingerprint(self.data_dir, self.resolution, self.difficulty, self.division),
        }

    def _build(self) -> Iterator[tuple[Part, Split]]:
        if self.data_dir is not None:
            for part in PARTS:
                tokens, labels = released.read(self.data_dir, self.resolution, self.difficulty, self.division, part)
                yield part, self._split_of(tokens, labels)
            return
        # Compiling takes seconds, and is not needed where a cache entry is.
        from lra.tasks.pathfinder.store import Store

        digest = hashlib.sha256(json.dumps(self._specification(), sort_keys=True).encode()).hexdigest()[:12]
        folder = cache.cache_root(self.cache_dir) / self.name / f".{digest}.unfinished"
        store = Store(folder, self.resolution, self.difficulty, self.data_seed, sum(self.num_examples.values()))
        tokens, labels = store.fill()
        start = 0
        for part, size in self.num_examples.items():
            end = start + size
            yield part, self._split_of(tokens[start:end].reshape(-1), labels[start:end])
            start = end
        store.remove()

    def _split_of(self, tokens: np.ndarray, labels: np.ndarray) -> Split:
        return Split(tokens, np.arange(len(labels) + 1, dtype=np.int64) * self.max_len, labels)
