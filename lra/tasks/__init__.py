"""The contract of a task: what the data is, and how a split of it looks in memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lra.errors import InputError

Part = Literal["train", "val", "test"]
PARTS: tuple[Part, Part, Part] = ("train", "val", "test")


class Split(NamedTuple):
    """One split of a task: N examples of I sequences each, as flat arrays.

    Attributes:
        tokens: (T,) uint8, all sequences one after the other, no padding.
        offsets: (N * I + 1,) int64; sequence s is `tokens[offsets[s]:offsets[s + 1]]`, example n owns sequences
            n * I to n * I + I - 1.
        labels: (N,) int64.
    """

    tokens: NDArray[np.uint8]
    offsets: NDArray[np.int64]
    labels: NDArray[np.int64]


class Task:
    """Base class of all tasks.

    Attributes:
        name: the task's name in records and tables.
        version: raised by hand when a change of code changes the data; part of the keys of runs and cache entries.
        vocab_size: number of token ids, 0 (padding) included.
        max_len: no sequence is longer.
        num_classes: labels are 0 .. num_classes - 1.
        num_inputs: sequences in one example: 1, or 2 for Retrieval.
        image_side: height and width, where a sequence is a square image, row by row; None elsewhere.
        remark: a sentence on why the data are of their source and of no other; may be empty.
    """

    name: ClassVar[str]
    version: ClassVar[int] = 1
    vocab_size: int
    max_len: int
    num_classes: int
    num_inputs: int = 1
    image_side: int | None = None
    remark: str = ""

    @classmethod
    def at_length(cls, length: int) -> dict[str, Any]:
        """Return the settings with which the longest sequence has `length` tokens, `length` itself among them.

        Raises:
            InputError: the task has no sequences of this length, or of no length but its own.
        """
        raise InputError(f"{cls.name} has one length: task.length must be null. Got {length!r}.")

    def prepare(self) -> Path:
        """Make the cached arrays unless a sound cache exists; safe to call twice and from several processes.

        Returns:
            The folder of the cache entry.
        """
        raise NotImplementedError

    def split(self, part: Part) -> Split:
        """Return one prepared split, mapped into memory."""
        raise NotImplementedError

    def describe(self) -> dict[str, Any]:
        """Say exactly what was prepared: source, variant, version, sizes and a checksum for each split.

        All of it goes into the record and the run's key, so it holds no path and nothing that differs between machines.
        """
        raise NotImplementedError

    def place(self) -> str:
        """Say where on this machine, or elsewhere, the raw data are; it stands after the source. May be empty."""
        return ""

    def summary(self, name: str) -> str:
        """Say in one line what was prepared, for a task that is called so."""
        described = self.describe()
        sizes = ", ".join(f"{size:,} {part}" for part, size in described["sizes"].items())
        source = f"{described['source']} {self.place()}".rstrip()
        return f"Data of {name}: {source}, {described['variant']}; {sizes}. {self.remark}".rstrip()

    def floor_predictions(self) -> dict[str, NDArray[np.uint8]]:
        """Predict the class of each test example by rules that need no model, fitted on the train split."""
        raise NotImplementedError

    def difficulties(self) -> dict[str, NDArray[np.int64]]:
        """Return what makes each test example hard: (N,) whole numbers by the name of a measure; {} if that is unknown.

        `lra.reports.difficulty` has the titles of the names that tasks here use; another name is its own title.
        """
        return {}

    def floors(self) -> dict[str, float]:
        """Return the test accuracy of each of these rules."""
        labels = self.split("test").labels
        return {name: float(np.mean(predicted == labels)) for name, predicted in self.floor_predictions().items()}
