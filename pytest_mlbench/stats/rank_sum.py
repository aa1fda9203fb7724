"""The Mann-Whitney test of two independent samples, with the shift between them and its interval.

Source: Hollander, Wolfe, Chicken, Nonparametric Statistical Methods, 3rd ed., sections 4.1 to 4.3.
"""

from __future__ import annotations

import math
from functools import lru_cache
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from pytest_mlbench.stats.signed_rank import doubled_ranks

EXACT = 20  # values a side up to which the distribution is exact
_THINNED = 2000  # values a side that stand for more of them in a shift
_ROUNDING = 1e-9  # (1 - 0.9) / 2 is a little below 1 / 20
_Array = npt.NDArray[np.float64]


def p_greater(x: npt.ArrayLike, y: npt.ArrayLike) -> float:
    """Return the p-value of "x and y are alike" against "x is greater". 1 when either has no values.

    Up to 20 values a side it is exact, over the mean ranks at hand when values are equal; above, normal with
    the corrections for ties and continuity. ValueError on NaN and infinity.
    """
    return _p_greater(_finite(x), _finite(y))


def p_two_sided(x: npt.ArrayLike, y: npt.ArrayLike) -> float:
    """Return the p-value of "x and y are alike" against any shift: twice the smaller tail, at most 1."""
    one, other = _finite(x), _finite(y)
    return min(1.0, 2 * min(_p_greater(one, other), _p_greater(other, one)))


def shift(x: npt.ArrayLike, y: npt.ArrayLike) -> float:
    """Return by how much x is above y: the median of all differences (Hodges-Lehmann). ValueError without values.

    More than 2000 values of a sample are represented by 2000 of them, evenly spaced in order.
    """
    one, other = _thinned(_finite(x)), _thinned(_finite(y))
    if not one.size or not other.size:
        raise ValueError("a sample without values has no shift")
    return float(np.median(np.subtract.outer(one, other)))


def interval(x: npt.ArrayLike, y: npt.ArrayLike, confidence: float = 0.95) -> tuple[float, float] | None:
    """Return the two-sided interval (low, high) of the shift, two ordered differences; None for too few values.

    Needs 4 values a side for 95 %. Exact without ties up to 20 values a side, above from the normal
    approximation; thinned as in shift().
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is a fraction within (0, 1), got {confidence}")
    one, other = _finite(x), _finite(y)
    m, n = one.size, other.size
    tail = (1 - confidence) / 2
    if max(m, n) <= EXACT:
        # U = 0, 1, ... is the sum of the ranks less its minimum; doubled ranks go up by two.
        cumulated = np.cumsum(_rank_sums(tuple(range(2, 2 * (m + n) + 1, 2)), m)[m * (m + 1) :: 2])
        passed = int(np.count_nonzero(cumulated <= tail * (1 + _ROUNDING))) if m and n else 0
    else:
        deviation = math.sqrt(m * n * (m + n + 1) / 12)
        passed = max(0, math.floor(m * n / 2 + NormalDist().inv_cdf(tail) * deviation))
    if not passed:
        return None
    differences = np.sort(np.subtract.outer(_thinned(one), _thinned(other)), axis=None)
    passed = max(1, passed * differences.size // (m * n))
    return float(differences[passed - 1]), float(differences[-passed])


def _p_greater(x: _Array, y: _Array) -> float:
    if not x.size or not y.size:
        return 1.0
    ranks = doubled_ranks(np.concatenate([x, y]))
    found = int(ranks[: x.size].sum())
    if max(x.size, y.size) <= EXACT:
        return min(1.0, float(_rank_sums(tuple(sorted(ranks.tolist())), x.size)[found:].sum()))
    return _normal_tail(ranks, found, x.size)


def _normal_tail(ranks: npt.NDArray[np.int64], found: int, m: int) -> float:
    """Return the approximate P(sum of m doubled ranks >= found); 1 when all ranks are equal."""
    total = ranks.size
    _, ties = np.unique(ranks, return_counts=True)
    tied = float((ties.astype(np.float64) ** 3 - ties).sum()) / (total * (total - 1))
    variance = m * (total - m) / 12 * (total + 1 - tied)
    if variance <= 0:
        return 1.0
    above = found / 2 - m * (total + 1) / 2 - 0.5
    return 0.5 * math.erfc(above / math.sqrt(2 * variance))


@lru_cache(maxsize=64)
def _rank_sums(ranks: tuple[int, ...], m: int) -> _Array:
    """Return P(sum = s) for s = 0, 1, ... of m ranks drawn without replacement."""
    ways = np.zeros((m + 1, sum(ranks) + 1))
    ways[0, 0] = 1.0
    for rank in ranks:
        # One more of them drawn, from the fullest down, so that no rank is drawn twice.
        ways[1:, rank:] += ways[:-1, :-rank].copy()
    found: _Array = ways[m] / math.comb(len(ranks), m)
    return found


def _thinned(values: _Array) -> _Array:
    if values.size <= _THINNED:
        return values
    places = np.arange(_THINNED) * (values.size / _THINNED) + values.size / _THINNED / 2
    found: _Array = np.sort(values)[places.astype(np.int64)]
    return found


def _finite(values: npt.ArrayLike) -> _Array:
    found = np.asarray(values, dtype=np.float64).ravel()
    if not np.isfinite(found).all():
        raise ValueError("a value is not finite")
    return found
