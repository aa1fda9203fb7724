"""Percentiles, and MLPerf's early-stopping rule: a one-sided upper confidence bound for a percentile.

Source: mlcommons/inference_policies, inference_rules.adoc, "Early stopping"; loadgen/early_stopping.cc and
results.cc. With tolerance d = 0 the rule reads: for t slow readings the least number of fast ones is the
smallest h with P(Binomial(h + t, 1 - p) <= t) <= 1 - c. A run of n readings may use the largest t >= 1 with
n >= h(t) + t, which is the largest t with P(Binomial(n, 1 - p) <= t) <= 1 - c. LoadGen then discards the
t - 1 highest readings and reports the next one, `L[n - t]` of the ascending list counted from 0.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import numpy.typing as npt

from pytest_mlbench.stats.binomial import cdf

CONFIDENCE = 0.99  # MLPerf's c


def percentile(values: npt.ArrayLike, share: float) -> float:
    """Return MLPerf's plain percentile: `L[floor(n * share)]` of the ascending list, the last one at most.

    `share` is a fraction (0.99, not 99). ValueError when there are no values or share is outside [0, 1].
    """
    ordered = np.asarray(values, dtype=np.float64).ravel()
    if not ordered.size:
        raise ValueError("no values")
    if not 0 <= share <= 1:
        raise ValueError(f"share must be within 0..1, got {share}")
    # Through the decimal text, because 100 * 0.29 is 28.999... in binary.
    rank = min(int(ordered.size * Fraction(str(share))), ordered.size - 1)
    return float(np.partition(ordered, rank)[rank])


def discards(n: int, percentile: float, confidence: float = CONFIDENCE) -> int | None:
    """Return how many of the highest of `n` readings LoadGen would discard (t - 1), None below the minimum.

    `percentile` is a fraction. ValueError when a fraction is outside (0, 1).
    """
    t = _largest_t(n, percentile, confidence)
    return None if t is None else t - 1


def upper_bound(values: npt.ArrayLike, percentile: float, confidence: float = CONFIDENCE) -> float | None:
    """Return the upper confidence bound of a percentile, None when there are too few readings for it.

    The result is a reading: the largest that is left after `discards(n, percentile)` have been taken away.
    """
    ordered = np.asarray(values, dtype=np.float64).ravel()
    t = _largest_t(ordered.size, percentile, confidence)
    if t is None:
        return None
    rank = ordered.size - t
    return float(np.partition(ordered, rank)[rank])


def minimum_n(percentile: float, confidence: float = CONFIDENCE) -> int:
    """Return the least number of readings that gives an upper bound (t = 1): 64 for p90, 662 for p99."""
    _check(percentile, confidence)
    high = 2
    while not _enough(1, high, percentile, confidence):
        high *= 2
    low = high // 2  # not enough (or 1, which never is)
    while high - low > 1:
        middle = (low + high) // 2
        if _enough(1, middle, percentile, confidence):
            high = middle
        else:
            low = middle
    return high


def _largest_t(n: int, percentile: float, confidence: float) -> int | None:
    _check(percentile, confidence)
    if not _enough(1, n, percentile, confidence):
        return None
    # The tail grows with t, so bisect; t = n gives a tail of 1 and is never enough.
    low, high = 1, n
    while high - low > 1:
        middle = (low + high) // 2
        if _enough(middle, n, percentile, confidence):
            low = middle
        else:
            high = middle
    return low


def _enough(t: int, n: int, percentile: float, confidence: float) -> bool:
    return n > t and cdf(t, n, 1 - percentile) <= 1 - confidence


def _check(percentile: float, confidence: float) -> None:
    if not 0 < percentile < 1:
        raise ValueError(f"percentile is a fraction within (0, 1), got {percentile}")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is a fraction within (0, 1), got {confidence}")
