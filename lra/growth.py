"""How a cost grows with the length: its exponent, what a longer sequence will cost, and where two costs cross."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple

from lra.intervals import NORMAL_QUANTILE, STUDENT_QUANTILES

LARGEST = 4  # lengths that an exponent is fitted to: shorter ones show what a call costs, not how it grows


class Exponent(NamedTuple):
    """The slope of log cost in log length, and half the width of its 95 % interval."""

    value: float
    half_width: float


class Crossing(NamedTuple):
    """The length from which one cost is the smaller; `at_most` if it was so at the shortest length already."""

    length: float
    at_most: bool


def fit_exponent(lengths: Sequence[int], costs: Sequence[float]) -> Exponent | None:
    """Fit a power law to the largest lengths; None for fewer than three."""
    points = sorted(zip(lengths, costs, strict=True))[-LARGEST:]
    if len(points) < 3:
        return None
    x, y = ([math.log(value) for value in values] for values in zip(*points, strict=True))
    slope, intercept = statistics.linear_regression(x, y)
    freedom = len(points) - 2
    rest = sum((b - intercept - slope * a) ** 2 for a, b in zip(x, y, strict=True)) / freedom
    spread = sum((a - statistics.fmean(x)) ** 2 for a in x)
    return Exponent(slope, STUDENT_QUANTILES[freedom - 1] * math.sqrt(rest / spread))


def extrapolate(lengths: Sequence[int], costs: Sequence[float], length: int) -> float:
    """Predict a cost from those of the last two lengths; nothing is taken to grow slower than the length."""
    (n1, cost1), (n2, cost2) = list(zip(lengths, costs, strict=True))[-2:]
    slope = math.log(cost2 / cost1) / math.log(n2 / n1) if cost1 > 0 and cost2 > 0 else 1.0
    return cost2 * (length / n2) ** max(slope, 1.0)


def crossing(lengths: Sequence[int], ratios: Sequence[float]) -> Crossing | None:
    """Find where a ratio of two costs falls below 1 for good, interpolated between lengths; None if it does not."""
    points = sorted(zip(lengths, ratios, strict=True))
    below = [ratio < 1 for _, ratio in points]
    if not points or not below[-1]:
        return None
    first = len(below) - below[::-1].index(False) if False in below else 0
    if first == 0:
        return Crossing(points[0][0], at_most=True)
    (n1, ratio1), (n2, ratio2) = points[first - 1 : first + 1]
    share = math.log(ratio1) / math.log(ratio1 / ratio2)
    return Crossing(n1 * (n2 / n1) ** share, at_most=False)


def mean_interval(values: Sequence[float]) -> tuple[float, float]:
    """Return the mean, and half the width of its 95 % interval by Student's t; 0 for a single value."""
    if len(values) < 2:
        return values[0], 0.0
    freedom = len(values) - 1
    quantile = STUDENT_QUANTILES[freedom - 1] if freedom <= len(STUDENT_QUANTILES) else NORMAL_QUANTILE
    return statistics.fmean(values), quantile * statistics.stdev(values) / math.sqrt(len(values))
