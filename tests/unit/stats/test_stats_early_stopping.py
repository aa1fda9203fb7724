from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_mlbench.stats.binomial import cdf
from pytest_mlbench.stats.early_stopping import discards, minimum_n, percentile, upper_bound

# The first four were run against the LoadGen wheel (research/mlbench-peers.md section 5); the others are
# "Would discard N highest latency queries" lines of published mlperf_log_summary.txt files.
DISCARDS = [
    (20001, 0.9, 1900),
    (274, 0.9, 14),
    (1228, 0.99, 3),
    (7816, 0.9, 718),
    (201, 0.9, 9),
    (659, 0.9, 47),
    (708, 0.9, 51),
    (79944, 0.9, 7796),
]
MINIMUM = [(0.5, 11), (0.9, 64), (0.95, 130), (0.97, 219), (0.99, 662), (0.999, 6636)]


@pytest.mark.parametrize(("n", "share", "expected"), DISCARDS)
def test_as_many_are_discarded_as_by_loadgen(n: int, share: float, expected: int) -> None:
    assert discards(n, share) == expected


@pytest.mark.parametrize(("share", "expected"), MINIMUM)
def test_the_least_number_of_readings_is_mlperfs(share: float, expected: int) -> None:
    assert minimum_n(share) == expected
    assert discards(expected, share) == 0
    assert discards(expected - 1, share) is None


@pytest.mark.parametrize("n", [0, 1, 2, 10])
def test_too_few_readings_have_no_bound(n: int) -> None:
    assert discards(n, 0.5) is None
    assert upper_bound(np.arange(n), 0.5) is None


@given(n=st.integers(1, 4000), share=st.sampled_from([0.5, 0.9, 0.95, 0.99]))
def test_the_number_of_discards_is_the_largest_that_the_rule_allows(n: int, share: float) -> None:
    allowed = [t for t in range(1, n) if cdf(t, n, 1 - share) <= 1 - 0.99]
    assert discards(n, share) == (max(allowed) - 1 if allowed else None)


def test_the_bound_is_the_reading_below_the_discarded_ones() -> None:
    values = np.random.default_rng(0).permutation(274)
    assert upper_bound(values, 0.9) == 273 - 14
    assert upper_bound(np.arange(64), 0.9) == 63
    assert upper_bound(np.arange(63), 0.9) is None


@given(st.integers(662, 3000), st.integers(1, 10**9), st.integers(0, 2**32))
def test_the_bound_is_never_below_the_percentile(n: int, top: int, seed: int) -> None:
    values = np.random.default_rng(seed).integers(0, top, n)
    for share in (0.5, 0.9, 0.99):
        bound = upper_bound(values, share)
        assert bound is not None
        assert bound >= percentile(values, share)


def test_the_bound_holds_in_99_of_100_runs() -> None:
    random = np.random.default_rng(7)
    bounds = [upper_bound(random.random(700), 0.9) for _ in range(400)]
    assert sum(bound is not None and bound < 0.9 for bound in bounds) <= 10


def test_less_confidence_needs_fewer_readings() -> None:
    assert minimum_n(0.9, 0.95) < minimum_n(0.9, 0.99)
    discarded = [discards(1000, 0.9, confidence) for confidence in (0.8, 0.95, 0.999)]
    assert discarded == sorted((d for d in discarded if d is not None), reverse=True)


def test_a_million_readings_take_no_time() -> None:
    start = time.process_time()
    assert discards(1_000_000, 0.99) == 9767
    assert discards(1_000_000, 0.5) == 498_835
    assert time.process_time() - start < 2


@pytest.mark.parametrize(
    ("n", "share", "rank"),
    [
        (1, 0.99, 0),
        (10, 0.9, 9),
        (100, 0.99, 99),
        (101, 0.5, 50),
        (4, 0.5, 2),
        (100, 0.29, 29),
        (5, 1.0, 4),
        (7, 0, 0),
    ],
)
def test_a_percentile_is_the_reading_at_floor_of_n_times_share(n: int, share: float, rank: int) -> None:
    values = np.random.default_rng(n).permutation(n)
    assert percentile(values, share) == rank


def test_a_percentile_leaves_its_argument_alone() -> None:
    values = np.array([3, 1, 2])
    percentile(values, 0.5)
    upper_bound(values, 0.5)
    assert values.tolist() == [3, 1, 2]


@pytest.mark.parametrize(("values", "share"), [([], 0.5), ([1], 1.1), ([1], -0.1)])
def test_a_percentile_of_nothing_or_outside_is_refused(values: list[int], share: float) -> None:
    with pytest.raises(ValueError):
        percentile(values, share)


@pytest.mark.parametrize(("share", "confidence"), [(0, 0.99), (1, 0.99), (99, 0.99), (0.9, 0), (0.9, 1)])
def test_percentages_are_refused_where_fractions_are_meant(share: float, confidence: float) -> None:
    for call in (lambda: discards(100, share, confidence), lambda: minimum_n(share, confidence)):
        with pytest.raises(ValueError, match="fraction"):
            call()
