"""Seeds for two numbers: different where it matters, and what they were where that is promised."""

from __future__ import annotations

import torch

from lra.machine.seeds import mixed_seed


def draws(first: int, second: int) -> tuple[float, ...]:
    torch.manual_seed(mixed_seed(first, second))
    return tuple(torch.rand(2).tolist())


def test_two_numbers_have_draws_of_their_own_on_a_cpu():
    pairs = [(first, second) for first in (0, 1, 2, 3, 7, 12345, 2**31 - 1) for second in (0, 1, 2, 50, 1000)]
    assert len({draws(*pair) for pair in pairs}) == len(pairs)


def test_with_zero_for_the_first_it_is_the_second():
    assert [mixed_seed(0, second) for second in (0, 1, 2**31 - 1)] == [0, 1, 2**31 - 1]


def test_it_has_no_more_bits_than_a_cpu_keeps():
    assert mixed_seed(2**31 - 1, 2**31 - 1) < 2**32
    assert draws(5, 9) != draws(6, 9)
