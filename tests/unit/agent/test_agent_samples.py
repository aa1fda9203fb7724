"""Samples on the target: received, prepared, matched with a model's inputs, ordered."""

from __future__ import annotations

import numpy as np
import pytest

from pytest_mlbench.agent.api import TensorSpec
from pytest_mlbench.agent.preprocess import digest
from pytest_mlbench.agent.samples import Refused, Samples

X = TensorSpec("x", "float32", (-1, 3))
ROWS = np.arange(21, dtype=np.float32).reshape(7, 3)


def given(**arrays):
    """Return samples that received the arrays whole, with no steps."""
    samples = Samples()
    for name, array in arrays.items():
        samples.receive(name, array.dtype.str, list(array.shape), array.tobytes(), True)
    samples.prepare([], {})
    return samples


def fitted(specs=(X,), batch=1, seed=0, mapping=None, steps=(), **arrays):
    samples = given(**(arrays or {"x": ROWS}))
    samples.prepare(list(steps), mapping or {})
    samples.fit(list(specs), batch, seed)
    return samples


# --- receive ------------------------------------------------------------------------------------------------


def test_chunks_make_one_array():
    samples, data = Samples(), ROWS.tobytes()
    for start in range(0, len(data), 10):
        assert "x" not in samples.raw
        samples.receive("x", "<f4", [7, 3], data[start : start + 10], start + 10 >= len(data))
    np.testing.assert_array_equal(samples.raw["x"], ROWS)
    assert samples.count == 7


def test_chunks_of_two_arrays_may_be_mixed():
    samples, other = Samples(), (ROWS * 2).astype(np.int16)
    samples.receive("x", "<f4", [7, 3], ROWS.tobytes()[:40], False)
    samples.receive("y", "<i2", [7, 3], other.tobytes(), True)
    samples.receive("x", "<f4", [7, 3], ROWS.tobytes()[40:], True)
    np.testing.assert_array_equal(samples.raw["x"], ROWS)
    np.testing.assert_array_equal(samples.raw["y"], other)


def test_an_array_sent_again_replaces_the_first():
    samples = given(x=ROWS)
    samples.receive("x", "<f4", [1, 3], ROWS[:1].tobytes(), True)
    assert samples.raw["x"].shape == (1, 3)


# --- matching -----------------------------------------------------------------------------------------------


def test_one_array_fits_one_input_whatever_their_names():
    samples = fitted(images=ROWS)
    np.testing.assert_array_equal(samples.inputs(np.array([2]))["x"], ROWS[2:3])


def test_several_arrays_are_matched_by_name():
    specs = [TensorSpec("b", "float32", (-1, 3)), TensorSpec("a", "float32", (-1, 3))]
    samples = fitted(specs, a=ROWS, b=-ROWS, unused=ROWS)
    inputs = samples.inputs(np.array([1]))
    assert set(inputs) == {"a", "b"}
    np.testing.assert_array_equal(inputs["b"], -ROWS[1:2])


def test_a_mapping_names_the_array_of_an_input():
    samples = fitted(mapping={"x": "right"}, left=-ROWS, right=ROWS)
    np.testing.assert_array_equal(samples.inputs(np.array([4]))["x"], ROWS[4:5])


def test_a_missing_array_names_the_input_the_array_and_what_is_there():
    specs = [X, TensorSpec("mask", "float32", (-1, 3))]
    with pytest.raises(Refused) as caught:
        fitted(specs, mapping={"x": "pixels"}, images=ROWS, labels=ROWS)
    message = "no array for model input 'x' (array 'pixels'), 'mask' (array 'mask'); its arrays are 'images', 'labels'"
    assert message in str(caught.value)
    assert "set `inputs` in the data set" in str(caught.value)


def test_a_shape_that_does_not_fit_names_both_sides():
    with pytest.raises(Refused) as caught:
        fitted([TensorSpec("x", "float32", (-1, 1, 8, 8))])
    assert "model input 'x' takes [-1, 1, 8, 8] float32, one prepared sample is [3] float32" in str(caught.value)
    assert "change `preprocess`" in str(caught.value)


def test_a_step_that_does_not_fit_is_refused_and_named():
    with pytest.raises(Refused, match=r"preprocess step reshape = \[8\] does not fit samples of \[3\] float32"):
        given(x=ROWS).prepare([{"reshape": [8]}], {})


def test_a_type_that_does_not_fit_says_cast():
    with pytest.raises(Refused, match=r"takes int64, the prepared samples are float32: change `preprocess` \(cast\)"):
        fitted([TensorSpec("x", "int64", (-1, 3))])


def test_a_fixed_batch_must_be_the_cases():
    four = TensorSpec("x", "float32", (4, 3))
    with pytest.raises(Refused) as caught:
        fitted([four], batch=2)
    assert "model input 'x' has a fixed batch of 4, the case asks for 2" in str(caught.value)
    assert "set batch = [4]" in str(caught.value)
    assert fitted([four], batch=4).inputs(np.arange(4))["x"].shape == (4, 3)


def test_a_batch_above_the_number_of_samples_is_refused():
    with pytest.raises(Refused, match="batch 8 needs at least as many samples; the data set has 7"):
        fitted(batch=8)
    assert fitted(batch=7).inputs(np.arange(7))["x"].shape == (7, 3)


def test_an_unbatched_model_is_given_one_sample_without_a_batch_dimension():
    samples = fitted([TensorSpec("x", "float32", (3,))])
    assert not samples.batched
    np.testing.assert_array_equal(samples.inputs(np.array([5]))["x"], ROWS[5])
    with pytest.raises(Refused, match="the model has no batch dimension, so batch 2 cannot be run"):
        fitted([TensorSpec("x", "float32", (3,))], batch=2)


def test_a_scalar_input_is_an_array_of_no_dimension():
    samples = fitted([X, TensorSpec("k", "float32", ())], x=ROWS, k=np.arange(7, dtype=np.float32))
    found = samples.inputs(np.array([3]))
    assert isinstance(found["k"], np.ndarray)
    assert (found["k"].shape, float(found["k"])) == ((), 3.0)


def test_inputs_with_and_without_a_batch_dimension_are_each_given_their_own():
    shared = TensorSpec("table", "float32", (2, 2))
    tables = np.arange(28, dtype=np.float32).reshape(7, 2, 2)
    samples = fitted([X, shared], x=ROWS, table=tables)
    found = samples.inputs(np.array([2]))
    assert samples.batched
    np.testing.assert_array_equal(found["x"], ROWS[2:3])
    np.testing.assert_array_equal(found["table"], tables[2])
    with pytest.raises(Refused, match=r"model input 'table' has no batch dimension, so batch 2 cannot be run"):
        fitted([X, shared], batch=2, x=ROWS, table=tables)


def test_a_free_dimension_takes_any_size():
    assert fitted([TensorSpec("x", "float32", (-1, -1))]).inputs(np.array([0]))["x"].shape == (1, 3)


def test_the_digest_is_of_the_prepared_tensors_before_the_models_own_type():
    samples = given(x=ROWS)
    samples.prepare([{"scale": 0.5}], {})
    found = samples.fit([TensorSpec("x", "int8", (-1, 3), scale=0.1)], 1, 0)
    assert found == digest({"x": ROWS * np.float32(0.5)})
    assert samples.inputs(np.array([0]))["x"].dtype == np.int8


def test_generated_samples_are_prepared_too():
    samples = Samples()
    samples.prepare([{"scale": 0.0001}], {})
    samples.generate([X], "uniform", 5, 0, {}, 2)
    samples.fit([X], 1, 0)
    assert samples.count == 5
    assert 0 < samples.inputs(np.array([0]))["x"].max() < 0.0001
    with pytest.raises(Refused, match="free dimensions"):
        samples.generate([TensorSpec("x", "float32", (-1, -1))], "normal", 5, 0, {}, 2)


def test_generated_samples_are_one_by_one_whatever_batch_the_model_fixes():
    samples, fixed = Samples(), TensorSpec("x", "float32", (4, 3))
    samples.batch = 4
    samples.generate([fixed], "normal", 8, 0, {}, 2)
    samples.fit([fixed], 4, 0)
    assert samples.raw["x"].shape == (8, 3)
    assert samples.inputs(samples.indices(0))["x"].shape == (4, 3)


# --- order --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [1, 2, 3, 7])
def test_every_sample_comes_once_a_round(batch):
    samples = fitted(batch=batch)
    calls = np.concatenate([samples.indices(number) for number in range(7 * 3)])
    for start in range(0, 7 * 3 * batch, 7):
        assert sorted(calls[start : start + 7]) == list(range(7))


def test_the_order_follows_the_seed():
    many = np.zeros((50, 3), np.float32)
    one, same, other = (
        [int(samples.indices(number)[0]) for number in range(50)]
        for samples in (fitted(seed=seed, x=many) for seed in (3, 3, 4))
    )
    assert one == same != other
    assert one != sorted(one)


def test_the_number_of_a_call_tells_its_samples_however_far_on():
    samples = fitted(batch=3)
    np.testing.assert_array_equal(samples.indices(7 * 10**6), samples.indices(0))


# --- inputs -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "batch"),
    [(X, 2), (TensorSpec("x", "int8", (-1, 3), scale=0.1, zero_point=-5), 2), (TensorSpec("x", "float32", (3,)), 1)],
    ids=["float", "quantised", "unbatched"],
)
def test_the_way_from_raw_samples_ends_at_the_same_inputs(spec, batch):
    samples = fitted([spec], batch=batch, steps=[{"scale": 0.25}, {"offset": 1.0}])
    indices = samples.indices(1)
    straight = samples.from_raw({name: array[indices] for name, array in samples.raw.items()})
    expected = samples.inputs(indices)
    assert straight["x"].dtype == expected["x"].dtype
    np.testing.assert_array_equal(straight["x"], expected["x"])


def test_the_users_own_function_runs_after_the_steps():
    samples = given(x=ROWS)
    samples.pre = lambda batch: {"x": batch["x"] + 1}
    samples.prepare([{"scale": 2.0}], {})
    samples.fit([X], 2, 0)
    indices = np.array([0, 6])
    np.testing.assert_array_equal(samples.inputs(indices)["x"], ROWS[indices] * 2 + 1)
    np.testing.assert_array_equal(samples.from_raw({"x": ROWS[indices]})["x"], ROWS[indices] * 2 + 1)


def test_inputs_are_contiguous_and_copies():
    samples = fitted(batch=2)
    found = samples.inputs(np.array([5, 1]))["x"]
    assert found.flags.c_contiguous
    found[:] = -1
    np.testing.assert_array_equal(samples.inputs(np.array([5, 1]))["x"], ROWS[[5, 1]])
