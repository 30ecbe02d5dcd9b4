"""The language of ListOps: tokens, values, and what the generator draws."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lra.errors import InputError, check_integer

DIGIT = 1  # the id of 0; 9 has id 10
MIN, MAX, MED, SM, CLOSE = range(11, 16)
VOCABULARY = ("", *"0123456789", "[MIN", "[MAX", "[MED", "[SM", "]")  # by id; 0 is padding
_IDS = {token: i for i, token in enumerate(VOCABULARY) if token}
RELEASED_DEPTH, RELEASED_LENGTH = 10, 2000
GROWTH = 1.5  # nodes of a level for each node of the one above it, as released
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
        raise InputError(f"{wrong[0]} is not the id of a token: expected 1 to {len(VOCABULARY) - 1}, without padding.")
    return " ".join(VOCABULARY[i] for i in ids)


def evaluate(source: str) -> int:
    """Return the value, 0 to 9, of an expression in the released notation, or without its parentheses.

    MED is numpy's median, rounded down; SM is the sum modulo 10.

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


def sizes_at(length: int) -> dict[str, Any]:
    """Return the sizes of trees of more than half and fewer than `length` tokens, in proportion to the released ones.

    With 2 to 10 arguments, and an operator in a quarter of the nodes, each level has 0.25 * 6 = 1.5 times as many nodes
    as the one above it. So the depth grows by one where the length grows by half, from 10 at 2,000: at every length 3
    to 4 % of the trees that are drawn are kept.
    """
    levels = math.log(length / RELEASED_LENGTH) / math.log(GROWTH)
    return {
        "max_depth": RELEASED_DEPTH + round(levels),
        "max_args": 10,
        "min_length": length // 2,
        "max_length": length,
    }


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
            check_integer(f"task.{name}", getattr(self, name), least)
        check_integer("task.max_length", self.max_length, self.min_length + 2)
        self._check_room()
        if not isinstance(self.operator_probability, int | float) or not 0 <= self.operator_probability <= 1:
            raise InputError(
                f"task.operator_probability must be a number from 0 to 1. Got {self.operator_probability!r}."
            )

    def _check_room(self) -> None:
        """Raise InputError where even the largest tree has too few tokens."""
        longest, widest = 0, 1  # tokens above a level, and the nodes of that level
        for _ in range(self.max_depth - 1):
            longest, widest = longest + 2 * widest, widest * self.max_args
            if longest + widest > self.min_length:
                return
        if longest + widest <= self.min_length:
            raise InputError(
                f"No tree of task.max_depth={self.max_depth} and task.max_args={self.max_args} has more than "
                f"{longest + widest} tokens, and task.min_length={self.min_length} asks for more. Raise max_depth, or "
                "shorten."
            )
