"""A task whose splits are built once and then read from the cache."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lra.errors import check_integer
from lra.tasks import Part, Split, Task, cache
from lra.tasks.difficulty import kept

log = logging.getLogger(__name__)


class CachedTask(Task):
    """A task whose splits are built once, from raw files or by a generator, and then read from the cache.

    Args:
        cache_dir: folder of the cache; None for `LRA_CACHE` or the user's own.
        limits: the largest number of examples of each split, where raw data have more; None for all.

    Raises:
        InputError: a limit is not a positive integer.
    """

    def __init__(self, *, cache_dir: str | Path | None, limits: Mapping[Part, int | None] | None = None) -> None:
        self.cache_dir = cache_dir
        self.limits = dict(limits or {})
        for part, limit in self.limits.items():
            if limit is not None:
                check_integer(f"task.num_{part}", limit, 1)
        self._entry: cache.Entry | None = None

    def prepare(self) -> Path:
        """Read and check the raw data, unless a sound cache entry exists.

        Raises:
            InputError: the raw data cannot be had or are wrong, or the cache cannot be written.
        """
        specification = self._specification()

        def build() -> Iterator[tuple[Part, Split]]:
            # Said before, since it may take long, or fail.
            source = f"{specification['source']} {self.place()}".rstrip()
            log.info("%s", f"Its source: {source}. {self.remark}".rstrip())
            yield from self._build()

        self._entry = cache.fetch(specification, build, num_inputs=self.num_inputs, cache_dir=self.cache_dir)
        specification.pop("files", None)
        self._description = {**specification, "sizes": self._entry.sizes, "sha256": self._entry.sha256}
        return self._entry.folder

    def split(self, part: Part) -> Split:
        """Return one split, preparing the data first if `prepare` was not called."""
        return self._prepared().splits[part]

    def describe(self) -> dict[str, Any]:
        """Return what was prepared."""
        self._prepared()
        return dict(self._description)

    def floor_predictions(self) -> dict[str, NDArray[np.uint8]]:
        """Predict by `majority`, the most frequent train label; the smallest wins a tie."""
        majority = np.bincount(self.split("train").labels).argmax()
        return {"majority": np.full(len(self.split("test").labels), majority, np.uint8)}

    def difficulties(self) -> dict[str, NDArray[np.int64]]:
        """Return what makes each test example hard; it is kept in the cache entry, beside the labels.

        Raises:
            InputError: the raw data are needed for it, and cannot be had.
        """
        return kept(self._prepared().folder, len(self.split("test").labels), self._difficulties)

    def _difficulties(self) -> dict[str, NDArray[np.int64]]:
        """Measure the test examples."""
        return {}

    def _prepared(self) -> cache.Entry:
        if self._entry is None:
            self.prepare()
        assert self._entry is not None
        return self._entry

    def _specification(self) -> dict[str, Any]:
        """Say what decides the arrays, with a fingerprint of the raw files under `files`."""
        raise NotImplementedError

    def _build(self) -> Iterator[tuple[Part, Split]]:
        raise NotImplementedError
