"""Steps, quantisation, digests, generated samples and the import of a suite's own functions."""

from __future__ import annotations

import hashlib
import sys

import numpy as np
import pytest

from pytest_mlbench.agent.api import TensorSpec
from pytest_mlbench.agent.preprocess import (
    STEPS,
    apply_steps,
    digest,
    from_model,
    generate,
    load_function,
    sample_shape,
    to_model,
)
from pytest_mlbench.suitefile_dataset import STEPS as DECLARED

BYTES = np.arange(2 * 3 * 4, dtype=np.uint8).reshape(2, 3, 4)


def spec(dtype="float32", shape=(-1, 4), scale=None, zero_point=0, name="x"):
    return TensorSpec(name, dtype, shape, scale, zero_point)


# --- steps --------------------------------------------------------------------------------------------------


def test_every_step_a_suite_may_declare_is_there_and_no_other():
    assert set(STEPS) == set(DECLARED)


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        ({"scale": 0.5}, BYTES.astype(np.float32) * np.float32(0.5)),
        ({"offset": -3.5}, BYTES.astype(np.float32) - np.float32(3.5)),
        ({"reshape": [4, 3]}, BYTES.reshape(2, 4, 3)),
        ({"reshape": [-1]}, BYTES.reshape(2, 12)),
        ({"transpose": [1, 0]}, BYTES.transpose(0, 2, 1)),
        ({"cast": "int32"}, BYTES.astype(np.int32)),
        ({"clip": [5, 9]}, np.minimum(np.maximum(BYTES, 5), 9)),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_one_step(step, expected):
    found = apply_steps(BYTES, [step])
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)


def test_arithmetic_is_in_float32_whatever_comes_in():
    for step in ({"scale": 0.1}, {"offset": 1}, {"normalize": {"mean": [1], "std": [2]}}):
        for dtype in ("uint8", "float64", "int64"):
            assert apply_steps(BYTES.astype(dtype), [step]).dtype == np.float32


def test_steps_apply_in_their_order():
    both = [{"scale": 2.0}, {"offset": 1.0}]
    np.testing.assert_array_equal(apply_steps(BYTES, both), BYTES * np.float32(2) + 1)
    np.testing.assert_array_equal(apply_steps(BYTES, both[::-1]), (BYTES + np.float32(1)) * 2)


def test_no_step_leaves_the_array_alone():
    assert apply_steps(BYTES, []) is BYTES


def test_a_step_does_not_change_the_samples_it_is_given():
    kept = BYTES.copy()
    apply_steps(BYTES, [{name: value} for name, value in (("scale", 3.0), ("clip", [0, 1]), ("offset", 2.0))])
    np.testing.assert_array_equal(BYTES, kept)


def test_normalize_by_one_number():
    found = apply_steps(BYTES, [{"normalize": {"mean": [2.0], "std": [4.0]}}])
    np.testing.assert_array_equal(found, (BYTES.astype(np.float32) - 2) / 4)


def test_normalize_on_the_last_axis():
    mean, std = [1.0, 2.0, 3.0], [2.0, 4.0, 8.0]
    images = np.random.default_rng(0).random((5, 7, 6, 3), dtype=np.float32)
    found = apply_steps(images, [{"normalize": {"mean": mean, "std": std}}])
    for channel in range(3):
        expected = (images[..., channel] - np.float32(mean[channel])) / np.float32(std[channel])
        np.testing.assert_array_equal(found[..., channel], expected)


def test_normalize_on_the_first_axis_of_a_sample_when_the_last_does_not_fit():
    mean, std = [1.0, 2.0, 3.0], [2.0, 4.0, 8.0]
    images = np.random.default_rng(0).random((5, 3, 6, 7), dtype=np.float32)
    found = apply_steps(images, [{"normalize": {"mean": mean, "std": std}}])
    for channel in range(3):
        expected = (images[:, channel] - np.float32(mean[channel])) / np.float32(std[channel])
        np.testing.assert_array_equal(found[:, channel], expected)


@pytest.mark.parametrize("shape", [(5, 4, 6, 7), (5, 1, 6, 7), (5,)])
def test_normalize_that_fits_no_axis_is_an_error_and_no_silent_broadcast(shape):
    with pytest.raises(ValueError, match="neither the last nor the first axis of a sample has size 3"):
        apply_steps(np.zeros(shape, np.float32), [{"normalize": {"mean": [1, 2, 3], "std": [1, 1, 1]}}])


@pytest.mark.parametrize(
    ("step", "message"),
    [
        ({"reshape": [5]}, r"preprocess step reshape = \[5\] does not fit samples of \[3, 4\] uint8: cannot reshape"),
        ({"transpose": [2, 0, 1]}, r"preprocess step transpose = \[2, 0, 1\] does not fit samples of \[3, 4\] uint8"),
    ],
)
def test_a_step_that_does_not_fit_is_named_with_what_it_was_given(step, message):
    with pytest.raises(ValueError, match=message):
        apply_steps(BYTES, [{"clip": [0, 255]}, step])


# --- what the model takes -----------------------------------------------------------------------------------


def test_a_round_trip_through_a_quantised_input_is_within_half_a_quantum():
    quantised = spec("int8", scale=1 / 255, zero_point=-128)
    real = np.random.default_rng(0).random((100, 4), dtype=np.float32)
    stored = to_model(real, quantised)
    assert stored.dtype == np.int8
    assert np.abs(from_model(stored, quantised) - real).max() <= 0.5 / 255 * (1 + 1e-5)


def test_stored_values_survive_the_way_back_exactly():
    quantised = spec("uint8", scale=0.037, zero_point=11)
    stored = np.arange(256, dtype=np.uint8)
    np.testing.assert_array_equal(to_model(from_model(stored, quantised), quantised), stored)


@pytest.mark.parametrize(("dtype", "low", "high"), [("int8", -128, 127), ("uint8", 0, 255), ("int16", -32768, 32767)])
def test_quantisation_saturates(dtype, low, high):
    found = to_model(np.array([-1e6, 1e6], np.float32), spec(dtype, scale=0.1, zero_point=3))
    assert found.tolist() == [low, high]


def test_quantisation_rounds_half_to_even():
    found = to_model(np.array([0.5, 1.5, 2.5, -0.5], np.float32), spec("int8", scale=1.0))
    assert found.tolist() == [0, 2, 2, 0]


def test_values_already_stored_are_not_quantised_again():
    stored = np.array([[-128, 127]], np.int8)
    np.testing.assert_array_equal(to_model(stored, spec("int8", scale=0.5, zero_point=3)), stored)


@pytest.mark.parametrize(
    ("array", "dtype"),
    [
        (np.array([1.5, 2.5], np.float64), "float32"),
        (np.array([1.5], np.float32), "float16"),
        (np.array([3], np.uint8), "float32"),
        (np.array([127, 0], np.int64), "int8"),
        (np.array([255], np.int32), "uint8"),
        (np.array([7], np.uint8), "int64"),
        (np.array([True]), "bool"),
    ],
)
def test_conversions_that_keep_the_values(array, dtype):
    found = to_model(array, spec(dtype))
    assert found.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(found, array)


@pytest.mark.parametrize(
    ("array", "dtype"),
    [
        (np.array([1.0], np.float32), "int64"),
        (np.array([128], np.int64), "int8"),
        (np.array([-1], np.int8), "uint8"),
        (np.array([1 << 63], np.uint64), "int64"),
        (np.array([1], np.int8), "bool"),
        (np.array([True]), "float32"),
        (np.array([1j]), "float32"),
        (np.array(["a"]), "float32"),
    ],
)
def test_conversions_that_would_not_are_refused_and_named(array, dtype):
    with pytest.raises(TypeError, match=f"model input 'x' takes {dtype}, the prepared samples are {array.dtype}"):
        to_model(array, spec(dtype))


def test_what_a_model_is_given_is_contiguous():
    turned = np.asfortranarray(np.arange(12, dtype=np.float32).reshape(3, 4))
    for target in (spec(), spec("int8", scale=1.0), spec("float16")):
        assert to_model(turned, target).flags.c_contiguous


def test_an_output_that_is_not_quantised_stays_itself():
    array = np.ones(3, np.float16)
    assert from_model(array, spec("float16")) is array


# --- digest -------------------------------------------------------------------------------------------------


def test_digest_tells_name_type_shape_and_bytes_apart():
    base = np.arange(6, dtype=np.int32).reshape(2, 3)
    changed = base.copy()
    changed[1, 2] = -1
    found = [
        digest({"a": base}),
        digest({"b": base}),
        digest({"a": base.astype(np.int64)}),
        digest({"a": base.view(np.uint32)}),
        digest({"a": base.reshape(3, 2)}),
        digest({"a": changed}),
        digest({"a": base, "b": base}),
    ]
    assert len(set(found)) == len(found)


def test_digest_depends_on_values_and_not_on_order_or_layout():
    base = np.arange(6, dtype=np.int32).reshape(2, 3)
    assert digest({"a": base, "b": base + 1}) == digest({"b": base + 1, "a": base})
    assert digest({"a": np.asfortranarray(base)}) == digest({"a": base})


def test_digest_of_a_known_tensor_is_pinned():
    """Suites declare this digest (`inputs_sha256`), so its rule must never change."""
    expected = hashlib.sha256(b"a:<f4:(2,)\n" + np.array([1, 2], "<f4").tobytes()).hexdigest()
    assert digest({"a": np.array([1, 2], np.float32)}) == expected


# --- generated samples --------------------------------------------------------------------------------------


def test_generated_samples_follow_the_seed():
    wanted = [spec(), spec("int64", name="ids")]
    first, again, other = (generate(wanted, "normal", 8, seed, {}) for seed in (1, 1, 2))
    assert digest(first) == digest(again) != digest(other)
    assert {name: array.shape for name, array in first.items()} == {"x": (8, 4), "ids": (8, 4)}


def test_integer_inputs_get_whole_numbers_below_high():
    made = generate([spec("int64"), spec("int32", name="y"), spec("bool", name="z")], "normal", 200, 0, {}, high=7)
    assert made["x"].dtype == np.int64
    assert made["y"].dtype == np.int32
    assert made["z"].dtype == np.bool_
    assert set(np.unique(made["x"])) == set(np.unique(made["y"])) == set(range(7))


def test_quantised_inputs_get_real_numbers_to_quantise():
    assert generate([spec("int8", scale=0.1)], "normal", 4, 0, {})["x"].dtype == np.float32


def test_uniform_lies_between_0_and_1_and_normal_does_not():
    uniform, normal = (generate([spec()], kind, 500, 0, {})["x"] for kind in ("uniform", "normal"))
    assert uniform.min() >= 0
    assert uniform.max() < 1
    assert normal.min() < -1
    assert abs(normal.mean()) < 0.1


def test_a_free_dimension_needs_a_shape_and_the_message_says_how():
    with pytest.raises(ValueError, match=r"input 'x' has free dimensions \[-1, -1, 4\].*shapes = \{ x = \[\.\.\.\] \}"):
        generate([spec(shape=(-1, -1, 4))], "normal", 2, 0, {})
    assert generate([spec(shape=(-1, -1, 4))], "normal", 2, 0, {"x": [9, 4]})["x"].shape == (2, 9, 4)


@pytest.mark.parametrize(
    ("shape", "expected"), [((-1, 8), (8,)), ((1, 8), (8,)), ((8, 3), (8, 3)), ((), ()), ((-1,), ())]
)
def test_sample_shape(shape, expected):
    assert sample_shape(spec(shape=shape)) == expected


# --- functions ----------------------------------------------------------------------------------------------


@pytest.fixture
def module(tmp_path, monkeypatch):
    """A module `own_steps` that is forgotten after the test."""
    file = tmp_path / "own_steps.py"
    file.write_text("def double(batch):\n    return {n: a * 2 for n, a in batch.items()}\n", encoding="utf-8")
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield file
    sys.modules.pop("own_steps", None)


def test_load_function_tells_which_file_and_bytes_it_came_from(module):
    function, origin = load_function("own_steps:double", [str(module.parent)])
    assert function({"x": np.array([1, 2])})["x"].tolist() == [2, 4]
    assert origin == {
        "reference": "own_steps:double",
        "file": str(module),
        "sha256": hashlib.sha256(module.read_bytes()).hexdigest(),
    }


def test_load_function_looks_in_the_given_paths_first(module):
    elsewhere = module.parent / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "own_steps.py").write_text("raise RuntimeError('the wrong one')\n", encoding="utf-8")
    sys.path.insert(0, str(elsewhere))
    _, origin = load_function("own_steps:double", [str(module.parent)])
    assert origin["file"] == str(module)


def test_load_function_looks_first_in_a_path_that_was_there_as_a_later_one(module):
    elsewhere = module.parent / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "own_steps.py").write_text("raise RuntimeError('the wrong one')\n", encoding="utf-8")
    sys.path[:0] = [str(elsewhere), str(module.parent)]
    _, origin = load_function("own_steps:double", [str(module.parent)])
    assert origin["file"] == str(module)
    assert sys.path.count(str(module.parent)) == 1


def test_load_function_without_a_file_has_no_hash():
    function, origin = load_function("time:perf_counter", [])
    assert callable(function)
    assert (origin["file"], origin["sha256"]) == ("", "")


def test_load_function_lists_what_the_module_has(module):
    with pytest.raises(AttributeError, match=r"own_steps:dubble: module own_steps has no dubble; it has double"):
        load_function("own_steps:dubble", [str(module.parent)])
