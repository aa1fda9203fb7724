"""Paired comparison of two classifiers on the same samples: exact McNemar test and Newcombe's interval."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pytest_mlbench.stats.binomial import cdf
from pytest_mlbench.stats.wilson import wilson


@dataclass(frozen=True)
class Paired:
    """The 2x2 table of per-sample correctness: `lost` was right in `from` and is wrong here."""

    both: int
    lost: int
    gained: int
    neither: int

    @property
    def n(self) -> int:
        """Return the number of samples."""
        return self.both + self.lost + self.gained + self.neither

    @property
    def here(self) -> int:
        """Return how many samples are right here."""
        return self.both + self.gained

    @property
    def there(self) -> int:
        """Return how many samples are right in what is compared with."""
        return self.both + self.lost


def table(here: npt.ArrayLike, there: npt.ArrayLike) -> Paired:
    """Count the paired outcomes of two equally long arrays of correctness. ValueError when lengths differ."""
    mine, other = np.asarray(here, dtype=bool).ravel(), np.asarray(there, dtype=bool).ravel()
    if mine.size != other.size:
        raise ValueError(f"paired samples need equal lengths, got {mine.size} and {other.size}")
    return Paired(
        both=int(np.count_nonzero(mine & other)),
        lost=int(np.count_nonzero(~mine & other)),
        gained=int(np.count_nonzero(mine & ~other)),
        neither=int(np.count_nonzero(~mine & ~other)),
    )


def two_sided(lost: int, gained: int) -> float:
    """Return the exact p-value of "losses and gains are equally likely" against any difference.

    Source: McNemar, Psychometrika 12 (1947), in its exact form: the smaller discordant count is
    Binomial(lost + gained, 1/2). 1 when no sample is discordant.
    """
    return min(1.0, 2 * cdf(min(lost, gained), lost + gained, 0.5))


def one_sided(lost: int, gained: int) -> float:
    """Return the exact p-value against a drop only: P(Binomial(lost + gained, 1/2) >= lost)."""
    return cdf(gained, lost + gained, 0.5)


def difference_interval(pairs: Paired, confidence: float = 0.95) -> tuple[float, float]:
    """Return the interval (low, high) of accuracy here minus accuracy there, as fractions.

    Source: Newcombe, "Improved confidence intervals for the difference between binomial proportions based on
    paired data", Statistics in Medicine 17 (1998) 2635-2650, method 10: the Wilson limits of both accuracies,
    squared and added with the continuity-corrected correlation phi. ValueError when there are no samples.
    """
    n = pairs.n
    p1, p2 = (pairs.here / n, pairs.there / n) if n else (0.0, 0.0)
    low1, high1 = wilson(pairs.here, n, confidence)
    low2, high2 = wilson(pairs.there, n, confidence)
    phi = _phi(pairs)
    delta = _square_and_add(p1 - low1, high2 - p2, phi)
    epsilon = _square_and_add(high1 - p1, p2 - low2, phi)
    return p1 - p2 - delta, p1 - p2 + epsilon


def _square_and_add(one: float, other: float, phi: float) -> float:
    return math.sqrt(max(0.0, one * one - 2 * phi * one * other + other * other))


def _phi(pairs: Paired) -> float:
    margins = pairs.here * (pairs.n - pairs.here) * pairs.there * (pairs.n - pairs.there)
    if not margins:
        return 0.0
    covariance: float = pairs.both * pairs.neither - pairs.lost * pairs.gained
    if covariance > 0:
        covariance = max(0.0, covariance - pairs.n / 2)
    return covariance / math.sqrt(margins)
