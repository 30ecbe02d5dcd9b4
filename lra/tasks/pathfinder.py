"""Pathfinder and Path-X: are the two marked ends those of one dashed contour? Two classes, pixels as tokens.

Linsley et al. 2018 (arXiv:1805.08315), in Long Range Arena (Tay et al. 2021, arXiv:2011.04006) at 32x32 and, as Path-X,
at 128x128, both of the hard kind. The released images are read where a folder of them is given; otherwise images of the
same stimulus are drawn, which are other images: `source` says which. A token is a grey level, 0 to 255, row by row; 0
is a black pixel, not padding.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from lra import cache
from lra.errors import InputError
from lra.tasks import PARTS, Part, Split, Task

RESOLUTIONS = (16, 32, 64, 128, 256)
DIFFICULTIES = ("easy", "intermediate", "hard")
SPLITS = ("canonical", "lra", "s4")


class Pathfinder(Task):
    """The task, from the released folders or from the generator.

    Args:
        cache_dir: folder of the cache; None for `LRA_CACHE` or the user's own.
        data_dir: folder that holds `pathfinder32` and its like, or one of these; None to generate.
        resolution: 32, 64, 128 or 256; 16 is generated only, and nobody else's.
        difficulty: easy, intermediate or hard: contours of 6, 9 or 14 paddles.
        split: how released images are divided, see `pathfinder_released.divide`: `canonical`, or as LRA (`lra`) or S4
            (`s4`) did. Generated images are divided by their numbers, which is `canonical` too.
        data_seed: of the generator; no part of the model's seed.
        num_train: generated training images; released ones are all used, 80 % to train.
        num_val: generated validation images.
        num_test: generated test images.

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
    ) -> None:
        _check_choice("resolution", resolution, RESOLUTIONS)
        _check_choice("difficulty", difficulty, DIFFICULTIES)
        if split in ("mlpen", "skeinformer"):
            raise InputError(
                f"the split of {split} cannot be made again: its code shuffled the images without a seed. "
                f"split must be one of {', '.join(SPLITS)}"
            )
        _check_choice("split", split, SPLITS)
        if data_dir is None and split != "canonical":
            raise InputError(f"split={split} divides the released images: set data_dir, or use split=canonical")
        self.num_examples: dict[Part, int] = {"train": num_train, "val": num_val, "test": num_test}
        for name, value, least in (
            ("data_seed", data_seed, 0),
            *((f"num_{part}", size, 1) for part, size in self.num_examples.items()),
        ):
            if not isinstance(value, int) or not least <= value < 2**31:
                raise InputError(f"{name} must be an integer, at least {least}, not {value!r}")
        self.cache_dir = cache_dir
        self.data_dir = None if data_dir is None else Path(data_dir).expanduser()
        self.resolution = resolution
        self.difficulty = difficulty
        self.division = split
        self.data_seed = data_seed
        self.max_len = resolution**2
        self.image_side = resolution
        self._entry: cache.Entry | None = None

    def prepare(self) -> Path:
        """Generate the images, or read and check the released ones, unless a sound cache entry exists.

        A generation that was cut off goes on where it stopped.

        Raises:
            InputError: the cache cannot be written, or a released file is wrong.
        """
        specification = self._specification()
        self._entry = cache.fetch(specification, lambda: self._build(specification), cache_dir=self.cache_dir)
        self._description = {**specification, "sizes": self._entry.sizes, "sha256": self._entry.sha256}
        return self._entry.folder

    def split(self, part: Part) -> Split:
        """Return one split, preparing the data first if `prepare` was not called."""
        return self._prepared().splits[part]

    def describe(self) -> dict[str, Any]:
        """Return what was prepared: `generator` holds the parameters of generated images, `files` a fingerprint of
        released ones and `split_sha256` the checksum of their division.
        """
        self._prepared()
        return dict(self._description)

    def floors(self) -> dict[str, float]:
        """Return the test accuracy of `majority`, the most frequent label of train; 0 wins a tie."""
        train, test = self.split("train"), self.split("test")
        majority = np.bincount(train.labels, minlength=self.num_classes).argmax()
        return {"majority": float(np.mean(test.labels == majority))}

    def _prepared(self) -> cache.Entry:
        if self._entry is None:
            self.prepare()
        assert self._entry is not None
        return self._entry

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
        from lra.tasks import pathfinder_released

        return {
            **specification,
            **pathfinder_released.fingerprint(self.data_dir, self.resolution, self.difficulty, self.division),
        }

    def _build(self, specification: dict[str, Any]) -> Iterator[tuple[Part, Split]]:
        if self.data_dir is not None:
            from lra.tasks import pathfinder_released

            for part in PARTS:
                tokens, labels = pathfinder_released.read(
                    self.data_dir, self.resolution, self.difficulty, self.division, part
                )
                yield part, self._split_of(tokens, labels)
            return
        # Compiling takes seconds, and is not needed where a cache entry is.
        from lra.tasks.pathfinder_store import Store

        digest = hashlib.sha256(json.dumps(specification, sort_keys=True).encode()).hexdigest()[:12]
        folder = cache.cache_root(self.cache_dir) / self.name / f".{digest}.unfinished"
        store = Store(folder, self.resolution, self.difficulty, self.data_seed, sum(self.num_examples.values()))
        tokens, labels = store.fill()
        first = 0
        for part, size in self.num_examples.items():
            last = first + size
            yield part, self._split_of(tokens[first:last].reshape(-1), labels[first:last])
            first = last
        store.remove()

    def _split_of(self, tokens: np.ndarray, labels: np.ndarray) -> Split:
        return Split(tokens, np.arange(len(labels) + 1, dtype=np.int64) * self.max_len, labels)


def _check_choice(name: str, value: Any, choices: tuple[Any, ...]) -> None:
    if value not in choices or isinstance(value, bool):
        raise InputError(f"{name} must be one of {', '.join(map(str, choices))}, not {value!r}")
