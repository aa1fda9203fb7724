"""One value a run, and counts of right answers: which verdict they give, and in which words."""

from __future__ import annotations

import math

import numpy as np
import pytest

from pytest_mlbench.compare_unpaired import Asked, accuracy, invalid, values
from pytest_mlbench.record import Metric
from pytest_mlbench.spec import Regression
from pytest_mlbench.stats import fisher, rank_sum

P50 = Metric("latency.p50", None, "ns", "lower")
RATE = Metric("throughput", None, "1/s", "higher")
PEAK = Metric("memory.peak", None, "bytes", "lower")
BASE = (1000.0, 1004.0, 997.0, 1008.0, 1001.0)
INVALID = "invalid"


def asked(metric=P50, margin=0.03, family=1):
    return Asked(metric, Regression(margin), family)


def times(factor, base=BASE):
    """Return values of the candidate: those of the base in another order, some times as long, none of them equal."""
    return [factor * (value + 0.5) for value in reversed(base)]


# --- values -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("factor", "verdict"),
    [(1.10, "regressed"), (1.0, "pass"), (1.01, "pass"), (1.03, "inconclusive"), (0.9, "improved")],
)
def test_a_verdict_for_each_size_of_change(factor, verdict):
    assert values(asked(), BASE, times(factor)).verdict == verdict


@pytest.mark.parametrize(
    ("factor", "verdict"), [(0.9, "regressed"), (1.0, "pass"), (0.97, "inconclusive"), (1.1, "improved")]
)
def test_of_a_rate_more_is_better(factor, verdict):
    made = values(asked(RATE), BASE, times(factor))
    assert made.verdict == verdict
    assert made.change == pytest.approx(factor - 1, abs=2e-3)


def test_everything_that_is_known_is_kept():
    made = values(asked(family=2), BASE, times(1.10))
    assert (made.metric, made.unit, made.direction, made.method) == ("latency.p50", "ns", "lower", "runs")
    assert (made.base, made.candidate) == (1001.0, pytest.approx(1.1 * 1001.5))
    logs = [math.log(value) for value in BASE], [math.log(value) for value in times(1.10)]
    assert made.change == pytest.approx(math.expm1(rank_sum.shift(logs[1], logs[0])))
    low, high = rank_sum.interval(logs[1], logs[0], 0.95)
    assert made.interval == pytest.approx((math.expm1(low), math.expm1(high)))
    assert (made.confidence, made.n, made.alpha, made.margin) == (0.95, 10, 0.025, 0.03)
    assert made.p == pytest.approx(1 / math.comb(10, 5))
    assert 0.03 < made.detectable < 0.06
    assert (made.base_values, made.candidate_values) == (BASE, tuple(times(1.10)))
    assert made.reason == "latency.p50 is 10 % slower (1.00 us to 1.10 us; 95 % interval +9.3 % to +11 %)"


def test_the_interval_of_a_rate_is_in_order():
    low, high = values(asked(RATE), BASE, times(0.9)).interval
    assert low < values(asked(RATE), BASE, times(0.9)).change < high < 0


def test_a_shift_of_exactly_the_margin_is_not_red():
    made = values(asked(margin=0.05), BASE, [value * 1.05 for value in BASE])
    assert made.verdict == "inconclusive"
    assert made.p > 0.3
    assert values(asked(margin=0.05), BASE, times(1.2)).verdict == "regressed"


def test_margin_zero_finds_what_the_default_lets_through():
    assert values(asked(margin=0.0), BASE, times(1.02)).verdict == "regressed"
    assert values(asked(margin=0.03), BASE, times(1.02)).verdict != "regressed"


def test_a_pass_must_have_ruled_out_three_per_cent():
    uneven = (1000.0, 1090.0, 940.0, 1010.0, 1050.0)
    made = values(asked(margin=0.0), uneven, times(1.0, uneven))
    assert made.verdict == "inconclusive"
    assert made.detectable > 0.05
    even = values(asked(margin=0.0), BASE, times(1.0))
    assert (even.verdict, even.interval[1] > 0) == ("pass", True)
    assert values(asked(margin=0.5), uneven, times(1.0, uneven)).verdict == "pass"


@pytest.mark.parametrize("factor", [0.1, 1.0, 10.0])
def test_one_run_against_one_can_never_tell_and_still_shows_the_difference(factor):
    made = values(asked(), [1000.0], [1000.5 * factor])
    assert (made.verdict, made.n, made.p is not None) == ("inconclusive", 2, True)
    assert made.change == pytest.approx(1.0005 * factor - 1)
    assert made.interval is None
    assert made.detectable is None
    assert made.reason.startswith(
        "1 run against 1 can never tell (their smallest p-value is 0.5, and a verdict needs 0.05; 3 runs a side "
        "could): latency.p50 is "
    )


@pytest.mark.parametrize(("family", "runs", "needed"), [(1, 2, 3), (2, 3, 4), (12, 4, 5), (204, 5, 8)])
def test_more_comparisons_need_more_runs(family, runs, needed):
    few = values(asked(family=family), BASE[:runs], times(2.0)[:runs])
    assert few.verdict == "inconclusive"
    assert f"; {needed} runs a side could): " in few.reason
    base = [1000.0 + k for k in range(needed)]
    assert values(asked(family=family), base, times(2.0, base)).verdict == "regressed"


def test_so_few_runs_that_a_regression_cannot_be_found_never_pass():
    base = (1000.0, 1000.1, 1000.2)
    assert values(asked(), base, times(1.0, base)).verdict == "pass"
    assert values(asked(family=2), base, times(1.0, base)).verdict == "inconclusive"


def test_sides_of_different_size_are_compared():
    assert values(asked(), BASE[:2], times(1.2)).verdict == "regressed"  # 1 in 21
    made = values(asked(), BASE[:1], times(1.2))
    assert made.verdict == "inconclusive"
    assert made.reason.startswith("1 run against 5 can never tell (their smallest p-value is 0.17, ")


@pytest.mark.parametrize("metric", [P50, RATE])
@pytest.mark.parametrize(
    ("base", "candidate", "whose", "many"),
    [
        ([5.0] * 3, [5.1, 5.2, 5.3], "of the base", 3),
        ([5.1, 5.2, 5.3], [5.0] * 4, "of the candidate", 4),
        ([5.0, 5.0], [5.0, 5.0], "of both sides", 4),
        ([5.0], [5.0, 5.0], "of both sides", 3),
    ],
)
def test_times_that_never_vary_are_not_believed(metric, base, candidate, whose, many):
    made = values(asked(metric), base, candidate)
    assert (made.verdict, made.change, made.p) == (INVALID, None, None)
    assert made.reason == (
        f"{metric.name} is exactly the same in all {many} runs {whose}, which measured times never are: the clock is "
        "too coarse for this model, or these are copies of one run"
    )
    assert (made.base_values, made.candidate_values) == (tuple(base), tuple(candidate))


def test_bytes_may_well_be_the_same_in_every_run():
    assert values(asked(PEAK), [4096.0] * 5, [4096.0] * 5).verdict == "pass"
    assert values(asked(PEAK), [4096.0] * 5, [8192.0] * 5).verdict == "regressed"
    assert values(asked(PEAK), [8192.0] * 5, [4096.0] * 5).verdict == "improved"
    assert values(asked(PEAK), [4096.0], [4096.0]).verdict == "inconclusive"


def test_two_equal_times_are_no_proof_of_anything():
    assert values(asked(), [5.0], [5.0]).verdict == "inconclusive"


@pytest.mark.parametrize(
    ("base", "candidate", "reason"),
    [
        ([0.0, 1.0], [1.0, 2.0], "the base gave latency.p50 = 0; a ratio needs finite numbers above 0"),
        ([1.0, 2.0], [1.0, -3.5], "the candidate gave latency.p50 = -3.5; a ratio needs finite numbers above 0"),
        ([1e-300], [1e300], "the values of latency.p50 are too far apart for a ratio"),
        ([1e-300, 1e300], [1.0, 2.0], "the values of latency.p50 are too far apart for a ratio"),
    ],
)
def test_what_has_no_ratio_is_invalid(base, candidate, reason):
    made = values(asked(), base, candidate)
    assert (made.verdict, made.reason) == (INVALID, reason)


def test_huge_values_that_are_alike_are_compared():
    base = [1.7e308 * (1 + k / 1000) / 1.02 for k in range(4)]
    made = values(asked(), base, [value * 0.9999 for value in base])
    assert made.verdict == "pass"
    assert made.base is None, "the mean of two of them is no number"


def test_a_metric_that_cannot_be_compared_has_no_numbers():
    made = invalid(asked(), "there is no base")
    assert (made.verdict, made.reason, made.method, made.alpha) == (INVALID, "there is no base", "runs", None)
    assert (made.base, made.candidate, made.n) == (None, None, 0)


def test_false_alarms_stay_below_the_level_and_slowdowns_are_found():
    random = np.random.default_rng(17)

    def runs(count, factor=1.0, noise=0.01):
        spikes = 1 + 0.05 * (random.random(count) < 0.1)
        return (1000 * factor * np.exp(noise * random.standard_normal(count)) * spikes).tolist()

    family = 12
    alarms = sum(values(asked(margin=0.0, family=family), runs(8), runs(8)).verdict == "regressed" for _ in range(1500))
    assert alarms <= 14  # 0.05 / 12 of 1500 is 6
    found = sum(
        values(asked(margin=0.0, family=family), runs(8), runs(8, 1.05)).verdict == "regressed" for _ in range(200)
    )
    assert found >= 160
    found = sum(values(asked(family=family), runs(8), runs(8, 1.10)).verdict == "regressed" for _ in range(200))
    assert found >= 180


# --- accuracy -----------------------------------------------------------------------------------------------


def top1(*hits, n=360):
    return [Metric("accuracy.top1", hit / n, "", "higher", n=n) for hit in hits]


def judged(base, candidate, family=1):
    metric = Metric("accuracy.top1", None, "", "higher")
    return accuracy(Asked(metric, Regression(0.0), family), base, candidate)


@pytest.mark.parametrize(
    ("base", "candidate", "verdict"),
    [
        (350, 350, "pass"),
        (350, 355, "pass"),
        (350, 330, "regressed"),
        (330, 350, "improved"),
        (350, 346, "inconclusive"),
    ],
)
def test_right_answers_are_counted(base, candidate, verdict):
    made = judged(top1(base), top1(candidate))
    assert made.verdict == verdict
    assert made.change == pytest.approx((candidate - base) / 360)
    assert made.p == pytest.approx(fisher.p_less(candidate, 360, base, 360))
    assert made.interval == pytest.approx(fisher.difference_interval(candidate, 360, base, 360))


def test_the_reason_says_that_answers_are_not_paired():
    made = judged(top1(350), top1(330), family=2)
    assert made.reason == (
        "accuracy.top1 is 91.67%, the base's 97.22%, of 360 samples; run files do not pair the answers, so only their "
        "counts are compared (Fisher's exact test)"
    )
    assert (made.n, made.alpha, made.method, made.direction) == (360, 0.025, "runs", "higher")
    assert (made.base, made.candidate) == (350 / 360, 330 / 360)


def test_what_could_be_seen_is_the_smallest_drop_that_is_found():
    made = judged(top1(350), top1(350))
    drop = round(made.detectable * 360)
    assert judged(top1(350), top1(350 - drop)).verdict == "regressed"
    assert judged(top1(350), top1(350 - drop + 1)).verdict == "inconclusive"
    assert judged(top1(2, n=2), top1(2, n=2)).detectable is None


def test_more_comparisons_ask_for_more():
    assert judged(top1(350), top1(338)).verdict == "regressed"
    assert judged(top1(350), top1(338), family=40).verdict == "inconclusive"


def test_more_runs_of_the_same_answers_add_no_certainty():
    once, often = judged(top1(350), top1(345)), judged(top1(*[350] * 9), top1(*[345] * 9))
    assert (often.p, often.n, often.verdict, often.reason) == (once.p, once.n, once.verdict, once.reason)
    assert often.base_values == (350 / 360,) * 9


def test_runs_that_disagree_are_told_and_their_median_counts():
    made = judged(top1(350, 349, 330), top1(350, 350, 350))
    assert made.base == 349 / 360
    assert "of 360 samples (the median of 3 runs of the base, from 91.67% to 97.22%); run files" in made.reason


@pytest.mark.parametrize(
    ("base", "reason"),
    [
        (top1(99, n=100), "accuracy.top1 is of other samples: 100 and 360, so it cannot be compared"),
        (
            [Metric("accuracy.top1", 0.5, "", "higher")],
            "the base's accuracy.top1 does not tell of how many samples it is, so right answers cannot be counted",
        ),
        *[
            (
                [Metric("accuracy.top1", 0.5, "", "higher", n=n)],
                f"the base's accuracy.top1 is of {n} samples, which cannot be, so right answers cannot be counted",
            )
            for n in (0, -4, 7.5, True, 10**12)
        ],
        (
            [Metric("accuracy.top1", 0.5, "", "higher", n=361)],
            "the base's accuracy.top1 = 0.5 is no share of 361 samples",
        ),
        (
            [Metric("accuracy.top1", 1.5, "", "higher", n=360)],
            "the base's accuracy.top1 = 1.5 is no share of 360 samples",
        ),
    ],
)
def test_what_is_no_count_is_invalid(base, reason):
    made = judged(base, top1(350))
    assert (made.verdict, made.reason, made.change) == (INVALID, reason, None)
    other = judged(top1(350), base)
    assert other.reason == reason.replace("the base's", "the candidate's")
