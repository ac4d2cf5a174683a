"""One figure from repeated measurements."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from math import comb, sqrt
from typing import Final

from qmeter_native.model.estimate import Estimate

__all__ = ["median_estimate"]

_NORMAL_FROM: Final = 100


def median_estimate(values: Sequence[float], method: str = "measured") -> Estimate:
    """The median of ``values`` with its 95 % interval, whatever their distribution.

    The interval is from the k-th smallest to the k-th largest, which misses the true median with twice the binomial
    probability of fewer than k heads in n tosses; 6 values or more are needed, fewer give no interval.

    Raises:
        ValueError: There are no values.
    """
    ordered = sorted(values)
    count = len(ordered)
    middle = statistics.median(ordered)
    rank = _rank(count)
    if rank == 0:
        return Estimate(middle, method=method, reason=f"{count} repeats are too few for an interval")
    return Estimate(middle, ordered[rank - 1], ordered[count - rank], method)


def _rank(count: int) -> int:
    """The largest k of which the interval covers 95 %; 0 if there is none."""
    if count > _NORMAL_FROM:
        return int(count / 2 - 0.98 * sqrt(count))  # a binomial's mean and 1.96 of its standard deviations
    missed, rank = 0.0, 0
    while rank < count // 2:
        missed += 2 * comb(count, rank) / 2**count
        if missed > 0.05:
            break
        rank += 1
    return rank
