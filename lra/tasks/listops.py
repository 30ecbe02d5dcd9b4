"""ListOps: evaluate nested lists of digits under MIN, MAX, MED and SM; ten classes.

Nangia and Bowman 2018 (arXiv:1804.06028), in the long form of Long Range Arena (Tay et al. 2021, arXiv:2011.04006).
The released notation is a binary tree in parentheses, `( ( ( [MAX 2 ) 9 ) ] )`. Parentheses are dropped before anything
is counted, brackets are kept, and the vocabulary is fixed; LRA collects its own anew, in another order, in every
process. `brackets=False` is what LRA fed before March 2021, and what published numbers of Skeinformer and others rest
on: a tokeniser that lost `]` and read `[MAX` as `MAX`, which leaves no way to tell where a list ends.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lra.errors import InputError, check_choice, check_integer
from lra.tasks import PARTS, Part, Split
from lra.tasks.cached import CachedTask
from lra.tasks.sources import raw_folder

DIGIT = 1  # the id of 0; 9 has id 10
MIN, MAX, MED, SM, CLOSE = range(11, 16)
VOCABULARY = ("", *"0123456789", "[MIN", "[MAX", "[MED", "[SM", "]")  # by id; 0 is padding
_IDS = {token: i for i, token in enumerate(VOCABULARY) if token}
_NO_PARENTHESES = str.maketrans("()", "  ")


def encode(source: str) -> NDArray[np.uint8]:
    """Return the token ids of an expression in the released notation; parentheses and spaces are dropped.

    Raises:
        InputError: a token is not in the vocabulary.
    """
    try:
        return np.array([_IDS[token] for token in source.translate(_NO_PARENTHESES).split()], np.uint8)
    except KeyError as error:
        raise InputError(f"unknown token {error} in {shorten(source)}: expected one of {' '.join(_IDS)}") from None


def decode(tokens: Sequence[int] | NDArray[np.uint8]) -> str:
    """Return the bracketed text of token ids, `[MAX 2 9 ]`, without parentheses.

    Raises:
        InputError: an id is not 1 to 15; padding must be cut off first.
    """
    ids = np.asarray(tokens).tolist()
    if wrong := [i for i in ids if not 0 < i < len(VOCABULARY)]:
        raise InputError(f"{wrong[0]} is not the id of a token: expected 1 to {len(VOCABULARY) - 1}, without padding")
    return " ".join(VOCABULARY[i] for i in ids)


def evaluate(source: str) -> int:
    """Return the value, 0 to 9, of an expression in the released notation, or without its parentheses.

    MED is numpy's median with a half cut off, SM the sum modulo 10.

    Raises:
        InputError: the expression is malformed.
    """
    if source.count("(") != source.count(")"):
        raise InputError(f"{source.count('(')} opening and {source.count(')')} closing parentheses: {shorten(source)}")
    lists: list[list[int]] = [[]]  # the innermost open list is the last; the first holds the result
    operators: list[int] = []
    for token in encode(source).tolist():
        if token < MIN:
            lists[-1].append(token - DIGIT)
        elif token < CLOSE:
            operators.append(token)
            lists.append([])
        else:
            if not operators:
                raise InputError(f"a ] that closes nothing: {shorten(source)}")
            operator, values = operators.pop(), sorted(lists.pop())
            if not values:
                raise InputError(f"{VOCABULARY[operator]} without arguments: {shorten(source)}")
            lists[-1].append(_apply(operator, values))
    if operators:
        raise InputError(f"{VOCABULARY[operators[-1]]} is never closed: {shorten(source)}")
    if len(lists[0]) != 1:
        raise InputError(f"expected one expression, found {len(lists[0])}: {shorten(source)}")
    return lists[0][0]


def _apply(operator: int, values: list[int]) -> int:
    """Apply an operator to sorted values."""
    if operator == MIN:
        return values[0]
    if operator == MAX:
        return values[-1]
    if operator == MED:
        return (values[(len(values) - 1) // 2] + values[len(values) // 2]) // 2
    return sum(values) % 10


def shorten(source: str) -> str:
    """Quote a source for a message, only its beginning if it is long."""
    return repr(source if len(source) <= 60 else f"{source[:57]}...")


class Grammar(NamedTuple):
    """What the generator draws, and what it keeps; see `ListOps` for the meaning and the ranges."""

    max_depth: int
    max_args: int
    operator_probability: float
    min_length: int
    max_length: int
    data_seed: int

    def check(self) -> None:
        """Raise InputError for the first value out of its range."""
        for name, least in (("max_depth", 1), ("max_args", 2), ("min_length", 0), ("data_seed", 0)):
            check_integer(name, getattr(self, name), least)
        check_integer("max_length", self.max_length, self.min_length + 2)
        if not isinstance(self.operator_probability, int | float) or not 0 <= self.operator_probability <= 1:
            raise InputError(f"operator_probability must be 0 to 1, not {self.operator_probability!r}")


class ListOps(CachedTask):
    """The task, from the released files or from the generator.

    Args:
        cache_dir: folder of the cache; None for `LRA_CACHE` or the user's own.
        data_dir: folder of the released `basic_{train,val,test}.tsv`, which are then read instead of generating; the
            generator's arguments other than `max_length` have no effect on them. None for `$LRA_DATA/listops` if there
            is one, else to generate.
        brackets: False for the variant without brackets; lengths are counted before they are dropped.
        max_depth: levels of a tree; the root is level 1, and the deepest level has digits only.
        max_args: arguments of an operator are 2 to this, uniformly.
        operator_probability: of a node above the deepest level to be an operator, not a digit.
        min_length: a kept tree has more tokens than this: one for a digit, two for an operator and its bracket.
        max_length: a kept tree, and every released one, has fewer tokens than this.
        num_train: generated training examples.
        num_val: generated validation examples.
        num_test: generated test examples.
        data_seed: of the generator; no part of the model's seed.

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
    ) -> None:
        super().__init__(cache_dir=cache_dir)
        self.grammar = Grammar(max_depth, max_args, operator_probability, min_length, max_length, data_seed)
        self.grammar.check()
        self.num_examples: dict[Part, int] = {"train": num_train, "val": num_val, "test": num_test}
        for part, size in self.num_examples.items():
            check_integer(f"num_{part}", size, 1)
        check_choice("brackets", brackets, (True, False))
        self.max_len = max_length
        self.data_dir = raw_folder(data_dir, self.name)
        self.brackets = brackets

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

    def _specification(self) -> dict[str, Any]:
        """Say what decides the arrays, with a fingerprint of the released files."""
        specification: dict[str, Any] = {
            "task": self.name,
            "version": self.version,
            "source": "generated" if self.data_dir is None else "released",
            "variant": "brackets" if self.brackets else "no_brackets",
        }
        if self.data_dir is None:
            return {**specification, "generator": {**self.grammar._asdict(), "num_examples": self.num_examples}}
        from lra.tasks import listops_released

        return {**specification, "max_length": self.max_len, "files": listops_released.fingerprint(self.data_dir)}

    def _build(self) -> Iterator[tuple[Part, Split]]:
        for part, split in self._generated() if self.data_dir is None else self._released(self.data_dir):
            yield part, split if self.brackets else _without_brackets(split)

    def _generated(self) -> Iterator[tuple[Part, Split]]:
        # Compiling takes seconds, and is not needed where a cache entry is.
        from lra.tasks.listops_generator import generate

        tokens, offsets, labels = generate(self.grammar, sum(self.num_examples.values()))
        first = 0
        for part, size in self.num_examples.items():
            last = first + size
            bounds = offsets[first : last + 1]
            yield part, Split(tokens[bounds[0] : bounds[-1]], bounds - bounds[0], labels[first:last])
            first = last

    def _released(self, data_dir: Path) -> Iterator[tuple[Part, Split]]:
        from lra.tasks import listops_released

        for part in PARTS:
            yield part, listops_released.read(data_dir, part, self.max_len)


def _without_brackets(split: Split) -> Split:
    """Drop every `]`; the operators keep their ids, with `[MAX` now standing for `MAX`."""
    keep = split.tokens != CLOSE
    kept_before = np.concatenate([[0], np.cumsum(keep)])
    return Split(split.tokens[keep], kept_before[split.offsets], split.labels)
