"""Pathfinder images by their numbers: the published stimulus, compiled (`drawing.py`), the same bytes on every machine.

Follows drewlinsley/pathfinder (`snakes2.py`) as Long Range Arena used it, without single paddles: two long contours
grow paddle by paddle, in turns, on a mask of the pixels that are taken; if either has no room, both begin anew; then
short distractors fill in where they can; two discs mark a first end and a last one. Its oddities are kept, since they
shape the images: neither contour avoids the other's newest paddle, distractors do not avoid the last paddle of the
first contour, the distractors of 32x32 are brighter than the contours, every image is stretched to 0..255.

What differs: every image has a stream of integers of its own, where the published code draws from one unseeded
generator; probabilities have 16 bits; a marker at the image's edge is cut there, not filtered again. It is fast since
all shapes are tabulated (`stimulus.py`) and a rejection changes few pixels; the distribution is the same.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lra.tasks.pathfinder.drawing import Drawn, draw_block
from lra.tasks.pathfinder.raster import FINE
from lra.tasks.pathfinder.stimulus import CONTOUR_LENGTHS, shapes, stimulus
from lra.tasks.streams import GAMMA, mix


class Geometry(NamedTuple):
    """What is in one image. Coordinates are (y, x) in pixels.

    Attributes:
        image: (R, R) uint8.
        label: 1 where both markers are on one contour.
        margin: half the gap between paddles.
        contours: (2, contour_length, 2, 2) float64: for each paddle of each contour its two ends, the one nearer to
            the contour's beginning first.
        markers: (2, 2) int64: the centres of the two discs, on the first end of a contour and on a last end.
        marked: (2,) int64: the numbers of these contours. Where both contours end on one pixel, which happens since
            neither sees the other's newest paddle, the image itself does not tell.
        num_attempts: how often the two contours were begun.
        num_distractors: those for which there was room.
    """

    image: NDArray[np.uint8]
    label: int
    margin: int
    contours: NDArray[np.float64]
    markers: NDArray[np.int64]
    marked: NDArray[np.int64]
    num_attempts: int
    num_distractors: int


def stream_seed(data_seed: int, resolution: int, difficulty: str) -> int:
    """Return the 64 bits from which, with an image's number, its stream begins."""
    kind = resolution * len(CONTOUR_LENGTHS) + list(CONTOUR_LENGTHS).index(difficulty)
    mask = 2**64 - 1
    state = int(mix(np.uint64((data_seed + int(GAMMA)) & mask)))
    return int(mix(np.uint64((state + kind) & mask)))


def draw(
    resolution: int, difficulty: str, data_seed: int, first: int, last: int
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Draw images `first` to `last` - 1 of a seed: (n, R * R) uint8, row by row, and (n,) labels."""
    images, labels, _ = draw_all(resolution, difficulty, data_seed, first, last)
    return images, labels


def draw_all(
    resolution: int, difficulty: str, data_seed: int, first: int, last: int
) -> tuple[NDArray[np.uint8], NDArray[np.int64], Drawn]:
    """Draw images and labels, as `draw`, and return what is in the images too."""
    images = np.empty((last - first, resolution**2), np.uint8)
    labels = np.empty(last - first, np.int64)
    seed = stream_seed(data_seed, resolution, difficulty)
    drawn = draw_block(stimulus(resolution, difficulty), seed, first, images, labels)
    return images, labels, drawn


def paddle_ends(resolution: int, difficulty: str, drawn: Drawn) -> NDArray[np.float64]:
    """Return the two ends of each paddle, (n, 2, contour_length, 2, 2): the one nearer to the beginning first."""
    parameters = stimulus(resolution, difficulty)
    tables = [shapes(parameters, parameters.margins[number]) for number in (0, -1)]
    far_ends = drawn.paddles[..., :2].astype(np.float64)
    directions = drawn.paddles[..., 2]
    is_large = drawn.margins.astype(bool)[:, None, None]
    # Directions are numbered for each margin, and the smaller margin has fewer of them.
    steps = [table.line_ends[np.where(is_large == bool(n), directions, 0)] for n, table in enumerate(tables)]
    near_ends = far_ends + np.where(is_large[..., None], steps[1], steps[0]) / FINE
    contours = np.stack([near_ends, far_ends], -2)  # a paddle is drawn backward from its far end,
    contours[:, :, 0] = contours[:, :, 0, ::-1]  # only the first from its near one
    return contours


def geometry(resolution: int, difficulty: str, data_seed: int, number: int) -> Geometry:
    """Draw one image and say what is in it."""
    images, labels, drawn = draw_all(resolution, difficulty, data_seed, number, number + 1)
    return Geometry(
        image=images.reshape(resolution, resolution),
        label=int(labels[0]),
        margin=stimulus(resolution, difficulty).margins[-1 if drawn.margins[0] else 0],
        contours=paddle_ends(resolution, difficulty, drawn)[0],
        markers=drawn.markers[0, :, :2],
        marked=drawn.markers[0, :, 2],
        num_attempts=int(drawn.attempts[0]),
        num_distractors=int(drawn.distractors[0]),
    )
