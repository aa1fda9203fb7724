"""Two proportions of independent samples: Fisher's exact test, and Newcombe's interval of their difference."""

from __future__ import annotations

import math

from pytest_mlbench.stats.wilson import wilson


def p_less(here: int, n_here: int, there: int, n_there: int) -> float:
    """Return the exact p-value of "both proportions are the same" against "here/n_here is the smaller one".

    Source: Fisher, Journal of the Royal Statistical Society 98 (1935) 39-82. Given how many succeeded together, those
    here are hypergeometric; this is the probability of `here` or fewer. Terms are summed away from `here`, relative to
    the first, until they vanish. ValueError unless 0 <= here <= n_here and the same there; 1 without samples.
    """
    _check(here, n_here)
    _check(there, n_there)
    together = here + there
    if here == min(together, n_here):
        return 1.0
    if here * (n_here + n_there) > together * n_here:  # above the mean the other tail is the shorter one
        return max(0.0, 1.0 - _tail(n_here - here - 1, n_here, n_there - there + 1, n_there))
    return _tail(here, n_here, there, n_there)


def most_found_less(n_here: int, there: int, n_there: int, alpha: float) -> int | None:
    """Return the largest count that p_less() tells at level `alpha` from `there` of `n_there`; None when none is."""
    if p_less(0, n_here, there, n_there) > alpha:
        return None
    low, high = 0, n_here
    while low < high:  # p grows with the count
        middle = (low + high + 1) // 2
        low, high = (middle, high) if p_less(middle, n_here, there, n_there) <= alpha else (low, middle - 1)
    return low


def difference_interval(
    here: int, n_here: int, there: int, n_there: int, confidence: float = 0.95
) -> tuple[float, float]:
    """Return the interval (low, high) of here/n_here minus there/n_there.

    Source: Newcombe, "Interval estimation for the difference between independent proportions: comparison of eleven
    methods", Statistics in Medicine 17 (1998) 873-890, method 10: the Wilson limits of both, squared and added.
    ValueError without samples.
    """
    low1, high1 = wilson(here, n_here, confidence)
    low2, high2 = wilson(there, n_there, confidence)
    p1, p2 = here / n_here, there / n_there
    return p1 - p2 - math.hypot(p1 - low1, high2 - p2), p1 - p2 + math.hypot(high1 - p1, p2 - low2)


def _check(successes: int, n: int) -> None:
    if not 0 <= successes <= n:
        raise ValueError(f"need 0 <= successes <= n, got {successes} of {n}")


def _tail(here: int, n_here: int, there: int, n_there: int) -> float:
    """Return P(X <= here) from the term of `here` downwards; the margins stay."""
    log_first = _log_choose(n_here, here) + _log_choose(n_there, there) - _log_choose(n_here + n_there, here + there)
    total = term = 1.0
    while here > 0 and there < n_there:
        term *= here * (n_there - there) / ((n_here - here + 1) * (there + 1))
        here, there = here - 1, there + 1
        total += term
        if term < total * 1e-17:
            break
    return min(1.0, math.exp(log_first) * total)


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
