from __future__ import annotations

import json

import numpy as np
import pytest

from pytest_mlbench.checks.accuracy import check_drop
from pytest_mlbench.spec import MaxDrop


def pair(both: int, lost: int, gained: int, neither: int):
    here = [True] * both + [False] * lost + [True] * gained + [False] * neither
    there = [True] * both + [True] * lost + [False] * gained + [False] * neither
    return np.array(here), np.array(there)


@pytest.mark.parametrize(
    ("counts", "points", "outcome"),
    [
        ((90, 3, 0, 7), 3.0, "pass"),
        ((90, 3, 0, 7), 2.9, "fail"),
        ((90, 5, 3, 2), 2.0, "pass"),
        ((90, 6, 3, 1), 2.0, "fail"),
        ((90, 0, 5, 5), 0.0, "pass"),
        ((90, 1, 0, 9), 0.0, "fail"),
        ((900, 7, 0, 93), 0.7, "pass"),  # 0.907 - 0.9 is 0.00700000000000000x in binary
        ((29, 1, 0, 70), 1.0, "pass"),
        ((10_000, 77, 0, 923), 0.7, "pass"),  # 0.7 * 11000 is 7699.999... in binary
        ((960, 10, 9, 21), 0.1, "pass"),
        ((960, 11, 9, 20), 0.1, "fail"),
    ],
)
def test_the_drop_in_points_decides(counts, points, outcome) -> None:
    result = check_drop(*pair(*counts), MaxDrop("fp32", points))
    assert result.name == "accuracy.max_drop"
    assert result.outcome == outcome
    json.dumps(result.facts, allow_nan=False)


def test_the_message_has_all_that_is_known() -> None:
    result = check_drop(*pair(320, 16, 6, 18), MaxDrop("fp32", 1.0))
    assert result.outcome == "fail"
    assert "top-1 drops by 2.78 points against fp32, limit <= 1 points" in result.message
    assert "0.9056 here, 0.9333 in fp32, n = 360" in result.message
    assert "16 samples lost, 6 gained" in result.message
    assert "p = 0.0262 for a drop, 0.0525 two-sided" in result.message
    assert "95 %, Newcombe" in result.message
    facts = result.facts
    assert (facts["n"], facts["lost"], facts["gained"]) == (360, 16, 6)
    low, high = facts["interval_points"]
    assert facts["drop_points"] == pytest.approx(100 * 10 / 360)
    assert low < facts["drop_points"] < high


def test_a_gain_is_told_as_one() -> None:
    result = check_drop(*pair(300, 0, 6, 54), MaxDrop("fp32", 1.0))
    assert result.outcome == "pass"
    assert "does not drop (+1.67 points)" in result.message
    assert result.facts["drop_points"] < 0


def test_no_change_is_told_without_a_signed_zero() -> None:
    assert "top-1 is unchanged against fp32" in check_drop(*pair(9, 0, 0, 1), MaxDrop("fp32", 1.0)).message


def test_few_samples_pass_with_a_warning() -> None:
    few = check_drop(*pair(18, 0, 0, 2), MaxDrop("fp32", 1.0))
    assert few.outcome == "pass"
    assert "20 samples cannot exclude a larger drop" in few.message
    many = check_drop(*pair(9000, 0, 0, 1000), MaxDrop("fp32", 1.0))
    assert "cannot exclude" not in many.message


@pytest.mark.parametrize(("here", "there"), [(9, 10), (0, 3), (3, 0)])
def test_other_samples_are_invalid_and_never_a_pass(here, there) -> None:
    result = check_drop(np.ones(here, bool), np.ones(there, bool), MaxDrop("fp32", 100.0))
    assert result.outcome == "invalid"
    assert f"{here} here, {there} in fp32" in result.message


def test_no_samples_are_invalid() -> None:
    result = check_drop(np.ones(0, bool), np.ones(0, bool), MaxDrop("fp32", 100.0))
    assert result.outcome == "invalid"
    assert "no samples" in result.message


def test_the_order_of_samples_pairs_them() -> None:
    here, there = np.array([True, False] * 50), np.array([False, True] * 50)
    result = check_drop(here, there, MaxDrop("fp32", 1.0))
    assert result.outcome == "pass"
    assert (result.facts["lost"], result.facts["gained"]) == (50, 50)
