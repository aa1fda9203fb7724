"""Checking arrays against inputs, and fixing shapes: what the adapters share."""

from __future__ import annotations

import numpy as np
import pytest

from pytest_mlbench.agent.adapters.binding import check_inputs, precision, show_shape, static_shapes
from pytest_mlbench.agent.api import TensorSpec

IMAGE = TensorSpec("image", "float32", (-1, 3, 8, 8))
MASK = TensorSpec("mask", "bool", (-1, -1))
FIXED = TensorSpec("token", "int64", (2, 16))
SCALAR = TensorSpec("scale", "float32", ())
TABLE = TensorSpec("table", "float32", (4,))


@pytest.mark.parametrize(
    ("dtype", "word"),
    [
        ("float32", "fp32"),
        ("float16", "fp16"),
        ("bfloat16", "bf16"),
        ("float64", "fp64"),
        ("int8", "int8"),
        ("uint8", "int8"),
        ("uint16", "int16"),
        ("int64", "int64"),
        ("uint4", "int4"),
        ("bool", "bool"),
        ("", "unknown"),
    ],
)
def test_precision_words(dtype, word):
    assert precision(dtype) == word


def test_show_shape_marks_free_sizes():
    assert show_shape((-1, 3, 8, 8)) == "(?, 3, 8, 8)"
    assert show_shape(()) == "()"
    assert show_shape((5,)) == "(5)"


@pytest.mark.parametrize(
    ("specs", "arrays"),
    [
        ([IMAGE], {"image": (1, 3, 8, 8)}),
        ([IMAGE], {"image": (64, 3, 8, 8)}),
        ([IMAGE, MASK], {"mask": (2, 7), "image": (2, 3, 8, 8)}),
        ([FIXED], {"token": (2, 16)}),
        ([SCALAR], {"scale": ()}),
        ([], {}),
    ],
)
def test_fitting_inputs_pass(specs, arrays):
    check_inputs(specs, {name: np.zeros(shape) for name, shape in arrays.items()})


@pytest.mark.parametrize(
    ("spec", "shape", "words"),
    [
        (FIXED, (3, 16), ["'token'", "(2, 16)", "a batch of 3"]),
        (IMAGE, (4, 1, 8, 8), ["'image'", "(?, 3, 8, 8)", "a batch of 4", "(4, 1, 8, 8)"]),
        (IMAGE, (3, 8, 8), ["'image'", "(3, 8, 8)"]),
        (IMAGE, (), ["'image'", "a scalar"]),
        (SCALAR, (1,), ["'scale'", "()", "a batch of 1"]),
    ],
)
def test_an_unfitting_shape_is_named_with_its_batch(spec, shape, words):
    with pytest.raises(ValueError) as caught:
        check_inputs([spec], {spec.name: np.zeros(shape)})
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({}, ["image, mask", "bound were none"]),
        ({"image": (1, 3, 8, 8)}, ["image, mask", "bound were image"]),
        ({"image": (1, 3, 8, 8), "mask": (1, 1), "more": ()}, ["bound were image, mask, more"]),
    ],
)
def test_unfitting_names_show_both_sides(arrays, words):
    with pytest.raises(ValueError) as caught:
        check_inputs([IMAGE, MASK], {name: np.zeros(shape) for name, shape in arrays.items()})
    for word in words:
        assert word in str(caught.value)


def test_a_model_without_inputs_says_so():
    with pytest.raises(ValueError, match="inputs are none; bound were image"):
        check_inputs([], {"image": np.zeros(1)})


@pytest.mark.parametrize(
    ("specs", "options", "shapes"),
    [
        ([IMAGE], {}, {"image": [1, 3, 8, 8]}),
        ([IMAGE], {"batch": 4}, {"image": [4, 3, 8, 8]}),
        ([IMAGE], {"batch": None, "shapes": None}, {"image": [1, 3, 8, 8]}),
        ([FIXED], {}, {"token": [2, 16]}),
        ([FIXED], {"batch": 2}, {"token": [2, 16]}),
        ([SCALAR], {"batch": 3}, {"scale": []}),
        ([MASK], {"batch": 3, "shapes": {"mask": [-1, 5]}}, {"mask": [3, 5]}),
        ([MASK], {"batch": 3, "shapes": {"mask": [2, 5]}}, {"mask": [2, 5]}),
        ([IMAGE, MASK], {"batch": 2, "shapes": {"mask": [2, 9]}}, {"image": [2, 3, 8, 8], "mask": [2, 9]}),
        # The only shape of data is the only input's, whatever they are called.
        ([MASK], {"batch": 3, "shapes": {"tokens": [3, 5]}}, {"mask": [3, 5]}),
        # An input without a batch dimension is told the shape of a batch of one.
        ([TABLE], {"batch": 1, "shapes": {"table": [1, 4]}}, {"table": [4]}),
        ([TABLE], {"batch": 1}, {"table": [4]}),
        ([IMAGE, SCALAR], {"batch": 1, "shapes": {"scale": [1]}}, {"image": [1, 3, 8, 8], "scale": []}),
    ],
)
def test_static_shapes(specs, options, shapes):
    assert static_shapes(specs, options) == shapes


def test_a_size_left_free_asks_for_shapes():
    with pytest.raises(ValueError) as caught:
        static_shapes([MASK], {"batch": 2})
    assert "'mask'" in str(caught.value)
    assert "(?, ?)" in str(caught.value)
    assert "`shapes`" in str(caught.value)


@pytest.mark.parametrize(
    ("spec", "options"),
    [
        (FIXED, {"batch": 3}),
        (FIXED, {"shapes": {"token": [3, 16]}}),
        (FIXED, {"shapes": {"token": [2, 16, 1]}}),
        (IMAGE, {"shapes": {"image": [1, 1, 8, 8]}}),
    ],
)
def test_a_shape_that_the_file_denies_is_refused(spec, options):
    with pytest.raises(ValueError, match=f"{spec.name!r} has shape"):
        static_shapes([spec], options)
