"""What makes Pathfinder images hard: the contour to trace, how far apart its markers are, and the distractors.

Of generated images all is known, by drawing them again, which takes minutes for Path-X. Of released ones nobody kept
it; but from 64x64 on the markers are the brightest things in an image, and wide, so that they are found. At 32x32
distractors are twice as bright.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from lra.tasks.pathfinder.generator import Drawn, draw_all, paddle_ends
from lra.tasks.pathfinder.raster import draw_marker
from lra.tasks.pathfinder.stimulus import stimulus

_BLOCK_BYTES = 2**20  # of images that are measured at a time
_FULL = 250  # of 255: what is brighter in a marker belongs to its core
_BRIGHT = 237  # of 255: as bright as a core that the filter has dimmed


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


def measure_pixels(pixels: NDArray[np.uint8], resolution: int) -> dict[str, NDArray[np.int64]]:
    """Measure released images by their pixels, (N * R * R,).

    Returns:
        `markers`, (N,): whole pixels between the two places farthest apart that are as bright as a marker's whole core.
        On generated images that is the distance of the markers. {} where the markers are not the brightest, or an
        image has no such place.
    """
    parameters = stimulus(resolution, "hard")
    contour, distractor, marker = parameters.contrasts
    if marker <= max(contour, distractor):
        return {}
    core = np.argwhere(draw_marker(parameters.marker_radius) >= _FULL)
    core -= core.min(0)
    images = pixels.reshape(-1, resolution, resolution)
    apart = []
    for first in range(0, len(images), max(1, _BLOCK_BYTES // resolution**2)):
        block = images[first : first + max(1, _BLOCK_BYTES // resolution**2)] >= _BRIGHT
        for is_marked in _fits(block, core):
            places = np.argwhere(is_marked)
            if not len(places):
                return {}
            apart.append(np.linalg.norm(places[:, None] - places[None], axis=-1).max())
    return {"markers": np.rint(apart).astype(np.int64)}


def _fits(bright: NDArray[np.bool_], core: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Say for each place of n images, (n, R, R), whether the core lies in what is bright if it begins there."""
    height, width = (bright.shape[axis] - int(core[:, axis - 1].max()) for axis in (1, 2))
    return np.logical_and.reduce([bright[:, y : y + height, x : x + width] for y, x in core.tolist()])
