"""Streams of random integers for compiled generators: splitmix64, one stream for each item, the same on every machine.

Steele, Lea and Flood, Fast Splittable Pseudorandom Number Generators, 2014. A stream is a place in the cycle of all
2^64 states, so it costs nothing to have one for each item, and any item can be drawn alone.
"""

from __future__ import annotations

import numpy as np
from numba import njit

GAMMA = np.uint64(0x9E3779B97F4A7C15)


@njit(nogil=True)
def mix(z):
    """Scramble 64 bits: the output function of splitmix64. Every operand is uint64: int64 beside it gives floats."""
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


@njit(nogil=True)
def below(state, bound):
    """Advance the stream in `state`, a (1,) uint64 array, and return an int64 in 0 .. bound - 1; bound < 2^32.

    The upper 31 bits are scaled, so the shares are off by less than bound / 2^31.
    """
    state[0] += GAMMA
    return (np.int64(mix(state[0]) >> np.uint64(33)) * bound) >> 31
