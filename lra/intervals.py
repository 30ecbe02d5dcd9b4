"""How sure an accuracy is: the spread over seeds and the size of the test set."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

NORMAL_QUANTILE = 1.959964
# 97.5 % quantiles of Student's t for 1, 2, ... degrees of freedom, to three decimals; beyond them the normal's serves.
STUDENT_QUANTILES = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131,
    2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)  # fmt: skip


def sampling_half_width(accuracy: float, num_test: int) -> float:
    """Half the width of the 95 % interval that the size of the test set alone implies (normal approximation)."""
    return NORMAL_QUANTILE * math.sqrt(accuracy * (1 - accuracy) / num_test)


def half_width(accuracies: Sequence[float], num_test: int) -> float:
    """Half the width of a 95 % interval for the mean accuracy of runs that differ in their seed alone.

    Two independent parts are added in squares: Student's interval of the mean over the seeds (nothing is known of it
    from a single run), and the sampling error of the test set, which all seeds share and more of them do not reduce.
    """
    runs = len(accuracies)
    over_seeds = 0.0
    if runs > 1:
        quantile = STUDENT_QUANTILES[runs - 2] if runs - 2 < len(STUDENT_QUANTILES) else NORMAL_QUANTILE
        over_seeds = quantile * statistics.stdev(accuracies) / math.sqrt(runs)
    return math.hypot(over_seeds, sampling_half_width(statistics.fmean(accuracies), num_test))
