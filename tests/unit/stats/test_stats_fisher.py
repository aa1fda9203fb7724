from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from pytest_mlbench.stats.fisher import difference_interval, most_found_less, p_less
from pytest_mlbench.stats.wilson import wilson

COUNTS = st.tuples(st.integers(0, 40), st.integers(0, 40)).map(sorted)


def enumerated(here: int, n_here: int, there: int, n_there: int) -> float:
    """Every way to share the successes out."""
    together = here + there
    least = max(0, together - n_there)
    ways = sum(math.comb(n_here, k) * math.comb(n_there, together - k) for k in range(least, here + 1))
    return ways / math.comb(n_here + n_there, together)


@pytest.mark.parametrize(
    ("here", "n_here", "there", "n_there", "p"),
    [
        # Fisher 1935: convictions of twins of criminals, 2 of 17 against 10 of 13; R's fisher.test gives 0.0004652.
        (2, 17, 10, 13, 0.0004652),
        # The lady tasting tea, 1 of 4 against 3 of 4.
        (1, 4, 3, 4, 17 / 70),
        (3, 4, 1, 4, 69 / 70),
        (0, 10, 0, 10, 1.0),
        (10, 10, 10, 10, 1.0),
        (0, 5, 5, 5, 1 / 252),
        (0, 0, 3, 9, 1.0),
    ],
)
def test_p_values_are_the_published_ones(here, n_here, there, n_there, p):
    assert p_less(here, n_here, there, n_there) == pytest.approx(p, rel=1e-4)


@given(COUNTS, COUNTS)
def test_p_is_the_share_of_all_ways(one, other):
    here, n_here = one
    there, n_there = other
    assert p_less(here, n_here, there, n_there) == pytest.approx(enumerated(here, n_here, there, n_there), abs=1e-12)


@given(COUNTS, COUNTS)
def test_successes_of_one_are_failures_of_the_other(one, other):
    (here, n_here), (there, n_there) = one, other
    mirrored = p_less(n_there - there, n_there, n_here - here, n_here)
    assert p_less(here, n_here, there, n_there) == pytest.approx(mirrored, abs=1e-12)


def test_many_samples_neither_overflow_nor_take_long():
    n = 10**9
    assert p_less(n // 2, n, n // 2, n) == pytest.approx(0.5, abs=1e-4)
    # A difference of 4.5 standard deviations.
    lost = round(4.5 * math.sqrt(n / 2))
    assert p_less(n // 2 - lost, n, n // 2, n) == pytest.approx(3.4e-6, rel=0.02)
    assert p_less(0, n, n, n) == 0.0


@pytest.mark.parametrize("counts", [(-1, 4, 1, 4), (5, 4, 1, 4), (1, 4, 5, 4), (1, 4, -1, 4), (0, -1, 0, 4)])
def test_counts_that_cannot_be_are_refused(counts):
    with pytest.raises(ValueError, match="need 0 <= successes <= n, got"):
        p_less(*counts)


def test_false_alarms_are_no_more_than_promised():
    random = np.random.default_rng(4)
    hits = random.binomial(360, 0.95, size=(2000, 2))
    alarms = sum(p_less(int(here), 360, int(there), 360) <= 0.05 for here, there in hits)
    assert 20 <= alarms <= 105  # exact tests of counts stay below their level


class TestMostFoundLess:
    @given(COUNTS, st.sampled_from([0.05, 0.01, 0.001]))
    def test_is_the_last_count_that_is_told_apart(self, counts, alpha):
        there, n = counts
        found = most_found_less(n, there, n, alpha)
        expected = [here for here in range(n + 1) if p_less(here, n, there, n) <= alpha]
        assert found == (max(expected) if expected else None)

    def test_none_where_no_count_can_be(self):
        assert most_found_less(3, 3, 3, 0.01) is None
        assert most_found_less(5, 5, 5, 0.01) == 0


class TestDifferenceInterval:
    @pytest.mark.parametrize(
        ("counts", "expected"),
        # Newcombe 1998, table II, method 10.
        [
            ((56, 70, 48, 80), (0.0524, 0.3339)),
            ((9, 10, 3, 10), (0.1705, 0.8090)),
            ((6, 7, 2, 7), (0.0582, 0.8062)),
            ((5, 56, 0, 29), (-0.0381, 0.1926)),
            ((10, 10, 0, 20), (0.6791, 1.0000)),
            ((10, 10, 0, 10), (0.6075, 1.0000)),
        ],
    )
    def test_is_the_published_one(self, counts, expected):
        assert difference_interval(*counts) == pytest.approx(expected, abs=5e-5)

    @given(COUNTS, COUNTS)
    def test_surrounds_the_difference_and_mirrors(self, one, other):
        (here, n_here), (there, n_there) = one, other
        assume(n_here and n_there)
        low, high = difference_interval(here, n_here, there, n_there)
        assert -1 - 1e-12 <= low <= here / n_here - there / n_there <= high <= 1 + 1e-12
        mirrored = difference_interval(there, n_there, here, n_here)
        assert mirrored == pytest.approx((-high, -low), abs=1e-12)

    def test_is_wider_than_that_of_either_alone(self):
        low, high = difference_interval(350, 360, 342, 360)
        alone_low, alone_high = wilson(350, 360)
        assert high - low > alone_high - alone_low

    def test_without_samples_there_is_none(self):
        with pytest.raises(ValueError, match="need 0 <= successes <= n and n > 0"):
            difference_interval(0, 0, 1, 2)
