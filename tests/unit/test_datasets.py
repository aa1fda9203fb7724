"""Samples and labels from an npz file: every way in which it can be the wrong one."""

from __future__ import annotations

import zipfile

import numpy as np
import pytest

from pytest_mlbench import assets, datasets
from pytest_mlbench.errors import AssetError
from pytest_mlbench.spec import DatasetSpec

X = np.arange(24, dtype=np.uint8).reshape(6, 4)
Y = np.array([0, 1, 2, 0, 1, 2])


@pytest.fixture
def folder(tmp_path):
    return tmp_path


def saved(folder, **arrays):
    np.savez(folder / "data.npz", **arrays)
    return folder / "data.npz"


def read(folder, **given):
    return datasets.read(DatasetSpec("d", file=folder / "data.npz", **given), folder / "bench_x.toml")


def refusal(folder, **given):
    with pytest.raises(AssetError) as caught:
        read(folder, **given)
    assert caught.value.file == str(folder / "bench_x.toml")
    return str(caught.value)


def test_generated_data_is_made_on_the_target(folder):
    assert datasets.read(DatasetSpec("d", generate="normal", count=4), folder / "bench_x.toml") is None


def test_samples_and_labels(folder):
    path = saved(folder, x=X, y=Y.astype(np.uint8))
    found = read(folder)
    assert set(found.arrays) == {"x"}
    np.testing.assert_array_equal(found.arrays["x"], X)
    assert found.arrays["x"].dtype == np.uint8
    np.testing.assert_array_equal(found.labels, Y)
    assert found.labels.dtype == np.int64
    assert found.sha256 == assets.sha256_of(path)


def test_without_labels(folder):
    saved(folder, x=X)
    assert read(folder).labels is None


def test_labels_of_another_name(folder):
    saved(folder, x=X, digit=Y)
    found = read(folder, labels="digit")
    assert set(found.arrays) == {"x"}
    np.testing.assert_array_equal(found.labels, Y)


def test_a_count_takes_the_first_samples_and_their_labels(folder):
    saved(folder, x=X, y=Y)
    found = read(folder, count=2)
    np.testing.assert_array_equal(found.arrays["x"], X[:2])
    np.testing.assert_array_equal(found.labels, Y[:2])
    assert len(read(folder, count=100).arrays["x"]) == 6


def test_only_the_arrays_that_inputs_name_are_sent(folder):
    saved(folder, a=X, b=X + 1, unused=np.arange(3), y=Y)
    found = read(folder, inputs={"left": "a", "right": "b"})
    assert set(found.arrays) == {"a", "b"}


def test_an_array_that_inputs_name_and_the_file_has_not(folder):
    saved(folder, a=X, y=Y)
    message = refusal(folder, inputs={"left": "a", "right": "bee"})
    assert "has no array 'bee'; it has a" in message
    assert "dataset.d.inputs" in message


@pytest.mark.parametrize("labels", [Y.astype(np.float64) + 0.5, Y.astype(str), np.eye(6)])
def test_labels_that_are_no_class_numbers(folder, labels):
    saved(folder, x=X, y=labels)
    assert f"array 'y' of {folder / 'data.npz'} holds {labels.dtype}, expected class numbers" in refusal(folder)


def test_arrays_of_unequal_length(folder):
    saved(folder, x=X, y=Y[:5])
    assert "must share their first dimension, the samples; found x: 6, y: 5" in refusal(folder)


@pytest.mark.parametrize("empty", [X[:0], np.float32(1)])
def test_an_array_of_no_samples(folder, empty):
    saved(folder, x=empty)
    assert "must share their first dimension, the samples; found x: 0" in refusal(folder)


def test_nothing_but_labels(folder):
    saved(folder, y=Y)
    assert "holds no samples besides the labels" in refusal(folder)


def test_an_altered_file(folder):
    saved(folder, x=X)
    assert "the suite declares " + "0" * 64 in refusal(folder, sha256="0" * 64)


def test_a_missing_file(folder):
    assert "does not exist" in refusal(folder)


def test_pickled_objects_are_not_loaded(folder):
    np.savez(folder / "data.npz", x=np.array([{"a": 1}], dtype=object))
    assert "is damaged or no npz of plain arrays (ValueError: Object arrays cannot be loaded" in refusal(folder)


def test_a_pickle_is_not_loaded(folder):
    import pickle

    (folder / "data.npz").write_bytes(pickle.dumps({"x": X}))
    assert "is damaged or no npz of plain arrays" in refusal(folder)


def test_a_single_array_is_no_npz(folder):
    with (folder / "data.npz").open("wb") as stream:
        np.save(stream, X)
    assert "is damaged or no npz of plain arrays" in refusal(folder)


def test_a_file_cut_off_anywhere(folder):
    path = folder / "data.npz"
    np.savez_compressed(path, x=X, y=Y)
    whole = path.read_bytes()
    for length in range(1, len(whole), 7):
        path.write_bytes(whole[:length])
        assert "is damaged or no npz of plain arrays" in refusal(folder)


def test_a_file_with_damaged_bytes(folder):
    path = folder / "data.npz"
    np.savez_compressed(path, x=np.random.default_rng(0).integers(0, 255, (6, 400), dtype=np.uint8))
    whole = bytearray(path.read_bytes())
    for place in range(60, len(whole) - 120, 97):
        damaged = bytearray(whole)
        damaged[place] ^= 0xFF
        path.write_bytes(damaged)
        assert "is damaged or no npz of plain arrays" in refusal(folder)


def test_an_npz_whose_entry_is_no_array(folder):
    with zipfile.ZipFile(folder / "data.npz", "w") as archive:
        archive.writestr("x.npy", b"\x93NUMPY\x01\x00v\x00{'descr': ")
    assert "is damaged or no npz of plain arrays" in refusal(folder)
