from __future__ import annotations

import itertools
import math
import sys
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_mlbench.stats.signed_rank import (
    detectable,
    hodges_lehmann,
    interval,
    lower_bound,
    p_greater,
    rounds_needed,
    scale,
    upper_bound,
)

# Whole numbers make ties and zeros likely; halves and quarters keep every sum exact.
FEW = st.lists(st.integers(-6, 6).map(float), min_size=1, max_size=9)
VALUES = st.lists(st.floats(-1e6, 1e6).map(lambda value: round(value, 3)), min_size=1, max_size=14)
# Distances of all sizes, no two of them or of their sums alike.
UNTIED = st.permutations([0.013 * 1.31**k for k in range(12)]).flatmap(
    lambda sizes: st.lists(st.sampled_from([-1.0, 1.0]), min_size=12, max_size=12).map(
        lambda signs: [sign * size for sign, size in zip(signs, sizes, strict=True)]
    )
)
# Hollander & Wolfe, table 3.1: depression scores of nine patients, first less second visit.
DEPRESSION = [0.952, -0.147, 1.022, 0.43, 0.62, 0.59, 0.49, -0.08, 0.01]


def enumerated(values: list[float], margin: float = 0.0) -> float:
    """All signs of the midranks of |value - margin|; the value that equals the margin was seen with a minus."""
    away = [value - margin for value in values]
    ranks = [
        sum(abs(other) < abs(one) for other in away) + (sum(abs(other) == abs(one) for other in away) + 1) / 2
        for one in away
    ]
    found = sum(rank for rank, one in zip(ranks, away, strict=True) if one > 0)
    sums = [sum(itertools.compress(ranks, signs)) for signs in itertools.product([0, 1], repeat=len(ranks))]
    return sum(total >= found for total in sums) / len(sums)


class TestP:
    @pytest.mark.parametrize(
        ("negative_ranks", "n", "p"),
        [
            # Critical values of Wilcoxon's table: n = 8: 3 at .0195, 5 at .0391; n = 10: 8 at .0244, 10 at .0420.
            ((), 6, 1 / 64),
            ((1,), 6, 2 / 64),
            ((1, 2), 8, 5 / 256),
            ((3,), 8, 5 / 256),
            ((5,), 8, 10 / 256),
            ((3, 5), 10, 25 / 1024),
            ((1, 9), 10, 43 / 1024),
        ],
    )
    def test_is_the_number_of_signs_as_extreme(self, negative_ranks, n, p):
        values = [-float(rank) if rank in negative_ranks else float(rank) for rank in range(1, n + 1)]
        assert p_greater(values) == p

    def test_is_the_published_one(self):
        # Hollander & Wolfe 3.1: T+ = 40 of 45, one-sided P = .020 (10/512 = .01953).
        assert p_greater(DEPRESSION) == 10 / 512

    @pytest.mark.parametrize("n", [1, 5, 8, 12, 20, 53])
    def test_is_smallest_when_all_are_above(self, n):
        assert p_greater(np.linspace(0.01, 0.05, n)) == 2.0**-n
        assert p_greater([0.02] * n) == 2.0**-n
        assert p_greater([-0.02] * n) == 1.0

    @given(FEW, st.integers(-2, 2).map(float))
    def test_is_the_enumerated_one_with_ties_and_zeros(self, values, margin):
        assert p_greater(values, margin) == pytest.approx(enumerated(values, margin), abs=1e-15)

    @given(VALUES)
    def test_is_the_same_in_another_unit_and_order(self, values):
        assert p_greater([value * 0.25 for value in reversed(values)]) == p_greater(values)

    @given(FEW, st.integers(-12, 12).map(lambda k: k / 4), st.sampled_from([0.001, 0.25, 0.5, 1.0]))
    def test_never_falls_when_the_margin_rises(self, values, margin, more):
        assert p_greater(values, margin) <= p_greater(values, margin + more) + 1e-12

    @given(UNTIED)
    def test_of_both_directions_share_what_was_seen(self, values):
        other = p_greater([-value for value in values])
        assert p_greater(values) + other >= 1.0
        assert p_greater(values) + other <= 1.0 + 0.05

    def test_of_no_values_or_none_that_differ_is_one(self):
        assert p_greater([]) == 1.0
        assert p_greater([0.0] * 12) == 1.0
        assert p_greater([0.03] * 12, 0.03) == 1.0

    def test_rounds_that_equal_the_margin_count_against_a_slowdown(self):
        # Dropped, the fourteen zeros would leave 2**-6.
        assert p_greater([0.01] * 6 + [0.0] * 14) > 0.4
        assert p_greater([0.01] * 11 + [0.0]) == 2 / 2**12

    @pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
    def test_needs_finite_values(self, bad):
        for function in (p_greater, hodges_lehmann, scale):
            with pytest.raises(ValueError, match="a value is not finite"):
                function([1.0, bad, 2.0])
        with pytest.raises(ValueError, match="a value is not finite"):
            lower_bound([bad] * 9, 0.95)

    def test_refuses_what_cannot_be_rounds(self):
        with pytest.raises(ValueError, match="at most 500 values, one per round, got 501"):
            p_greater(np.ones(501))
        assert p_greater(np.arange(500) - 100.0) < 1e-12

    def test_false_alarms_are_as_many_as_promised(self):
        rounds = np.random.default_rng(3).standard_normal((4000, 9))
        alarms = sum(p_greater(row) <= 0.05 for row in rounds)
        assert 130 <= alarms <= 240  # attained level 0.0488


class TestEstimateAndBounds:
    def test_are_the_published_ones(self):
        # Hollander & Wolfe, examples 3.3 and 3.4: .46, and (.010, .786) with 96.1 %.
        assert hodges_lehmann(DEPRESSION) == pytest.approx(0.46)
        assert interval(DEPRESSION, 0.96) == pytest.approx((0.010, 0.786))
        # One signed rank further out, with more than the 96.1 % that 20 of 512 leave.
        means = sorted((a + b) / 2 for a, b in itertools.combinations_with_replacement(DEPRESSION, 2))
        assert interval(DEPRESSION, 0.962) == pytest.approx((means[4], means[40]))

    @pytest.mark.parametrize(("confidence", "n"), [(0.9, 5), (0.95, 6), (0.99, 8), (0.999, 11)])
    def test_interval_needs_a_number_of_values(self, confidence, n):
        assert interval(range(n - 1), confidence) is None
        # The smallest and the largest value: the widest interval there is.
        assert interval(range(n), confidence) == (0.0, n - 1.0)

    def test_bounds_are_infinite_when_values_are_too_few(self):
        assert lower_bound([1.0] * 6, 0.99) == -math.inf
        assert upper_bound([1.0] * 6, 0.99) == math.inf
        assert lower_bound([1.0] * 7, 0.99) == upper_bound([1.0] * 7, 0.99) == 1.0
        assert lower_bound([], 0.5) == -math.inf
        assert interval([]) is None

    @pytest.mark.parametrize("n", range(2, 24))
    def test_level_that_is_the_smallest_p_is_reached(self, n):
        assert lower_bound(np.arange(1.0, n + 1), 1 - 2.0**-n) == 1.0
        assert lower_bound(np.arange(1.0, n + 1), 1 - 0.999 * 2.0**-n) == -math.inf

    @given(UNTIED, st.sampled_from([0.8, 0.95, 0.99]), st.floats(-0.4, 0.4))
    def test_lower_bound_is_above_a_margin_when_the_test_rejects_it(self, values, confidence, margin):
        assert (p_greater(values, margin) <= 1 - confidence) == (margin < lower_bound(values, confidence))

    @given(VALUES, st.floats(0.5, 0.999))
    def test_bounds_surround_the_estimate(self, values, confidence):
        assert lower_bound(values, confidence) <= hodges_lehmann(values) <= upper_bound(values, confidence)

    @given(VALUES, st.integers(-4, 4).map(float))
    def test_shift_and_sign_carry_over(self, values, by):
        slack = 1e-9 * max(1.0, *map(abs, values))
        assert hodges_lehmann([value + by for value in values]) == pytest.approx(hodges_lehmann(values) + by, abs=slack)
        assert hodges_lehmann([-value for value in values]) == -hodges_lehmann(values)
        assert lower_bound([value + by for value in values], 0.9) == pytest.approx(
            lower_bound(values, 0.9) + by, abs=slack
        )
        assert upper_bound([-value for value in values], 0.9) == -lower_bound(values, 0.9)

    def test_one_wild_round_moves_the_estimate_little(self):
        calm = [0.001, -0.002, 0.0, 0.002, -0.001, 0.001, 0.0]
        assert abs(hodges_lehmann([*calm, 5.0])) < 0.01

    def test_huge_values_do_not_overflow(self):
        assert hodges_lehmann([1.5e308, 1.5e308]) == 1.5e308

    def test_truth_is_covered_as_often_as_promised(self):
        rounds = np.random.default_rng(4).standard_normal((1000, 12))
        covered = sum(low <= 0 <= high for low, high in (interval(row) or (1, 1) for row in rounds))
        assert 935 <= covered <= 970  # attained 0.9575

    def test_no_values_have_no_estimate(self):
        with pytest.raises(ValueError, match="no values have no estimate"):
            hodges_lehmann([])

    @pytest.mark.parametrize("share", [0.0, 1.0, 95, -0.1, float("nan")])
    def test_percentages_are_refused(self, share):
        for function in (interval, lower_bound, upper_bound):
            with pytest.raises(ValueError, match=r"confidence is a fraction within \(0, 1\)"):
                function([1.0] * 9, share)
        with pytest.raises(ValueError, match=r"alpha is a fraction within \(0, 1\)"):
            rounds_needed(share)
        with pytest.raises(ValueError, match=r"power is a fraction within \(0, 1\)"):
            detectable([1.0, 2.0, 3.0], 8, 0.01, power=share)


class TestRoundsNeeded:
    @pytest.mark.parametrize(
        ("m", "n"),
        # What 8, 12 and 14 rounds reach at 5 % over m pairs of case and metric.
        [(1, 5), (12, 8), (13, 9), (204, 12), (205, 13), (819, 14), (820, 15)],
    )
    def test_grows_with_the_number_of_decisions(self, m, n):
        assert rounds_needed(0.05 / m) == n

    @given(st.floats(1e-15, 0.999999))
    def test_is_the_smallest(self, alpha):
        n = rounds_needed(alpha)
        assert 2.0**-n <= alpha < 2.0 ** -(n - 1)

    @pytest.mark.parametrize("n", range(1, 50))
    def test_meets_a_power_of_two_exactly(self, n):
        assert rounds_needed(2.0**-n) == n
        assert rounds_needed(math.nextafter(2.0**-n, 0)) == n + 1


class TestDetectable:
    @staticmethod
    def power(effect: float, n: int, alpha: float, margin: float = 0.0) -> float:
        rounds = np.random.default_rng(7).standard_normal((600, n)) + effect
        return sum(p_greater(row, margin) <= alpha for row in rounds) / len(rounds)

    @pytest.mark.parametrize("n", [8, 12, 20])
    @pytest.mark.parametrize("decisions", [1, 12, 204])
    def test_is_found_about_eight_times_in_ten(self, n, decisions):
        alpha = 0.05 / decisions
        if rounds_needed(alpha) > n:
            assert detectable(range(n), n, alpha) == math.inf
            return
        random = np.random.default_rng(n)
        effects = [detectable(random.standard_normal(n), n, alpha) for _ in range(300)]
        assert all(effect is not None and effect > 0 for effect in effects)
        assert 0.75 <= self.power(float(np.median(effects)), n, alpha) <= 0.92
        # One sample knows its own spread only roughly; over all of them the promise is nearly kept.
        assert 0.7 <= np.mean([self.power(effect, n, alpha) for effect in effects[:30]]) <= 0.9

    def test_stands_above_the_margin(self):
        values = [NormalDist().inv_cdf((k + 0.5) / 200) for k in range(200)]
        above = detectable(values, 12, 0.004) or 0.0
        assert detectable(values, 12, 0.004, margin=0.5) == pytest.approx(0.5 + above)
        assert self.power(0.5 + above, 12, 0.004, margin=0.5) == pytest.approx(0.8, abs=0.06)

    @pytest.mark.parametrize("n", [5, 8, 12, 14])
    def test_is_what_n_slower_rounds_need_where_nothing_less_will_do(self, n):
        values = np.random.default_rng(n).standard_normal(50)
        effect = (detectable(values, n, 2.0**-n) or 0.0) / (scale(values) or 1.0)
        below = 0.5 * math.erfc(effect / math.sqrt(2))
        assert (1 - below) ** n == pytest.approx(0.8)

    def test_is_infinite_when_no_effect_is_large_enough(self):
        assert detectable([0.1, 0.2, 0.3, 0.4], 7, 2.0**-8) == math.inf
        assert detectable([0.1, 0.2, 0.3, 0.4], 0, 0.5) == math.inf

    @pytest.mark.parametrize("values", [[], [0.1], [0.1, 0.2]])
    def test_needs_three_values(self, values):
        assert detectable(values, 8, 0.01) is None
        assert scale(values) is None

    @given(st.lists(st.floats(-1, 1), min_size=3, max_size=12), st.sampled_from([0.5, 2.0, 8.0]))
    def test_grows_with_the_spread_and_not_with_the_place(self, values, by):
        effect = detectable(values, 12, 0.004)
        assert effect is not None
        assert detectable([value * by for value in values], 12, 0.004) == pytest.approx(effect * by)
        assert detectable([value + by for value in values], 12, 0.004) == pytest.approx(effect, abs=1e-12)

    def test_falls_with_more_rounds_and_a_looser_level(self):
        values = np.random.default_rng(2).standard_normal(20)
        by_rounds = [detectable(values, n, 0.004) or 0.0 for n in (8, 9, 10, 12, 16, 32)]
        assert by_rounds == sorted(by_rounds, reverse=True)
        by_level = [detectable(values, 12, alpha) or 0.0 for alpha in (0.0003, 0.001, 0.01, 0.05)]
        assert by_level == sorted(by_level, reverse=True)

    def test_refuses_rounds_that_would_take_for_ever(self):
        with pytest.raises(ValueError, match="at most 500 values, one per round, got 1000000"):
            detectable([1.0, 2.0, 3.0], 10**6, 0.01)


class TestScale:
    @pytest.mark.parametrize("n", [3, 4, 6, 8, 12, 30])
    def test_is_the_standard_deviation_of_normal_noise_and_rather_more_for_few(self, n):
        found = [scale(row) for row in np.random.default_rng(n).standard_normal((2000, n))]
        assert 0.98 <= np.mean(found) <= 1.36
        assert np.mean(found) <= 1.05 + 0.9 / n

    def test_equal_values_do_not_hide_the_others(self):
        # Ten of fifteen distances are 0, and so is the median absolute deviation.
        assert (scale([0.0] * 5 + [0.06]) or 0.0) > 0.008
        assert (scale([0.0, 0.0, 0.0, 0.01, -0.01, 0.02, 0.0]) or 0.0) > 0.008

    def test_wild_values_do_not_hide_the_calm_ones(self):
        calm = np.random.default_rng(5).standard_normal(18)
        assert (scale([*calm, 1e3, -1e3]) or 0.0) < 200
        assert (scale([*calm, 5.0]) or 0.0) < 1.3 * (scale(calm) or 0.0)

    def test_is_zero_only_when_all_are_equal(self):
        assert scale([0.3] * 8) == 0.0
        assert detectable([0.3] * 8, 8, 0.01, margin=0.02) == 0.02
        assert scale([0.3] * 99 + [0.4]) != 0.0


@settings(max_examples=30)
@given(UNTIED, st.floats(-0.4, 0.4))
def test_scipy_gives_the_same_p(values, margin):
    stats = pytest.importorskip("scipy.stats")
    away = np.asarray(values) - margin
    expected = stats.wilcoxon(away, alternative="greater", method="exact").pvalue
    assert p_greater(values, margin) == pytest.approx(expected, rel=1e-9)


@settings(max_examples=30)
@given(FEW.filter(lambda values: any(values) and len(values) > 1))
def test_scipy_with_zeros_ranked_gives_no_larger_p(values):
    stats = pytest.importorskip("scipy.stats")
    resampling = stats.PermutationMethod(n_resamples=sys.maxsize)
    expected = stats.wilcoxon(values, alternative="greater", zero_method="pratt", method=resampling).pvalue
    if 0.0 in values:
        assert p_greater(values) >= expected - 1e-12
    else:
        assert p_greater(values) == pytest.approx(expected, rel=1e-9)
