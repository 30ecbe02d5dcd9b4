"""Draws many Pathfinder images on all cores, into files where they wait until all are drawn.

Drawing Path-X takes an hour and may be interrupted. The files, in a folder of their own, have a fixed layout, in the
order of the images: pixels, labels, and for each block of images a digest of both. A block counts as drawn if its
digest is right, so a block that was half written is drawn again.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from lra.errors import InputError
from lra.tasks.pathfinder.generator import draw

log = logging.getLogger(__name__)

_BLOCK_BYTES = 2**20
_DIGEST_BYTES = 16


class Store:
    """The images of one seed, in files.

    Args:
        folder: where the files are, made if need be; no other store may be there.
        resolution: side of an image.
        difficulty: easy, intermediate or hard.
        data_seed: of all images.
        num_images: images 0 to `num_images` - 1 are drawn.
    """

    def __init__(self, folder: Path, resolution: int, difficulty: str, data_seed: int, num_images: int) -> None:
        self.folder = folder
        self.drawn = (resolution, difficulty, data_seed)
        size = max(1, _BLOCK_BYTES // resolution**2)
        self.blocks = [(first, min(first + size, num_images)) for first in range(0, num_images, size)]
        self.layouts: dict[str, tuple[np.dtype, tuple[int, ...]]] = {
            "pixels": (np.dtype("u1"), (num_images, resolution**2)),
            "labels": (np.dtype("<i8"), (num_images,)),
            "digests": (np.dtype("u1"), (len(self.blocks), _DIGEST_BYTES)),
        }

    def fill(self, num_threads: int | None = None) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """Draw what is missing and return all pixels (N, R * R) and labels (N,), mapped into memory.

        Args:
            num_threads: by default one for each core of this process; the images are the same.

        Raises:
            InputError: the folder cannot be written.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            for name, (dtype, shape) in self.layouts.items():
                with (self.folder / name).open("ab") as file:
                    file.truncate(dtype.itemsize * int(np.prod(shape)))
            undrawn = [block for block in self.blocks if not self._is_drawn(block)]
            if 0 < len(undrawn) < len(self.blocks):
                log.info("%d of %d blocks were drawn before.", len(self.blocks) - len(undrawn), len(self.blocks))
            if undrawn:
                self._draw(undrawn, num_threads or len(os.sched_getaffinity(0)))
        except OSError as error:
            raise InputError(
                f"Cannot keep generated images in {self.folder}: {error}. Make room or make the folder writable, and "
                "start again: what is drawn is kept. Or choose another folder with cache_dir= or LRA_CACHE."
            ) from error
        return self._map("pixels"), self._map("labels")

    def remove(self) -> None:
        """Remove the files."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _draw(self, blocks: list[tuple[int, int]], num_threads: int) -> None:
        draw(*self.drawn, 0, 1)  # compiles and tabulates once, before the threads start
        total = sum(last - first for first, last in blocks)
        description = f"drawing {self.drawn[0]}x{self.drawn[0]} images"
        waiting = iter(blocks)
        pending: dict[Future, tuple[int, int]] = {}
        with (
            ThreadPoolExecutor(num_threads) as pool,
            tqdm(total=total, desc=description, unit="image", delay=2, leave=False) as bar,
        ):
            try:
                while True:
                    while len(pending) < 2 * num_threads and (block := next(waiting, None)):
                        pending[pool.submit(draw, *self.drawn, *block)] = block
                    if not pending:
                        break
                    future = next(as_completed(pending))
                    first, last = pending.pop(future)
                    self._keep(first, *future.result())
                    bar.update(last - first)
            finally:
                pool.shutdown(cancel_futures=True)

    def _map(self, name: str) -> np.memmap:
        dtype, shape = self.layouts[name]
        return np.memmap(self.folder / name, dtype, "r", shape=shape)

    def _is_drawn(self, block: tuple[int, int]) -> bool:
        pixels, labels = (self._map(name)[slice(*block)] for name in ("pixels", "labels"))
        return self._map("digests")[self._number(block[0])].tobytes() == _digest(pixels, labels)

    def _keep(self, first: int, pixels: NDArray[np.uint8], labels: NDArray[np.int64]) -> None:
        digest = np.frombuffer(_digest(pixels, labels), np.uint8)
        rows = {"pixels": (first, pixels), "labels": (first, labels), "digests": (self._number(first), digest[None])}
        for name, (row, values) in rows.items():
            dtype, shape = self.layouts[name]
            # Written, not mapped: a full disk is then an error, not the end of the process.
            with (self.folder / name).open("r+b") as file:
                file.seek(row * dtype.itemsize * int(np.prod(shape[1:])))
                file.write(np.ascontiguousarray(values, dtype).data)

    def _number(self, first: int) -> int:
        """Return the number of the block that begins with image `first`."""
        return first // (self.blocks[0][1] - self.blocks[0][0])


def _digest(pixels: NDArray[np.uint8], labels: NDArray[np.int64]) -> bytes:
    digest = hashlib.blake2b(digest_size=_DIGEST_BYTES)
    digest.update(np.ascontiguousarray(pixels).data)
    digest.update(np.ascontiguousarray(labels, "<i8").data)
    return digest.digest()
