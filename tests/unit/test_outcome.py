"""The session's exit code from its records: comparisons that could not be decided, and what comes before them."""

from __future__ import annotations

import pytest

from pytest_mlbench.outcome import INCONCLUSIVE, INFRASTRUCTURE, INVALID, NOTHING_MEASURED, exit_code
from pytest_mlbench.record import Comparison, Record


def record(outcome="pass", *verdicts, stage="", waived=""):
    comparisons = tuple(Comparison("latency.p50", "ns", "lower", "rounds", one, waived=waived) for one in verdicts)
    return Record("s/b[c]", "n", {}, outcome, stage=stage, comparisons=comparisons)


UNDECIDED = record("pass", "pass", "inconclusive")


def test_the_codes_are_those_that_are_documented():
    assert (INCONCLUSIVE, INVALID, INFRASTRUCTURE, NOTHING_MEASURED) == (10, 11, 12, 13)


@pytest.mark.parametrize(
    ("records", "code"),
    [
        ([record("pass", "pass")], 0),
        ([record("pass", "improved")], 0),
        ([record()], 0),
        ([UNDECIDED], 10),
        ([record("pass", "pass"), UNDECIDED], 10),
        ([record("pass", "regressed", waived="known")], 0),
        ([record("fail", "inconclusive")], 1),  # --mlbench-strict
        ([record("fail", "regressed"), UNDECIDED], 1),
        ([record("invalid", "invalid", "inconclusive")], 11),
        ([record("invalid", "invalid"), UNDECIDED], 11),
        ([record("error", stage="load"), UNDECIDED], 12),
        ([record("error", stage="suite"), UNDECIDED], 1),
        ([record("insufficient"), UNDECIDED], 10),
        ([record("skip")], 13),
        ([record("skip", "inconclusive")], 13),
        ([], 13),
    ],
)
def test_the_worst_there_is_decides(records, code):
    given = int(any(one.outcome in ("fail", "invalid", "error", "insufficient") for one in records))
    assert exit_code(given, records, 0, None) == code
    assert exit_code(given, records[::-1], 0, None) == code


def test_an_undecided_comparison_hides_no_other_failure():
    assert exit_code(1, [UNDECIDED], 1, None) == 1  # an ordinary test, or a lost case
    assert exit_code(0, [UNDECIDED], 0, "the run file cannot be written") == 12


@pytest.mark.parametrize("given", [2, 3, 4, 5])
def test_pytests_own_codes_stand(given):
    assert exit_code(given, [UNDECIDED, record("fail")], 0, None) == given


def test_nothing_collected_is_a_failure_where_something_was_expected():
    assert exit_code(5, [], 1, None) == 1
