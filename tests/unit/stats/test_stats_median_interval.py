from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_mlbench.stats.median_interval import median_interval


@pytest.mark.parametrize(
    ("n", "confidence", "ranks"),
    [
        # Ranks from 1, worked out from the binomial table: 2 P(X <= 1) is 0.0391 for n = 9, 0.0703 for n = 8.
        (5, 0.95, None),
        (6, 0.95, (1, 6)),
        (8, 0.95, (1, 8)),
        (9, 0.95, (2, 8)),
        (10, 0.95, (2, 9)),
        (20, 0.95, (6, 15)),
        (7, 0.99, None),
        (8, 0.99, (1, 8)),
        (5, 0.9, (1, 5)),
        (100, 0.95, (40, 61)),
    ],
)
def test_the_ranks_are_the_published_ones(n: int, confidence: float, ranks: tuple[int, int] | None) -> None:
    values = np.random.default_rng(n).permutation(n) + 1
    assert median_interval(values, confidence) == ranks


@pytest.mark.parametrize("n", range(6))
def test_fewer_than_six_values_cannot_give_95_percent(n: int) -> None:
    assert median_interval(np.arange(n)) is None


@given(st.lists(st.floats(-1e9, 1e9), min_size=6, max_size=60))
def test_the_interval_contains_the_median_and_is_made_of_values(values: list[float]) -> None:
    interval = median_interval(values)
    assert interval is not None
    assert interval[0] <= np.median(values) <= interval[1]
    assert set(interval) <= set(values)


def test_the_true_median_is_covered_as_often_as_promised() -> None:
    random = np.random.default_rng(11)
    covered = 0
    for _ in range(500):
        low, high = median_interval(random.lognormal(size=15)) or (0, 0)
        covered += low <= 1.0 <= high
    assert covered >= 470


def test_nan_and_percentages_are_refused() -> None:
    with pytest.raises(ValueError, match="NaN"):
        median_interval([1, 2, 3, 4, 5, float("nan")])
    with pytest.raises(ValueError, match="fraction"):
        median_interval([1] * 10, 95)
