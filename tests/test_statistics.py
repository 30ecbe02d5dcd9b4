"""Exponents, predictions and crossings against curves made by hand."""

from __future__ import annotations

import random

import pytest

from lra.statistics import crossing, extrapolate, fit_exponent, student_interval

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
