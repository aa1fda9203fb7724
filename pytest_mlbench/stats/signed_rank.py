"""Wilcoxon's signed-rank test for one value per round, with the estimate and the bounds that belong to it.

Everything is exact: no normal approximation, since a gate has 6 to 20 rounds. Values are differences or
log-ratios, one per round; the test assumes nothing but that they are independent and symmetric under H0.
Source: Hollander, Wolfe, Chicken, Nonparametric Statistical Methods, 3rd ed., sections 3.1 to 3.3.
"""

from __future__ import annotations

import math
from functools import lru_cache
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

MOST = 500  # values; the distribution takes O(n^3) steps

# Distance of two values of a normal distribution: what makes its median and its mean the standard deviation.
_SHAMOS = 1 / (math.sqrt(2) * NormalDist().inv_cdf(0.75))
_GINI = math.sqrt(math.pi) / 2
_Array = npt.NDArray[np.float64]


def p_greater(values: npt.ArrayLike, margin: float = 0.0) -> float:
    """Return the exact p-value of "the median is at most `margin`" against "it is greater". 1 without values.

    Equal distances from the margin share their mean rank, and the distribution is that of all signs over the
    ranks at hand. A value equal to the margin keeps its rank (Pratt) and counts as being below: dropping it
    would let six slower rounds beside fourteen equal ones pass for a slowdown. So the result is never smaller
    than with Pratt's own distribution. ValueError for a value that is not finite, or more than 500 values.
    """
    away = _finite(values) - margin
    if not away.size:
        return 1.0
    ranks = doubled_ranks(np.abs(away))
    return min(1.0, float(_distribution(tuple(sorted(ranks.tolist())))[int(ranks[away > 0].sum()) :].sum()))


def hodges_lehmann(values: npt.ArrayLike) -> float:
    """Return the median of the means of all pairs, each value with itself among them. ValueError without values."""
    found = _finite(values)
    if not found.size:
        raise ValueError("no values have no estimate")
    return float(np.median(_walsh(found)))


def lower_bound(values: npt.ArrayLike, confidence: float) -> float:
    """Return the exact lower bound of the median with one-sided `confidence`; -inf when values are too few.

    It is an ordered mean of pairs. Without ties it is above a margin exactly when p_greater(values, margin)
    is at most 1 - confidence.
    """
    found = _finite(values)
    index = _bound_index(found.size, 1 - _within(confidence))
    return -math.inf if index is None else float(np.sort(_walsh(found))[index])


def upper_bound(values: npt.ArrayLike, confidence: float) -> float:
    """Return the exact upper bound of the median with one-sided `confidence`; inf when values are too few."""
    return -lower_bound(-_finite(values), confidence)


def interval(values: npt.ArrayLike, confidence: float = 0.95) -> tuple[float, float] | None:
    """Return the two-sided interval (low, high) of the median; None when values are too few (6 for 95 %)."""
    one_sided = 1 - (1 - _within(confidence)) / 2
    low = lower_bound(values, one_sided)
    return None if low == -math.inf else (low, upper_bound(values, one_sided))


def rounds_needed(alpha: float) -> int:
    """Return the smallest number of rounds whose smallest p-value, 2**-n, is at most `alpha` (within 0 and 1)."""
    # alpha is fraction * 2**exponent with 1/2 <= fraction < 1, so 2**(exponent - 1) is the first power below.
    return 1 - math.frexp(_within(alpha, "alpha"))[1]


def detectable(values: npt.ArrayLike, n: int, alpha: float, margin: float = 0.0, power: float = 0.8) -> float | None:
    """Return the median that `n` values as spread as these would find above `margin` with this power, in their unit.

    "Find" is p_greater(...) <= alpha. inf when n values never can (2**-n > alpha), None for fewer than 3 values;
    when all values are equal it is the margin, which says that the spread was not seen, not that there is none.
    For normal noise of standard deviation s it is s * (z(1-a) + z(power)) / sqrt(3n/pi - z(1-a)**2 / 2), with a
    the largest level the exact test has up to alpha: Noether, JASA 82 (1987) 645-647, with Pitman's efficiency
    3/pi, and the small-sample term of Guenther, The American Statistician 35 (1981) 243-244. Where only n
    positive values reach alpha, their probability gives the answer if it is larger: s * z(power**(1/n)).
    """
    within, reachable = _within(power, "power"), _bound_index(n, _within(alpha, "alpha"))
    spread = scale(values)
    if spread is None:
        return None
    if reachable is None:
        return math.inf
    z = NormalDist().inv_cdf
    attained = -z(float(_distribution(tuple(range(1, n + 1)))[: reachable + 1].sum()))
    effect = (attained + z(within)) / math.sqrt(3 / math.pi * n - attained**2 / 2)
    if reachable == 0:
        effect = max(effect, z(within ** (1 / n)))
    return margin + max(0.0, effect) * spread


def scale(values: npt.ArrayLike) -> float | None:
    """Return the robust spread of values, a standard deviation for normal ones; None for fewer than 3.

    Shamos: 1.048 times the median distance of all pairs. 29 % of outliers do not spoil it, and with few values
    it is on average too large (10 % for 6), not too small. Values that repeat could bring it to 0, so it is
    never below half of what the mean distance of all pairs says (Gini), which is 0 only when all are equal.
    """
    found = _finite(values)
    if found.size < 3:
        return None
    first, second = np.triu_indices(found.size, 1)
    distances = np.abs(found[first] - found[second])
    return max(_SHAMOS * float(np.median(distances)), _GINI * float(np.mean(distances)) / 2)


def doubled_ranks(sizes: _Array) -> npt.NDArray[np.int64]:
    """Return twice the rank of each value, counted from 1; equal ones share their mean rank. Whole numbers."""
    _, inverse, counts = np.unique(sizes, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    doubled: npt.NDArray[np.int64] = (2 * last - counts + 1)[inverse.ravel()]
    return doubled


@lru_cache(maxsize=32)
def _distribution(ranks: tuple[int, ...]) -> _Array:
    """Return P(sum of the ranks with a plus sign = s) for s = 0, 1, ...; each sign is a fair coin."""
    found = np.ones(1)
    for rank in ranks:
        longer = np.zeros(found.size + rank)
        longer[: found.size] += found / 2
        longer[rank:] += found / 2
        found = longer
    return found


@lru_cache(maxsize=64)
def _bound_index(n: int, alpha: float) -> int | None:
    """Return which mean of a pair, in ascending order from 0, is the lower bound at level alpha; None if none is."""
    if n > MOST:
        raise ValueError(f"takes at most {MOST} values, one per round, got {n}")
    tail = np.cumsum(_distribution(tuple(range(1, n + 1))))[:-1]
    passed = int(np.count_nonzero(tail <= alpha))
    return passed - 1 if passed else None


def _walsh(values: _Array) -> _Array:
    """Return the means of all pairs i <= j."""
    halves = values / 2  # first, so that huge values do not overflow
    first, second = np.triu_indices(values.size)
    found: _Array = halves[first] + halves[second]
    return found


def _finite(values: npt.ArrayLike) -> _Array:
    found = np.asarray(values, dtype=np.float64).ravel()
    if not np.isfinite(found).all():
        raise ValueError("a value is not finite")
    if found.size > MOST:
        raise ValueError(f"takes at most {MOST} values, one per round, got {found.size}")
    return found


def _within(share: float, name: str = "confidence") -> float:
    if not 0 < share < 1:
        raise ValueError(f"{name} is a fraction within (0, 1), got {share}")
    return share
