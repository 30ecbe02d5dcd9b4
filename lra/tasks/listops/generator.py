"""Draws ListOps trees and evaluates them: compiled, on all cores, the same bytes on every machine.

The grammar is that of google-research/long-range-arena (`lra_benchmarks/data/listops.py`). Candidate tree number c
draws from its own splitmix64 stream (Steele, Lea and Flood 2014), seeded from (data_seed, c), in integers only, and
trees are accepted in the order of c. So neither the number of threads nor the size of a block shows in the result. LRA
instead draws from one unseeded stream and keeps its examples in a Python set.
"""

from __future__ import annotations

import os
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from hashlib import blake2b
from itertools import count

import numpy as np
from numba import types
from tqdm import tqdm

from lra.errors import InputError
from lra.tasks import Split
from lra.tasks.compiling import kept_on_disk
from lra.tasks.listops.evaluator import _bytes, _ints, evaluate_all
from lra.tasks.listops.grammar import CLOSE, DIGIT, MIN, Grammar
from lra.tasks.streams import GAMMA, mix

_LOW_32 = np.uint64(0xFFFFFFFF)
_DIGIT = np.uint64(DIGIT)
_MIN = np.uint64(MIN)

# The search is given up if, after _PATIENCE candidates, a smaller share than this was accepted.
_LEAST_ACCEPTANCE = 1e-3
_PATIENCE = 2**20


@kept_on_disk(types.int64(*[types.uint64] * 3, *[types.int64] * 5, _bytes, _ints))
def _draw(seed, threshold, choices, max_depth, min_length, max_length, first, last, tokens, lengths):
    """Draw candidates first..last-1, write the accepted ones one after the other, and return how many they are.

    One 64-bit draw makes a node. Its high half below `threshold` makes it an operator; its low half holds either the
    digit, or the operator (two bits) and its number of arguments, 2 to `choices` + 1 (thirty bits).
    """
    owed = np.empty(min(max_depth, max_length) + 1, np.int64)  # arguments still to come, per open operator
    accepted = 0
    start = 0
    for candidate in range(first, last):
        state = mix(mix(seed + GAMMA) + np.uint64(candidate))
        # The least length of the whole tree: tokens written, closing brackets and owed arguments. An operator adds
        # itself, its bracket and its arguments, less the argument that it is; at the end this is the length.
        length = np.int64(1)
        end = start
        level = 0
        owed[0] = 1
        while True:
            if owed[level] == 0:
                if level == 0:
                    break
                tokens[end] = CLOSE
                end += 1
                level -= 1
                continue
            owed[level] -= 1
            state += GAMMA
            bits = mix(state)
            low = bits & _LOW_32
            if level + 1 < max_depth and bits >> np.uint64(32) < threshold:
                arguments = 2 + np.int64(((low >> np.uint64(2)) * choices) >> np.uint64(30))
                length += arguments + 1
                if length >= max_length:
                    break
                tokens[end] = np.uint8(_MIN + (low & np.uint64(3)))
                level += 1
                owed[level] = arguments
            else:
                tokens[end] = np.uint8(_DIGIT + ((low * np.uint64(10)) >> np.uint64(32)))
            end += 1
        if min_length < length < max_length:
            lengths[accepted] = length
            accepted += 1
            start = end
    return accepted


def draw(grammar: Grammar, first: int, last: int) -> Split:
    """Draw candidates `first` to `last` - 1 and return the accepted ones, in order, duplicates included."""
    tokens = np.empty((last - first) * grammar.max_length, np.uint8)  # pages never written take no memory
    lengths = np.empty(last - first, np.int64)
    accepted = _draw(
        np.uint64(grammar.data_seed),
        np.uint64(round(grammar.operator_probability * 2**32)),
        np.uint64(grammar.max_args - 1),
        grammar.max_depth,
        grammar.min_length,
        grammar.max_length,
        first,
        last,
        tokens,
        lengths,
    )
    offsets = np.concatenate([[0], np.cumsum(lengths[:accepted])])
    tokens = tokens[: offsets[-1]].copy()  # frees the memory of the rest
    return Split(tokens, offsets, evaluate_all(tokens, offsets))


def num_cores() -> int:
    """Count the cores that this process may use."""
    # Not every system says which; on others, count them all.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def generate(grammar: Grammar, num_examples: int, num_threads: int | None = None) -> Split:
    """Draw the first `num_examples` different trees of a grammar.

    Args:
        grammar: what is drawn and what is kept.
        num_examples: how many trees.
        num_threads: threads to draw with, by default one for each core of this process; the result is the same.

    Raises:
        InputError: hardly any candidate is accepted, so that the search would not end.
    """
    num_threads = num_threads or num_cores()
    size = min(8192, max(1, 2**24 // grammar.max_length))  # candidates in a block
    starts = count(0, size)
    digests: set[bytes] = set()
    blocks: list[Split] = []
    pending: deque[Future[Split]] = deque()
    with (
        ThreadPoolExecutor(num_threads) as pool,
        tqdm(total=num_examples, desc="drawing ListOps trees", unit="tree", delay=2, leave=False) as bar,
    ):
        while len(digests) < num_examples:
            while len(pending) < 2 * num_threads:
                start = next(starts)
                pending.append(pool.submit(draw, grammar, start, start + size))
            before = len(digests)
            blocks.append(_new_trees(pending.popleft().result(), digests))
            bar.update(min(len(digests), num_examples) - before)
            candidates = len(blocks) * size
            if candidates >= _PATIENCE and len(digests) < min(num_examples, candidates * _LEAST_ACCEPTANCE):
                pool.shutdown(cancel_futures=True)
                raise InputError(
                    f"Only {len(digests):,} different trees of the first {candidates:,} satisfy {grammar}, and "
                    f"{num_examples:,} are needed. Widen min_length..max_length, raise max_depth, max_args or "
                    "operator_probability, or ask for fewer examples."
                )
        pool.shutdown(cancel_futures=True)
    return _join(blocks, num_examples)


def _new_trees(block: Split, digests: set[bytes]) -> Split:
    """Drop the trees whose digests are known, and add the digests of the others."""
    keep = np.ones(len(block.labels), bool)
    bounds = block.offsets.tolist()
    for n in range(len(keep)):
        digest = blake2b(block.tokens[bounds[n] : bounds[n + 1]].data, digest_size=16).digest()
        keep[n] = digest not in digests
        digests.add(digest)
    if keep.all():
        return block
    lengths = np.diff(block.offsets)
    offsets = np.concatenate([[0], np.cumsum(lengths[keep])])
    return Split(block.tokens[np.repeat(keep, lengths)], offsets, block.labels[keep])


def _join(blocks: list[Split], num_examples: int) -> Split:
    """Join blocks into the first `num_examples` examples."""
    lengths = np.concatenate([np.diff(block.offsets) for block in blocks])[:num_examples]
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    tokens = np.concatenate([block.tokens for block in blocks])[: offsets[-1]]
    return Split(tokens, offsets, np.concatenate([block.labels for block in blocks])[:num_examples])
