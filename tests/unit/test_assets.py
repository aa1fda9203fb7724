"""Files that suites name, hostile ONNX files among them, and the cache of made files."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from pytest_mlbench import assets
from pytest_mlbench.errors import AssetError


@pytest.fixture
def suite(tmp_path):
    folder = tmp_path / "suite"
    folder.mkdir()
    return folder / "bench_x.toml"


def refusal(path, suite, **given):
    with pytest.raises(AssetError) as caught:
        assets.check(path, suite=suite, **given)
    assert caught.value.file == str(suite)
    return str(caught.value)


def trouble(path, suite):
    """Return the message of an AssetError, or None; any other exception is the test's failure."""
    try:
        assets.check(path, suite=suite)
    except AssetError as error:
        return str(error)
    return None


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


# --- present, whole, unaltered ------------------------------------------------------------------------------


def test_a_good_file_gives_its_hash(suite):
    path = write(suite.parent / "data.bin", b"content")
    expected = "ed7002b439e9ac845f22357d822bac1444730fbdb6016d3ec9432297b9ec9f73"
    assert assets.check(path, suite=suite) == expected
    assert assets.check(path, suite=suite, expected_sha256=expected.upper()) == expected


def test_a_missing_file(suite):
    message = refusal(suite.parent / "none.tflite", suite)
    assert "none.tflite does not exist; make or fetch it, or correct the path" in message
    assert "does not exist" in refusal(suite.parent, suite)  # a folder is no file


def test_an_empty_file(suite):
    assert "empty.onnx is empty" in refusal(write(suite.parent / "empty.onnx", b""), suite)


def test_a_git_lfs_pointer(suite):
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
    for name in ("net.onnx", "net.tflite", "data.npz"):
        message = refusal(write(suite.parent / name, pointer), suite)
        assert "is a Git LFS pointer, not its content; run `git lfs pull`" in message


def test_only_a_small_file_of_that_beginning_is_a_pointer(tmp_path):
    start = b"version https://git-lfs.github.com/spec/"
    assert assets.lfs_pointer(write(tmp_path / "f", start + b"v1\n"))
    assert assets.lfs_pointer(write(tmp_path / "f", start.ljust(1024)))
    assert not assets.lfs_pointer(write(tmp_path / "f", start.ljust(1025)))
    for content in (b"", start[:-1], b" " + start, b"TFL3"):
        assert not assets.lfs_pointer(write(tmp_path / "f", content))


def test_a_pointer_in_a_base_revision_names_its_commit(suite, tmp_path, monkeypatch):
    monkeypatch.setenv("MLBENCH_CACHE", str(tmp_path / "cache"))
    tree = tmp_path / "cache" / assets.CHECKOUTS / "project-1" / "0a1b2c"
    (tree / "models").mkdir(parents=True)
    message = refusal(write(tree / "models" / "net.onnx", b"version https://git-lfs.github.com/spec/v1\n"), suite)
    assert f"not its content; run `git lfs fetch origin 0a1b2c && git lfs checkout` in {tree}" in message


def test_external_data_that_is_a_pointer(suite):
    path = save(plain([tensor(location="w.bin")]), suite.parent / "net.onnx")
    write(suite.parent / "w.bin", b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 16\n")
    message = refusal(path, suite)
    assert f"file {suite.parent / 'w.bin'} is a Git LFS pointer, not its content; run `git lfs pull`" in message


def test_an_altered_file_names_both_hashes(suite):
    path = write(suite.parent / "data.bin", b"content")
    message = refusal(path, suite, expected_sha256="0" * 64)
    assert assets.sha256_of(path) in message
    assert "0" * 64 in message
    assert "correct `sha256` if the change is meant" in message


def test_a_tflite_file_has_its_mark(suite):
    assert assets.check(write(suite.parent / "net.tflite", b"\x1c\0\0\0TFL3rest"), suite=suite)
    message = refusal(write(suite.parent / "net.tflite", b"\x1c\0\0\0TFL2rest"), suite)
    assert "is not a TFLite model (its bytes 4 to 7 are not TFL3)" in message


def test_a_remembered_hash_is_forgotten_when_the_file_changes(tmp_path):
    path = write(tmp_path / "f", b"one")
    first = assets.sha256_of(path)
    before = path.stat()
    write(path, b"two")  # as long as before: only the time tells
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    second = assets.sha256_of(path)
    write(path, b"three")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 1))  # the time as before: only the length tells
    assert len({first, second, assets.sha256_of(path)}) == 3


# --- ONNX files ---------------------------------------------------------------------------------------------


def tensor(name="w", location=None):
    made = numpy_helper.from_array(np.arange(4, dtype=np.float32), name)
    if location is not None:
        made.ClearField("raw_data")
        made.data_location = TensorProto.EXTERNAL
        for key, value in (("offset", "0"), ("location", location), ("length", "16")):
            made.external_data.add(key=key, value=value)
    return made


def value(name):
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, [4])


def plain(weights, nodes=None, **extra):
    nodes = nodes or [helper.make_node("Add", ["x", "w"], ["y"])]
    graph = helper.make_graph(nodes, "g", [value("x")], [value("y")], weights, **extra)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])


def save(model, path: Path) -> Path:
    return write(path, model.SerializeToString())


def test_a_model_cut_off_anywhere_is_an_asset_error_or_as_good_as_whole(suite):
    whole = plain([tensor()]).SerializeToString()
    path = suite.parent / "net.onnx"
    silent = []
    for length in range(1, len(whole)):
        write(path, whole[:length])
        os.utime(path, ns=(0, length))
        message = trouble(path, suite)
        if message is None:
            silent.append(length)
        else:
            assert "is truncated or not an ONNX model; export or fetch it again" in message
    # Only what follows the graph (the list of opsets) may be missing without a field being cut.
    graph_ends = len(whole) - len(helper.make_opsetid("", 17).SerializeToString()) - 2
    assert silent == [graph_ends]


@pytest.mark.parametrize(
    "content",
    [
        b"not a model" * 100,
        b"\xff" * 64,
        b"\x08",
        b"\x3b\x00",
        b"\x3a\x03\x12\x01g\x0d\x00",
        b"PK\x03\x04" + bytes(64),
        bytes(64),
        b"<html></html>",
    ],
)
def test_what_is_no_model_is_an_asset_error(suite, content):
    assert "is truncated or not an ONNX model" in refusal(write(suite.parent / "net.onnx", content), suite)


def test_a_model_of_garbage_inside_the_graph_does_not_crash(suite):
    random = np.random.default_rng(0)
    whole = plain([tensor(location="w.bin")]).SerializeToString()
    write(suite.parent / "w.bin", bytes(16))
    for trial in range(300):
        damaged = bytearray(whole)
        for place in random.integers(0, len(whole), 4):
            damaged[place] = random.integers(0, 256)
        trouble(write(suite.parent / f"net{trial}.onnx", bytes(damaged)), suite)


def holders():
    """Yield a model for each place in an ONNX file that can hold a tensor kept elsewhere."""

    def outside(name="w"):
        return tensor(name, "w.bin")

    constant = helper.make_node("Constant", [], ["w"], value=outside(""))
    add = helper.make_node("Add", ["x", "w"], ["y"])
    yield "initializer", plain([outside()])
    yield "attribute", plain([], [constant, add])
    branch = helper.make_graph([constant, helper.make_node("Identity", ["w"], ["b"])], "branch", [], [value("b")])
    outer = helper.make_graph(
        [helper.make_node("If", ["c"], ["b"], then_branch=branch, else_branch=branch)], "outer", [], [value("b")]
    )
    condition = numpy_helper.from_array(np.array(True), "c")
    nested = helper.make_node("If", ["c"], ["y"], then_branch=outer, else_branch=outer)
    yield "nested If", plain([condition], [nested])
    many = helper.make_node("Custom", ["x"], ["y"], domain="d", several=[outside("a"), tensor("b")])
    yield "list of tensors", plain([], [many])
    graphs = helper.make_node("Custom", ["x"], ["y"], domain="d", several=[branch, branch])
    yield "list of graphs", plain([], [graphs])
    function = helper.make_function("d", "F", ["x"], ["y"], [constant, add], [helper.make_opsetid("", 17)])
    model = plain([], [helper.make_node("F", ["x"], ["y"], domain="d")])
    model.functions.append(function)
    yield "function", model
    sparse = helper.make_sparse_tensor(outside("w"), numpy_helper.from_array(np.arange(4), "i"), [9])
    yield "sparse", plain([], sparse_initializer=[sparse])


@pytest.mark.parametrize("model", [pytest.param(model, id=place) for place, model in holders()])
def test_external_data_is_found_wherever_a_tensor_can_be(suite, model):
    path = save(model, suite.parent / "net.onnx")
    assert "keeps weights in 'w.bin', which does not exist" in refusal(path, suite)
    data = write(suite.parent / "w.bin", bytes(16))
    assert assets.external_data(path, suite=suite, root=suite.parent) == [data]


def test_the_key_of_a_model_changes_with_its_external_data(suite):
    path = save(plain([tensor(location="w.bin")]), suite.parent / "net.onnx")
    write(suite.parent / "w.bin", bytes(16))
    first = assets.check(path, suite=suite)
    assert assets.check(path, suite=suite) == first != assets.sha256_of(path)
    write(suite.parent / "w.bin", bytes(15) + b"\1")
    os.utime(suite.parent / "w.bin", ns=(0, 0))
    assert assets.check(path, suite=suite) != first


def test_external_data_in_a_folder_inside_is_allowed(suite):
    (suite.parent / "models" / "deep").mkdir(parents=True)
    data = write(suite.parent / "models" / "deep" / "w.bin", bytes(16))
    path = save(plain([tensor(location="deep/w.bin")]), suite.parent / "models" / "net.onnx")
    assert assets.external_data(path, suite=suite, root=suite.parent) == [data]
    path = save(plain([tensor(location="../models/deep/../deep/w.bin")]), suite.parent / "models" / "net.onnx")
    assert assets.external_data(path, suite=suite, root=suite.parent) == [data]


@pytest.mark.parametrize("way", ["dots", "absolute", "link", "link to folder"])
def test_external_data_outside_is_refused(suite, way):
    secret = write(suite.parent.parent / "secret.bin", bytes(16))
    location = {"dots": "../secret.bin", "absolute": str(secret), "link": "w.bin", "link to folder": "up/secret.bin"}[
        way
    ]
    if way == "link":
        (suite.parent / "w.bin").symlink_to(secret)
    if way == "link to folder":
        (suite.parent / "up").symlink_to(suite.parent.parent)
    message = refusal(save(plain([tensor(location=location)]), suite.parent / "net.onnx"), suite)
    assert f"keeps weights in {location!r}, which leaves the suite's folder {suite.parent.resolve()}" in message
    assert "move the data beside the model" in message


def test_a_root_of_its_own_may_be_named(suite):
    write(suite.parent.parent / "w.bin", bytes(16))
    path = save(plain([tensor(location="../w.bin")]), suite.parent / "net.onnx")
    assert assets.check(path, suite=suite, root=suite.parent.parent)


@pytest.mark.parametrize("location", ["a\0b", "x" * 5000, "loop/w.bin", "", "."])
def test_a_location_that_is_no_file_is_refused_in_words(suite, location):
    (suite.parent / "loop").symlink_to("loop")
    message = refusal(save(plain([tensor(location=location)]), suite.parent / "net.onnx"), suite)
    assert "keeps weights in" in message
    assert "is no path" in message or "does not exist" in message


def test_a_location_that_is_no_text_is_refused(suite):
    data = plain([tensor(location="w.bin")]).SerializeToString().replace(b"w.bin", b"\xff\xfe\xfd.b")
    assert "is truncated or not an ONNX model" in refusal(write(suite.parent / "net.onnx", data), suite)


# --- the cache ----------------------------------------------------------------------------------------------


def test_the_cache_is_where_the_environment_says(monkeypatch, tmp_path):
    monkeypatch.setenv("MLBENCH_CACHE", str(tmp_path / "own"))
    assert assets.cache_dir() == tmp_path / "own"
    made = assets.cached("models", "key")
    assert made == tmp_path / "own" / "models" / "key"
    assert made.is_dir()
    assert assets.cached("models", "key") == made


@pytest.mark.parametrize(
    ("platform", "environment", "expected"),
    [
        ("linux", {}, ".cache/mlbench"),
        ("linux", {"XDG_CACHE_HOME": ""}, ".cache/mlbench"),
        ("linux", {"XDG_CACHE_HOME": "/xdg"}, "/xdg/mlbench"),
        ("darwin", {"XDG_CACHE_HOME": "/xdg"}, "Library/Caches/mlbench"),
        ("win32", {"LOCALAPPDATA": "/local"}, "/local/mlbench/cache"),
        ("win32", {}, "AppData/Local/mlbench/cache"),
    ],
)
def test_the_cache_of_each_platform(monkeypatch, tmp_path, platform, environment, expected):
    for name in ("MLBENCH_CACHE", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    for name, text in environment.items():
        monkeypatch.setenv(name, text)
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    assert assets.cache_dir() == tmp_path / expected


def test_keys_tell_their_parts_apart():
    keys = [assets.key_of("a", "b"), assets.key_of("ab"), assets.key_of("a", "b", ""), assets.key_of("b", "a")]
    assert len(set(keys)) == 4
    assert assets.key_of(1, None) == assets.key_of("1", "None")


def test_the_lock_of_an_entry_keeps_other_processes_out(tmp_path):
    code = "import sys; from pathlib import Path; from pytest_mlbench import assets\n"
    code += "lock = assets.cache_lock(Path(sys.argv[1]))\n"
    code += "from filelock import Timeout\n"
    code += "try:\n    lock.acquire(timeout=0.05)\nexcept Timeout:\n    print('kept out')"
    command = [sys.executable, "-c", code, str(tmp_path)]
    with assets.cache_lock(tmp_path):
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
        assert done.stdout.strip() == "kept out"


# --- arrays -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["y", "file", "allow_pickle", "arr_0", "a/b:0", "../x", "StatefulPartitionedCall:0", "naïve"]
)
def test_an_array_of_any_name_is_written_and_read_back(tmp_path, name):
    path = tmp_path / "outputs.npz"
    assets.write_arrays(path, {name: np.arange(6, dtype=np.float16).reshape(2, 3), "other": np.array([True])})
    with np.load(path, allow_pickle=False) as archive:
        assert set(archive.files) == {name, "other"}
        np.testing.assert_array_equal(archive[name], np.arange(6).reshape(2, 3))
        assert archive[name].dtype == np.float16
    assert [file.name for file in tmp_path.iterdir()] == ["outputs.npz"]


def test_arrays_are_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "outputs.npz"
    assets.write_arrays(path, {"y": np.ones(2)})
    with pytest.raises(ValueError, match="Object arrays"):
        assets.write_arrays(path, {"y": np.zeros(2), "z": np.array([object()])})
    with np.load(path) as archive:
        assert archive["y"].tolist() == [1, 1]
