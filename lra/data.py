"""Batches of a split: one vectorised gather each, masks from lengths, an order that is a function of the step."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lra.tasks import Split

# Lengths are rounded up to this, so that kernels see few shapes and aligned rows.
LENGTH_MULTIPLE = 8


def num_inputs(split: Split) -> int:
    """Count the sequences in one example."""
    return (len(split.offsets) - 1) // len(split.labels)


def lengths(split: Split) -> NDArray[np.int64]:
    """Return the number of tokens of every sequence, (N, I)."""
    return np.diff(split.offsets).reshape(len(split.labels), -1)


def batch(split: Split, index: NDArray[np.int64], max_len: int) -> tuple[Tensor, Tensor, Tensor]:
    """Gather the examples `index`, padded with 0 to the longest of them.

    Args:
        split: where they are.
        index: (B,) example numbers.
        max_len: no batch is wider than this, whatever the rounding of lengths.

    Returns:
        tokens (B, I, L) uint8, mask (B, I, L) bool, labels (B,) int64.
    """
    inputs = num_inputs(split)
    sequences = index[:, None] * inputs + np.arange(inputs)  # (B, I)
    starts = split.offsets[sequences]
    ends = split.offsets[sequences + 1]
    longest = int((ends - starts).max())
    width = min(-(-longest // LENGTH_MULTIPLE) * LENGTH_MULTIPLE, max(max_len, longest))
    places = starts[..., None] + np.arange(width)  # (B, I, L)
    mask = places < ends[..., None]
    tokens = split.tokens.take(places, mode="clip")  # padded places of the last sequence may lie past the end
    tokens *= mask
    return torch.from_numpy(tokens), torch.from_numpy(mask), torch.from_numpy(split.labels[index])


def training_index(num_examples: int, batch_size: int, seed: int, step: int) -> NDArray[np.int64]:
    """Name the examples of training step `step` (0, 1, ...), (batch_size,).

    The training set is read in a fresh order every epoch, without a break between epochs, so every batch is full and
    every example is seen equally often. The order depends on nothing but the arguments.
    """
    first = step * batch_size
    wanted = np.arange(first, first + batch_size)
    epochs, places = np.divmod(wanted, num_examples)
    orders = {int(epoch): _epoch_order(num_examples, seed, int(epoch)) for epoch in np.unique(epochs)}
    return np.concatenate([orders[epoch][places[epochs == epoch]] for epoch in orders])


@lru_cache(maxsize=4)
def _epoch_order(num_examples: int, seed: int, epoch: int) -> NDArray[np.int64]:
    return np.random.default_rng([seed, epoch]).permutation(num_examples)


def evaluation_batches(split: Split, batch_size: int, max_len: int) -> Iterator[tuple[NDArray[np.int64], tuple]]:
    """Yield (example numbers, batch) so that every example comes exactly once, sorted by length to save padding."""
    order = np.argsort(lengths(split).max(axis=1), kind="stable")
    for first in range(0, len(order), batch_size):
        index = order[first : first + batch_size]
        yield index, batch(split, index, max_len)
