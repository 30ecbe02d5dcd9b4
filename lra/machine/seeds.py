"""Seeds of torch's generator for draws that two numbers identify, such as a run's seed and the number of a batch."""

from __future__ import annotations

MULTIPLIER = 2654435761  # 2^32 divided by the golden ratio: it keeps the multiples of small numbers far apart


def mixed_seed(first: int, second: int) -> int:
    """Return a seed of 32 bits for two numbers from 0; with 0 for the first it is the second.

    Torch's generator on a CPU keeps the lowest 32 bits of a seed alone, and forgets what is above: `first << 32` would
    be 0. The multiplier is odd, so that no two `first` below 2^32 share a seed with one `second`.
    """
    return (first * MULTIPLIER + second) % 2**32
