"""The largest number of examples that a forward and backward pass can take in the memory there is."""

from __future__ import annotations

from collections.abc import Callable

import torch

from lra.machine.memory import free_memory, is_out_of_memory, peak_memory, reset_peak_memory

# The share of the free memory that a pass may be expected to take; other shapes and the allocator's gaps need the rest.
SHARE = 0.8


def largest_micro_batch(attempt: Callable[[int], None], batch_size: int, device: torch.device) -> int:
    """Double from one example until memory ends or the whole batch fits.

    A size whose need, twice that of the last one, exceeds the free memory is not tried: on a GPU it would only fail,
    but a CPU's system would kill the process.

    Args:
        attempt: runs a forward and backward pass over so many examples, the longest there are.
        batch_size: the largest number to try.
        device: where it runs.

    Returns:
        A number from 1 to batch_size.

    Raises:
        RuntimeError: not even one example fits.
    """
    size = fits = 1
    while True:
        reset_peak_memory(device)
        before = peak_memory(device)[0]
        try:
            attempt(size)
        except RuntimeError as error:
            if size == 1 or not is_out_of_memory(error):
                raise
            return fits
        fits = size
        if size == batch_size:
            return fits
        size = min(2 * size, batch_size)
        if 2 * (peak_memory(device)[0] - before) > SHARE * free_memory(device):
            return fits
