"""Pathfinder in plain Python: draws the images of `lra.tasks.pathfinder.generator` from the same streams of integers.

Whole squares are copied, grown and compared, as the published code does; nothing is tabulated. Only the look of a
single paddle and of a marker is shared with the fast path, and that is tested against Pillow.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from lra.benchmarks.listops_by_recursion import GAMMA, WORD, mix
from lra.tasks.pathfinder.raster import draw_marker, draw_paddle
from lra.tasks.pathfinder.stimulus import Stimulus


class Stream:
    def __init__(self, data_seed: int, kind: int, number: int) -> None:
        self.state = mix((mix((mix((data_seed + GAMMA) % WORD) + kind) % WORD) + number) % WORD)

    def below(self, bound: int) -> int:
        self.state = (self.state + GAMMA) % WORD
        return (mix(self.state) >> 33) * int(bound) >> 31


def draw(stimulus: Stimulus, stream: Stream) -> tuple[np.ndarray, int]:
    """Draw one image: (R, R) uint8 and its label."""
    label = stream.below(2)
    margin = stimulus.margins[-1 if stream.below(2) else 0]
    while (drawn := contours(stimulus, margin, stream)) is None:
        pass
    image, mask, ends = drawn
    for _ in range(stimulus.num_distractors):
        for _ in range(5):
            if added := distractor(stimulus, margin, stream, mask):
                image, mask = np.maximum(image, added[0]), added[1]
                break
    begun = stream.below(2)
    for centre in (ends[begun][0], ends[begun if label else 1 - begun][1]):
        image = np.maximum(
            image, stimulus.contrasts[2] * put(stimulus.resolution, draw_marker(stimulus.marker_radius), centre)
        )
    spread = image.max() - image.min()
    return ((image - image.min()) * 255 / spread + 0.5).astype(np.uint8), label


def step(distance: float, angle: float) -> np.ndarray:
    return np.ceil([distance * math.sin(angle) - 1e-9, distance * math.cos(angle) - 1e-9]).astype(int)


def put(resolution: int, shape: np.ndarray, centre: Any) -> np.ndarray:
    """Lay a square shape on an empty image around a pixel."""
    ring = len(shape)
    canvas = np.zeros((resolution + 2 * ring,) * 2, int)
    top, left = (c + ring - len(shape) // 2 for c in centre)
    canvas[top : top + len(shape), left : left + len(shape)] = shape
    return canvas[ring:-ring, ring:-ring]


def paddle(stimulus: Stimulus, margin: int, start: Any, angle: float) -> tuple[np.ndarray, np.ndarray]:
    half = stimulus.paddle_length + math.ceil(stimulus.line_width / 2) + margin
    end = step(2 * stimulus.paddle_length, angle).tolist()
    shapes = draw_paddle(end, stimulus.line_width, margin, half)
    return tuple(put(stimulus.resolution, shape, start) for shape in shapes)  # type: ignore[return-value]


def disc(radius: int) -> Iterator[tuple[int, int]]:
    square = range(-radius, radius + 1)
    return ((y, x) for y in square for x in square if y * y + x * x <= radius * radius)


class Snake:
    """A contour in the making; `angle` is the last paddle's, `pivot` where it turned."""

    def __init__(self, stimulus: Stimulus, margin: int, tail: Any, angle: float) -> None:
        self.stimulus, self.margin, self.angle, self.tail, self.end = stimulus, margin, angle, tail, tail
        self.line, self.newest = paddle(stimulus, margin, tail, angle)
        self.pivot = tail + step(stimulus.paddle_length, angle)
        self.pivot = self.pivot + step(stimulus.paddle_length + margin, angle - math.pi)

    def extend(self, mask: np.ndarray, stream: Stream) -> np.ndarray | None:
        """Add a paddle and return the mask with the one before; None where there is no room."""
        stimulus, radius = self.stimulus, self.stimulus.paddle_length + self.margin
        self.pivot = self.pivot + step(stimulus.paddle_length + 2 * self.margin, self.angle)
        circle = [n / radius for n in range(math.ceil(2 * math.pi * radius))]
        ends = sorted(
            {(math.floor(radius * math.sin(a) + 1e-9), math.floor(radius * math.cos(a) + 1e-9)) for a in circle}
        )
        weights = []
        for end in ends:
            y, x = self.pivot + end
            turn = abs(math.atan2(*end) - self.angle)
            turn = min(min(turn, 2 * math.pi - turn) * stimulus.continuity, math.pi / 2)
            inside = min(y, x) >= 0 and max(y, x) < stimulus.resolution
            around = [(y + dy, x + dx) for dy, dx in disc(self.margin)] if inside else []
            taken = max((mask[p] for p in around if min(p) >= 0 and max(p) < stimulus.resolution), default=255)
            weights.append(int(255 - taken) * round(2**16 * math.cos(turn) ** 2))
        if sum(weights) < 1e-4 * 2**16 * 255:
            return None
        for _ in range(3):
            chosen = int(np.searchsorted(np.cumsum(weights), stream.below(sum(weights)), side="right"))
            angle = math.atan2(*ends[chosen])
            line, place = paddle(stimulus, self.margin, self.pivot + ends[chosen], angle - math.pi)
            if (mask + place).max() < 1.8 * 255:
                mask = np.maximum(mask, self.newest)
                self.line, self.newest, self.angle = np.maximum(self.line, line), place, angle
                self.end = self.pivot + ends[chosen]
                return mask
        return None


def free_tails(stimulus: Stimulus, margin: int, taken: np.ndarray, angle: float) -> list[np.ndarray]:
    """Pixels at which a first paddle finds room, row by row; they may lie in what is taken themselves. None at all if
    any pixel has its whole kernel outside the image.
    """
    half = stimulus.paddle_length + math.ceil(stimulus.line_width / 2) + margin
    mask = draw_paddle(step(2 * stimulus.paddle_length, angle).tolist(), stimulus.line_width, margin, half)[1]
    kernel = np.argwhere(mask == 255) - half + 1
    reach = stimulus.paddle_length + margin
    blocked, seen = np.zeros_like(taken), np.zeros_like(taken)
    taken, inside = np.pad(taken, reach), np.pad(np.ones_like(taken), reach)
    for dy, dx in kernel[(abs(kernel) <= reach).all(1)]:
        window = np.s_[reach + dy : reach + dy + len(blocked), reach + dx : reach + dx + len(blocked)]
        blocked |= taken[window]
        seen |= inside[window]
    return list(np.argwhere(~blocked)) if seen.all() else []


def degrees(stream: Stream) -> float:
    return math.radians(stream.below(360) - 180)


def contours(stimulus: Stimulus, margin: int, stream: Stream) -> tuple[np.ndarray, np.ndarray, list] | None:
    size, room = stimulus.resolution, 2 * stimulus.seed_distance
    mask = np.full((size, size), 255)
    mask[stimulus.padding : -stimulus.padding, stimulus.padding : -stimulus.padding] = 0
    edge = np.ones((size, size), bool)
    edge[room:-room, room:-room] = False
    angle = degrees(stream)
    tails = free_tails(stimulus, margin, edge, angle)
    if not tails:
        return None
    snakes = [Snake(stimulus, margin, tails[stream.below(len(tails))], angle)]
    angle, around = degrees(stream), degrees(stream)
    away = np.rint([stimulus.seed_distance * math.sin(around), stimulus.seed_distance * math.cos(around)]).astype(int)
    snakes.append(Snake(stimulus, margin, snakes[0].tail + away, angle))
    for _ in range(stimulus.contour_length - 1):
        for snake in snakes:
            grown = snake.extend(mask, stream)
            if grown is None:
                return None
            mask = grown
    image = stimulus.contrasts[0] * np.maximum(snakes[0].line, snakes[1].line)
    return image, np.maximum(mask, snakes[1].newest), [(snake.tail, snake.end) for snake in snakes]


def distractor(stimulus: Stimulus, margin: int, stream: Stream, mask: np.ndarray) -> tuple[np.ndarray, ...] | None:
    taken = mask > 0.3 * 255
    if np.mean(~taken) < 0.01:
        return None
    for _ in range(3):
        angle = degrees(stream)
        tails = free_tails(stimulus, margin, taken, angle)
        if not tails:
            return None
        tail = tails[stream.below(len(tails))]
        snake = Snake(stimulus, margin, tail, angle)
        head = tail + step(stimulus.paddle_length, angle)
        corners = [*head, *snake.pivot]
        if min(corners) >= 0 and max(corners) < stimulus.resolution:
            break
    else:
        return None
    for _ in range(stimulus.distractor_length - 1):
        grown = snake.extend(mask, stream)
        if grown is None:
            return None
        mask = grown
    return stimulus.contrasts[1] * snake.line, np.maximum(mask, snake.newest)
