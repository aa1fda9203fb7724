from __future__ import annotations

import itertools
import math
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from pytest_mlbench.stats.rank_sum import (
    detectable,
    interval,
    p_greater,
    p_two_sided,
    shift,
    smallest_p,
    values_needed,
)
from pytest_mlbench.stats.signed_rank import scale

FEW = st.lists(st.integers(-3, 3).map(float), min_size=1, max_size=5)
MANY = st.lists(st.integers(-1000, 1000).map(float), min_size=1, max_size=30)
# Hollander & Wolfe, table 4.1: permeability of human chorioamnion at term and at 12 to 26 weeks.
TERM = [0.80, 0.83, 1.89, 1.04, 1.45, 1.38, 1.91, 1.64, 0.73, 1.46]
EARLY = [1.15, 0.88, 0.90, 0.74, 1.21]


def enumerated(x: list[float], y: list[float]) -> float:
    """Every way to draw len(x) of all midranks."""
    both = [*x, *y]
    ranks = [sum(other < one for other in both) + (sum(other == one for other in both) + 1) / 2 for one in both]
    found = sum(ranks[: len(x)])
    sums = [sum(chosen) for chosen in itertools.combinations(ranks, len(x))]
    return sum(total >= found for total in sums) / len(sums)


class TestP:
    def test_is_the_published_one(self):
        # Hollander & Wolfe, example 4.1: the five have rank sum 30, one-sided P = .127.
        assert p_greater(TERM, EARLY) == pytest.approx(0.127, abs=5e-4)
        assert p_two_sided(TERM, EARLY) == pytest.approx(0.254, abs=1e-3)

    @pytest.mark.parametrize(
        ("a_side", "smallest"),
        # The smallest two-sided p-value: 2 of all ways to choose the half.
        [(4, 0.029), (5, 0.0079), (6, 0.0022), (7, 0.00058), (8, 0.00016)],
    )
    def test_has_a_smallest_value_for_each_size(self, a_side, smallest):
        x, y = np.arange(a_side) + 100.0, np.arange(a_side)
        assert p_two_sided(x, y) == p_two_sided(y, x) == pytest.approx(2 / math.comb(2 * a_side, a_side))
        assert p_two_sided(x, y) == pytest.approx(smallest, rel=0.05)

    @given(FEW, FEW)
    def test_is_the_enumerated_one_with_ties(self, x, y):
        assert p_greater(x, y) == pytest.approx(enumerated(x, y), abs=1e-12)

    @given(MANY, MANY)
    def test_does_not_depend_on_unit_order_and_place(self, x, y):
        moved = [2 * value + 8 for value in reversed(x)]
        assert p_greater(moved, [2 * value + 8 for value in y]) == p_greater(x, y)
        assert p_greater([-value for value in y], [-value for value in x]) == pytest.approx(p_greater(x, y), abs=1e-12)
        assert p_two_sided(x, y) == p_two_sided(y, x)

    @given(MANY, MANY, st.integers(0, 500))
    def test_falls_when_x_is_raised(self, x, y, by):
        assert p_greater([value + by for value in x], y) <= p_greater(x, y) + 0.05
        assert p_greater([value + 3000 for value in x], y) <= p_greater(x, y) + 1e-12

    def test_of_many_values_is_normal_with_continuity_and_ties(self):
        x, y = [2.5] * 5 + [float(k) for k in range(20)], [1.5] * 10 + [float(k) for k in range(12)]
        wins = sum((a > b) + (a == b) / 2 for a in x for b in y)
        # Ties: 2.5 five times, 1.5 ten times, 0 to 11 twice.
        tied = (5**3 - 5 + 10**3 - 10 + 12 * (2**3 - 2)) / (47 * 46)
        deviation = math.sqrt(25 * 22 / 12 * (48 - tied))
        expected = 1 - NormalDist().cdf((wins - 25 * 22 / 2 - 0.5) / deviation)
        assert p_greater(x, y) == pytest.approx(expected, rel=1e-12)

    @pytest.mark.parametrize(("m", "n"), [(20, 20), (21, 20), (21, 21), (5, 21)])
    def test_hardly_jumps_where_the_normal_approximation_begins(self, m, n):
        x, y = np.arange(m) + 0.45, np.arange(n) - 3.0
        exact = p_greater(x[:20], y[:20])
        assert p_greater(x, y) == pytest.approx(exact, abs=0.08)

    def test_of_samples_without_values_or_all_equal_is_one(self):
        for x, y in ([], [1.0]), ([1.0], []), ([], []):
            assert p_greater(x, y) == p_two_sided(x, y) == 1.0
        assert p_greater([0.5] * 8, [0.5] * 8) == 1.0
        assert p_greater([0.5] * 80, [0.5] * 80) == p_two_sided([0.5] * 80, [0.5] * 80) == 1.0

    @pytest.mark.parametrize("bad", [float("nan"), float("inf")])
    def test_needs_finite_values(self, bad):
        for function in (p_greater, p_two_sided, shift, interval):
            with pytest.raises(ValueError, match="a value is not finite"):
                function([1.0, bad], [1.0])
            with pytest.raises(ValueError, match="a value is not finite"):
                function([1.0], [bad])

    def test_false_alarms_are_as_many_as_promised(self):
        random = np.random.default_rng(8)
        small = sum(p_two_sided(random.standard_normal(7), random.standard_normal(7)) <= 0.05 for _ in range(2000))
        large = sum(p_two_sided(random.standard_normal(40), random.standard_normal(40)) <= 0.05 for _ in range(2000))
        assert 55 <= small <= 100  # attained level 0.0379
        assert 70 <= large <= 130

    def test_many_values_take_no_more_than_sorting(self):
        random = np.random.default_rng(9)
        x, y = random.standard_normal(50_000) + 0.05, random.standard_normal(50_000)
        assert p_two_sided(x, y) < 1e-9


class TestShiftAndInterval:
    def test_are_the_published_ones(self):
        # Hollander & Wolfe, examples 4.3 and 4.4: estimate .305, 96 % interval (-.15, .76).
        assert shift(TERM, EARLY) == pytest.approx(0.305)
        assert interval(TERM, EARLY, 0.96) == pytest.approx((-0.15, 0.76))

    @pytest.mark.parametrize(("confidence", "a_side"), [(0.9, 3), (0.95, 4), (0.99, 5), (0.999, 7)])
    def test_interval_needs_a_number_of_values(self, confidence, a_side):
        assert interval(np.arange(a_side - 1), np.arange(a_side - 1), confidence) is None
        assert interval(np.arange(a_side), np.arange(a_side), confidence) == (1.0 - a_side, a_side - 1.0)

    @pytest.mark.parametrize(("x", "y"), [([], []), ([], [1.0] * 30), ([1.0], [2.0] * 30), ([1.0], [2.0])])
    def test_too_few_values_have_no_interval(self, x, y):
        assert interval(x, y) is None
        if not x:
            with pytest.raises(ValueError, match="a sample without values has no shift"):
                shift(x, y)

    @given(MANY, MANY, st.sampled_from([0.8, 0.95]))
    def test_interval_surrounds_the_estimate_and_mirrors(self, x, y, confidence):
        found = interval(x, y, confidence)
        assume(found is not None)
        assert found[0] <= shift(x, y) <= found[1]
        assert interval(y, x, confidence) == (-found[1], -found[0])
        assert shift(y, x) == -shift(x, y)
        moved = interval([value + 7 for value in x], y, confidence)
        assert moved == (found[0] + 7, found[1] + 7)

    @pytest.mark.parametrize("a_side", [8, 20, 30])
    def test_truth_is_covered_as_often_as_promised(self, a_side):
        random = np.random.default_rng(a_side)
        covered = 0
        for _ in range(400):
            low, high = interval(random.standard_normal(a_side) + 0.3, random.standard_normal(a_side)) or (9, 9)
            covered += low <= 0.3 <= high
        assert 370 <= covered <= 398

    def test_interval_without_zero_is_a_p_below_the_level(self):
        random = np.random.default_rng(12)
        for _ in range(200):
            x, y = random.standard_normal(7) + 1, random.standard_normal(9)
            low, high = interval(x, y, 0.95) or (0, 0)
            assert (low > 0 or high < 0) == (p_two_sided(x, y) <= 0.05)

    def test_many_values_are_represented_by_some_of_them(self):
        random = np.random.default_rng(10)
        x, y = random.standard_normal(20_000) + 0.5, random.standard_normal(30_000)
        low, high = interval(x, y) or (0, 0)
        assert low < 0.5 < high
        # As narrow as 20,000 values make it, and not as wide as 2,000 would.
        assert high - low < 0.05
        assert shift(x, y) == pytest.approx(0.5, abs=0.03)

    @pytest.mark.parametrize("share", [0.0, 1.0, 95])
    def test_percentages_are_refused(self, share):
        with pytest.raises(ValueError, match=r"confidence is a fraction within \(0, 1\)"):
            interval([1.0] * 9, [1.0] * 9, share)


class TestHowManyValues:
    @pytest.mark.parametrize(("m", "n"), [(1, 1), (1, 3), (3, 1), (2, 2), (5, 4), (20, 20)])
    def test_the_smallest_p_is_one_of_all_ways(self, m, n):
        assert smallest_p(m, n) == pytest.approx(1 / math.comb(m + n, m))

    def test_the_smallest_p_of_many_is_what_the_test_gives(self):
        assert smallest_p(21, 1) == p_greater(np.arange(21) + 1.0, [0.0])
        assert smallest_p(0, 3) == smallest_p(3, 0) == 1.0

    @pytest.mark.parametrize(
        ("alpha", "a_side"),
        [(0.5, 1), (0.05, 3), (0.0499, 4), (0.025, 4), (0.01, 5), (0.001, 7), (1e-4, 8), (1e-9, 17)],
    )
    def test_values_needed_are_the_fewest(self, alpha, a_side):
        assert values_needed(alpha) == a_side
        assert smallest_p(a_side, a_side) <= alpha * (1 + 1e-9)
        assert smallest_p(a_side - 1, a_side - 1) > alpha

    @pytest.mark.parametrize("alpha", [0.0, 1.0, -1, 5])
    def test_a_level_is_a_fraction(self, alpha):
        with pytest.raises(ValueError, match=r"alpha is a fraction within \(0, 1\)"):
            values_needed(alpha)


class TestDetectable:
    @pytest.mark.parametrize(
        ("m", "n", "alpha"),
        [(3, 3, 0.05), (4, 4, 0.025), (5, 5, 0.004), (6, 6, 0.01), (8, 8, 0.001), (15, 15, 0.001), (4, 15, 0.01)],
    )
    def test_is_found_in_four_of_five(self, m, n, alpha):
        random = np.random.default_rng(m * n)
        effect = _in_deviations(m, n, alpha)
        found = sum(
            p_greater(random.standard_normal(m) + effect, random.standard_normal(n)) <= alpha for _ in range(600)
        )
        assert 0.72 <= found / 600 <= 0.88

    def test_shrinks_with_more_values_and_grows_with_their_spread(self):
        random = np.random.default_rng(3)
        x, y = random.standard_normal(16), random.standard_normal(16)
        few, many = detectable(x[:6], y[:6], 0.01), detectable(x, y, 0.01)
        assert many < few
        assert detectable(3 * x, 3 * y, 0.01) == pytest.approx(3 * many)
        assert detectable(x + 7, y - 2, 0.01) == pytest.approx(many), "of each sample around itself"
        assert detectable(x, y, 0.01, margin=0.5) == pytest.approx(many + 0.5)
        assert detectable(x, y, 0.01, power=0.95) > many

    def test_of_equal_values_is_the_margin(self):
        assert detectable([1.0] * 5, [2.0] * 5, 0.01, margin=0.25) == 0.25

    def test_too_few_values_have_none_or_never_find(self):
        assert detectable([1.0, 2.0], [1.0, 3.0], 0.05) is None
        assert detectable([], [], 0.05) is None
        assert detectable([1.0, 2.0, 4.0], [1.0, 3.0, 4.0], 0.01) == math.inf
        assert detectable([1.0, 2.0, 4.0], [1.0], 0.05) == math.inf
        assert math.isfinite(detectable([1.0, 2.0, 4.0, 3.0, 2.5], [1.0, 1.2], 0.05))
        assert detectable(np.arange(60.0), [1.0], 1e-9) == math.inf

    def test_very_many_values_are_taken(self):
        random = np.random.default_rng(5)
        assert 0.1 < detectable(random.standard_normal(1500), random.standard_normal(900), 0.001) < 0.25


def _in_deviations(m: int, n: int, alpha: float) -> float:
    """Return what is detectable, in standard deviations as they are estimated."""
    x, y = (np.linspace(-1.0, 1.0, size) for size in (m, n))
    return detectable(x, y, alpha) / math.sqrt((m * scale(x) ** 2 + n * scale(y) ** 2) / (m + n))


@settings(max_examples=30)
@given(
    st.lists(st.integers(0, 10**6).map(float), min_size=2, max_size=30, unique=True), st.integers(0, 28), st.booleans()
)
def test_scipy_gives_the_same_p(values, split, tied):
    stats = pytest.importorskip("scipy.stats")
    split = 1 + split % (len(values) - 1)  # some on each side
    x, y = values[:split], values[split:]
    exact = max(len(x), len(y)) <= 20
    if tied and not exact:
        x = [y[0], *x[1:]]
    for alternative, found in (("greater", p_greater(x, y)), ("two-sided", p_two_sided(x, y))):
        method = "exact" if exact else "asymptotic"
        expected = stats.mannwhitneyu(x, y, alternative=alternative, method=method).pvalue
        assert found == pytest.approx(expected, rel=1e-7, abs=1e-12)
