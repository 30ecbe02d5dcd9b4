"""Numbers as the tables have them."""

from __future__ import annotations

from lra.benchmarks.numbers import mebibytes, number


def test_numbers_have_significant_digits_and_no_exponent():
    assert [number(x) for x in (0, 0.00123456, 1.5, 1234.5, None)] == ["0", "0.00123", "1.50", "1,234", "-"]
    assert [mebibytes(x) for x in (0, 3 * 2**20, None)] == ["0.0", "3.0", "-"]
