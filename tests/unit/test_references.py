"""Outputs kept for those that name a case as their reference."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest

from pytest_mlbench import assets, references
from pytest_mlbench.errors import AssetError
from pytest_mlbench.references import OutputKey

KEY = OutputKey(*(name.name for name in fields(OutputKey)))
OUTPUTS = {"y": np.arange(6, dtype=np.float32).reshape(3, 2), "file": np.array([1, 2, 3])}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MLBENCH_CACHE", str(tmp_path))
    return tmp_path


def entry():
    return assets.cached("outputs", KEY.digest) / "outputs.npz"


def test_what_was_kept_comes_back():
    assert references.kept(KEY) is None
    references.keep(KEY, OUTPUTS)
    found = references.kept(KEY)
    assert set(found) == {"y", "file"}
    for name, array in OUTPUTS.items():
        np.testing.assert_array_equal(found[name], array)
        assert found[name].dtype == array.dtype


def test_what_is_kept_again_replaces_the_first():
    references.keep(KEY, OUTPUTS)
    references.keep(KEY, {"z": np.ones(1)})
    assert set(references.kept(KEY)) == {"z"}


@pytest.mark.parametrize("field", [name.name for name in fields(OutputKey)])
def test_each_part_of_the_key_tells_entries_apart(field):
    references.keep(KEY, OUTPUTS)
    assert references.kept(replace(KEY, **{field: "other"})) is None


def test_the_parts_of_a_key_do_not_run_into_each_other():
    assert replace(KEY, model_sha256="a", framework="b").digest != replace(KEY, model_sha256="ab", framework="").digest


@pytest.mark.parametrize("content", [b"", b"not a zip", None])
def test_an_entry_that_cannot_be_read_is_as_none(content):
    references.keep(KEY, OUTPUTS)
    whole = entry().read_bytes()
    entry().write_bytes(whole[: len(whole) // 2] if content is None else content)
    assert references.kept(KEY) is None
    references.keep(KEY, OUTPUTS)  # and is made again
    assert references.kept(KEY) is not None


def test_reference_outputs_from_a_file(tmp_path):
    np.savez(tmp_path / "reference.npz", y=OUTPUTS["y"])
    found = references.from_file(tmp_path / "reference.npz", tmp_path / "bench_x.toml")
    np.testing.assert_array_equal(found["y"], OUTPUTS["y"])


def test_a_reference_file_that_is_none(tmp_path):
    suite = tmp_path / "bench_x.toml"
    with pytest.raises(AssetError, match="does not exist"):
        references.from_file(tmp_path / "reference.npz", suite)
    (tmp_path / "reference.npz").write_bytes(b"text")
    with pytest.raises(AssetError, match="is damaged or no npz of plain arrays"):
        references.from_file(tmp_path / "reference.npz", suite)
