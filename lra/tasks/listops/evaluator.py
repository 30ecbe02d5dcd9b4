"""The values of many ListOps expressions at once, compiled."""

from __future__ import annotations

import numpy as np
from numba import njit, types
from numpy.typing import NDArray

from lra.tasks.compiling import kept_on_disk
from lra.tasks.listops.grammar import CLOSE, DIGIT, MAX, MED, MIN

_bytes = types.Array(types.uint8, 1, "C")
_ints = types.Array(types.int64, 1, "C")
_frozen_bytes = types.Array(types.uint8, 1, "C", readonly=True)
_frozen_ints = types.Array(types.int64, 1, "C", readonly=True)


@njit(nogil=True)
def _ranked(counts, rank):
    """Return the digit at `rank` (from 0) among the sorted digits that `counts` counts."""
    digit = 0
    while rank >= counts[digit]:
        rank -= counts[digit]
        digit += 1
    return digit


@kept_on_disk(types.void(_frozen_bytes, _frozen_ints, _ints))
def _evaluate(tokens, offsets, values):
    """Write the value of every sequence, -1 for one that is no expression: a stack machine over the tokens."""
    longest = 1  # even an empty sequence reads the first entry of the stack
    for n in range(len(values)):
        longest = max(longest, offsets[n + 1] - offsets[n])
    stack = np.empty(longest, np.int64)
    counts = np.empty(10, np.int64)
    for n in range(len(values)):
        top = 0
        sound = True
        for i in range(offsets[n], offsets[n + 1]):
            token = np.int64(tokens[i])
            if token != CLOSE:
                if not DIGIT <= token < CLOSE:
                    sound = False
                stack[top] = token
                top += 1
                continue
            counts[:] = 0
            size = 0
            total = 0
            while top > 0 and stack[top - 1] < MIN:
                top -= 1
                counts[stack[top] - DIGIT] += 1
                total += stack[top] - DIGIT
                size += 1
            if top == 0 or size == 0:
                sound = False
            if not sound:
                break
            operator = stack[top - 1]
            if operator == MIN:
                value = _ranked(counts, 0)
            elif operator == MAX:
                value = _ranked(counts, size - 1)
            elif operator == MED:
                value = (_ranked(counts, (size - 1) // 2) + _ranked(counts, size // 2)) // 2
            else:
                value = total % 10
            stack[top - 1] = DIGIT + value
        values[n] = stack[0] - DIGIT if sound and top == 1 and stack[0] < MIN else -1


def evaluate_all(tokens: NDArray[np.uint8], offsets: NDArray[np.int64]) -> NDArray[np.int64]:
    """Evaluate N bracketed sequences.

    Args:
        tokens: (T,) ids, all sequences one after the other.
        offsets: (N + 1,) where each begins, and where the last ends.

    Returns:
        (N,) values 0 to 9, or -1 where a sequence is no well-formed expression.
    """
    values = np.empty(len(offsets) - 1, np.int64)
    _evaluate(tokens, offsets, values)
    return values
