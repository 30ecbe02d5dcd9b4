"""A task small enough to learn in seconds: say which of three tokens a sequence begins with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lra.tasks import Part, Split, Task


class ToyTask(Task):
    name = "toy"
    vocab_size = 8
    max_len = 12
    num_classes = 3

    def __init__(self, num_inputs: int = 1, sizes: tuple[int, int, int] = (256, 64, 67)) -> None:
        self.num_inputs = num_inputs
        self.sizes = dict(zip(("train", "val", "test"), sizes, strict=True))

    def prepare(self) -> Path:
        return Path()

    def split(self, part: Part) -> Split:
        rng = np.random.default_rng([len(part), self.sizes[part]])
        labels = rng.integers(0, self.num_classes, self.sizes[part])
        lengths = rng.integers(3, self.max_len + 1, self.sizes[part] * self.num_inputs)
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        tokens = rng.integers(4, self.vocab_size, offsets[-1]).astype(np.uint8)
        tokens[offsets[:-1]] = 1 + np.repeat(labels, self.num_inputs)
        return Split(tokens, offsets, labels)

    def describe(self) -> dict[str, Any]:
        return {"source": "made", "variant": "toy", "sizes": self.sizes, "sha256": {"test": f"{self.num_inputs:064d}"}}

    def floor_predictions(self) -> dict[str, NDArray[np.uint8]]:
        labels = self.split("test").labels
        return {"majority": np.full(len(labels), np.bincount(labels).argmax(), np.uint8)}
