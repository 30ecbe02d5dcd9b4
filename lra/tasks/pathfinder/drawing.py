"""Draws Pathfinder images by compiled code: contours grow on a mask, distractors fill in, markers come last.

All of it stands in one file, since compiled code that is kept on disk is made anew only where the file of its entry
point has changed.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from lra.tasks.compiling import kept_on_disk
from lra.tasks.pathfinder.stimulus import COLLISION, NUM_DIRECTIONS, Stimulus, shapes
from lra.tasks.streams import below, mix

_TAKEN = 76  # of 255: where the mask is above 0.3, no distractor can begin
_DEAD_END = 1672  # of 2^16 * 255: below 1e-4 no end is likely enough
_TRIALS = 3  # of a paddle: how often an end is drawn before the contour is given up
_DISTRACTOR_TRIALS = 5  # of a distractor, before it is left out


@njit(nogil=True)
def _merge(canvas, place, starts, offsets, values, direction, gain):
    """Draw a shape where it is lighter than the canvas."""
    for i in range(starts[direction], starts[direction + 1]):
        canvas[place + offsets[i]] = max(canvas[place + offsets[i]], gain * values[i])


@njit(nogil=True)
def _extend(shape, state, mask, resolution, y, x, direction, totals):
    """Choose the end of the next paddle, given its pivot (y, x); return its number in `reach`, or -1."""
    stride = resolution + 2 * shape.ring
    first = shape.choice_starts[direction]
    last = shape.choice_starts[direction + 1]
    total = 0
    for i in range(first, last):
        end_y = y + shape.reach[shape.choices[i], 0]
        end_x = x + shape.reach[shape.choices[i], 1]
        if 0 <= end_y < resolution and 0 <= end_x < resolution:
            place = (end_y + shape.ring) * stride + end_x + shape.ring
            taken = 0
            for offset in shape.disc_offsets:
                taken = max(taken, mask[place + offset])
            total += (255 - taken) * shape.weights[i]
        totals[i - first] = total
    if total < _DEAD_END:
        return -1
    for _ in range(_TRIALS):
        draw = below(state, total)
        i = 0
        while totals[i] <= draw:
            i += 1
        end = shape.choices[first + i]
        place = (y + shape.reach[end, 0] + shape.ring) * stride + x + shape.reach[end, 1] + shape.ring
        start = shape.mask_starts[NUM_DIRECTIONS + end]
        fits = True
        for j in range(start, start + shape.mask_hards[NUM_DIRECTIONS + end]):
            if mask[place + shape.mask_offsets[j]] + shape.mask_values[j] >= COLLISION:
                fits = False
                break
        if fits:
            return end
    return -1


@njit(nogil=True)
def _draw_contours(shape, state, mask, frame, resolution, length, paddles, pivots, totals):
    """Try once to place both contours; write (y, x, direction) of every paddle and return whether they fit."""
    stride = resolution + 2 * shape.ring
    for contour in range(2):
        direction = below(state, NUM_DIRECTIONS)
        if contour == 0:
            first = shape.first_starts[direction]
            num_tails = shape.first_starts[direction + 1] - first
            if num_tails == 0:
                return False
            tail = shape.first_tails[first + below(state, num_tails)]
            y, x = tail[0], tail[1]
        else:
            step = shape.second_tails[below(state, NUM_DIRECTIONS)]
            y, x = paddles[0, 0, 0] + step[0], paddles[0, 0, 1] + step[1]
        paddles[contour, 0, 0], paddles[contour, 0, 1], paddles[contour, 0, 2] = y, x, direction
        pivots[contour, 0], pivots[contour, 1] = y + shape.pivots[direction, 0], x + shape.pivots[direction, 1]
    mask[:] = frame
    for n in range(1, length):
        for contour in range(2):
            if not _append(shape, state, mask, resolution, stride, paddles[contour], pivots[contour], n, totals):
                return False
    _merge_mask(shape, mask, stride, paddles[1, length - 1])
    return True


@njit(nogil=True)
def _append(shape, state, mask, resolution, stride, paddles, pivot, n, totals):
    """Place paddle number n of a contour, and only then mark the one before as taken."""
    direction = paddles[n - 1, 2]
    pivot[0] += shape.steps[direction, 0]
    pivot[1] += shape.steps[direction, 1]
    end = _extend(shape, state, mask, resolution, pivot[0], pivot[1], direction, totals)
    if end < 0:
        return False
    _merge_mask(shape, mask, stride, paddles[n - 1])
    paddles[n, 0], paddles[n, 1] = pivot[0] + shape.reach[end, 0], pivot[1] + shape.reach[end, 1]
    paddles[n, 2] = NUM_DIRECTIONS + end
    return True


@njit(nogil=True)
def _merge_mask(shape, mask, stride, paddle):
    place = (paddle[0] + shape.ring) * stride + paddle[1] + shape.ring
    _merge(mask, place, shape.mask_starts, shape.mask_offsets, shape.mask_values, paddle[2], 1)


@njit(nogil=True)
def _draw_distractor(shape, state, mask, resolution, length, paddles, pivot, totals, taken, blocked):
    """Try once to place a distractor; the mask stays altered if it does not fit."""
    stride = resolution + 2 * shape.ring
    num_free = 0
    for y in range(resolution):
        start = (y + shape.ring) * stride + shape.ring
        for x in range(resolution):
            taken[start + x] = mask[start + x] > _TAKEN
            num_free += 1 - taken[start + x]
    if num_free * 100 < resolution * resolution:
        return False
    for _ in range(_TRIALS):
        direction = below(state, NUM_DIRECTIONS)
        if shape.kernel_starts[direction] == shape.kernel_starts[direction + 1]:
            return False
        blocked[:] = 0
        for i in range(shape.kernel_starts[direction], shape.kernel_starts[direction + 1]):
            for y in range(resolution):
                start = (y + shape.ring) * stride + shape.ring + shape.kernel_offsets[i]
                source = taken[start : start + resolution]
                target = blocked[y * resolution : (y + 1) * resolution]
                for x in range(resolution):
                    target[x] |= source[x]
        num_places = len(blocked) - np.sum(blocked)
        if num_places == 0:
            return False
        place = _nth_free(blocked, below(state, num_places))
        y, x = place // resolution, place % resolution
        pivot[0], pivot[1] = y + shape.pivots[direction, 0], x + shape.pivots[direction, 1]
        head_y, head_x = y + shape.heads[direction, 0], x + shape.heads[direction, 1]
        if min(pivot[0], pivot[1], head_y, head_x) >= 0 and max(pivot[0], pivot[1], head_y, head_x) < resolution:
            break
    else:
        return False
    paddles[0, 0], paddles[0, 1], paddles[0, 2] = y, x, direction
    for n in range(1, length):
        if not _append(shape, state, mask, resolution, stride, paddles, pivot, n, totals):
            return False
    _merge_mask(shape, mask, stride, paddles[length - 1])
    return True


@njit(nogil=True)
def _nth_free(blocked, n):
    for place in range(len(blocked)):
        if not blocked[place]:
            if n == 0:
                return place
            n -= 1
    return -1


@njit(nogil=True)
def _draw_lines(shape, image, stride, paddles, length, gain):
    for n in range(length):
        place = (paddles[n, 0] + shape.ring) * stride + paddles[n, 1] + shape.ring
        _merge(image, place, shape.line_starts, shape.line_offsets, shape.line_values, paddles[n, 2], gain)


@njit(nogil=True)
def _stretch(image, resolution, ring, pixels):
    """Write the image without its ring, its greys stretched to 0..255 and rounded, halves up."""
    stride = resolution + 2 * ring
    inner = image.reshape((stride, stride))[ring : ring + resolution, ring : ring + resolution]
    low, high = inner.min(), inner.max()
    for y in range(resolution):
        for x in range(resolution):
            pixels[y * resolution + x] = ((inner[y, x] - low) * 510 + high - low) // (2 * (high - low))


@kept_on_disk()
def _draw(shape_0, shape_1, stimulus, seed, first, images, labels, margins, paddles, markers, attempts, distractors):
    """Draw images first, first + 1, ..., one for each row of `images`, with what is in them."""
    resolution, length = stimulus.resolution, stimulus.contour_length
    ring = shape_0.ring
    stride = resolution + 2 * ring
    frame = np.zeros((stride, stride), np.int16)  # of contrasts times 255 too
    frame[ring : ring + resolution, ring : ring + resolution] = 255
    inner = ring + stimulus.padding
    frame[inner : stride - inner, inner : stride - inner] = 0
    flat_frame = frame.reshape(-1)
    mask, before, image = np.empty_like(flat_frame), np.empty_like(flat_frame), np.empty_like(flat_frame)
    taken = np.zeros(stride * stride, np.uint8)
    blocked = np.empty(resolution * resolution, np.uint8)
    totals = np.empty(len(shape_0.reach) + len(shape_1.reach), np.int64)
    pivots = np.empty((2, 2), np.int64)
    distractor = np.empty((stimulus.distractor_length, 3), np.int64)
    state = np.empty(1, np.uint64)
    for n in range(len(images)):
        state[0] = mix(seed + np.uint64(first + n))
        labels[n] = below(state, 2)
        margins[n] = below(state, 2)  # drawn even where there is only one
        shape = shape_1 if margins[n] else shape_0
        attempts[n] = 1
        while not _draw_contours(shape, state, mask, flat_frame, resolution, length, paddles[n], pivots, totals):
            attempts[n] += 1
        image[:] = 0
        for contour in range(2):
            _draw_lines(shape, image, stride, paddles[n, contour], length, stimulus.contrasts[0])
        distractors[n] = 0
        for _ in range(stimulus.num_distractors):
            before[:] = mask
            for _ in range(_DISTRACTOR_TRIALS):
                if _draw_distractor(
                    shape, state, mask, resolution, stimulus.distractor_length, distractor, pivots[0], totals, taken,
                    blocked,
                ):  # fmt: skip
                    _draw_lines(shape, image, stride, distractor, len(distractor), stimulus.contrasts[1])
                    distractors[n] += 1
                    break
                mask[:] = before
        begun = below(state, 2)
        ended = begun if labels[n] else 1 - begun
        markers[n, 0, :2], markers[n, 0, 2] = paddles[n, begun, 0, :2], begun
        markers[n, 1, :2], markers[n, 1, 2] = paddles[n, ended, length - 1, :2], ended
        for marker in range(2):
            place = (markers[n, marker, 0] + ring) * stride + markers[n, marker, 1] + ring
            for i in range(len(shape.marker_offsets)):
                cell = place + shape.marker_offsets[i]
                image[cell] = max(image[cell], stimulus.contrasts[2] * shape.marker_values[i])
        _stretch(image, resolution, ring, images[n])


class Drawn(NamedTuple):
    """What is in n images, as they were drawn; places are (y, x) in pixels.

    Attributes:
        margins: (n,) numbers of the margins among those of the stimulus.
        paddles: (n, 2, contour_length, 3): place from which each paddle of both contours is drawn, and its direction.
        markers: (n, 2, 3): place of each marker, and the number of the contour that it is on.
        attempts: (n,) how often the two contours were begun.
        distractors: (n,) how many there are: of those that are tried, the ones for which there was room.
    """

    margins: NDArray[np.int64]
    paddles: NDArray[np.int64]
    markers: NDArray[np.int64]
    attempts: NDArray[np.int64]
    distractors: NDArray[np.int64]


def draw_block(
    parameters: Stimulus, seed: int, first: int, images: NDArray[np.uint8], labels: NDArray[np.int64]
) -> Drawn:
    """Fill `images` (n, R * R) and `labels` (n,), and return what is in them."""
    size, length = len(images), parameters.contour_length
    shapes_of = ((), (2, length, 3), (2, 3), (), ())
    drawn = Drawn(*(np.empty((size, *shape), np.int64) for shape in shapes_of))
    small, large = shapes(parameters, parameters.margins[0]), shapes(parameters, parameters.margins[-1])
    # A tuple's length is part of a compiled type, so what the compiled code does not read is left out.
    plain = parameters._replace(margins=())
    _draw(small, large, plain, np.uint64(seed), first, images, labels, *drawn)
    return drawn
