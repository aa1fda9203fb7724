"""What is compared of a case, and which verdicts are withdrawn."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from pytest_mlbench.against_base import AgainstBase, _unaskable, believed, facts_of, invalid
from pytest_mlbench.checkout import Checkout
from pytest_mlbench.record import Comparison, Metric
from pytest_mlbench.rounds import Round
from pytest_mlbench.screening import plan
from pytest_mlbench.spec import Regression

REASON = "latency.p50 is 24 % slower"
P50 = Metric("latency.p50", 2000.0, "ns", "lower")


def compared(verdict, n=12):
    return Comparison("latency.p50", "ns", "lower", "rounds", verdict, REASON, n=n)


def rounds(*troubles):
    return [Round("base", {}, {}, (text,) if text else (), {}) for text in troubles]


CALM = rounds(*[""] * 18)

# --- verdicts that are withdrawn ---------------------------------------------------------------------------------


@pytest.mark.parametrize("verdict", ["pass", "regressed", "improved", "inconclusive", "invalid"])
def test_rounds_that_nothing_disturbed_are_believed(verdict):
    assert believed(compared(verdict), CALM, same=False) == compared(verdict)


def test_what_is_the_same_cannot_improve():
    made = believed(compared("improved"), CALM, same=True)
    assert made.verdict == "pass"
    assert made.reason.endswith(", by chance: both sides are the same model, data, options, framework and code")


def test_what_is_the_same_cannot_regress():
    made = believed(compared("regressed"), CALM, same=True)
    assert made.verdict == "invalid"
    assert made.reason == (
        "latency.p50 is 24 % slower, although both sides are the same model, data, options, framework and code: this "
        "machine is not fit to judge; `mlbench doctor` tells what may disturb it"
    )


@pytest.mark.parametrize("verdict", ["pass", "inconclusive", "invalid"])
def test_what_is_the_same_may_be_found_the_same(verdict):
    assert believed(compared(verdict), CALM, same=True) == compared(verdict)


@pytest.mark.parametrize(("disturbed", "verdict"), [(6, "regressed"), (7, "invalid"), (12, "invalid")])
def test_more_than_half_of_the_rounds_disturbed_make_no_red(disturbed, verdict):
    taken = rounds(*[""] * 6, *["heat slowed it"] * (disturbed - 1), "a process took a core", *[""] * (12 - disturbed))
    made = believed(compared("regressed"), taken, same=False)
    assert made.verdict == verdict
    if verdict == "invalid":
        assert made.reason == f"{REASON}, but {disturbed} of 12 rounds were disturbed: a process took a core"


def test_only_the_rounds_that_decided_count():
    taken = [*rounds(*["heat slowed it"] * 6), *rounds(*[""] * 12)]
    assert believed(compared("regressed"), taken, same=False).verdict == "regressed"
    assert believed(compared("regressed", n=6), taken[:6], same=False).verdict == "invalid"


@pytest.mark.parametrize("verdict", ["pass", "improved", "inconclusive"])
def test_a_disturbance_takes_no_green_away(verdict):
    """What else runs on a machine only ever adds time."""
    assert believed(compared(verdict), rounds(*["heat slowed it"] * 18), same=False) == compared(verdict)


# --- what cannot be asked ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("metric", "expected"),
    [
        (P50, ""),
        (None, "there is no metric own.f1 in this case"),
        (Metric("own.f1", None, "", "higher", reason="no labels"), "own.f1 was not measured: no labels"),
        (
            Metric("own.f1", 3.0, "", "none"),
            "own.f1 has no better direction, so it can be neither better nor worse",
        ),
    ],
)
def test_a_metric_that_cannot_be_compared(metric, expected):
    name = "own.f1" if metric is None else metric.name
    assert _unaskable(name, {metric.name: metric} if metric else {}) == expected


def test_an_invalid_comparison_has_the_metrics_own_unit():
    made = invalid("latency.p50", "why", [P50])
    assert made == Comparison("latency.p50", "ns", "lower", "rounds", "invalid", "why")
    assert invalid("own.gone", "why", [P50]) == Comparison("own.gone", "", "none", "rounds", "invalid", "why")


def test_the_base_as_a_record_keeps_it():
    made = Checkout("main", "b" * 40, "c" * 40, False, "merge base", Path("/c"), Path("/b"))
    assert facts_of(made) == {"commit": "b" * 40, "ref": "main", "how": "merge base"}


# --- answers to the same samples ----------------------------------------------------------------------------------

LABELS = np.arange(40) % 8


def scores(right_at):
    """Return scores whose label comes at this place of eight."""
    found = np.tile(np.arange(8.0), (40, 1))
    for sample, label in enumerate(LABELS):
        order = [one for one in range(8) if one != label]
        order.insert(right_at, label)
        found[sample, order] = np.arange(8.0, 0.0, -1.0)
    return {"y": found}


def quality(name, here, there, *, labels=LABELS, base_labels=LABELS):
    """Compare outputs as a case of 12 comparisons does."""
    executed = SimpleNamespace(measurement=SimpleNamespace(labels=labels, outputs=here))
    samples = None if base_labels is None else SimpleNamespace(labels=base_labels)
    metrics = [Metric("accuracy.top1", 1.0, "", "higher"), Metric("accuracy.top5", 1.0, "", "higher")]
    gate = SimpleNamespace(plan=plan(12))
    one = AgainstBase(gate, None, executed, metrics, {}, None)
    return one._quality(name, SimpleNamespace(preparation=SimpleNamespace(samples=samples)), there, Regression(0.0))


@pytest.mark.parametrize(
    ("name", "here", "verdict", "accuracy"),
    [
        ("accuracy.top1", 0, "pass", 1.0),
        ("accuracy.top1", 1, "regressed", 0.0),
        ("accuracy.top5", 4, "pass", 1.0),  # the label is still among the first five
        ("accuracy.top5", 5, "regressed", 0.0),
    ],
)
def test_an_accuracy_is_compared_answer_by_answer(name, here, verdict, accuracy):
    made = quality(name, scores(here), scores(0))
    assert (made.metric, made.method, made.verdict) == (name, "mcnemar", verdict)
    assert (made.candidate, made.base, made.n) == (accuracy, 1.0, 40)


@pytest.mark.parametrize("base_labels", [None, LABELS[::-1], LABELS[:39]])
def test_other_samples_cannot_be_paired(base_labels):
    made = quality("accuracy.top5", scores(0), scores(0), base_labels=base_labels)
    assert (made.metric, made.verdict) == ("accuracy.top5", "invalid")
    assert made.reason == "the base has other samples or labels, so answers cannot be paired"


def test_outputs_that_cannot_be_scored_are_invalid():
    spoilt = scores(0)
    spoilt["y"][3, 2] = np.nan
    for here, there in ((spoilt, scores(0)), (scores(0), spoilt)):
        made = quality("accuracy.top1", here, there)
        assert made.verdict == "invalid"
        assert made.reason == "output 'y' contains NaN in 1 of 40 samples (first: sample 3)"
