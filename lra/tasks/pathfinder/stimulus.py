"""What a Pathfinder image consists of: the published parameters, and tables of every shape and step they allow.

Linsley et al. 2018 (arXiv:1805.08315); the parameters are those that google-research/long-range-arena states for its
images, the rules those of drewlinsley/pathfinder. The tables hold integers, so that what is drawn from them is the same
on every machine; sines serve only to make them, and are rounded where their last digit cannot matter.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lra.tasks.pathfinder.raster import EPSILON, FINE, Ints, disc, draw_marker, draw_paddle

CONTOUR_LENGTHS = {"easy": 6, "intermediate": 9, "hard": 14}  # paddles; the archive's baseline, _9 and _14
NUM_DIRECTIONS = 360  # a contour begins in a direction of whole degrees

# Lines and masks are bytes, as the published code has them after reducing; it compares them as fractions of 255.
HARD = 204  # two masks collide where they sum to 1.8: neither may be less than 0.8
COLLISION = 459
_WEIGHT_ONE = 2**16


class Stimulus(NamedTuple):
    """Parameters of one resolution and difficulty; lengths in pixels.

    Attributes:
        resolution: side of the image.
        padding: width of the frame that paddles stay out of.
        contour_length: paddles in each of the two long contours.
        distractor_length: paddles in each distractor.
        num_distractors: distractors that are tried; one that does not fit is left out.
        paddle_length: from end to end.
        line_width: of a paddle, in cells of the fine grid.
        margins: the image's margin is one of these; half the gap between paddles, and what the masks add around one.
        marker_radius: of the two discs.
        seed_distance: between the first ends of the two contours.
        continuity: from 1; the larger, the straighter.
        contrasts: grey of the contours, the distractors and the markers, in twentieths.
    """

    resolution: int
    padding: int
    contour_length: int
    distractor_length: int
    num_distractors: int
    paddle_length: int
    line_width: int
    margins: tuple[int, ...]
    marker_radius: float
    seed_distance: int
    continuity: float
    contrasts: tuple[int, int, int]


class _Published(NamedTuple):
    """The part of a stimulus that the resolution decides; `distractor_paddles` is the sum over all distractors."""

    padding: int
    distractor_paddles: int
    paddle_length: int
    line_width: int
    margins: tuple[int, ...]
    marker_radius: float
    seed_distance: int
    continuity: float
    contrasts: tuple[int, int, int]


# The contours' contrast is that of snakes times that of paddles; the distractors' is that of snakes alone.
_PUBLISHED = {
    # Unpublished, for quick runs: 32 on a quarter of the area, with a quarter of the distractors and half the length.
    16: _Published(1, 5, 2, 1, (1,), 1.5, 3, 1.0, (30, 40, 20)),
    32: _Published(1, 20, 2, 1, (1,), 1.5, 7, 1.0, (30, 40, 20)),
    64: _Published(1, 22, 5, 2, (1,), 2.5, 12, 1.8, (16, 16, 20)),
    128: _Published(1, 35, 5, 3, (2, 3), 3, 20, 1.8, (18, 18, 20)),
    256: _Published(22, 30, 5, 4, (3,), 5, 27, 1.8, (20, 20, 20)),
}
RESOLUTIONS = tuple(_PUBLISHED)


def stimulus(resolution: int, difficulty: str) -> Stimulus:
    """Return the parameters of a resolution (16, 32, 64, 128, 256) and a difficulty (easy, intermediate, hard).

    A distractor has a third of a contour's paddles, cut to a whole number: four for 14.
    """
    published = _PUBLISHED[resolution]._asdict()
    contour_length = CONTOUR_LENGTHS[difficulty] // (2 if resolution == 16 else 1)
    distractor_length = contour_length // 3
    return Stimulus(
        resolution=resolution,
        contour_length=contour_length,
        distractor_length=distractor_length,
        num_distractors=published.pop("distractor_paddles") // distractor_length,
        **published,
    )


class Shapes(NamedTuple):
    """All that can be tabulated for one margin. The image lies in an array with a ring of unused places around it,
    and an offset is a difference of places in that array, flattened.

    A direction is 0 .. 359, degrees less 180, of a contour's first paddle, drawn from its tail outward; or
    360 + e of any further one, which was placed by choosing end e among `reach`, and is drawn from that end backward.

    Attributes:
        ring: width of the ring.
        first_starts, first_tails: (361,) and (n, 2): where the first contour's tail may lie, by direction, if anywhere.
        second_tails: (360, 2) from the first contour's tail to the second's, by angle.
        pivots: (360, 2) from a tail to the point from which the next paddle's pivot is computed, by direction.
        heads: (360, 2) from a tail to the paddle's other end, by direction.
        steps: (D, 2) from a paddle's pivot to the next one's, by direction.
        reach: (E, 2) from a pivot to a possible end.
        choice_starts, choices, weights: (D + 1,), (n,), (n,): the possible ends of the next paddle with their weights,
            by direction; a weight of 2^16 is straight on.
        mask_starts, mask_hards, mask_offsets, mask_values: (D + 1,), (D,), (n,), (n,): the masks, by direction, from
            the place that the paddle is drawn from. The first `mask_hards` of each are those that can collide.
        line_starts, line_offsets, line_values: the lines, likewise.
        kernel_starts, kernel_offsets: (361,), (n,): what must be free around a tail, by direction; nothing where no
            contour can begin so.
        disc_offsets: (n,) what lies within the margin.
        marker_offsets, marker_values: the marker, from its centre.
        line_ends: (D, 2) from where a paddle is drawn to its other end, in cells of the fine grid.
    """

    ring: int
    first_starts: Ints
    first_tails: Ints
    second_tails: Ints
    pivots: Ints
    heads: Ints
    steps: Ints
    reach: Ints
    choice_starts: Ints
    choices: Ints
    weights: Ints
    mask_starts: Ints
    mask_hards: Ints
    mask_offsets: Ints
    mask_values: Ints
    line_starts: Ints
    line_offsets: Ints
    line_values: Ints
    kernel_starts: Ints
    kernel_offsets: Ints
    disc_offsets: Ints
    marker_offsets: Ints
    marker_values: Ints
    line_ends: Ints


@lru_cache(maxsize=16)
def shapes(stimulus: Stimulus, margin: int) -> Shapes:
    """Tabulate the shapes of a stimulus at one of its margins."""
    length, continuity = stimulus.paddle_length, stimulus.continuity
    half = length + -(-stimulus.line_width // FINE) + margin
    marker = draw_marker(stimulus.marker_radius)
    ring = max(length + math.ceil(stimulus.line_width / FINE) + max(stimulus.margins), len(marker) // 2)
    stride = stimulus.resolution + 2 * ring

    degrees = np.radians(np.arange(-180, 180))
    reach = _reach(length + margin)
    angles = np.concatenate([degrees, np.arctan2(reach[:, 0], reach[:, 1])])  # (D,)
    flipped = np.concatenate([degrees, angles[len(degrees) :] - np.pi])
    line_ends = _displace(flipped, length * FINE)
    drawn = [draw_paddle(end, stimulus.line_width, margin, half) for end in line_ends.tolist()]
    lines, masks = [line for line, _ in drawn], [mask for _, mask in drawn]

    heads = _displace(degrees, length)
    pivots = heads + _displace(degrees - np.pi, length + margin)
    kernels = [_kernel(mask, length + margin) for mask in masks[: len(degrees)]]
    first = [_first_tails(stimulus, kernel) for kernel in kernels]
    second = np.rint(stimulus.seed_distance * _unit(degrees)).astype(np.int64)
    _check_room(stimulus, first, second, heads, pivots)

    turns = np.abs(angles[:, None] - angles[None, len(degrees) :])
    turns = np.minimum(np.minimum(turns, 2 * np.pi - turns) * continuity, np.pi / 2)
    weights = np.rint(_WEIGHT_ONE * np.cos(turns) ** 2).astype(np.int64)  # (D, E)
    line_starts, line_offsets, line_values = _sparse(lines, stride)
    mask_starts, mask_offsets, mask_values = _sparse(masks, stride)
    _, marker_offsets, marker_values = _sparse([marker], stride)
    return Shapes(
        ring,
        _starts(first),
        np.concatenate(first),
        second,
        pivots,
        heads,
        _displace(angles, length + 2 * margin),
        reach,
        _starts([row.nonzero()[0] for row in weights]),
        weights.nonzero()[1],
        weights[weights > 0],
        mask_starts,
        np.array([np.sum(mask >= HARD) for mask in masks]),
        mask_offsets,
        mask_values,
        line_starts,
        line_offsets,
        line_values,
        _starts(kernels),
        _flat(np.concatenate(kernels), stride),
        _flat(disc(margin), stride),
        marker_offsets,
        marker_values,
        line_ends,
    )


def _unit(angles: NDArray[Any]) -> NDArray[np.float64]:
    return np.stack([np.sin(angles), np.cos(angles)], 1)


def _displace(angles: NDArray[Any], distance: float) -> Ints:
    """Return where a distance leads, (n, 2), rounded up as the published code does throughout."""
    return np.ceil(distance * _unit(angles) - EPSILON).astype(np.int64)


def _reach(radius: int) -> Ints:
    """Return the different pixels on a circle sampled once for each pixel of its length, (E, 2)."""
    spacing = 1 / radius  # in radians
    angles = np.arange(math.ceil(2 * np.pi * radius)) * spacing
    return np.unique(np.floor(radius * _unit(angles) + EPSILON).astype(np.int64), axis=0)


def _kernel(mask: NDArray[np.uint8], half: int) -> Ints:
    """Return what must be free around a tail, (n, 2); empty for a direction in which no contour can begin.

    These are the full pixels of its mask, moved by one to the lower right and cut at `half`, as the published code
    centres its kernel. Where none of them is inside the image, as at a corner, its filter (OpenCV's) returns the
    smallest number there is, and the code gives up the direction everywhere. At 32x32, where kernels have one to five
    pixels, that happens to most directions, which is why few distractors find room.
    """
    places = np.argwhere(mask == 255) - len(mask) // 2 + 1
    places = places[(np.abs(places) <= half).all(1)]
    in_quadrants = [(places * signs >= 0).all(1).any() for signs in ((1, 1), (1, -1), (-1, 1), (-1, -1))]
    return places if all(in_quadrants) else places[:0]


def _first_tails(stimulus: Stimulus, kernel: Ints) -> Ints:
    """Return the pixels whose kernel lies in the middle of the image, two seed distances away from every side."""
    if not len(kernel):
        return kernel
    low, high = 2 * stimulus.seed_distance, stimulus.resolution - 2 * stimulus.seed_distance
    (top, left), (bottom, right) = low - kernel.min(0), high - kernel.max(0)
    y, x = np.mgrid[top:bottom, left:right]
    return np.stack([y.ravel(), x.ravel()], 1)


def _check_room(stimulus: Stimulus, first: list[Ints], second: Ints, heads: Ints, pivots: Ints) -> None:
    """Assert that neither contour can begin outside the image, which the published code tests at every draw."""
    tails = np.concatenate(first)
    assert len(tails)
    assert len(second)
    for steps in (heads, pivots):
        lowest = min(tails.min() + second.min() + steps.min(), tails.min() + steps.min())
        assert lowest >= 0
        assert tails.max() + second.max() + steps.max() < stimulus.resolution


def _starts(rows: list[NDArray]) -> Ints:
    return np.concatenate([[0], np.cumsum([len(row) for row in rows])])


def _flat(places: Ints, stride: int) -> Ints:
    return places[:, 0] * stride + places[:, 1]


def _sparse(squares: list[NDArray[np.uint8]], stride: int) -> tuple[Ints, Ints, Ints]:
    """Return starts, offsets and values of what is not zero in each square, the largest values first."""
    offsets, values = [], []
    for square in squares:
        places = np.argwhere(square)
        greys = square[places[:, 0], places[:, 1]].astype(np.int64)
        order = np.argsort(-greys, kind="stable")
        offsets.append(_flat(places[order] - len(square) // 2, stride))
        values.append(greys[order])
    return _starts(values), np.concatenate(offsets), np.concatenate(values)
