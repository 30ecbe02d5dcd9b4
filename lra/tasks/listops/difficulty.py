"""What makes ListOps expressions hard: length, depth, operators, and how far an argument is from its operator."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lra.tasks import Split
from lra.tasks.listops.grammar import CLOSE, MIN


def measure(bracketed: Split, *, brackets: bool = True) -> dict[str, NDArray[np.int64]]:
    """Measure N expressions.

    Args:
        bracketed: the expressions with their brackets.
        brackets: False where the model reads them without: lengths and distances then count no bracket.

    Returns:
        Four arrays (N,) by name:

        - `length`: tokens that the model reads.
        - `depth`: how many lists, one in another, are open at the deepest digit; 1 for `[MAX 2 9 ]`, 0 for a digit.
        - `operators`: how many there are.
        - `distance`: tokens from an operator to the beginning of its last argument, the largest in the expression; 2
          for `[MAX 2 9 ]`, 0 for a digit.
    """
    tokens, offsets, _ = bracketed
    is_operator, is_close = (tokens >= MIN) & (tokens < CLOSE), tokens == CLOSE
    places = np.cumsum(np.ones(len(tokens), np.int64) if brackets else ~is_close)
    starts, example = offsets[:-1], np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    # Every expression closes what it opens, so one running sum serves for all: the lists that are open after a token.
    opened = np.cumsum(is_operator.astype(np.int64) - is_close)
    distance = np.zeros(len(starts), np.int64)
    for level in range(1, int(opened.max(initial=0)) + 1):
        operators = np.flatnonzero(is_operator & (opened == level))
        # What begins an argument in a list of this level: a digit in it, or an operator that opens the next one.
        arguments = np.flatnonzero(~is_close & (opened - is_operator == level))
        owner = operators[np.searchsorted(operators, arguments) - 1]
        np.maximum.at(distance, example[arguments], places[arguments] - places[owner])
    return {
        "length": np.diff(offsets) if brackets else np.add.reduceat(~is_close, starts, dtype=np.int64),
        "depth": np.maximum.reduceat(opened, starts),
        "operators": np.add.reduceat(is_operator, starts, dtype=np.int64),
        "distance": distance,
    }
