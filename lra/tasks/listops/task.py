"""ListOps: evaluate nested lists of digits under MIN, MAX, MED and SM; ten classes.

Nangia and Bowman 2018 (arXiv:1804.06028), in the long form of Long Range Arena (Tay et al. 2021, arXiv:2011.04006).
The released notation is a binary tree in parentheses, `( ( ( [MAX 2 ) 9 ) ] )`. Parentheses are dropped before anything
is counted, brackets are kept, and the vocabulary is fixed; LRA collects its own anew, in another order, in every
process. `brackets=False` is what LRA's models read before March 2021, and what published numbers of Skeinformer and
others were measured on: the tokeniser dropped `]` and read `[MAX` as `MAX`, so nothing says where a list ends.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lra.errors import InputError, check_choice, check_integer
from lra.tasks import PARTS, Part, Split
from lra.tasks.cached import CachedTask
from lra.tasks.lengths import check_agreement, check_length
from lra.tasks.listops import difficulty
from lra.tasks.listops.grammar import CLOSE, VOCABULARY, Grammar, sizes_at
from lra.tasks.raw_files import Layout, find_folder

LAYOUT = Layout(
    ("listops", "listops-1000"), lambda folder: any((folder / f"basic_{part}.tsv").exists() for part in PARTS)
)


class ListOps(CachedTask):
    """The task, from the released files or from the generator.

    Args:
        cache_dir: folder of the cache; None for `LRA_CACHE` or the user's own.
        data_dir: folder of the released `basic_{train,val,test}.tsv`, or one that has it as `listops` or, as the
            release does, `listops-1000`. They are then read instead of generating; the generator's arguments other than
            `max_length` have no effect on them. None for `LRA_DATA`'s, else to generate.
        brackets: False for the variant without brackets; lengths are counted before they are dropped.
        max_depth: levels of a tree; the root is level 1, and the deepest level has digits only.
        max_args: arguments of an operator are 2 to this, uniformly.
        operator_probability: that a node above the deepest level is an operator, not a digit.
        min_length: a kept tree has more tokens than this: one for a digit, two for an operator and its bracket.
        max_length: a kept tree, and every released one, has fewer tokens than this.
        num_train: generated training examples.
        num_val: generated validation examples.
        num_test: generated test examples.
        data_seed: of the generator; the model's seed is another.
        length: None, or the length that `at_length` made the sizes for; released trees have none.

    Raises:
        InputError: an argument is out of range.
    """

    name = "listops"
    vocab_size = len(VOCABULARY)
    num_classes = 10

    def __init__(
        self,
        *,
        cache_dir: str | Path | None,
        data_dir: str | Path | None = None,
        brackets: bool = True,
        max_depth: int = 10,
        max_args: int = 10,
        operator_probability: float = 0.25,
        min_length: int = 500,
        max_length: int = 2000,
        num_train: int = 96000,
        num_val: int = 2000,
        num_test: int = 2000,
        data_seed: int = 0,
        length: int | None = None,
    ) -> None:
        super().__init__(cache_dir=cache_dir)
        self.grammar = Grammar(max_depth, max_args, operator_probability, min_length, max_length, data_seed)
        self.grammar.check()
        self.num_examples: dict[Part, int] = {"train": num_train, "val": num_val, "test": num_test}
        for part, size in self.num_examples.items():
            check_integer(f"task.num_{part}", size, 1)
        check_choice("task.brackets", brackets, (True, False))
        self.max_len = max_length
        self.data_dir, self.remark = find_folder(data_dir, LAYOUT)
        self.brackets = brackets
        check_agreement(length, max_length)
        if length is not None and self.data_dir is not None:
            raise InputError(
                f"task.length={length} is of generated trees, and {self.data_dir} has released ones. Leave task.length "
                "out, or unset LRA_DATA and task.data_dir."
            )
        self.length = length

    @classmethod
    def at_length(cls, length: int) -> dict[str, Any]:
        """Return the sizes of trees of more than half this length; see `grammar.sizes_at`."""
        check_length(length)
        return {**sizes_at(length), "length": length}

    def place(self) -> str:
        """Say where the released files are."""
        return f"in {self.data_dir}" if self.data_dir else ""

    def floor_predictions(self) -> dict[str, NDArray[np.uint8]]:
        """Predict by `majority`, the most frequent train label, and by `root_operator`, the most frequent one for the
        first token. The smallest label wins a tie.
        """
        train, test = self.split("train"), self.split("test")
        train_roots, test_roots = (split.tokens[split.offsets[:-1]].astype(np.int64) for split in (train, test))
        counts = np.zeros((self.vocab_size, self.num_classes), np.int64)
        np.add.at(counts, (train_roots, train.labels), 1)
        majority = counts.sum(0).argmax()
        by_root = np.where(counts.any(1), counts.argmax(1), majority)
        return {
            "majority": np.full(len(test.labels), majority, np.uint8),
            "root_operator": by_root[test_roots].astype(np.uint8),
        }

    def _difficulties(self) -> dict[str, NDArray[np.int64]]:
        """Measure the test expressions, see `difficulty.measure`."""
        return difficulty.measure(self._bracketed("test"), brackets=self.brackets)

    def _bracketed(self, part: Part) -> Split:
        """Return a split with its brackets; where the model reads none, it is generated or read again."""
        if self.brackets:
            return self.split(part)
        return dict(self._generated() if self.data_dir is None else self._released(self.data_dir))[part]

    def _specification(self) -> dict[str, Any]:
        """Say what decides the arrays, with a fingerprint of the released files."""
        variant = "brackets" if self.brackets else "no_brackets"
        specification: dict[str, Any] = {
            "task": self.name,
            "version": self.version,
            "source": "generated" if self.data_dir is None else "released",
            "variant": variant if self.length is None else f"{variant}, length {self.length}",
        }
        if self.data_dir is None:
            return {**specification, "generator": {**self.grammar._asdict(), "num_examples": self.num_examples}}
        from lra.tasks.listops import released

        return {**specification, "max_length": self.max_len, "files": released.fingerprint(self.data_dir)}

    def _build(self) -> Iterator[tuple[Part, Split]]:
        for part, split in self._generated() if self.data_dir is None else self._released(self.data_dir):
            yield part, split if self.brackets else _without_brackets(split)

    def _generated(self) -> Iterator[tuple[Part, Split]]:
        # Compiling takes seconds, and is not needed where a cache entry is.
        from lra.tasks.listops.generator import generate

        tokens, offsets, labels = generate(self.grammar, sum(self.num_examples.values()))
        start = 0
        for part, size in self.num_examples.items():
            end = start + size
            bounds = offsets[start : end + 1]
            yield part, Split(tokens[bounds[0] : bounds[-1]], bounds - bounds[0], labels[start:end])
            start = end

    def _released(self, data_dir: Path) -> Iterator[tuple[Part, Split]]:
        from lra.tasks.listops import released

        for part in PARTS:
            yield part, released.read(data_dir, part, self.max_len)


def _without_brackets(split: Split) -> Split:
    """Drop every `]`; the operators keep their ids, with `[MAX` now standing for `MAX`."""
    keep = split.tokens != CLOSE
    kept_before = np.concatenate([[0], np.cumsum(keep)])
    return Split(split.tokens[keep], kept_before[split.offsets], split.labels)
