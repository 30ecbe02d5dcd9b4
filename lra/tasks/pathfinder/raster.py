"""How a paddle and a marker of Pathfinder look in pixels.

drewlinsley/pathfinder draws lines and discs with Pillow on a grid twice as fine and reduces them with Pillow's Lanczos
filter. Both are done here exactly as Pillow does, in integers where it matters, so that a shape is the same on every
machine and under every version of Pillow. All coordinates are (y, x).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]

FINE = 2  # cells of the fine grid to a pixel
EPSILON = 1e-9  # absorbs the rounding error of a number that should be whole, or a half
_COEFFICIENT_BITS = 22  # of Pillow's filter


def draw_paddle(end: tuple[int, int], width: int, margin: int, half: int) -> tuple[NDArray[np.uint8], ...]:
    """Draw a paddle from the centre of a square.

    Args:
        end: its other end, in cells of the fine grid from the centre.
        width: in such cells.
        margin: what the mask adds around it, in pixels.
        half: the square has 2 * half + 1 pixels a side.

    Returns:
        The line and its mask, (2 * half + 1, 2 * half + 1), 0 to 255.
    """
    centre = half * FINE
    fine = np.zeros((2 * centre + 1, 2 * centre + 1), bool)
    cells = _thin_line(*end) if width == 1 else _wide_line(*end, width)
    for y, x in cells:
        fine[centre + y, centre + x] = True
    grown = np.zeros_like(fine)
    for dy, dx in disc(margin * FINE):  # the line keeps that far from the sides
        grown |= np.roll(fine, (dy, dx), (0, 1))
    return reduce(fine, 2 * half + 1), reduce(grown, 2 * half + 1)


def draw_marker(radius: float) -> NDArray[np.uint8]:
    """Draw a disc whose centre is the upper left cell of the square's middle pixel."""
    half = math.ceil(radius) + 4  # the filter reaches three pixels further
    x = np.arange((2 * half + 1) * FINE) - half * FINE
    return reduce(x**2 + x[:, None] ** 2 <= (radius * FINE) ** 2, 2 * half + 1)


def reduce(fine: NDArray[np.bool_], size: int) -> NDArray[np.uint8]:
    """Reduce a square of cells to (size, size) pixels with Pillow's Lanczos filter: rows, then columns, in fixed point
    with 22 bits, each pass rounded to a byte.
    """
    coefficients = _lanczos(len(fine), size)
    half = 1 << (_COEFFICIENT_BITS - 1)
    rows = np.clip((fine.astype(np.int64) * 255 @ coefficients.T + half) >> _COEFFICIENT_BITS, 0, 255)
    return np.clip((coefficients @ rows + half) >> _COEFFICIENT_BITS, 0, 255).astype(np.uint8)


def _lanczos(old: int, new: int) -> Ints:
    """Return the coefficients of each new pixel, (new, old)."""
    scale = old / new
    centres = (np.arange(new)[:, None] + 0.5) * scale
    distances = (np.arange(old)[None] + 0.5 - centres) / scale
    # Pillow rounds the ends of its window to whole cells.
    first, last = np.trunc(np.maximum(centres - 3 * scale + 0.5, 0)), np.trunc(centres + 3 * scale + 0.5)
    inside = (np.arange(old) >= first) & (np.arange(old) < last) & (np.abs(distances) < 3)
    weights = np.where(inside, np.sinc(distances) * np.sinc(distances / 3), 0)
    weights /= weights.sum(1, keepdims=True)
    scaled = weights * (1 << _COEFFICIENT_BITS)
    return np.trunc(scaled + np.copysign(0.5, scaled)).astype(np.int64)


def _thin_line(end_y: int, end_x: int) -> list[tuple[int, int]]:
    """Return the cells of a line one cell wide: one for each step along its longer direction, halves rounded up."""
    longer = max(abs(end_y), abs(end_x))

    def shorter(i: int, end: int) -> int:
        return (2 * i * abs(end) + longer) // (2 * longer) * (1 if end > 0 else -1)

    return [(shorter(i, end_y), shorter(i, end_x)) for i in range(longer + 1)]


def _wide_line(end_y: int, end_x: int, width: int) -> list[tuple[int, int]]:
    """Return the cells of a line as Pillow fills it: a quadrilateral with corners on whole cells, the odd cell of an
    even width always on the same side; in each row the cells that round into it, halves inward.
    """
    length = math.sqrt(end_y**2 + end_x**2)
    small, large = (width - 1) // 2, width // 2
    ends = [(0, 0), (end_y, end_x)]
    left_side = [(y + _half_up(large * end_x / length), x - _half_down(small * end_y / length)) for y, x in ends]
    right_side = [(y - _half_up(small * end_x / length), x + _half_down(large * end_y / length)) for y, x in ends]
    corners = [left_side[0], left_side[1], right_side[1], right_side[0]]
    edges = list(zip(corners, corners[1:] + corners[:1], strict=True))
    cells = []
    for y in range(min(corners)[0], max(corners)[0] + 1):
        crossings = [float(x) for corner_y, x in corners if corner_y == y]
        crossings += [
            x0 + (x1 - x0) * (y - y0) / (y1 - y0) for (y0, x0), (y1, x1) in edges if min(y0, y1) < y < max(y0, y1)
        ]
        first = math.ceil(min(crossings) - 0.5 + EPSILON)
        last = math.floor(max(crossings) + 0.5 - EPSILON)
        cells += [(y, x) for x in range(first, last + 1)]
    return cells


def _half_up(value: float) -> int:
    """Round to the nearest, a half away from zero."""
    return int(math.copysign(math.floor(abs(value) + 0.5), value))


def _half_down(value: float) -> int:
    """Round to the nearest, a half towards zero."""
    return int(math.copysign(math.ceil(abs(value) - 0.5), value))


def disc(radius: int) -> Ints:
    """Return the cells within a radius of a cell, (n, 2)."""
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    return np.argwhere(x**2 + y**2 <= radius**2) - radius
