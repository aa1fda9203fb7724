from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pytest_mlbench.checks import agreement
from pytest_mlbench.checks.agreement import bit_difference, not_finite, top1_agrees

SCORES = st.floats(-3, 3, width=16)


@pytest.mark.parametrize(
    ("found", "reference", "agrees"),
    [
        ([1, 5, 2], [0, 9, 0], True),
        ([1, 5, 2], [9, 0, 0], False),
        ([5, 5, 2], [5, 5, 2], True),  # the same tie
        ([5, 5, 2], [9, 8, 2], True),  # of a tie the lower class is chosen
        ([5, 5, 2], [8, 9, 2], False),
        ([5, 5, 2], [5, 2, 5], True),
        ([0, 5, 5], [9, 0, 0], False),
        ([-np.inf, 1, 0], [-np.inf, 3, 0], True),
        ([np.nan, 5, 2], [0, 9, 0], False),
        ([0, 5, 2], [np.nan, 9, 0], False),
        ([np.nan] * 3, [np.nan] * 3, False),
    ],
)
@pytest.mark.parametrize("shape", [(1, 3), (1, 1, 3), (1, 3, 1, 1)])
def test_the_same_class_must_be_chosen(found, reference, agrees, shape) -> None:
    a, b = (np.array([side], dtype=np.float32).reshape(shape) for side in (found, reference))
    assert top1_agrees(a, b).tolist() == [agrees]


@given(hnp.arrays(np.float32, (7, 5), elements=SCORES), hnp.arrays(np.float32, (7, 5), elements=SCORES))
def test_agreement_is_symmetric_and_that_of_argmax(a, b) -> None:
    agrees = top1_agrees(a, b)
    assert agrees.tolist() == top1_agrees(b, a).tolist()
    assert top1_agrees(a, a).all()
    for one, other, same in zip(a, b, agrees, strict=True):
        assert same == (one.argmax() == other.argmax())


def test_a_map_of_classes_agrees_when_every_position_does() -> None:
    reference = np.random.default_rng(0).random((3, 4, 4, 6))
    found = reference.copy()
    found[1, 2, 3] = found[1, 2, 3, ::-1]
    assert top1_agrees(found, reference).tolist() == [True, False, True]


def test_whole_numbers_per_sample_are_the_class_itself() -> None:
    assert top1_agrees(np.array([1, 2, 3]), np.array([1, 2, 4])).tolist() == [True, True, False]
    assert top1_agrees(np.array([[1], [2]], np.int32), np.array([[1], [3]], np.int64)).tolist() == [
        True,
        False,
    ]


@pytest.mark.parametrize("shape", [(4,), (4, 1), (4, 1, 1), (4, 3, 5, 1)])
def test_without_a_class_axis_there_is_no_answer(shape) -> None:
    assert top1_agrees(np.ones(shape), np.ones(shape)) is None


def payload(bits: int) -> float:
    return struct.unpack("<d", struct.pack("<Q", bits))[0]


@pytest.mark.parametrize(
    ("found", "reference", "equal"),
    [
        (0.0, 0.0, True),
        (-0.0, 0.0, False),
        (np.nan, np.nan, True),
        (payload(0x7FF8000000000000), payload(0x7FF8000000000001), False),
        (1.0, np.nextafter(1.0, 2), False),
        (np.inf, np.inf, True),
        (np.inf, -np.inf, False),
    ],
)
def test_bits_are_compared_and_not_numbers(found, reference, equal) -> None:
    result = bit_difference(np.array([[2.0, found]]), np.array([[2.0, reference]]))
    assert (result.elements, result.samples, result.first) == ((0, 0, None) if equal else (1, 1, (0, 1)))


@given(
    hnp.arrays(np.int8, (9, 2, 3), elements=st.integers(0, 1)),
    hnp.arrays(np.int8, (9, 2, 3), elements=st.integers(0, 1)),
    st.integers(1, 60),
)
def test_differing_elements_and_samples_are_counted(a, b, size) -> None:
    before = agreement.CHUNK_ELEMENTS
    try:
        agreement.CHUNK_ELEMENTS = size
        result = bit_difference(a, b)
    finally:
        agreement.CHUNK_ELEMENTS = before
    different = (a != b).reshape(9, -1)
    assert result.elements == different.sum()
    assert result.samples == different.any(axis=1).sum()
    assert result.first == (tuple(np.argwhere(different)[0].tolist()) if different.any() else None)


def test_bits_of_strings_and_strided_arrays_can_be_compared() -> None:
    assert bit_difference(np.array(["a", "b"]), np.array(["a", "c"])).first == (1, 0)
    wide = np.arange(24.0).reshape(4, 6)
    assert bit_difference(wide[:, ::2], wide[:, ::2].copy()).elements == 0


@pytest.mark.parametrize(
    ("found", "reference", "counts"),
    [
        ([1, 2, 3], [4, 5, 6], (0, 0, 0)),
        ([np.inf, -np.inf, 3], [np.inf, -np.inf, 6], (0, 0, 0)),
        ([1, np.nan, 3], [4, 5, 6], (1, 0, 0)),
        ([1, 2, 3], [4, np.nan, 6], (0, 1, 0)),
        ([1, np.nan, 3], [4, np.nan, 6], (1, 1, 0)),
        ([1, np.inf, 3], [4, 5, 6], (0, 0, 1)),
        ([1, np.inf, 3], [4, -np.inf, 6], (0, 0, 1)),
        ([1, np.nan, 3], [4, np.inf, 6], (1, 0, 0)),
    ],
)
def test_what_is_not_finite_is_counted_by_side(found, reference, counts) -> None:
    result = not_finite(np.array([[0, 0, 0], found]), np.array([[0, 0, 0], reference]))
    assert (result.nan_found, result.nan_reference, result.infinity) == counts
    assert result.first == ((1, 1) if any(counts) else None)
