"""Comparing paired rounds: each verdict by its numbers, what cannot be judged, the words, and how often it is wrong."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_mlbench import compare, screening
from pytest_mlbench.compare import Pairs, Question, decide, difference, is_settled, signed, trouble, words
from pytest_mlbench.record import Comparison, Record
from pytest_mlbench.screening import SCREEN_ROUNDS
from pytest_mlbench.spec import Regression
from pytest_mlbench.stats import signed_rank
from pytest_mlbench.stores import runfile

ALPHA = 0.05 / 12
NONE = Pairs((), ())
# Factors on the candidate's value, round by round. No two are equal, as measured ones never are.
CALM = (1.0011, 0.9992, 1.0004, 0.9987, 1.0013, 0.9995)
STEPS = tuple(1 + step * 1e-4 for step in (3, -7, 11, -2, 5, -9, 1, 8, -4, 6, -10, 2))
WILD = (1.09, 0.93, 1.12, 1.01, 0.97, 1.2, 0.88, 1.05, 0.94, 0.86, 1.02, 0.91)


def asked(
    metric="latency.p50",
    unit="ns",
    direction="lower",
    *,
    margin=0.03,
    ignore_below=0.0,
    alpha=ALPHA,
    resolution=0.03,
    confirm=12,
):
    return Question(metric, unit, direction, Regression(margin, ignore_below), alpha, resolution, confirm)


def rounds(factors, by=1.0, *, base=1_000_000.0):
    """Return rounds whose base drifts, and whose candidate is `by` times a factor of it."""
    here = tuple(base * (1 + 0.001 * index) for index in range(len(factors)))
    return Pairs(here, tuple(value * factor * by for value, factor in zip(here, factors, strict=True)))


THROUGHPUT = asked("throughput", "1/s", "higher")
# A worsening of 5 % and an improvement of as much, for a metric of each direction.
WORSE = {"lower": 1.05, "higher": 0.95}
BETTER = {"lower": 0.95, "higher": 1.05}
BOTH = pytest.mark.parametrize("question", [asked(), THROUGHPUT], ids=["lower", "higher"])


# --- screening ------------------------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("margin", [0.0, 0.03])
def test_a_screen_that_says_no_worse_settles_it(question, margin):
    question = replace(question, regression=Regression(margin))
    assert is_settled(question, rounds(CALM))


@BOTH
def test_a_screen_that_looks_worse_or_better_does_not(question):
    assert not is_settled(question, rounds(CALM, WORSE[question.direction]))
    assert not is_settled(question, rounds(CALM, BETTER[question.direction]))


def test_a_board_may_take_the_same_time_in_every_round():
    same = Pairs((100.0,) * 6, (110.0,) * 6)
    asked = Question("latency.p50", "ns", "lower", Regression(0.03), 0.05, 0.03, 10)
    assert "the clock is too coarse" in compare.trouble(asked, same)
    by_board = replace(asked, by_board=True)
    assert compare.trouble(by_board, same) == ""
    found = compare.decide(by_board, same, Pairs((100.0,) * 10, (110.0,) * 10))
    assert (found.verdict, found.change) == ("regressed", pytest.approx(0.1))


def test_one_round_in_six_may_stand_against_a_suspicion():
    slower = (1.012, 1.008, 1.01, 1.006, 1.011)
    question = asked(margin=0.0)
    assert not is_settled(question, rounds((*slower, 0.998)))
    assert is_settled(question, rounds((*slower, 0.98)))  # p = 7/64, which a screen lets go
    faster = tuple(1 / factor for factor in slower)
    assert not is_settled(question, rounds((*faster, 1.002)))
    assert is_settled(question, rounds((*faster, 1.02)))


@BOTH
def test_a_screen_that_is_too_uneven_does_not_settle_it(question):
    assert not is_settled(question, rounds((1.06, 0.95, 1.04, 0.96, 1.05, 0.94)))


def test_a_slower_case_within_the_margin_is_settled_when_the_margin_is_ruled_out():
    slower = rounds(CALM, 1.02)
    assert is_settled(asked(margin=0.03), slower)
    assert not is_settled(asked(margin=0.0), slower)


def test_what_must_be_ruled_out_is_the_largest_of_margin_resolution_and_ignore_below():
    uneven = rounds((1.03, 0.97, 1.035, 0.96, 1.04, 0.975))
    assert not is_settled(asked(), uneven)
    assert is_settled(asked(margin=0.05), uneven)
    assert is_settled(asked(resolution=0.05), uneven)
    assert is_settled(asked(ignore_below=50_000.0), uneven)
    assert not is_settled(asked(ignore_below=20_000.0), uneven)
    higher = replace(THROUGHPUT, regression=Regression(0.03, 50_000.0))
    assert not is_settled(THROUGHPUT, uneven)
    assert is_settled(higher, uneven)
    assert is_settled(replace(THROUGHPUT, regression=Regression(0.0, 2_000_000.0)), rounds((0.5, 1.6, 0.4, 1.7, 1, 3)))


# --- verdicts -------------------------------------------------------------------------------------------------


@BOTH
def test_regressed(question):
    made = decide(question, rounds(CALM), rounds(STEPS, WORSE[question.direction]))
    assert made.verdict == "regressed"
    assert made.change == pytest.approx(WORSE[question.direction] - 1, abs=2e-4)
    low, high = made.interval
    assert low < made.change < high
    assert high - low < 0.002
    assert (made.confidence, made.n, made.p, made.alpha) == (0.95, 12, 2.0**-12, ALPHA)
    assert (made.method, made.direction, made.margin) == ("rounds", question.direction, 0.03)


@BOTH
def test_improved(question):
    made = decide(question, rounds(CALM), rounds(STEPS, BETTER[question.direction]))
    assert made.verdict == "improved"
    assert made.change == pytest.approx(BETTER[question.direction] - 1, abs=2e-4)
    assert made.p == 1.0


@BOTH
def test_pass_by_the_screen_alone(question):
    made = decide(question, rounds(CALM), NONE)
    assert (made.verdict, made.n) == ("pass", 6)
    assert made.interval[0] < 0 < made.interval[1]


@BOTH
def test_pass_after_confirming(question):
    made = decide(question, rounds(CALM, WORSE[question.direction]), rounds(STEPS))
    assert (made.verdict, made.n) == ("pass", 12)


@BOTH
def test_inconclusive(question):
    made = decide(question, rounds(CALM), rounds(WILD))
    assert made.verdict == "inconclusive"
    assert made.p > ALPHA
    assert made.detectable > 0.03


def test_the_verdict_is_regressed_exactly_up_to_alpha():
    # Of 12 rounds that p allows, those against it may have ranks that add up to 10: 43 of 4096 sums of signs.
    values = [1 + 0.01 * rank for rank in range(1, 13)]
    values[9] = 1 / values[9]
    confirm = rounds([1.03 * value for value in values])
    p = decide(asked(), rounds(CALM), confirm).p
    assert p == 43 / 4096
    assert decide(asked(alpha=p), rounds(CALM), confirm).verdict == "regressed"
    assert decide(asked(alpha=p * 0.999), rounds(CALM), confirm).verdict == "inconclusive"


@pytest.mark.parametrize(("by", "verdict"), [(1.0288, "pass"), (1.0312, "regressed")])
def test_a_margin_of_3_percent_is_3_percent_more_of_what_is_better_lower(by, verdict):
    assert decide(asked(resolution=0.0), rounds(CALM), rounds(STEPS, by)).verdict == verdict


@pytest.mark.parametrize(("by", "verdict"), [(1 / 1.03, "pass"), (0.9712, "pass"), (0.9688, "regressed")])
def test_a_margin_of_3_percent_is_3_percent_less_of_what_is_better_higher(by, verdict):
    assert decide(replace(THROUGHPUT, resolution=0.0), rounds(CALM), rounds(STEPS, by)).verdict == verdict


def test_a_shift_of_the_margin_itself_is_never_red():
    for direction, by in (("lower", 1.03), ("higher", 0.97)):
        made = decide(asked(direction=direction), rounds(CALM), rounds(STEPS, by))
        assert made.verdict == "inconclusive"
        assert made.p > 0.3


def test_without_a_margin_any_worsening_that_is_found_counts():
    question = asked(margin=0.0)
    assert decide(question, rounds(CALM), rounds(STEPS, 1.002)).verdict == "regressed"
    assert decide(question, rounds(CALM), rounds(STEPS, 1.0)).verdict == "pass"
    assert decide(asked(margin=0.03), rounds(CALM), rounds(STEPS, 1.002)).verdict == "pass"


def test_only_confirming_rounds_decide_and_are_reported():
    """The screen chose what looked bad: counting its rounds would make every estimate too large."""
    screen, confirm = rounds(CALM, 1.5), rounds(STEPS, base=2_000_000.0)
    made = decide(asked(), screen, confirm)
    assert made.verdict == "pass"
    assert abs(made.change) < 1e-3
    assert made.interval[1] < 2e-3
    assert made.base == pytest.approx(2_011_000)
    assert made.candidate == pytest.approx(made.base, rel=2e-3)
    assert made.base_values == screen.base + confirm.base
    assert made.candidate_values == screen.candidate + confirm.candidate


def test_six_rounds_of_a_screen_never_make_red():
    made = decide(asked(alpha=0.05), rounds(CALM, 2.0), NONE)
    assert made.p == 2.0**-6 < 0.05
    assert made.verdict == "inconclusive"


def test_a_drift_of_the_machine_from_round_to_round_is_no_difference():
    here = tuple(1e6 * 1.2**index for index in range(6))
    made = decide(asked(), Pairs(here, tuple(a * b for a, b in zip(here, CALM, strict=True))), NONE)
    assert made.verdict == "pass"
    assert abs(made.change) < 1e-3


# --- ignore_below -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("floor", "verdict"), [(61_000.0, "pass"), (49_000.0, "regressed"), (0.0, "regressed")])
def test_a_change_below_ignore_below_is_no_regression(floor, verdict):
    made = decide(asked(ignore_below=floor), rounds(CALM), rounds(STEPS, 1.05))
    assert made.verdict == verdict
    assert made.ignore_below == floor
    assert made.p == 2.0**-12  # it was found, and is ignored


def test_a_change_that_is_ignored_says_so():
    made = decide(asked(ignore_below=61_000.0), rounds(CALM), rounds(STEPS, 1.05))
    assert made.reason == (
        "latency.p50 is 5 % slower (1.01 ms to 1.06 ms; 95 % interval +5 % to +5.1 %), "
        "which is less than ignore_below = 61.0 us"
    )


def test_ignore_below_counts_the_confirming_rounds_alone():
    """With the screen's the typical change were 500 us, and one of 50 us were no longer ignored."""
    made = decide(asked(ignore_below=61_000.0), rounds((*CALM, *CALM, *CALM), 1.5), rounds(STEPS, 1.05))
    assert made.verdict == "pass"


def test_uneven_rounds_pass_when_all_they_leave_open_is_ignored():
    confirm = rounds(WILD, base=1000.0)
    assert decide(asked(), rounds(CALM), confirm).verdict == "inconclusive"
    made = decide(asked(ignore_below=200.0), rounds(CALM), confirm)
    assert made.verdict == "pass"
    assert made.detectable == pytest.approx(200 / 1005.5)
    assert decide(asked(ignore_below=40.0), rounds(CALM), confirm).verdict == "inconclusive"


def test_ignore_below_of_what_is_better_higher():
    question = replace(THROUGHPUT, regression=Regression(0.03, 61_000.0))
    assert decide(question, rounds(CALM), rounds(STEPS, 0.95)).verdict == "pass"
    question = replace(THROUGHPUT, regression=Regression(0.03, 49_000.0))
    assert decide(question, rounds(CALM), rounds(STEPS, 0.95)).verdict == "regressed"
    everything = replace(THROUGHPUT, regression=Regression(0.03, 1e12))
    made = decide(everything, rounds(CALM), rounds(STEPS, 0.05))
    assert (made.verdict, made.detectable) == ("pass", None)


# --- what cannot be judged ----------------------------------------------------------------------------------------


def with_value(side, value, pairs):
    values = list(getattr(pairs, side))
    values[2] = value
    return replace(pairs, **{side: tuple(values)})


@pytest.mark.parametrize("side", ["base", "candidate"])
@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, "the {} did not measure latency.p50 in 1 of 6 rounds"),
        (0.0, "the {} gave latency.p50 = 0; a ratio needs finite numbers above 0"),
        (-3.5, "the {} gave latency.p50 = -3.5; a ratio needs finite numbers above 0"),
        (math.inf, "the {} gave latency.p50 = inf; a ratio needs finite numbers above 0"),
        (math.nan, "the {} gave latency.p50 = nan; a ratio needs finite numbers above 0"),
        (1e300, "latency.p50 of base and candidate are too far apart for a ratio"),
        (5e-324, "latency.p50 of base and candidate are too far apart for a ratio"),
    ],
)
def test_a_value_that_has_no_ratio_is_told(side, value, message):
    screen = with_value(side, value, rounds(CALM))
    assert trouble(asked(), screen) == message.format(side)
    made = decide(asked(), screen, NONE)
    assert (made.verdict, made.reason) == ("invalid", message.format(side))
    assert (made.change, made.interval, made.p, made.detectable, made.confidence) == (None,) * 5
    line = json.loads(runfile.dumps(Record("s/b[c]", "n", {}, "invalid", comparisons=(made,)).to_json()))
    Record.from_json(line)  # a record holds no NaN and no infinity


def test_trouble_in_a_confirming_round_counts_too():
    made = decide(asked(), rounds(CALM), with_value("candidate", None, rounds(STEPS, 1.05)))
    assert (made.verdict, made.reason) == (
        "invalid",
        "the candidate did not measure latency.p50 in 1 of 18 rounds",
    )


def test_a_side_that_never_measured_it():
    made = decide(asked(), replace(rounds(CALM), base=(None,) * 6), NONE)
    assert made.reason == "the base did not measure latency.p50 in 6 of 6 rounds"
    assert (made.base, made.base_values) == (None, ())
    assert made.candidate is not None


@pytest.mark.parametrize("candidate", [(1_000_000.0,) * 6, (1_100_000.0,) * 6])
def test_times_that_differ_by_exactly_the_same_were_not_measured(candidate):
    made = decide(asked(), Pairs((1_000_000.0,) * 6, candidate), NONE)
    assert made.verdict == "invalid"
    assert made.reason == (
        "latency.p50 differs by exactly the same in each of 6 rounds, which measured times never do: the clock is too "
        "coarse for this model, or it was not measured anew in each round"
    )


def test_times_that_drift_alike_to_the_last_digit_were_not_measured():
    here = tuple(1_000_000.0 + 1234.5 * index for index in range(6))
    assert "differs by exactly the same" in trouble(asked(), Pairs(here, tuple(2 * value for value in here)))


def test_one_round_that_differs_is_enough_to_be_measured():
    assert trouble(asked(), Pairs((1e6,) * 6, (1e6,) * 5 + (1_000_001.0,))) == ""


def test_a_single_round_has_no_variance_to_miss():
    assert trouble(asked(), Pairs((1e6,), (1e6,))) == ""


def test_sizes_may_be_the_same_in_every_round():
    memory = asked("memory.peak", "bytes")
    made = decide(memory, Pairs((5e6,) * 6, (5e6,) * 6), NONE)
    assert (made.verdict, made.change, made.interval, made.reason) == (
        "pass",
        0.0,
        (0.0, 0.0),
        "memory.peak is unchanged (5.00 MB to 5.00 MB; 95 % interval 0 % to 0 %)",
    )
    assert not is_settled(memory, Pairs((5e6,) * 6, (6e6,) * 6))
    made = decide(memory, Pairs((5e6,) * 6, (6e6,) * 6), Pairs((5e6,) * 12, (6e6,) * 12))
    assert made.verdict == "regressed"


VALUES = st.none() | st.floats() | st.floats(1e-3, 1e9)


@settings(deadline=None, max_examples=200)
@given(
    st.lists(st.tuples(VALUES, VALUES), min_size=6, max_size=6),
    st.lists(st.tuples(VALUES, VALUES), max_size=8),
    st.sampled_from(["lower", "higher"]),
    st.sampled_from([0.0, 1.0, 1e300]),
)
def test_whatever_a_metric_gives_there_is_a_verdict_that_a_run_file_can_hold(screen, confirm, direction, floor):
    question = asked("own", "", direction, ignore_below=floor)
    made = decide(question, Pairs(*zip(*screen, strict=True)), Pairs(*zip(*confirm, strict=True)) if confirm else NONE)
    assert made.reason
    assert (made.verdict == "invalid") is (made.change is None)
    line = json.loads(runfile.dumps(Record("s/b[c]", "n", {}, "pass", comparisons=(made,)).to_json()))
    assert Record.from_json(line).comparisons == (made,)


# --- what could be seen ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("question", "sign"), [(asked(), 1), (THROUGHPUT, -1)], ids=["lower", "higher"])
def test_what_could_be_seen_is_of_as_many_rounds_as_confirm(question, sign):
    ratios = [math.log(factor) for factor in CALM]
    made = decide(question, rounds(CALM), NONE)
    margin = abs(math.log1p(0.03 * sign))
    assert made.detectable == pytest.approx(
        abs(math.expm1(sign * signed_rank.detectable(ratios, 12, ALPHA, margin))), rel=1e-9
    )
    assert 0.03 < made.detectable < 0.034
    assert decide(replace(question, confirm=40), rounds(CALM), NONE).detectable < made.detectable


def test_nothing_can_be_seen_by_rounds_that_never_decide():
    made = decide(asked(confirm=7), rounds(CALM), NONE)
    assert (made.verdict, made.detectable) == ("pass", None)


def test_what_could_be_seen_is_found_four_times_in_five():
    random = np.random.default_rng(3)
    one = screened(random, 0.01, 0.0)
    seen = [decide(asked(), screened(random, 0.01, 0.0), NONE).detectable for _ in range(50)]
    typical = float(np.median(seen))
    question = asked()
    found = [decide(question, one, noisy(random, 12, 0.01, typical)).verdict == "regressed" for _ in range(300)]
    assert 0.65 <= np.mean(found) <= 0.95


# --- how often it is wrong ------------------------------------------------------------------------------------------


def noisy(random, n, noise, slower, spikes=0.0, size=0.0):
    """Return rounds of processes that differ by `noise`; a share `spikes` is slower, by `size` on average."""

    def side(by):
        values = 1e6 * by * np.exp(random.normal(0, noise, n))
        values *= 1 + (random.random(n) < spikes) * random.exponential(size, n)
        return tuple(values.tolist())

    return Pairs(side(1.0), side(1 + slower))


def screened(random, noise, slower):
    return noisy(random, SCREEN_ROUNDS, noise, slower)


def verdicts(number, noise, slower, margin, *, spikes=0.05, size=0.1):
    """Screen and decide so many comparisons of a session with 12; returns how many had each verdict."""
    plan = screening.plan(12)
    question = asked(margin=margin, alpha=plan.alpha, confirm=plan.confirm)
    random = np.random.default_rng(20260101)
    found = {"pass": 0, "regressed": 0, "improved": 0, "inconclusive": 0, "settled": 0}
    for _ in range(number):
        screen = noisy(random, SCREEN_ROUNDS, noise, slower, spikes, size)
        settled = is_settled(question, screen)
        confirm = NONE if settled else noisy(random, plan.confirm, noise, slower, spikes, size)
        found[decide(question, screen, confirm).verdict] += 1
        found["settled"] += settled
    return found


@pytest.mark.parametrize("noise", [0.01, 0.02, 0.03])
@pytest.mark.parametrize("margin", [0.0, 0.03])
def test_what_is_the_same_is_hardly_ever_red(noise, margin):
    """One session in 20 may have a false alarm, with 12 comparisons each: 8 of 2000 comparisons."""
    found = verdicts(2000, noise, 0.0, margin)
    assert found["regressed"] <= (8 if margin == 0 else 0)
    assert found["improved"] <= 16
    assert found["pass"] >= {0.01: 1900, 0.02: 1700, 0.03: 1300}[noise]
    assert found["settled"] >= {0.01: 1300, 0.02: 900, 0.03: 500}[noise]  # and cost no further rounds


@pytest.mark.parametrize(
    ("margin", "spikes", "least"),
    [
        (0.0, {"spikes": 0.0}, 0.99),
        (0.03, {"spikes": 0.0}, 0.82),
        (0.0, {"spikes": 0.05, "size": 0.03}, 0.93),
        (0.0, {"spikes": 0.05, "size": 0.1}, 0.72),
    ],
    ids=["even", "even, beyond 3 %", "small spikes", "large spikes"],
)
def test_5_percent_slower_is_found(margin, spikes, least):
    found = verdicts(500, 0.01, 0.05, margin, **spikes)
    assert found["regressed"] >= least * 500
    assert found["pass"] == found["improved"] == 0  # what is not found is not called the same


def test_3_percent_slower_is_found_with_the_noise_of_a_quiet_machine():
    assert verdicts(300, 0.002, 0.03, 0.0, spikes=0.0)["regressed"] >= 299


# --- words --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "metric", "direction", "expected"),
    [
        (0.0612, "latency.p50", "lower", "is 6.1 % slower"),
        (-0.0612, "latency.p50", "lower", "is 6.1 % faster"),
        (0.5, "stage.load", "lower", "is 50 % slower"),
        (-0.031, "throughput", "higher", "is 3.1 % lower"),
        (0.031, "throughput", "higher", "is 3.1 % higher"),
        (0.02, "memory.peak", "lower", "is 2 % larger"),
        (-0.02, "memory.peak", "lower", "is 2 % smaller"),
        (0.02, "own.frames", "higher", "is 2 % larger"),
        (0.0, "latency.p50", "lower", "is unchanged"),
        (1e-7, "latency.p50", "lower", "is less than 0.001 % slower"),
        (1.5, "latency.p50", "lower", "is 150 % slower"),
        (0.999, "latency.p50", "lower", "is 99.9 % slower"),
    ],
)
def test_a_difference_in_words(change, metric, direction, expected):
    assert difference(change, metric, direction) == expected


@pytest.mark.parametrize(
    ("share", "expected"),
    [
        (0.0234, "+2.3 %"),
        (-0.0234, "-2.3 %"),
        (0.0, "0 %"),
        (-0.0, "0 %"),
        (4e-6, "+0.000 %"),
        (-4e-6, "-0.000 %"),
        (2.5, "+250 %"),
        (0.00012, "+0.012 %"),
    ],
)
def test_a_share_with_its_sign(share, expected):
    assert signed(share) == expected


def test_the_words_of_a_comparison():
    made = decide(asked(), rounds(CALM), rounds(STEPS, 1.061))
    assert made.reason == words(made)
    assert made.reason == "latency.p50 is 6.1 % slower (1.01 ms to 1.07 ms; 95 % interval +6.1 % to +6.2 %)"
    made = decide(THROUGHPUT, rounds(CALM, 0.99, base=1000.0), NONE)
    assert made.reason == "throughput is 1 % lower (1.00 k/s to 992 /s; 95 % interval -1.1 % to -0.87 %)"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, "why"),
        ({"change": 0.1}, "own.size is 10 % larger"),
        ({"change": 0.1, "base": 1000.0, "candidate": 1100.0}, "own.size is 10 % larger (1.00 kB to 1.10 kB)"),
        (
            {"change": 0.1, "base": 1e3, "candidate": 1.1e3, "interval": (0.0, 0.2), "confidence": 0.9},
            "own.size is 10 % larger (1.00 kB to 1.10 kB; 90 % interval 0 % to +20 %)",
        ),
    ],
)
def test_words_say_as_much_as_is_known(given, expected):
    assert words(Comparison("own.size", "bytes", "lower", "exact", "pass", "why", **given)) == expected


def test_rounds_are_added_in_order():
    assert Pairs((1.0,), (2.0,)) + Pairs((None,), (3.0,)) == Pairs((1.0, None), (2.0, 3.0))
    assert compare.CONFIDENCE == 0.95
