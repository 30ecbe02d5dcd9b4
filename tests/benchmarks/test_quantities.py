"""Rows of quantities."""

from __future__ import annotations

import math

import pytest

from lra.benchmarks.quantities import Quantity, render, rows


def test_a_ratio_is_to_the_first_of_its_unit():
    made = list(rows([Quantity("a", 2.0, "s"), Quantity("b", 8.0, "m"), Quantity("c", 3.0, "s", "slow")]))
    assert [row.ratio for row in made] == [1.0, 1.0, pytest.approx(1.5)]
    assert render(made).splitlines()[-1].split() == ["c", "3.000", "s", "1.50", "slow"]


def test_what_could_not_be_measured_says_why():
    [row] = rows([Quantity("text: not at hand", math.nan, "", "set LRA_DATA")])
    assert (row.name, row.status) == ("text: not at hand", "skipped: set LRA_DATA")
    assert "set LRA_DATA" in render([row])
