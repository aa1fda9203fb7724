"""The Mann-Whitney test of two independent samples, with the shift between them and its interval.

Source: Hollander, Wolfe, Chicken, Nonparametric Statistical Methods, 3rd ed., sections 4.1 to 4.3.
"""

from __future__ import annotations

import itertools
import math
from functools import lru_cache
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from pytest_mlbench.stats.signed_rank import MOST, doubled_ranks, scale

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
    _, passed = _level(m, n, (1 - confidence) / 2)
    if not passed:
        return None
    differences = np.sort(np.subtract.outer(_thinned(one), _thinned(other)), axis=None)
    passed = max(1, passed * differences.size // (m * n))
    return float(differences[passed - 1]), float(differences[-passed])


def smallest_p(m: int, n: int) -> float:
    """Return the smallest p-value that `m` values against `n` can give: that of m values above all the others."""
    return _p_greater(np.arange(n, n + m, dtype=np.float64), np.arange(n, dtype=np.float64))


def values_needed(alpha: float) -> int:
    """Return how many values a side are the fewest whose smallest p-value is at most `alpha` (within 0 and 1)."""
    if not 0 < alpha < 1:
        raise ValueError(f"alpha is a fraction within (0, 1), got {alpha}")
    return next(n for n in itertools.count(1) if 1 <= alpha * math.comb(2 * n, n) * (1 + _ROUNDING))


def detectable(
    x: npt.ArrayLike, y: npt.ArrayLike, alpha: float, margin: float = 0.0, power: float = 0.8
) -> float | None:
    """Return the shift that samples as large and as spread as these would find above `margin` with this power.

    "Find" is p_greater(...) <= alpha. inf when they never can, None when neither has 3 values to tell the spread.
    For normal noise of standard deviation s it is s * (z(1-a) + z(power)) / sqrt(3h/pi - z(1-a)**2 / 8), where h is
    m * n / (m + n) and a the largest level the test has up to alpha: Noether, JASA 82 (1987) 645-647, with Pitman's
    efficiency 3/pi, and the small-sample term of Guenther, The American Statistician 35 (1981) 243-244. Where only
    samples that do not overlap reach alpha, it is what keeps them apart with that probability, if that is more.
    """
    one, other = _finite(x), _finite(y)
    spread = _common_scale(one, other)
    if spread is None:
        return None
    m, n = one.size, other.size
    level, passed = _level(m, n, alpha)
    z = NormalDist().inv_cdf
    room = 3 / math.pi * m * n / (m + n) - z(level) ** 2 / 8 if passed else 0.0
    if room <= 0:
        return math.inf
    effect = (z(power) - z(level)) / math.sqrt(room)
    if passed == 1:
        effect = max(effect, _apart(m, n, power))
    return margin + max(0.0, effect) * spread


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


def _level(m: int, n: int, alpha: float) -> tuple[float, int]:
    """Return the largest level up to alpha that the test has without ties, and how many values of U it takes."""
    if max(m, n) > EXACT:
        deviation = math.sqrt(m * n * (m + n + 1) / 12)
        return alpha, max(0, math.floor(m * n / 2 + NormalDist().inv_cdf(alpha) * deviation))
    if not m or not n:
        return 0.0, 0
    # U = 0, 1, ... is the sum of the ranks less its minimum; doubled ranks go up by two.
    cumulated = np.cumsum(_rank_sums(tuple(range(2, 2 * (m + n) + 1, 2)), m)[m * (m + 1) :: 2])
    passed = int(np.count_nonzero(cumulated <= alpha * (1 + _ROUNDING)))
    return (float(cumulated[passed - 1]) if passed else 0.0), passed


def _common_scale(x: _Array, y: _Array) -> float | None:
    """Return the spread within samples, weighted by their sizes; of one of them when the other is too small."""
    scales = [(values.size, scale(values[:: math.ceil(values.size / MOST)])) for values in (x, y) if values.size]
    known = [(size, spread) for size, spread in scales if spread is not None]
    total = sum(size for size, _ in known)
    return math.sqrt(sum(size * spread**2 for size, spread in known) / total) if known else None


@lru_cache(maxsize=64)
def _apart(m: int, n: int, power: float) -> float:
    """Return by how many standard deviations m normal values must be above n others to be so all with `power`."""
    normal = NormalDist()
    step = 0.05
    places = [step * index for index in range(-160, 161)]
    # The density of the largest of n, times the chance that all m are above it.
    largest = [n * normal.cdf(place) ** (n - 1) * normal.pdf(place) * step for place in places]
    low, high = 0.0, 16.0
    while high - low > 1e-3:
        middle = (low + high) / 2
        chance = sum(weight * normal.cdf(middle - place) ** m for weight, place in zip(largest, places, strict=True))
        low, high = (middle, high) if chance < power else (low, middle)
    return high


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
