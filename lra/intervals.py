"""How sure an accuracy is: the spread over seeds and the size of the test set."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

import numpy as np

NORMAL_QUANTILE = 1.959964
DRAWS = 20_000
# 97.5 % quantiles of Student's t for 1, 2, ... degrees of freedom, to three decimals; beyond them the normal's serves.
STUDENT_QUANTILES = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131,
    2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)  # fmt: skip


def sampling_half_width(accuracy: float, num_test: int) -> float:
    """Half the width of the 95 % interval that the size of the test set alone implies (normal approximation)."""
    return NORMAL_QUANTILE * math.sqrt(accuracy * (1 - accuracy) / num_test)


def mean_interval(accuracies: Sequence[float], num_test: int) -> tuple[float, float]:
    """Bound the mean accuracy of runs that differ in their seed alone: a bootstrap 95 % interval, cut to [0, 1].

    Two independent errors are added draw by draw:

    - over seeds: the mean of as many runs, drawn with replacement. Of few runs that is too narrow, so its distance from
      the mean is stretched by sqrt(n / (n - 1)), for the spread around a mean that was itself estimated, and by the
      ratio of Student's quantile to the normal's; for many runs both are 1. A lopsided spread stays lopsided. Nothing
      is known of it from a single run.
    - over test examples: a normal draw with the binomial deviation of the test set. All seeds share that set, so more
      of them do not reduce it.

    Runs on one test set also differ by their luck with its examples, which is counted in both: the interval is rather
    too wide than too narrow. The draws are seeded; the same runs give the same interval.
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
