"""Batches of a split: one vectorised gather each, masks from lengths, an order that is a function of the step."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lra.errors import InputError
from lra.tasks import Split

# Lengths are rounded up to this, so that kernels see few shapes and aligned rows.
LENGTH_MULTIPLE = 8


class Batch(NamedTuple):
    """Examples of one forward pass.

    Attributes:
        tokens: (B, I, L) uint8, padded with 0.
        mask: (B, I, L) bool, True on real tokens.
        labels: (B,) int64.
    """

    tokens: Tensor
    mask: Tensor
    labels: Tensor


@dataclass(frozen=True)
class Batching:
    """How examples become batches; the fields are the `data` node of the configuration, one to one.

    Attributes:
        padding: "batch" pads to the longest of a forward pass, rounded up; "max" to `padded_length`, as the published
            code did. It changes only what a batch costs and which random numbers are drawn for it, unless the model
            pools padded rows.
        bucket_batches: this many batches are drawn together, sorted by length and then cut apart, so that the
            sequences of a batch are about equally long; 1 for no sorting.
        mask_zero: treat token 0 as padding wherever it stands, as LRA, Nystromformer and Skeinformer do. It hides
            the black pixels of an image: two thirds of a Pathfinder one.
        padded_length: how long sequences are with padding "max", and what a mean that counts padding as zeros divides
            by with either; None for the task's longest.
        length_multiple: with padding "batch", lengths are rounded up to a multiple of this; not in the configuration.
    """

    padding: str
    bucket_batches: int
    mask_zero: bool
    padded_length: int | None = None
    length_multiple: int = LENGTH_MULTIPLE

    def gather(self, split: Split, index: NDArray[np.int64], max_len: int) -> Batch:
        """Gather the examples `index`, (B,), of a task whose sequences are at most `max_len` long."""
        inputs = num_inputs(split)
        sequences = (index[:, None] * inputs + np.arange(inputs)).ravel()
        starts = split.offsets[sequences]
        sizes = split.offsets[sequences + 1] - starts
        width = max_len if self.padded_length is None else self.padded_length
        if width < max_len:
            raise InputError(f"data.padded_length must be at least {max_len}, the task's longest. Got {width}.")
        if self.padding == "batch":
            width = min(-(-int(sizes.max()) // self.length_multiple) * self.length_multiple, max_len)
        # 32-bit numbers halve the time of the comparison, which is most of this function's.
        mask = np.arange(width, dtype=np.int32) < sizes.astype(np.int32)[:, None]
        if int(starts.max()) + width <= len(split.tokens):
            # All windows of the flat array, as a view; so that a row is a copy of one stretch of memory.
            windows = np.ndarray((len(split.tokens) - width + 1, width), np.uint8, split.tokens, strides=(1, 1))
            tokens = windows[starts]
        else:  # a row at the very end of the split, whose padding would lie beyond it
            tokens = split.tokens.take(starts[:, None] + np.arange(width), mode="clip")
        tokens *= mask.view(np.uint8)
        if self.mask_zero:
            mask &= tokens != 0
        shape = (len(index), inputs, width)
        return Batch(
            torch.from_numpy(tokens.reshape(shape)),
            torch.from_numpy(mask.reshape(shape)),
            torch.from_numpy(split.labels[index]),
        )

    def training(self, split: Split, batch_size: int, seed: int, first_step: int = 0) -> Iterator[NDArray[np.int64]]:
        """Yield without end the example numbers of each training step, (batch_size,), from `first_step` on.

        The training set is read in a fresh order every epoch, without a break between epochs, so every batch is full
        and every example is seen equally often. What a step is given depends on nothing but the split, the batch size
        and the seed.
        """
        window, begin = divmod(first_step, self.bucket_batches)
        while True:
            count = self.bucket_batches * batch_size
            drawn = _stream(len(split.labels), seed, window * count, count)
            if self.bucket_batches > 1:
                drawn = drawn[np.argsort(lengths(split, drawn), kind="stable")]
            # The batches of a window come in random order, or every window would go from short to long.
            order = np.random.default_rng([seed, 1, window]).permutation(self.bucket_batches)
            yield from drawn.reshape(-1, batch_size)[order[begin:]]
            window, begin = window + 1, 0

    def evaluation(self, split: Split, batch_size: int, max_len: int) -> Iterator[tuple[NDArray[np.int64], Batch]]:
        """Yield (example numbers, batch), every example exactly once, sorted by length to save padding."""
        order = np.argsort(lengths(split, np.arange(len(split.labels))), kind="stable")
        for start in range(0, len(order), batch_size):
            index = order[start : start + batch_size]
            yield index, self.gather(split, index, max_len)


def num_inputs(split: Split) -> int:
    """Count the sequences in one example."""
    return (len(split.offsets) - 1) // len(split.labels)


def lengths(split: Split, index: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the length of the longest sequence of each of the examples `index`, (B,)."""
    inputs = num_inputs(split)
    sequences = index[:, None] * inputs + np.arange(inputs)
    return (split.offsets[sequences + 1] - split.offsets[sequences]).max(axis=1)


def _stream(num_examples: int, seed: int, first: int, count: int) -> NDArray[np.int64]:
    """Return the entries first ... first + count - 1 of the endless stream of shuffled epochs."""
    epochs, positions = np.divmod(np.arange(first, first + count), num_examples)
    parts = [_epoch_order(num_examples, seed, int(epoch))[positions[epochs == epoch]] for epoch in np.unique(epochs)]
    return np.concatenate(parts)


@lru_cache(maxsize=4)
def _epoch_order(num_examples: int, seed: int, epoch: int) -> NDArray[np.int64]:
    return np.random.default_rng([seed, 0, epoch]).permutation(num_examples)
