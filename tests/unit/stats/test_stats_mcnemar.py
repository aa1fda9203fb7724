from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_mlbench.stats.mcnemar import Paired, difference_interval, one_sided, table, two_sided


def test_the_table_counts_each_pair_once() -> None:
    here = [True, True, False, False, False, True]
    there = [True, False, True, True, False, True]
    pairs = table(here, there)
    assert pairs == Paired(both=2, lost=2, gained=1, neither=1)
    assert (pairs.n, pairs.here, pairs.there) == (6, 3, 4)


def test_arrays_of_different_length_are_refused() -> None:
    with pytest.raises(ValueError, match="equal lengths, got 3 and 2"):
        table([True] * 3, [True] * 2)


@pytest.mark.parametrize(
    ("lost", "gained", "p_two", "p_drop"),
    [
        (0, 0, 1.0, 1.0),
        (5, 0, 2 / 32, 1 / 32),
        (0, 5, 2 / 32, 1.0),
        (1, 1, 1.0, 0.75),
        # Bentur et al. 2009 in Fagerland, Lydersen, Laake 2014: 1 against 7, exact P = 0.0703.
        (7, 1, 0.0703125, 0.03515625),
        (1, 7, 0.0703125, 1 - 1 / 256),
        (16, 6, 0.05248, 0.02624),
    ],
)
def test_p_values_are_exact(lost: int, gained: int, p_two: float, p_drop: float) -> None:
    assert two_sided(lost, gained) == pytest.approx(p_two, abs=5e-6)
    assert one_sided(lost, gained) == pytest.approx(p_drop, abs=5e-6)


@given(st.integers(0, 60), st.integers(0, 60))
def test_p_values_are_sums_of_the_fair_binomial(lost: int, gained: int) -> None:
    n = lost + gained
    tail = math.fsum(math.comb(n, x) for x in range(lost, n + 1)) / 2**n
    assert one_sided(lost, gained) == pytest.approx(tail)
    assert two_sided(lost, gained) == two_sided(gained, lost)
    assert two_sided(lost, gained) == pytest.approx(min(1, 2 * min(one_sided(lost, gained), one_sided(gained, lost))))


@pytest.mark.parametrize(
    ("pairs", "low", "high"),
    [
        # R contingencytables, tests of chapter 8: (59, 6, 16, 80) gives -0.0621 (-0.1186 to -0.0046).
        (Paired(both=59, lost=16, gained=6, neither=80), -0.1186, -0.0046),
        (Paired(both=59, lost=6, gained=16, neither=80), 0.0046, 0.1186),
        # Fagerland, Lydersen, Laake 2014: (1, 1, 7, 12) gives -0.286 (-0.507 to -0.026).
        (Paired(both=1, lost=7, gained=1, neither=12), -0.507, -0.026),
    ],
)
def test_newcombes_interval_has_the_published_values(pairs: Paired, low: float, high: float) -> None:
    digits = 5e-5 if len(str(low)) > 6 else 5e-4
    assert difference_interval(pairs) == pytest.approx((low, high), abs=digits)


@given(st.tuples(*[st.integers(0, 400)] * 4).filter(any))
def test_the_interval_surrounds_the_difference_and_mirrors(counts: tuple[int, int, int, int]) -> None:
    pairs = Paired(*counts)
    low, high = difference_interval(pairs)
    assert -1 <= low <= (pairs.gained - pairs.lost) / pairs.n + 1e-12
    assert (pairs.gained - pairs.lost) / pairs.n - 1e-12 <= high <= 1
    mirrored = Paired(pairs.both, pairs.gained, pairs.lost, pairs.neither)
    assert difference_interval(mirrored) == pytest.approx((-high, -low), abs=1e-12)


def test_pairing_is_tighter_than_two_independent_intervals() -> None:
    alike = difference_interval(Paired(both=700, lost=10, gained=5, neither=285))
    shuffled = difference_interval(Paired(both=500, lost=210, gained=205, neither=85))
    assert alike[1] - alike[0] < (shuffled[1] - shuffled[0]) / 3


def test_no_change_at_all_still_has_some_width() -> None:
    low, high = difference_interval(Paired(both=100, lost=0, gained=0, neither=0))
    assert low == -high
    assert 0.02 < high < 0.06


def test_no_samples_have_no_interval() -> None:
    with pytest.raises(ValueError, match="n > 0"):
        difference_interval(Paired(0, 0, 0, 0))


def test_a_known_drop_is_covered_about_95_times_in_100() -> None:
    random = np.random.default_rng(3)
    covered = 0
    for _ in range(300):
        there = random.random(400) < 0.9
        here = there & (random.random(400) >= 0.05)
        low, high = difference_interval(table(here, there))
        covered += low <= -0.045 <= high
    assert covered >= 275
