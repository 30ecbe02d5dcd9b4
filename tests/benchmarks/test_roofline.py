"""The least time of a case."""

from __future__ import annotations

from lra.benchmarks.roofline import Rates


def test_no_case_is_faster_than_its_slowest_kind_of_work():
    rates = Rates(matmul_flops=1e3, exponentials=1e2, copied_bytes=10)
    assert rates.least_ms(2e3, 1e2, 10) == 2000
    assert rates.least_ms(2e3, 1e3, 10) == 10_000
    assert rates.least_ms(2e3, 1e2, 50) == 5000
