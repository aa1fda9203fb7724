from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_mlbench.stats.binomial import cdf, log_pmf


def exact(k: int, n: int, p: float) -> float:
    return math.fsum(math.comb(n, x) * p**x * (1 - p) ** (n - x) for x in range(min(k, n) + 1)) if k >= 0 else 0.0


@given(n=st.integers(0, 60), k=st.integers(-2, 62), p=st.sampled_from([0.001, 0.1, 0.25, 0.5, 0.7, 0.99]))
def test_the_lower_tail_is_the_sum_of_its_terms(n: int, k: int, p: float) -> None:
    assert cdf(k, n, p) == pytest.approx(exact(k, n, p), rel=1e-9, abs=1e-14)


def test_far_tails_neither_vanish_nor_overflow() -> None:
    assert cdf(0, 10_000, 0.5) == 0.0
    assert cdf(0, 1000, 0.5) == pytest.approx(0.5**1000, rel=1e-9)
    assert cdf(500_000, 1_000_000, 0.5) == pytest.approx(0.5, abs=1e-3)


@given(n=st.integers(1, 5000), p=st.floats(0.01, 0.99))
def test_the_tail_grows_with_k(n: int, p: float) -> None:
    steps = [cdf(k, n, p) for k in range(0, n + 1, max(1, n // 25))]
    assert all(low <= high + 1e-12 for low, high in itertools.pairwise(steps))
    assert cdf(n, n, p) == 1.0


def test_one_term_is_the_binomial_probability() -> None:
    assert math.exp(log_pmf(3, 10, 0.2)) == pytest.approx(math.comb(10, 3) * 0.2**3 * 0.8**7)


@pytest.mark.parametrize(("n", "p"), [(-1, 0.5), (3, 0.0), (3, 1.0), (3, math.nan)])
def test_arguments_outside_their_range_are_refused(n: int, p: float) -> None:
    with pytest.raises(ValueError, match="need n >= 0"):
        cdf(0, n, p)
