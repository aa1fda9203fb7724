"""Change points of a series, found after the fact: E-divisive, with its permutation test and a veto by effect size.

Source: Matteson and James, "A Nonparametric Approach for Multiple Change Point Analysis of Multivariate Data",
JASA 109 (2014), arXiv 1306.4933, with moment index 1: energy distance, no assumption on the distribution. A step
is only seen once some values of the new level are there, so this is for trends and not for pull requests.

Packages looked at, and why none is used: signal-processing-algorithms (MongoDB's) runs on Python 3.11 with
numpy < 2 only; apache-otava brings a data-warehouse client and some forty other packages; ruptures fits steps by
a penalty, without a test of whether they are any.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

# A change that is significant and yet leaves the two levels mixed is a noisy series, not a step: two modes that
# come in unequal shares look like one (folo-rs/folo#366, which gives the bound).
SUPERIORITY = 0.85
_NUMBERS_AT_ONCE = 2_000_000  # 16 MB for the distances of some permutations together
_ROUNDING = 1e-9
_Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class ChangePoint:
    """A step: `values[index]` is the first of the new level.

    `before` and `after` are the medians from the change point before to this one, and from here to the next.
    `p` is the probability that the series, without any step here, has a split as good as this anywhere.
    """

    index: int
    before: float
    after: float
    p: float


def change_points(
    values: npt.ArrayLike, *, alpha: float = 0.05, min_size: int = 4, permutations: int = 199, seed: int = 0
) -> list[ChangePoint]:
    """Return the steps of a series in its order, oldest value first; none when there are fewer than 2 * min_size.

    Each level has at least `min_size` values, so one or two odd values are no step. The best split of all is tested at
    `alpha`: the values are permuted within the levels found so far and the best split is searched anew, so p
    needs no correction for the choice of the split. Many series at once need a smaller alpha (and
    permutations >= 1 / alpha - 1). The same arguments give the same result. ValueError for a value that is not
    finite, and for fewer permutations than alpha needs.
    """
    series = np.asarray(values, dtype=np.float64).ravel()
    if not np.isfinite(series).all():
        raise ValueError("a value is not finite")
    if min_size < 2:
        raise ValueError(f"min_size must be 2 or more, got {min_size}")
    if not 0 < alpha < 1 or (permutations + 1) * alpha < 1 - _ROUNDING:
        raise ValueError(f"{permutations} permutations cannot give p <= {alpha}: at least 1 / alpha - 1 are needed")
    random = np.random.default_rng(seed)
    found: dict[int, float] = {}
    while True:
        levels = [series[low:high] for low, high in pairwise([0, *sorted(found), series.size])]
        split, p = _best_split(levels, min_size, permutations, alpha, random)
        if split is None:
            break
        found[split] = p
    return _separated(series, found)


def _best_split(
    levels: Sequence[_Array], min_size: int, permutations: int, alpha: float, random: np.random.Generator
) -> tuple[int | None, float]:
    """Return the index of the best split within any level and its p; None when it is not significant."""
    starts = np.cumsum([0, *(level.size for level in levels)])
    best, at = 0.0, -1
    distances = []
    for start, level in zip(starts[:-1], levels, strict=True):
        if level.size < 2 * min_size:
            continue
        apart = np.abs(level[:, None] - level[None, :])
        distances.append(apart)
        gains = _gains(apart[None], min_size)[0]
        row, column = np.unravel_index(int(np.argmax(gains)), gains.shape)
        if gains[row, column] > best:
            best, at = float(gains[row, column]), int(start) + min_size + int(row)
    if at < 0:
        return None, 1.0
    allowed = int(alpha * (permutations + 1) + _ROUNDING) - 1  # permutations that may do as well as the series
    as_good = 0
    for largest in _permuted(distances, min_size, permutations, random):
        as_good += int(np.count_nonzero(largest >= best * (1 - _ROUNDING)))
        if as_good > allowed:  # the rest cannot make it significant again
            return None, 1.0
    return at, (1 + as_good) / (permutations + 1)


def _permuted(
    distances: Sequence[_Array], min_size: int, permutations: int, random: np.random.Generator
) -> Iterator[_Array]:
    """Yield the best gain of some permutations after the other, `permutations` in all."""
    size = sum(apart.size for apart in distances)
    at_once = max(1, min(20, _NUMBERS_AT_ONCE // size))
    for begin in range(0, permutations, at_once):
        count = min(at_once, permutations - begin)
        largest = np.zeros(count)
        for apart in distances:
            order = random.permuted(np.tile(np.arange(len(apart)), (count, 1)), axis=1)
            gains = _gains(apart[order[:, :, None], order[:, None, :]], min_size)
            np.maximum(largest, gains.max(axis=(1, 2)), out=largest)
        yield largest


def _gains(distances: _Array, min_size: int) -> _Array:
    """Return the scaled energy distance of every split, (series, first length, end of the second part).

    `distances` is (series, n, n). A split at `t` parts the first t values from those up to `k`; what comes after
    k may belong to a further level and is left out (the paper's kappa). Row i is t = min_size + i and column j
    is k = 2 * min_size + j; -inf where the second part is too short.
    """
    n = distances.shape[1]
    sums = distances.cumsum(axis=1).cumsum(axis=2)  # [t - 1, k - 1]: all pairs of the first t with the first k
    t = np.arange(min_size, n - min_size + 1)
    k = np.arange(2 * min_size, n + 1)
    first, second = t[:, None], k[None, :] - t[:, None]
    allowed = second >= min_size
    second = np.maximum(second, min_size)  # any value: masked below
    inside = np.diagonal(sums, axis1=1, axis2=2) / 2
    inside_first, inside_both = inside[:, t - 1, None], inside[:, None, k - 1]
    between = sums[:, t[0] - 1 : t[-1], k[0] - 1 : k[-1]] - 2 * inside_first
    # mn/(m+n) * (2/(mn) between - inside_first / C(m, 2) - inside_second / C(n, 2)), terms collected
    on_first = 2 * second / ((first + second) * (first - 1))
    on_second = 2 * first / ((first + second) * (second - 1))
    inside_second = inside_both - inside_first - between
    gains = 2 / (first + second) * between - on_first * inside_first - on_second * inside_second
    return np.where(allowed, gains, -np.inf)


def _separated(series: _Array, found: dict[int, float]) -> list[ChangePoint]:
    """Return the change points whose levels are apart; the weakest is dropped first, and its levels joined."""
    kept = dict(found)
    while kept:
        bounds = [0, *sorted(kept), series.size]
        around = zip(bounds[:-2], bounds[1:-1], bounds[2:], strict=True)
        sides = {at: (series[low:at], series[at:high]) for low, at, high in around}
        weakest = min(sides, key=lambda at: _superiority(*sides[at]))
        if _superiority(*sides[weakest]) >= SUPERIORITY:
            return [
                ChangePoint(at, float(np.median(before)), float(np.median(after)), kept[at])
                for at, (before, after) in sides.items()
            ]
        del kept[weakest]
    return []


def _superiority(one: _Array, other: _Array) -> float:
    """Return the probability that a value of one side is above one of the other, ties half, for the side that wins."""
    above = np.sign(one[:, None] - other[None, :]).mean()
    return 0.5 + abs(float(above)) / 2
