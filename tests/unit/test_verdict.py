"""From comparisons to an outcome and to the words of a failing test: what, how sure, against what, what to do."""

from __future__ import annotations

import re
from datetime import date

import pytest

from pytest_mlbench import waivers
from pytest_mlbench.record import Comparison
from pytest_mlbench.verdict import accepted_ratio, change, lines, named, outcome, points, shown

CASE = "digits/classify[digits_cnn-onnxruntime-int8-cpu]"
TODAY = date(2026, 6, 1)
FACTS = {"commit": "8c9626cc2d4e0123456789abcdef0123456789ab", "ref": "origin/main", "how": "merge base"}
BASE = "base 8c9626cc2d4e (merge base of origin/main)"


def made(word="pass", *, metric="latency.p50", method="rounds", direction="lower", reason="", **values):
    unit = {"model.size": "bytes", "throughput": "1/s"}.get(metric, "ns" if metric.startswith("latency") else "")
    return Comparison(metric, unit, direction, method, word, reason, **values)


SLOWER = made(
    "regressed",
    reason="latency.p50 is 24 % slower (6.65 us to 8.26 us; 95 % interval +23 % to +25 %)",
    base=6650.0,
    candidate=8260.0,
    change=0.242,
    interval=(0.231, 0.2533),
    confidence=0.95,
    n=12,
    p=2.0**-12,
    alpha=0.05 / 8,
    margin=0.03,
)
LARGER = made(
    "regressed",
    metric="model.size",
    method="exact",
    reason="model.size is 12 % larger (51 B to 57 B)",
    base=51.0,
    candidate=57.0,
    change=6 / 51,
    n=1,
)
WRONG = made(
    "regressed",
    metric="accuracy.top1",
    method="mcnemar",
    direction="higher",
    reason="accuracy.top1 is 90.00%, the base's 95.00%: of the same 360 samples 18 were lost and 0 gained",
    base=0.95,
    candidate=0.9,
    change=-0.05,
    interval=(-0.0778, -0.0303),
    confidence=0.95,
    n=360,
    p=2.0**-18,
    alpha=0.05 / 8,
    margin=0.005,
)
FEWER = made(
    "regressed",
    metric="throughput",
    direction="higher",
    base=1000.0,
    candidate=910.0,
    change=-0.09,
    interval=(-0.1, -0.08),
    confidence=0.95,
    n=12,
)
UNDECIDED = made(
    "inconclusive",
    reason="latency.p50 is 1.7 % slower (1.00 ms to 1.02 ms; 95 % interval -5 % to +8.5 %)",
    n=12,
    margin=0.03,
    detectable=0.1449,
)


# --- outcomes -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "expected", "strict"),
    [
        ("", "pass", "pass"),
        ("pass", "pass", "pass"),
        ("improved pass", "pass", "pass"),
        ("inconclusive pass", "pass", "fail"),
        ("regressed pass", "fail", "fail"),
        ("regressed improved", "fail", "fail"),
        ("invalid pass", "invalid", "invalid"),
        ("invalid inconclusive", "invalid", "invalid"),
        ("regressed invalid inconclusive", "fail", "fail"),
    ],
)
def test_the_worst_verdict_is_the_outcome(words, expected, strict):
    comparisons = [made(word) for word in words.split()]
    assert outcome(comparisons, strict=False) == expected
    assert outcome(comparisons, strict=True) == strict
    assert outcome(comparisons[::-1], strict=False) == expected


def test_a_waived_regression_fails_nothing_but_hides_no_other():
    waived = made("regressed", waived="known")
    assert outcome([waived], strict=True) == "pass"
    assert outcome([waived, made("regressed", metric="memory.peak")], strict=False) == "fail"
    assert outcome([waived, made("invalid")], strict=False) == "invalid"
    assert outcome([waived, made("inconclusive")], strict=True) == "fail"


# --- the words of a failing test --------------------------------------------------------------------------------


def told(*comparisons, facts=FACTS):
    return "\n".join(lines(CASE, comparisons, facts, TODAY))


def test_a_slowdown_in_full():
    assert told(SLOWER) == (
        f"regressed: latency.p50 is 24 % slower (6.65 us to 8.26 us; 95 % interval +23 % to +25 %) against {BASE}; "
        "limit 3 %, p = 0.00024, needed 0.0063 in 12 confirming rounds\n"
        "  Find the cause and correct it, or accept it in mlbench-waivers.toml:\n"
        "  [[waiver]]\n"
        '  case = "digits/classify[digits_cnn-onnxruntime-int8-cpu]"\n'
        '  metric = "latency.p50"\n'
        "  max_ratio = 1.26\n"
        '  reason = "why this is worth it"\n'
        "  expires = 2026-08-30"
    )


def test_a_larger_file_in_full():
    assert told(LARGER).splitlines()[0] == (
        f"regressed: model.size is 12 % larger (51 B to 57 B) against {BASE}; limit 0 %, compared exactly"
    )


def test_lost_answers_in_full():
    assert told(WRONG).splitlines()[0] == (
        "regressed: accuracy.top1 is 90.00%, the base's 95.00%: of the same 360 samples 18 were lost and 0 gained "
        f"against {BASE}; limit 0.5 points, p = 3.8e-06, needed 0.0063 in 360 paired samples"
    )


def test_what_is_undecided_in_full():
    assert told(UNDECIDED) == (
        "inconclusive: latency.p50 is 1.7 % slower (1.00 ms to 1.02 ms; 95 % interval -5 % to +8.5 %) "
        f"against {BASE}: that it is no worse than 3 % could not be shown, nor that it is worse; 12 rounds as uneven "
        "as these find a worsening of 14 % or more. Give more --mlbench-rounds, or a quieter machine"
    )
    unseen = made("inconclusive", reason="x is y", margin=0.03)
    assert told(unseen) == (
        f"inconclusive: x is y against {BASE}: that it is no worse than 3 % could not be shown, nor that it is worse. "
        "Give more --mlbench-rounds, or a quieter machine"
    )


def test_what_is_invalid_for_one_reason_is_told_once():
    broken = "the base failed in stage load: injected fault"
    comparisons = [
        made("invalid", reason=broken),
        made("invalid", metric="accuracy.top1", reason=broken),
        made("invalid", metric="memory.peak", reason="memory.peak was not measured: no /proc"),
    ]
    assert told(*comparisons) == (
        f"invalid: latency.p50, accuracy.top1: {broken} (against {BASE})\n"
        f"invalid: memory.peak: memory.peak was not measured: no /proc (against {BASE})"
    )


def test_passes_improvements_and_waived_regressions_are_not_told():
    waived = Comparison(**{**vars(SLOWER), "waived": "known"})
    assert lines(CASE, [made(), made("improved"), waived], FACTS, TODAY) == []


def test_every_regression_has_its_own_waiver():
    text = told(SLOWER, made(), WRONG, UNDECIDED)
    assert text.count("[[waiver]]") == 2
    assert [line.partition(":")[0] for line in text.splitlines() if not line.startswith("  ")] == [
        "regressed",
        "regressed",
        "inconclusive",
    ]


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        (FACTS, BASE),
        ({**FACTS, "how": "as given", "ref": "v1"}, "base 8c9626cc2d4e (v1)"),
        ({}, "the base"),
        ({"commit": None, "new": True}, "the base"),
    ],
)
def test_the_base_by_name(facts, expected):
    assert named(facts) == expected
    assert f"(against {expected})" in told(made("invalid", reason="why"), facts=facts)


# --- the waiver that is offered -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("comparison", "ratio"),
    [
        (SLOWER, 1.26),  # the interval's upper end, and up to the next hundredth
        (LARGER, 1.12),
        (WRONG, 1.06),
        (FEWER, 1.12),  # 1 / 0.9: the interval's lower end
        (made("regressed", change=0.5, base=10.0, candidate=15.0), 1.5),  # too few rounds for an interval
        (made("regressed", change=7.0, interval=(6.0, 12345.678)), 12346.68),
        (made("regressed", change=0.001, interval=(0.0005, 0.0011)), 1.01),
        # The best estimate may lie outside what the rest of the numbers say; it is what the waiver is held against.
        (made("regressed", change=0.5, interval=(0.1, 0.2)), 1.5),
        (made("regressed", metric="throughput", direction="higher", change=-0.5, interval=(-1.0, -0.4)), 2.0),
    ],
)
def test_the_offered_ratio_is_how_many_times_worse(comparison, ratio):
    assert accepted_ratio(comparison) == pytest.approx(ratio)


@pytest.mark.parametrize(
    "comparison",
    [
        SLOWER,
        LARGER,
        WRONG,
        FEWER,
        made("regressed", change=0.5, base=10.0, candidate=11.0),
        made("regressed", metric='own "best".x\n', change=0.5, interval=(0.4, 0.6)),
        made("regressed", metric="größe.\U0001f600", change=0.10, method="exact", base=10.0, candidate=11.0),
        made("regressed", change=12345638.9),
    ],
    ids=["slower", "larger", "wrong", "fewer", "without interval", "quotes", "beyond ASCII", "huge"],
)
def test_the_offered_waiver_can_be_pasted_and_accepts_the_same_comparison(comparison, tmp_path):
    _, _, pasted = told(comparison).partition("mlbench-waivers.toml:\n")
    path = tmp_path / "mlbench-waivers.toml"
    path.write_text(pasted, encoding="utf-8")
    found = waivers.load(path, TODAY)
    (waiver,) = found.holding
    assert (waiver.case, waiver.metric) == (CASE, comparison.metric)
    assert (waiver.expires - TODAY).days == 90
    waived = waivers.apply(comparison, found, CASE)
    assert waived.waived == "why this is worth it"
    assert outcome([waived], strict=True) == "pass"
    assert waivers.apply(comparison, waivers.load(path, date(2026, 8, 31)), CASE).waived == ""


@pytest.mark.parametrize(
    "comparison",
    [
        made("regressed", metric="accuracy.top1", method="mcnemar", direction="higher", base=0.9, candidate=0.0),
        made("regressed", change=None),
        made("regressed", metric="throughput", direction="higher", change=-1.0),
    ],
)
def test_no_waiver_is_offered_that_would_accept_nothing(comparison):
    assert accepted_ratio(comparison) is None
    text = told(comparison)
    assert "[[waiver]]" not in text
    assert text.endswith("\n  Find the cause and correct it; a waiver accepts no ratio that is not known")


def test_two_waivers_pasted_one_after_the_other_are_a_file(tmp_path):
    path = tmp_path / "mlbench-waivers.toml"
    path.write_text("\n".join(re.findall(r"  \[\[waiver\]\]\n(?:  .*\n?){5}", told(SLOWER, WRONG))), encoding="utf-8")
    assert [one.metric for one in waivers.load(path, TODAY).holding] == ["latency.p50", "accuracy.top1"]


# --- in a table -----------------------------------------------------------------------------------------------------


def test_a_verdict_in_a_table():
    assert shown(SLOWER) == "regressed"
    assert shown(Comparison(**{**vars(SLOWER), "waived": "known"})) == "regressed (waived)"


@pytest.mark.parametrize(
    ("comparison", "expected"),
    [
        (SLOWER, "+24 % [+23 %, +25 %]"),
        (FEWER, "-9 % [-10 %, -8 %]"),
        (LARGER, "+12 %"),
        (WRONG, "-5 points [-7.78, -3.03]"),
        (made(change=0.0, interval=(-0.0012, 0.0)), "0 % [-0.12 %, 0 %]"),
        (made("invalid"), "-"),
    ],
)
def test_a_change_in_a_table(comparison, expected):
    assert change(comparison) == expected


@pytest.mark.parametrize(
    ("difference", "expected"),
    [(-0.0139, "-1.39 points"), (0.0, "0 points"), (0.1, "+10 points"), (1.0, "+100 points"), (2e-5, "+0.002 points")],
)
def test_points(difference, expected):
    assert points(difference) == expected
