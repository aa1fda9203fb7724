"""A distribution-free confidence interval for a median, from order statistics."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pytest_mlbench.stats.binomial import cdf


def median_interval(values: npt.ArrayLike, confidence: float = 0.95) -> tuple[float, float] | None:
    """Return the interval (low, high) of the median of independent values, None when they are too few.

    With the values in ascending order it is (L[k-1], L[n-k]), k the largest with
    2 * P(Binomial(n, 1/2) <= k - 1) <= 1 - confidence, so its coverage is at least `confidence` whatever
    the distribution. Needs 6 values for 95 % and 8 for 99 %.
    Source: Conover, Practical Nonparametric Statistics, 3rd ed., section 3.2. ValueError on NaN.
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is a fraction within (0, 1), got {confidence}")
    ordered = np.sort(np.asarray(values, dtype=np.float64).ravel())
    if np.isnan(ordered).any():
        raise ValueError("a value is NaN")
    n = int(ordered.size)
    k = 0
    while k < n // 2 and 2 * cdf(k, n, 0.5) <= 1 - confidence:
        k += 1
    return (float(ordered[k - 1]), float(ordered[n - k])) if k else None
