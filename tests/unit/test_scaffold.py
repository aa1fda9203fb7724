"""`mlbench init`: the suite written for a model parses, expands and fits the model's inputs."""

from __future__ import annotations

import argparse
import hashlib
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from pytest_mlbench.agent.api import TensorSpec
from pytest_mlbench.agent.preprocess import generate
from pytest_mlbench.errors import MlbenchError
from pytest_mlbench.frameworks.api import Framework
from pytest_mlbench.matrix import expand
from pytest_mlbench.scaffold import add_init, describe, write_suite
from pytest_mlbench.suitefile import Known, load_suite

onnx = pytest.importorskip("onnx")
DIGITS = Path(__file__).parents[2] / "suites/digits/models"


def framework(name, form, module):
    return Framework(name, form, "adapter", module, f"pip install {name}")


# `json` and `csv` stand for frameworks that are installed, wherever this test runs.
FRAMEWORKS = {
    "onnxruntime": framework("onnxruntime", "onnx", "json"),
    "tvm": framework("tvm", "onnx", "csv"),
    "openvino": framework("openvino", "onnx", "no_such_package"),
    "litert": framework("litert", "tflite", "json"),
}
KNOWN = Known(
    frameworks=FRAMEWORKS,
    devices=["cpu"],
    scenarios=["single_stream"],
    metrics={"latency.p99": "ns", "accuracy.top1": ""},
)


def save(path, inputs, nodes=None, weights=(), weight_type=None, **kwargs):
    """Write an ONNX model: `inputs` is (name, type, shape); each is passed on by an Identity."""
    helper = onnx.helper
    values = [helper.make_tensor_value_info(*one) for one in inputs]
    results = [
        helper.make_tensor_value_info(f"{name}_out", kind, shape and ["?" for _ in shape])
        for name, kind, shape in inputs
    ]
    made = [helper.make_node("Identity", [name], [f"{name}_out"]) for name, _, _ in inputs]
    stored = [helper.make_tensor(f"w{i}", weight_type, [2], [1.0, 2.0]) for i, _ in enumerate(weights)]
    if weight_type == FLOAT:
        # With raw data, which alone can be stored in a file of its own.
        array = np.array([1, 2], np.float32)
        stored = [onnx.numpy_helper.from_array(array, tensor.name) for tensor in stored]
    graph = helper.make_graph([*(nodes or []), *made], "g", values, results, stored)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, path, **kwargs)
    return path


FLOAT, INT64, HALF = 1, 7, 10
IMAGE = ("image", FLOAT, ["N", 3, 8, 8])


def written(model, out, frameworks=FRAMEWORKS):
    """Write a suite, check that it parses and expands, and return it with its only benchmark and its text."""
    path = write_suite(model, out, frameworks)
    suite = load_suite(path, KNOWN)
    (benchmark,) = suite.benchmarks
    cases = expand(suite, benchmark, KNOWN)
    assert [case.framework.id for case in cases] == [one.id for one in benchmark.framework]
    assert all(case.skip is None for case in cases)
    return suite, benchmark, path.read_text(encoding="utf-8")


def test_a_model_is_copied_beside_its_suite_and_hashed(tmp_path):
    model = save(tmp_path / "elsewhere/my net-1.onnx", [IMAGE])
    suite, benchmark, text = written(model, tmp_path / "out")
    copy = tmp_path / "out/models/my net-1.onnx"
    assert suite.path == tmp_path / "out/bench_my_net_1.toml"
    assert suite.name == "my_net_1"
    assert copy.read_bytes() == model.read_bytes()
    assert suite.models["my_net_1"].files == {"onnx": {"fp32": copy}}
    assert suite.models["my_net_1"].sha256 == {str(copy): hashlib.sha256(model.read_bytes()).hexdigest()}
    assert [one.name for one in benchmark.framework] == ["onnxruntime", "tvm"], "those that are installed"
    assert (benchmark.reference.framework, benchmark.reference.precision) == ("onnxruntime", "fp32")
    assert benchmark.expect.equivalence["fp32"].sqnr_db.value == 60
    assert "# input   image float32 [N, 3, 8, 8]" in text
    assert "# output  image_out float32 [?, ?, ?, ?]" in text


def test_a_model_inside_the_folder_stays_where_it_is(tmp_path):
    model = save(tmp_path / "out/nets/a.onnx", [IMAGE])
    suite, _, _ = written(model, tmp_path / "out")
    assert suite.models["a"].files == {"onnx": {"fp32": model}}
    assert not (tmp_path / "out/models").exists()


def test_without_a_folder_the_suite_goes_where_suites_are_looked_for(tmp_path, monkeypatch):
    model = save(tmp_path / "a.onnx", [IMAGE])
    monkeypatch.chdir(tmp_path)
    assert write_suite(Path("a.onnx"), None, FRAMEWORKS) == Path("suites/a/bench_a.toml")
    assert (tmp_path / "suites/a/models/a.onnx").read_bytes() == model.read_bytes()


def test_files_of_weights_are_copied_too(tmp_path):
    model = save(
        tmp_path / "src/big.onnx",
        [IMAGE],
        weights="ab",
        weight_type=FLOAT,
        save_as_external_data=True,
        location="big.data",
        size_threshold=0,
    )
    written(model, tmp_path / "out")
    assert (tmp_path / "out/models/big.data").read_bytes() == (tmp_path / "src/big.data").read_bytes()


@pytest.mark.parametrize(
    ("inputs", "generator", "high", "shapes", "batch"),
    [
        ([IMAGE], "normal", None, {}, (1,)),
        ([("x", FLOAT, [1, 4])], "normal", None, {}, (1,)),
        ([("x", FLOAT, ["N", "rows", 4])], "normal", None, {"x": (16, 4)}, (1,)),
        ([("x", FLOAT, [None, 3, "h", "w"])], "normal", None, {"x": (3, 224, 224)}, (1,)),
        ([("ids", INT64, ["N", "seq"])], "integers", 2, {"ids": (16,)}, (1,)),
        ([("ids", INT64, ["N", 5]), ("x", FLOAT, ["N", 2])], "normal", 2, {}, (1,)),
        ([("a:0", FLOAT, ["N", 2]), ('b"', FLOAT, ["N", "k"])], "normal", None, {'b"': (16,)}, (1,)),
        ([("x", FLOAT, [8, 3])], "normal", None, {"x": (3,)}, (8,)),
        ([("x", FLOAT, [2, 3])], "normal", None, {"x": (3,)}, (2,)),
        ([("x", FLOAT, [5, 3]), ("y", FLOAT, ["N"])], "normal", None, {"x": (3,), "y": ()}, (5,)),
    ],
)
def test_generated_data_fits_the_inputs(tmp_path, inputs, generator, high, shapes, batch):
    model = save(tmp_path / "a.onnx", inputs)
    suite, benchmark, text = written(model, tmp_path)
    dataset = suite.datasets["generated"]
    assert (dataset.generate, dataset.shapes, benchmark.batch) == (generator, shapes, batch)
    assert dataset.count % batch[0] == 0
    assert dataset.count >= 32
    assert ("high = " in text) == (high is not None)

    runtime = pytest.importorskip("onnxruntime")
    specs = [
        TensorSpec(one.name, one.dtype, tuple(-1 if size is None else size for size in one.shape))
        for one in describe(model).inputs
    ]
    samples = generate(specs, dataset.generate, dataset.count, dataset.seed, dataset.shapes, dataset.high)
    feed = {name: array[: benchmark.batch[0]] for name, array in samples.items()}
    outputs = runtime.InferenceSession(model, providers=["CPUExecutionProvider"]).run(None, feed)
    for output, array in zip(outputs, feed.values(), strict=True):
        np.testing.assert_array_equal(output, array)


@pytest.mark.parametrize(
    ("inputs", "part"),
    [
        ([("x", FLOAT, [2, 3]), ("y", FLOAT, [4, 3])], "do not share a first dimension"),
        ([("x", FLOAT, ["N", 3]), ("flag", FLOAT, [])], "do not share a first dimension"),
        ([("x", FLOAT, None)], "input 'x' is of unknown rank"),
        ([("x", 8, ["N"])], "input 'x' is object, for which no samples can be generated"),
    ],
)
def test_inputs_that_cannot_be_generated_are_refused(tmp_path, inputs, part):
    model = save(tmp_path / "a.onnx", inputs)
    with pytest.raises(MlbenchError) as caught:
        write_suite(model, tmp_path, FRAMEWORKS)
    assert part in str(caught.value)
    assert not (tmp_path / "bench_a.toml").exists()


@pytest.mark.parametrize(
    ("nodes", "kind", "precision"),
    [
        ([], FLOAT, "fp32"),
        ([], HALF, "fp16"),
        ([], 16, "bf16"),
        ([], 11, "fp64"),
        ([], INT64, "fp32"),
        ([("QuantizeLinear", ["w0", "w1", "z"], ["q"])], FLOAT, "int8"),
    ],
)
def test_the_precision_comes_from_weights_and_operators(tmp_path, nodes, kind, precision):
    made = [onnx.helper.make_node(*node) for node in nodes]
    model = save(tmp_path / "a.onnx", [IMAGE], made, weights="ab", weight_type=kind)
    assert describe(model).precision == precision
    suite, benchmark, text = written(model, tmp_path)
    assert benchmark.precision == (precision,)
    assert list(suite.models["a"].files["onnx"]) == [precision]
    assert ("# executed_precision" in text) == (precision != "fp32")


@pytest.mark.parametrize(
    ("file", "precision", "dtype"),
    [
        ("digits.tflite", "fp32", "float32"),
        ("digits_fp16.tflite", "fp16", "float32"),
        ("digits_int8.tflite", "int8", "int8"),
    ],
)
def test_a_tflite_model_is_described_by_its_interpreter(tmp_path, file, precision, dtype):
    pytest.importorskip("ai_edge_litert")
    suite, benchmark, text = written(DIGITS / file, tmp_path / "out")
    found = describe(DIGITS / file)
    assert (found.precision, found.inputs[0].dtype) == (precision, dtype)
    assert found.inputs[0].shape == (None, 1, 8, 8)
    assert suite.datasets["generated"].generate == "normal", "an int8 tensor with a scale holds real numbers"
    assert suite.datasets["generated"].shapes == {}
    assert benchmark.reference is None, "there is no second framework to compare with"
    assert '# reference = { framework = "litert"' in text


def test_every_example_in_comments_works(tmp_path):
    path = write_suite(save(tmp_path / "a.onnx", [IMAGE]), tmp_path, FRAMEWORKS)
    text = path.read_text(encoding="utf-8").replace('dataset = "generated"', 'dataset = "own"')
    text, count = re.subn(r"(?m)^# (?=[a-z_]+ = |\[dataset)", "", text)
    assert count >= 7
    path.write_text(text, encoding="utf-8")
    suite = load_suite(path, KNOWN)
    assert suite.models["a"].task == "image_classification"
    assert suite.datasets["own"].inputs == {"image": "x0"}
    assert sorted(suite.benchmarks[0].expect.limits) == ["accuracy.top1", "latency.p99"]


def test_with_no_framework_installed_all_are_named_with_how_to_install(tmp_path):
    absent = {"openvino": FRAMEWORKS["openvino"], "litert": FRAMEWORKS["litert"]}
    _, benchmark, text = written(save(tmp_path / "a.onnx", [IMAGE]), tmp_path, absent)
    assert [one.name for one in benchmark.framework] == ["openvino"]
    assert "# None of these is installed here: pip install openvino" in text


def test_a_format_that_nothing_loads_is_refused(tmp_path):
    model = save(tmp_path / "a.onnx", [IMAGE])
    with pytest.raises(MlbenchError, match="no registered framework loads onnx"):
        write_suite(model, tmp_path, {"litert": FRAMEWORKS["litert"]})


def test_what_is_there_is_only_overwritten_with_force(tmp_path):
    model = save(tmp_path / "src/a.onnx", [IMAGE])
    path = write_suite(model, tmp_path / "out", FRAMEWORKS)
    path.write_text("mine")
    with pytest.raises(MlbenchError, match=r"bench_a\.toml exists; give --force"):
        write_suite(model, tmp_path / "out", FRAMEWORKS)
    assert path.read_text() == "mine"
    write_suite(model, tmp_path / "out", FRAMEWORKS, force=True)
    assert path.read_text().startswith("# Written by")


def test_a_model_of_the_same_name_is_only_overwritten_with_force(tmp_path):
    model = save(tmp_path / "src/a.onnx", [IMAGE])
    other = tmp_path / "out/models/a.onnx"
    other.parent.mkdir(parents=True)
    other.write_bytes(b"other")
    with pytest.raises(MlbenchError, match=r"a\.onnx exists; give --force"):
        write_suite(model, tmp_path / "out", FRAMEWORKS)
    assert other.read_bytes() == b"other"
    assert not (tmp_path / "out/bench_a.toml").exists()


@pytest.mark.parametrize(
    ("name", "content", "part"),
    [
        ("a.onnx", None, "does not exist"),
        ("a.onnx", b"", "is empty"),
        ("a.onnx", b"\xff" * 40, "not an ONNX model"),
        ("a.onnx", b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "Git LFS pointer"),
        ("a.tflite", b"x" * 40, "not a TFLite model"),
        ("a.tflite", b"\x1c\x00\x00\x00TFL3" + b"\xff" * 4, "not a TFLite model"),
        ("a.pt", b"x" * 40, "expected a file that ends in .onnx or .tflite"),
    ],
)
def test_a_model_that_cannot_be_read_is_refused(tmp_path, name, content, part):
    model = tmp_path / name
    if content is not None:
        model.write_bytes(content)
    with pytest.raises(MlbenchError) as caught:
        write_suite(model, tmp_path / "out", FRAMEWORKS)
    assert part in str(caught.value)
    assert name in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_model_without_nodes_is_refused(tmp_path):
    graph = onnx.helper.make_graph([], "g", [], [])
    onnx.save(onnx.helper.make_model(graph), tmp_path / "a.onnx")
    with pytest.raises(MlbenchError, match="has no nodes"):
        write_suite(tmp_path / "a.onnx", tmp_path, FRAMEWORKS)


def test_a_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "out").write_text("a file")
    model = save(tmp_path / "a.onnx", [IMAGE])
    with pytest.raises(MlbenchError, match="the suite cannot be written to"):
        write_suite(model, tmp_path / "out", FRAMEWORKS)


def test_the_command_writes_and_says_how_to_run(tmp_path, capsys):
    shutil.copy(DIGITS / "digits.onnx", tmp_path / "digits.onnx")
    parser = argparse.ArgumentParser()
    add_init(parser.add_subparsers())
    arguments = parser.parse_args(["init", str(tmp_path / "digits.onnx"), "--out", str(tmp_path)])
    assert arguments.run(arguments) == 0
    path = tmp_path / "bench_digits.toml"
    assert path.is_file()
    assert capsys.readouterr().out == f"wrote {path}\nrun it: pytest --mlbench {path}\n"
