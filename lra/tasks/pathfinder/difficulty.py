"""What makes Pathfinder images hard: the contour to trace, how far apart its markers are, and the distractors."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from lra.tasks.pathfinder.generator import Drawn, draw_all, paddle_ends

_BLOCK_BYTES = 2**20  # of images that are drawn again at a time


def measure(resolution: int, difficulty: str, data_seed: int, first: int, last: int) -> dict[str, NDArray[np.int64]]:
    """Measure generated images `first` to `last` - 1 of a seed by drawing them again, on all cores.

    Returns:
        Three arrays (last - first,) by name; lengths are rounded to whole pixels:

        - `contour`: along the contour that the first marker is on, from its first end to its last, gaps included.
          All contours of one set have as many paddles, so it varies by how they bend and by the gaps.
        - `markers`: straight from one marker to the other.
        - `distractors`: how many short contours there are, those for which there was room.
    """
    draw_all(resolution, difficulty, data_seed, first, first + 1)  # compiles and tabulates once, before the threads
    size = max(1, _BLOCK_BYTES // resolution**2)

    def block(begin: int) -> dict[str, NDArray[np.int64]]:
        _, _, drawn = draw_all(resolution, difficulty, data_seed, begin, min(begin + size, last))
        return _measures(drawn, paddle_ends(resolution, difficulty, drawn))

    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        blocks = list(pool.map(block, range(first, last, size)))
    return {name: np.concatenate([part[name] for part in blocks]) for name in blocks[0]}


def _measures(drawn: Drawn, ends: NDArray[np.float64]) -> dict[str, NDArray[np.int64]]:
    """Measure n images, given the ends of all paddles, (n, 2, contour_length, 2, 2)."""
    rows = np.arange(len(ends))
    along = ends[rows, drawn.markers[:, 0, 2]].reshape(len(ends), -1, 2)
    contour = np.linalg.norm(np.diff(along, axis=1), axis=-1).sum(1)
    apart = np.linalg.norm(drawn.markers[:, 0, :2] - drawn.markers[:, 1, :2], axis=-1)
    return {
        "contour": np.rint(contour).astype(np.int64),
        "markers": np.rint(apart).astype(np.int64),
        "distractors": drawn.distractors,
    }
