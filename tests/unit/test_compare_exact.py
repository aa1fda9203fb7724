"""What has no noise: sizes byte by byte, answers sample by sample, outputs bit by bit."""

from __future__ import annotations

import math

import numpy as np
import pytest

from pytest_mlbench.compare_exact import accuracy, exact, outputs_differ, ticks
from pytest_mlbench.record import Metric
from pytest_mlbench.spec import Regression
from pytest_mlbench.stats import mcnemar

SIZE = Metric("model.size", 0.0, "bytes", "lower")
FRAMES = Metric("own.frames", 0.0, "", "higher")
ANY = Regression(0.0)
ALPHA = 0.05 / 12

# --- sizes ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("base", "candidate", "regression", "verdict"),
    [
        (9876, 9876, ANY, "pass"),
        (9876, 9877, ANY, "regressed"),  # one byte
        (9876, 9875, ANY, "improved"),
        (10_000, 10_300, Regression(0.03), "pass"),  # the margin itself is accepted
        (10_000, 10_301, Regression(0.03), "regressed"),
        (10_000, 10_100, Regression(0.03), "pass"),
        (10_000, 9_999, Regression(0.03), "improved"),
        (10_000, 14_095, Regression(0.0, 4096.0), "pass"),
        (10_000, 14_096, Regression(0.0, 4096.0), "regressed"),
        (10_000, 14_096, Regression(0.5, 1.0), "pass"),
        (0, 0, ANY, "pass"),
    ],
)
def test_a_size(base, candidate, regression, verdict):
    made = exact(SIZE, base, candidate, regression)
    assert (made.verdict, made.method, made.n) == (verdict, "exact", 1)
    assert (made.base, made.candidate) == (base, candidate)
    assert (made.margin, made.ignore_below) == (regression.margin, regression.ignore_below)
    assert made.change == ((candidate - base) / base if base else 0.0)
    assert (made.interval, made.p, made.alpha) == (None, None, None)  # nothing is left to chance


@pytest.mark.parametrize(
    ("base", "candidate", "verdict"),
    [(10, 9, "regressed"), (10, 11, "improved"), (10, 10, "pass"), (-10, -11, "regressed"), (-10, -9, "improved")],
)
def test_what_is_better_higher(base, candidate, verdict):
    assert exact(FRAMES, base, candidate, ANY).verdict == verdict


def test_what_is_better_higher_within_a_margin():
    assert exact(FRAMES, 100, 97, Regression(0.03)).verdict == "pass"
    assert exact(FRAMES, 100, 96.9, Regression(0.03)).verdict == "regressed"


@pytest.mark.parametrize(
    ("base", "candidate", "reason"),
    [
        (9876, 10_122, "model.size is 2.5 % larger (9.88 kB to 10.1 kB)"),
        (9876, 9630, "model.size is 2.5 % smaller (9.88 kB to 9.63 kB)"),
        (9876, 9876, "model.size is unchanged (9.88 kB to 9.88 kB)"),
    ],
)
def test_the_words_of_a_size(base, candidate, reason):
    assert exact(SIZE, base, candidate, ANY).reason == reason


def test_a_change_that_is_ignored_says_so():
    made = exact(SIZE, 10_000, 12_000, Regression(0.03, 4096.0))
    assert (made.verdict, made.reason) == (
        "pass",
        "model.size is 20 % larger (10.0 kB to 12.0 kB), which is less than ignore_below = 4.10 kB",
    )


@pytest.mark.parametrize(
    ("base", "candidate", "reason"),
    [
        (None, 5, "the base did not measure model.size"),
        (5, None, "the candidate did not measure model.size"),
        (None, None, "the base did not measure model.size"),
        (0, 5, "model.size is 5, the base's 0, of which there is no share"),
        (5, math.nan, "model.size is nan, the base's 5, of which there is no share"),
        (math.nan, 5, "model.size is 5, the base's nan, of which there is no share"),
        (5, math.inf, "model.size is inf, the base's 5, of which there is no share"),
        (5e-324, 5, "model.size is 5, the base's 4.94066e-324, of which there is no share"),
    ],
)
def test_a_value_that_cannot_be_compared_is_never_a_pass(base, candidate, reason):
    made = exact(SIZE, base, candidate, ANY)
    assert (made.verdict, made.reason, made.change) == ("invalid", reason, None)
    for value in (made.base, made.candidate):
        assert value is None or math.isfinite(value)


# --- accuracy on the same samples -----------------------------------------------------------------------------


def answers(both, lost, gained, neither):
    """Return which samples the candidate and the base have right."""
    here = [True] * both + [False] * lost + [True] * gained + [False] * neither
    there = [True] * both + [True] * lost + [False] * gained + [False] * neither
    return np.array(here), np.array(there)


def judged(both, lost, gained, neither, *, margin=0.0, ignore_below=0.0, alpha=ALPHA, name="accuracy.top1"):
    return accuracy(name, *answers(both, lost, gained, neither), Regression(margin, ignore_below), alpha)


@pytest.mark.parametrize(
    ("lost", "gained", "verdict"),
    [
        (0, 0, "pass"),
        (7, 0, "pass"),  # 2**-7 is above alpha
        (8, 0, "regressed"),
        (10, 1, "pass"),  # 12 of 2048
        (11, 1, "regressed"),  # 13 of 4096
        (40, 40, "pass"),
        (0, 7, "pass"),
        (0, 8, "improved"),
    ],
)
def test_mcnemar_tells_losses_from_chance(lost, gained, verdict):
    made = judged(300, lost, gained, 10)
    assert (made.verdict, made.method, made.direction) == (verdict, "mcnemar", "higher")
    assert made.p == mcnemar.one_sided(lost, gained)
    assert made.alpha == ALPHA


def test_the_numbers_of_an_accuracy():
    made = judged(340, 10, 2, 8, name="accuracy.top5")
    assert made.metric == "accuracy.top5"
    assert (made.n, made.candidate, made.base) == (360, 342 / 360, 350 / 360)
    assert made.change == pytest.approx(-8 / 360)
    assert made.interval == mcnemar.difference_interval(mcnemar.table(*answers(340, 10, 2, 8)))
    assert made.interval[0] < made.change < made.interval[1]
    assert made.confidence == 0.95
    assert made.reason == (
        "accuracy.top5 is 95.00%, the base's 97.22%: of the same 360 samples 10 were lost and 2 gained"
    )


def test_the_order_of_the_samples_pairs_them():
    """The same two accuracies: once nothing changed, once twenty answers did."""
    same, other = np.array([True] * 80 + [False] * 20), np.array([True] * 60 + [False] * 20 + [True] * 20)
    equal = accuracy("accuracy.top1", same, same, ANY, ALPHA)
    assert equal.interval[0] > -0.03
    swapped = accuracy("accuracy.top1", same, other, ANY, ALPHA)
    assert (swapped.verdict, swapped.change) == ("pass", 0.0)
    assert "20 were lost and 20 gained" in swapped.reason
    assert swapped.interval[0] < -0.1


@pytest.mark.parametrize(
    ("lost", "margin", "verdict"),
    [
        (20, 0.0, "regressed"),
        (20, 0.02, "pass"),  # 2 points of 1000 samples, of which chance takes its part
        (45, 0.02, "regressed"),
        (30, 0.02, "pass"),  # more than the margin, but not surely
        (0, 0.02, "pass"),
    ],
)
def test_with_a_margin_the_drop_must_surely_exceed_it(lost, margin, verdict):
    made = judged(900, lost, 0, 100 - lost, margin=margin)
    assert made.verdict == verdict
    assert made.margin == margin


def test_a_margin_is_judged_as_strictly_as_the_rest():
    """The bound is one-sided at alpha: with more comparisons in a session a larger drop is needed."""
    few = next(lost for lost in range(100) if judged(900, lost, 0, 100 - lost, margin=0.02).verdict == "regressed")
    many = next(
        lost
        for lost in range(100)
        if judged(900, lost, 0, 100 - lost, margin=0.02, alpha=0.05 / 1000).verdict == "regressed"
    )
    assert 20 < few < many
    _, upper = mcnemar.difference_interval(mcnemar.table(*answers(900, few, 0, 100 - few)), 1 - 2 * ALPHA)
    assert upper < -0.02


def test_an_improvement_needs_no_margin():
    assert judged(900, 0, 20, 80, margin=0.05).verdict == "improved"


def test_a_drop_below_ignore_below_is_no_regression():
    made = judged(900, 20, 0, 80, ignore_below=0.025)
    assert (made.verdict, made.ignore_below) == ("pass", 0.025)
    assert made.reason.endswith("20 were lost and 0 gained, which is less than ignore_below = 2.5 %")
    assert judged(900, 20, 0, 80, ignore_below=0.019).verdict == "regressed"
    assert "ignore_below" not in judged(900, 2, 0, 98, ignore_below=0.1).reason  # nothing was found


@pytest.mark.parametrize(
    ("n", "margin", "ignore_below", "expected"),
    [(360, 0.0, 0.0, 8 / 360), (360, 0.1, 0.0, 0.1), (360, 0.0, 0.2, 0.2), (5, 0.0, 0.0, 1.0)],
)
def test_what_could_be_seen_is_as_many_losses_as_decide(n, margin, ignore_below, expected):
    assert judged(n, 0, 0, 0, margin=margin, ignore_below=ignore_below).detectable == expected


def test_all_answers_wrong_is_a_regression_with_numbers():
    made = judged(0, 50, 0, 0)
    assert (made.verdict, made.candidate, made.base, made.change) == ("regressed", 0.0, 1.0, -1.0)


# --- outputs ----------------------------------------------------------------------------------------------------


def scores(*changes, dtype=np.float32):
    """Return outputs of four samples; `changes` are (sample, class, value)."""
    found = np.arange(12, dtype=dtype).reshape(4, 3)
    for sample, place, value in changes:
        found[sample, place] = value
    return {"y": found}


def test_the_same_outputs_are_identical():
    assert outputs_differ(scores(), scores()) == ""
    assert outputs_differ({}, {}) == ""
    assert outputs_differ({"y": np.zeros((0, 3))}, {"y": np.zeros((0, 3))}) == ""


def test_how_many_samples_differ_and_how_far_at_most():
    assert outputs_differ(scores((0, 1, 1.25), (0, 2, 2.5), (3, 0, 8.0)), scores()) == (
        "y differs for 2 of 4 samples, by at most 1"
    )


def test_the_last_bit_counts():
    near = np.nextafter(np.float32(5), np.float32(6))
    assert outputs_differ(scores((1, 2, near)), scores()) == "y differs for 1 of 4 samples, by at most 4.77e-07"
    assert outputs_differ(scores((0, 0, -0.0)), scores()) == "y differs for 1 of 4 samples, by at most 0"


@pytest.mark.filterwarnings("error")
def test_nan_and_infinity_are_told_and_do_not_hide_the_rest():
    nan, inf = math.nan, math.inf
    assert outputs_differ(scores((1, 1, nan)), scores((1, 1, nan))) == ""
    assert outputs_differ(scores((1, 1, nan)), scores()) == (
        "y differs for 1 of 4 samples, by at most 0; in 1 of them only one side has NaN"
    )
    assert outputs_differ(scores((2, 0, 7.0)), scores((1, 1, nan), (3, 1, nan))) == (
        "y differs for 3 of 4 samples, by at most 1; in 2 of them only one side has NaN"
    )
    # NaN on both sides is the same, and does not count as a sample that differs.
    assert outputs_differ(scores((1, 1, nan), (2, 0, 7.0)), scores((1, 1, nan))) == (
        "y differs for 1 of 4 samples, by at most 1"
    )
    assert outputs_differ(scores((0, 0, inf)), scores()) == "y differs for 1 of 4 samples, by at most inf"
    assert outputs_differ(scores((0, 0, inf), (1, 0, 3.5)), scores((0, 0, inf))) == (
        "y differs for 1 of 4 samples, by at most 0.5"
    )


@pytest.mark.parametrize(
    ("here", "there", "expected"),
    [
        (np.zeros((4, 3)), np.zeros((4, 2)), "y has shape [4, 3], the base's [4, 2]"),
        (np.zeros((4, 3), np.float32), np.zeros((4, 3)), "y is float32, the base's float64"),
        (np.zeros((4, 1), np.int64), np.ones((4, 1), np.int64), "y differs for 4 of 4 samples, by at most 1"),
        (np.zeros((4, 1), np.uint8), np.ones((4, 1), np.uint8), "y differs for 4 of 4 samples, by at most 1"),
        (np.array([True, False]), np.array([True, True]), "y differs for 1 of 2 samples, by at most 1"),
        (np.array([1 + 2j]), np.array([1 - 1j]), "y differs for 1 of 1 samples, by at most 3"),
    ],
)
def test_other_shapes_and_kinds_of_numbers(here, there, expected):
    assert outputs_differ({"y": here}, {"y": there}) == expected


def test_other_names_are_told():
    assert outputs_differ({"b": np.zeros(1), "a": np.zeros(1)}, scores()) == "outputs are a, b, the base's y"


def test_each_output_is_told_in_the_candidates_order():
    here = {"y": np.zeros((2, 1)), "same": np.ones(2), "x": np.zeros((2, 2))}
    there = {"x": np.zeros((2, 3)), "same": np.ones(2), "y": np.array([[0.0], [0.25]])}
    assert outputs_differ(here, there) == (
        "y differs for 1 of 2 samples, by at most 0.25; x has shape [2, 2], the base's [2, 3]"
    )


# --- the time of an emulated board --------------------------------------------------------------------------


def emulated(value, off=2000.0):
    return Metric("emulated.time", value, "ns", "lower", interval=(value - off, value + off))


@pytest.mark.parametrize(
    ("base", "candidate", "verdict"),
    [
        (275_271_000, 275_271_000, "pass"),
        (275_271_000, 275_273_000, "pass"),  # two ticks
        (275_271_000, 275_269_000, "pass"),
        (275_271_000, 275_274_000, "regressed"),  # three: instructions do not jitter
        (275_271_000, 275_268_000, "improved"),
    ],
)
def test_an_emulated_time_is_exact_but_for_two_ticks(base, candidate, verdict):
    made = exact(emulated(candidate), base, candidate, Regression(0.0))
    assert (made.method, made.verdict) == ("exact", verdict)
    assert ("within the ticks of its clock" in made.reason) == (0 < abs(base - candidate) <= 2000)


def test_ticks_are_none_of_another_metrics():
    assert ticks(Metric("model.size", 5, "bytes", "lower", interval=(1.0, 9.0))) == 0.0
    assert ticks(emulated(10_000.0)) == 2000.0
