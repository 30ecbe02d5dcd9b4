"""Statistics of accuracies and costs: intervals, how a cost grows with the length, where two costs cross."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

NORMAL_QUANTILE = 1.959964
ONE_SEED = "test sampling only, one seed"  # what the interval of a single run is of: it is no interval over seeds
DRAWS = 20_000
# 97.5 % quantiles of Student's t for 1, 2, ... degrees of freedom, to three decimals; beyond them the normal's serves.
STUDENT_QUANTILES = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131,
    2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)  # fmt: skip


def sampling_half_width(accuracy: float, num_test: int) -> float:
    """Return half the width of the 95 % interval that the size of the test set alone implies (normal approximation)."""
    return NORMAL_QUANTILE * math.sqrt(accuracy * (1 - accuracy) / num_test)


def wilson_interval(share: float, num_examples: int) -> tuple[float, float]:
    """Bound a share of independent examples: Wilson's 95 % interval (1927), which has a width at 0 and at 1 too."""
    spread = NORMAL_QUANTILE**2 / num_examples
    centre = (share + spread / 2) / (1 + spread)
    half_width = math.sqrt(spread * share * (1 - share) + spread**2 / 4) / (1 + spread)
    # At 0 and 1 an end is the share itself, but for rounding.
    return max(min(centre - half_width, share), 0.0), min(max(centre + half_width, share), 1.0)


def bootstrap_interval(accuracies: Sequence[float], num_test: int) -> tuple[float, float]:
    """Bound the mean accuracy of runs that differ in their seed alone: a bootstrap 95 % interval, cut to [0, 1].

    Two independent errors are added draw by draw:

    - over seeds: the mean of as many runs, drawn with replacement. With few runs its spread is too narrow, so its
      distance from the mean is stretched by sqrt(n / (n - 1)), for the spread around a mean that was itself estimated,
      and by the ratio of Student's quantile to the normal's; for many runs both are 1. A lopsided spread stays
      lopsided. A single run says nothing of it.
    - over test examples: a normal draw with the binomial deviation of the test set. All seeds share that set, so more
      of them do not reduce it.

    Runs on one test set also differ by their luck with its examples, which both errors count: the interval is too wide
    rather than too narrow. The draws are seeded; the same runs give the same interval.
    """
    runs, mean = len(accuracies), statistics.fmean(accuracies)
    sampling = sampling_half_width(mean, num_test)
    if runs == 1:
        low, high = mean - sampling, mean + sampling
    else:
        rng = np.random.default_rng(0)
        quantile = STUDENT_QUANTILES[runs - 2] if runs - 2 < len(STUDENT_QUANTILES) else NORMAL_QUANTILE
        stretch = math.sqrt(runs / (runs - 1)) * quantile / NORMAL_QUANTILE
        resampled = rng.choice(sorted(accuracies), (DRAWS, runs)).mean(axis=1)
        draws = mean + stretch * (resampled - mean) + rng.normal(0.0, sampling / NORMAL_QUANTILE, DRAWS)
        low, high = np.quantile(draws, [0.025, 0.975])
    return max(float(low), 0.0), min(float(high), 1.0)


LARGEST = 4  # lengths that an exponent is fitted to: shorter ones show what a call costs, not how it grows


class Exponent(NamedTuple):
    """The slope of log cost in log length, and half the width of its 95 % interval."""

    value: float
    half_width: float


class Crossing(NamedTuple):
    """The length from which one cost is the smaller; `at_most` if it is smaller at the shortest length already."""

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
    residual = sum((b - intercept - slope * a) ** 2 for a, b in zip(x, y, strict=True)) / freedom
    spread = sum((a - statistics.fmean(x)) ** 2 for a in x)
    return Exponent(slope, STUDENT_QUANTILES[freedom - 1] * math.sqrt(residual / spread))


def extrapolate(lengths: Sequence[int], costs: Sequence[float], length: int) -> float:
    """Predict a cost from those of the last two lengths; it is assumed to grow at least as the length does."""
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


def student_interval(values: Sequence[float]) -> tuple[float, float]:
    """Return the mean, and half the width of its 95 % interval by Student's t; 0 for a single value."""
    if len(values) < 2:
        return values[0], 0.0
    freedom = len(values) - 1
    quantile = STUDENT_QUANTILES[freedom - 1] if freedom <= len(STUDENT_QUANTILES) else NORMAL_QUANTILE
    return statistics.fmean(values), quantile * statistics.stdev(values) / math.sqrt(len(values))
