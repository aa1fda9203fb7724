"""Binomial tails, computed in log space so that a million trials neither overflow nor take long."""

from __future__ import annotations

import math


def log_pmf(k: int, n: int, p: float) -> float:
    """Return the natural logarithm of P(X = k) for X ~ Binomial(n, p), 0 < p < 1."""
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) + k * math.log(p) + (n - k) * math.log1p(-p)


def cdf(k: int, n: int, p: float) -> float:
    """Return P(X <= k) for X ~ Binomial(n, p).

    The shorter tail is summed away from the mean, relative to its first term, until the terms vanish: about
    ten standard deviations, so O(sqrt(n)) steps. ValueError when n is negative or p is outside (0, 1).
    """
    if n < 0 or not 0 < p < 1:
        raise ValueError(f"need n >= 0 and 0 < p < 1, got n={n}, p={p}")
    if k < 0:
        return 0.0
    if k >= n:
        return 1.0
    if k + 1 > n * p:
        # P(X <= k) = 1 - P(n - X <= n - k - 1), and n - X ~ Binomial(n, 1 - p).
        return max(0.0, 1.0 - _lower_tail(n - k - 1, n, 1 - p))
    return _lower_tail(k, n, p)


def _lower_tail(k: int, n: int, p: float) -> float:
    odds = (1 - p) / p
    total = term = 1.0
    for x in range(k, 0, -1):
        term *= x / (n - x + 1) * odds
        total += term
        if term < total * 1e-17:
            break
    return min(1.0, math.exp(log_pmf(k, n, p)) * total)
