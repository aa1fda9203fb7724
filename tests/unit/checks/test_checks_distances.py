from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pytest_mlbench.checks import distances
from pytest_mlbench.checks.distances import elementwise, rounded_down, rounded_up

FINITE = st.floats(allow_nan=False, allow_infinity=False, width=32)
ANY = st.floats(width=32)


def arrays(elements, count=2):
    shape = hnp.array_shapes(min_dims=1, max_dims=3, max_side=5)
    return shape.flatmap(lambda s: st.tuples(*[hnp.arrays(np.float32, s, elements=elements) for _ in range(count)]))


@given(arrays(FINITE), st.sampled_from([0, 1e-6, 1e-3, 0.5]), st.sampled_from([0, 1e-8, 1e-3, 2.0]))
def test_the_elementwise_rule_is_numpys(pair, rtol, atol) -> None:
    a, b = (side.astype(np.float64) for side in pair)
    result = elementwise(*pair, rtol, atol)
    close = np.isclose(a, b, rtol=rtol, atol=atol)
    assert result.failing_elements == np.count_nonzero(~close)
    assert result.failing_samples == np.count_nonzero(~close.reshape(len(a), -1).all(axis=1))
    assert (result.worst is None) == bool(close.all())


@given(arrays(FINITE), st.sampled_from([0.0, 1e-5, 1e-3, 0.3]), st.sampled_from([0.0, 1e-8, 1e-3, 2.0]))
@example((np.float32([1.0]), np.float32([0.0])), 0.0, 0.0)
@example((np.float32([1e-45]), np.float32([3e-45])), 0.0, 0.0)
def test_the_smallest_tolerance_passes_and_less_does_not(pair, rtol, atol) -> None:
    result = elementwise(*pair, rtol, atol)
    assume(result.worst is not None)
    assert result.smallest_atol is not None
    assert elementwise(*pair, rtol, result.smallest_atol).failing_elements == 0
    assert elementwise(*pair, rtol, result.smallest_atol * (1 - 1e-9)).failing_elements > 0
    assert elementwise(*pair, rtol, float(rounded_up(result.smallest_atol))).failing_elements == 0
    assert elementwise(*pair, rtol, float(rounded_up(result.smallest_atol)) * 0.98).failing_elements > 0
    if result.smallest_rtol is None:
        assert elementwise(*pair, 1e300, atol).failing_elements > 0
        return
    assert elementwise(*pair, result.smallest_rtol, atol).failing_elements == 0
    assert elementwise(*pair, float(rounded_up(result.smallest_rtol)), atol).failing_elements == 0
    # Half of it, because atol may hide all but the last bits of rtol's share.
    assert elementwise(*pair, result.smallest_rtol * 0.5, atol).failing_elements > 0 or atol > 0


@pytest.mark.parametrize(
    ("distance", "size", "rtol", "atol"),
    [(0.9257145772144187, 0.7482485033017541, 0.3, 0.0), (0.7146185366547527, 0.16705292878227218, 0.0, 0.001)],
)
def test_a_tolerance_that_rounds_down_is_raised_by_the_last_bit(distance, size, rtol, atol) -> None:
    need = np.array([distance]), np.array([size])
    least_atol, least_rtol = distances._least_atol(*need, rtol)[0], distances._least_rtol(*need, atol)[0]
    assert least_atol + rtol * size >= distance
    assert atol + least_rtol * size >= distance
    assert (distance - rtol * size) + rtol * size < distance or atol + (distance - atol) / size * size < distance


@given(arrays(FINITE), st.sampled_from([1e-5, 1e-2]))
def test_the_worst_element_is_the_one_that_decides_the_tolerance(pair, rtol) -> None:
    result = elementwise(*pair, rtol, 0.0)
    assume(result.worst is not None)
    sample, flat = result.worst
    one, other = (side[sample].reshape(-1)[[flat]].reshape(1, 1) for side in pair)
    assert elementwise(one, other, rtol, 0.0).smallest_atol == result.smallest_atol


def test_no_relative_tolerance_helps_against_a_zero() -> None:
    result = elementwise(np.array([[0.1, 1.0]]), np.array([[0.0, 1.0]]), 1e-3, 0.05)
    assert (result.smallest_atol, result.smallest_rtol) == (0.1, None)
    assert elementwise(np.array([[0.1]]), np.array([[0.0]]), 1e-3, 0.1).failing_elements == 0


@pytest.mark.parametrize(
    ("found", "reference", "passes"),
    [
        (np.inf, np.inf, True),
        (-np.inf, -np.inf, True),
        (np.inf, -np.inf, False),
        (np.inf, 1.0, False),
        (1.0, np.inf, False),
        (np.nan, np.nan, False),
        (np.nan, 1.0, False),
        (1.0, np.nan, False),
        (np.nan, np.inf, False),
    ],
)
@pytest.mark.parametrize(("rtol", "atol"), [(0.1, 0.1), (0.0, 1e300), (1e300, 0.0)])
def test_no_tolerance_accepts_nan_or_an_unmatched_infinity(found, reference, passes, rtol, atol) -> None:
    a, b = np.array([[1.0, found]]), np.array([[1.0, reference]])
    result = elementwise(a, b, rtol, atol)
    assert (result.failing_elements == 0) is passes
    if not passes:
        assert result.worst == (0, 1)
        assert (result.smallest_atol, result.smallest_rtol) == (None, None)


@pytest.mark.parametrize(
    ("found", "reference", "max_abs", "sqnr", "cosine"),
    [
        ([1.0, 2.0], [1.0, 2.0], 0, math.inf, 1),
        ([0.0, 0.0], [0.0, 0.0], 0, math.inf, 1),
        ([3.0, 4.0], [0.0, 0.0], 4, -math.inf, 0),
        ([0.0, 0.0], [3.0, 4.0], 4, 0, 0),
        ([0.0, 1.0], [1.0, 0.0], 1, -3.0103, 0),
        ([-3.0, -4.0], [3.0, 4.0], 8, -6.0206, -1),
        ([3.3, 4.4], [3.0, 4.0], 0.4, 20, 1),
        ([1e200, 2e200], [1e200, 2e200], 0, math.inf, 1),
        ([1.1e200, 0.0], [1e200, 0.0], 1e199, 20, 1),
        ([1.1e-300, 0.0], [1e-300, 0.0], 1e-301, 20, 1),
        ([np.inf, 1.1], [np.inf, 1.0], 0.1, 20, 1),
        ([np.inf, 1.0], [np.inf, 1.0], 0, math.inf, 1),
        ([np.inf, 1.0], [2.0, 1.0], math.inf, -math.inf, 0),
        ([2.0, 1.0], [-np.inf, 1.0], math.inf, -math.inf, 0),
        ([np.nan, 1.0], [2.0, 1.0], math.nan, math.nan, math.nan),
        ([2.0, 1.0], [np.nan, 1.0], math.nan, math.nan, math.nan),
        ([np.nan, 1.0], [np.inf, 1.0], math.nan, math.nan, math.nan),
    ],
)
def test_distances_of_one_sample(found, reference, max_abs, sqnr, cosine) -> None:
    a, b = np.array([found]), np.array([reference])
    for measured, expected in (
        (distances.max_abs, max_abs),
        (distances.sqnr_db, sqnr),
        (distances.cosine, cosine),
    ):
        assert measured(a, b).tolist() == [pytest.approx(expected, rel=1e-5, abs=1e-9, nan_ok=True)]


@given(arrays(st.floats(-1e3, 1e3, width=32)))
def test_the_ratio_is_that_of_the_norms(pair) -> None:
    a, b = (side.astype(np.float64).reshape(len(side), -1) for side in pair)
    for one, other, ratio in zip(a, b, distances.sqnr_db(*pair), strict=True):
        noise, signal = np.linalg.norm(other - one), np.linalg.norm(other)
        if noise == 0:
            assert ratio == math.inf
        elif signal == 0:
            assert ratio == -math.inf
        elif noise > 1e-100 and signal > 1e-100:
            assert ratio == pytest.approx(20 * math.log10(signal / noise), abs=1e-6)


@given(arrays(ANY), st.integers(1, 40))
def test_the_chunk_size_changes_nothing(pair, size) -> None:
    whole = [f(*pair).tolist() for f in (distances.max_abs, distances.sqnr_db, distances.cosine)]
    whole.append(elementwise(*pair, 1e-3, 1e-3))
    before = distances.CHUNK_ELEMENTS
    try:
        distances.CHUNK_ELEMENTS = size
        parts = [f(*pair).tolist() for f in (distances.max_abs, distances.sqnr_db, distances.cosine)]
        parts.append(elementwise(*pair, 1e-3, 1e-3))
    finally:
        distances.CHUNK_ELEMENTS = before
    assert repr(parts) == repr(whole)


def test_memory_stays_with_the_chunk_and_inputs_stay_as_they_are() -> None:
    found = np.full((3000, 500), np.inf, dtype=np.float16)
    copy = found.copy()
    sizes = [a.size for _, a, _ in distances.chunks(found, found)]
    assert sum(sizes) == found.size
    assert max(sizes) <= distances.CHUNK_ELEMENTS
    assert np.array_equal(found, copy)


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.bool_, np.int64, np.float16])
def test_small_types_do_not_wrap_around(dtype) -> None:
    a, b = np.zeros((1, 2), dtype), np.ones((1, 2), dtype)
    assert distances.max_abs(a, b).tolist() == [1.0]
    assert distances.max_abs(b, a).tolist() == [1.0]


def test_the_farthest_element_is_found_and_nan_comes_first() -> None:
    assert distances.farthest(np.array([[1.0, 5.0], [9.0, 1.0]]), np.ones((2, 2))) == 2
    assert distances.farthest(np.array([1.0, np.nan, 9.0]), np.ones(3)) == 1
    assert distances.farthest(np.float32(3), np.float32(4)) == 0


@pytest.mark.parametrize(
    ("value", "up", "down"),
    [
        (0.0, "0", "0"),
        (0.12341, "0.124", "0.123"),
        (1.0, "1", "1"),
        (-3.456, "-3.45", "-3.46"),
        (99.99, "100", "99.9"),
    ],
)
def test_bounds_are_rounded_to_their_safe_side(value, up, down) -> None:
    assert (rounded_up(value), rounded_down(value)) == (up, down)


@given(st.floats(allow_nan=False, allow_infinity=False, max_value=1e300, min_value=-1e300))
def test_rounding_never_crosses_the_value(value) -> None:
    assert float(rounded_down(value)) <= value <= float(rounded_up(value))
    assert float(rounded_up(value)) == pytest.approx(value, rel=0.011, abs=1e-300)
