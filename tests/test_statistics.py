"""Intervals against their definition; exponents, predictions and crossings against curves made by hand."""

from __future__ import annotations

import math
import random
import statistics

import numpy as np
import pytest

from lra.statistics import (
    DRAWS,
    NORMAL_QUANTILE,
    STUDENT_QUANTILES,
    bootstrap_interval,
    crossing,
    extrapolate,
    fit_exponent,
    sampling_half_width,
    student_interval,
    wilson_interval,
)

LENGTHS = [512, 1024, 2048, 4096, 8192, 16384]


@pytest.mark.parametrize("power", [1, 2])
def test_the_exponent_of_a_noisy_power_law_lies_in_its_interval(power):
    random.seed(power)
    hits = 0
    for _ in range(400):
        costs = [3e-6 * n**power * random.lognormvariate(0, 0.05) for n in LENGTHS]
        found = fit_exponent(LENGTHS, costs)
        hits += abs(found.value - power) <= found.half_width
    assert hits / 400 == pytest.approx(0.95, abs=0.03)


def test_a_constant_cost_of_calls_does_not_hide_the_exponent():
    costs = [0.2 + 1e-6 * n**2 for n in LENGTHS]
    assert fit_exponent(LENGTHS, costs).value == pytest.approx(2, abs=0.05)


def test_two_points_have_no_exponent():
    assert fit_exponent([1, 2], [1, 2]) is None


def test_a_prediction_goes_on_as_it_grew_and_never_slower_than_the_length():
    assert extrapolate([512, 1024], [1.0, 4.0], 4096) == pytest.approx(64)
    assert extrapolate([512, 1024], [1.0, 1.1], 2048) == pytest.approx(2.2)
    assert extrapolate([512, 1024], [0.0, 3.0], 2048) == pytest.approx(6)


def test_crossings_are_interpolated_and_final():
    where = crossing([512, 1024, 2048], [2.0, 0.5, 0.4])
    assert where.length == pytest.approx(512 * 2**0.5)
    assert not where.at_most
    assert crossing([512, 1024], [0.9, 0.5]) == (512, True)
    assert crossing([512, 1024, 2048], [0.9, 1.5, 1.2]) is None
    assert crossing([512, 1024, 2048], [0.9, 2.0, 0.5]).length == pytest.approx(1024 * 2**0.5)
    assert crossing([], []) is None


def test_the_interval_of_a_mean_is_students():
    assert student_interval([1.0, 2.0, 3.0]) == (2.0, pytest.approx(4.303 / 3**0.5, rel=1e-3))
    assert student_interval([5.0]) == (5.0, 0.0)


def test_the_interval_of_one_run_is_the_sampling_error_of_the_test_set():
    assert sampling_half_width(0.5, 10000) == NORMAL_QUANTILE * 0.005
    assert bootstrap_interval([0.5], 10000) == pytest.approx((0.5 - 0.0098, 0.5 + 0.0098), abs=1e-6)
    assert bootstrap_interval([1.0], 10000) == (1.0, 1.0)


def test_the_interval_adds_seeds_and_test_set_in_squares():
    """For many runs, whose bootstrap is normal, both parts have closed forms."""
    accuracies = np.random.default_rng(1).normal(0.5, 0.02, 25).tolist()
    seeds = STUDENT_QUANTILES[23] * statistics.stdev(accuracies) / 5
    low, high = bootstrap_interval(accuracies, 2000)
    expected = math.hypot(seeds, sampling_half_width(statistics.fmean(accuracies), 2000))
    assert (high - low) / 2 == pytest.approx(expected, rel=0.04)


@pytest.mark.parametrize("n", [2, 3, 5])
def test_the_interval_covers_the_truth_as_often_as_it_says(n):
    rng = np.random.default_rng(n)
    intervals = [bootstrap_interval((0.5 + 0.02 * rng.normal(size=n)).tolist(), 10**7) for _ in range(300)]
    assert 0.9 <= np.mean([low <= 0.5 <= high for low, high in intervals]) <= 0.99


def test_runs_that_learn_or_do_not_have_a_lopsided_interval_within_bounds():
    low, high = bootstrap_interval([0.5, 0.5, 0.5, 0.5, 0.95], 20000)
    assert high - 0.59 > 0.59 - low > 0
    assert bootstrap_interval([0.5, 1.0], 20000)[1] == 1.0
    assert bootstrap_interval([0.5, 0.6], 20000) == bootstrap_interval([0.6, 0.5], 20000)
    assert DRAWS >= 10_000


def test_students_quantiles_cover_what_they_say():
    """The quantile of two degrees of freedom has a closed form; the others fall to the normal's like 1/df."""
    p = 0.975
    assert STUDENT_QUANTILES[1] == pytest.approx((2 * p - 1) / math.sqrt(2 * p * (1 - p)), abs=1e-3)
    assert STUDENT_QUANTILES[0] == pytest.approx(math.tan(math.pi * (p - 0.5)), abs=1e-3)
    assert list(STUDENT_QUANTILES) == sorted(STUDENT_QUANTILES, reverse=True)
    z = NORMAL_QUANTILE
    for df in (10, 20, 30):
        expansion = z + (z**3 + z) / (4 * df) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * df**2)
        assert STUDENT_QUANTILES[df - 1] == pytest.approx(expansion, abs=3e-3)


@pytest.mark.parametrize(("spread", "coverage"), [(0.0, 0.95), (0.01, 0.85), (0.03, 0.50)])
def test_the_interval_of_one_seed_is_of_the_test_alone(spread, coverage):
    """Why it is not called one of 95 %; `results/README.md` has these numbers."""
    rng = np.random.default_rng(0)
    accuracies = rng.binomial(2000, np.clip(rng.normal(0.4, spread, 4000), 0, 1)) / 2000
    intervals = [bootstrap_interval([accuracy], 2000) for accuracy in accuracies]
    assert np.mean([low <= 0.4 <= high for low, high in intervals]) == pytest.approx(coverage, abs=0.02)


@pytest.mark.parametrize(("right", "examples"), [(0, 5), (5, 5), (37, 100), (4440, 10_000)])
def test_wilsons_interval_has_the_shares_that_are_two_deviations_away(right, examples):
    share = right / examples
    low, high = wilson_interval(share, examples)
    assert 0 <= low <= share <= high <= 1
    for end in (low, high):
        if 0 < end < 1:
            assert abs(share - end) == pytest.approx(sampling_half_width(end, examples))
    wider = wilson_interval(share, examples // 5)
    assert wider[1] - wider[0] > high - low > 0
