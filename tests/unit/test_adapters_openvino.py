"""What is OpenVINO's own: precision hints, static shapes, reading its runtime model."""

from __future__ import annotations

import gc
from pathlib import Path

import numpy as np
import pytest

from pytest_mlbench.agent.adapters import openvino_adapter as adapter
from pytest_mlbench.frameworks.openvino import FRAMEWORK

onnx = pytest.importorskip("onnx")
pytest.importorskip("openvino")

pytestmark = pytest.mark.filterwarnings("ignore")

FLOAT = onnx.TensorProto.FLOAT
helper = onnx.helper


def cpu_flags() -> set[str]:
    try:
        return set(Path("/proc/cpuinfo").read_text(encoding="utf-8").split())
    except OSError:
        return set()


def save(path: Path, nodes, inputs, outputs, constants=None) -> str:
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info(*each) for each in inputs],
        [helper.make_tensor_value_info(*each) for each in outputs],
        [onnx.numpy_helper.from_array(array, name) for name, array in (constants or {}).items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), str(path))
    return str(path)


@pytest.fixture
def matmul(tmp_path):
    weight = np.random.default_rng(0).standard_normal((64, 32)).astype(np.float32)
    nodes = [helper.make_node("MatMul", ["x", "w"], ["m"], name="mul"), helper.make_node("Relu", ["m"], ["y"])]
    path = save(tmp_path / "matmul.onnx", nodes, [("x", FLOAT, ["N", 64])], [("y", FLOAT, ["N", 32])], {"w": weight})
    return path, weight


@pytest.fixture
def text(tmp_path):
    """A model with two free sizes: tokens of free length in a free batch."""
    weight = np.ones((16, 16), np.float32)
    shape = ["N", "length", 16]
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    return save(tmp_path / "text.onnx", nodes, [("x", FLOAT, shape)], [("y", FLOAT, shape)], {"w": weight})


def run(session, x):
    session.bind({"x": x})
    session.invoke()
    return session.fetch()["y"]


# --- shapes -------------------------------------------------------------------------------------------------


def test_free_sizes_stay_free_without_a_batch(matmul):
    path, weight = matmul
    session = adapter.load(path, {})
    assert session.inputs[0].shape == (-1, 64)
    for batch in (4, 1, 6):
        x = np.random.default_rng(batch).standard_normal((batch, 64)).astype(np.float32)
        np.testing.assert_allclose(run(session, x), np.maximum(x @ weight, 0), rtol=1e-4, atol=1e-4)


def test_a_batch_is_compiled_in(matmul):
    session = adapter.load(matmul[0], {"batch": 4})
    assert session.inputs[0].shape == (4, 64)
    assert session.outputs[0].shape == (4, 32)
    with pytest.raises(ValueError, match="a batch of 2"):
        session.bind({"x": np.ones((2, 64), np.float32)})


def test_sizes_beyond_the_batch_stay_free_unless_given(text):
    session = adapter.load(text, {"batch": 2})
    assert session.inputs[0].shape == (2, -1, 16)
    assert run(session, np.ones((2, 7, 16), np.float32)).shape == (2, 7, 16)
    assert run(session, np.ones((2, 3, 16), np.float32)).shape == (2, 3, 16)


def test_shapes_fix_them(text):
    session = adapter.load(text, {"batch": 2, "shapes": {"x": [-1, 5, 16]}})
    assert session.inputs[0].shape == (2, 5, 16)
    assert run(session, np.ones((2, 5, 16), np.float32)).shape == (2, 5, 16)


def test_outputs_are_named_as_in_the_file(tmp_path):
    nodes = [
        helper.make_node("Add", ["x", "x"], ["a_inner"]),
        helper.make_node("Identity", ["a_inner"], ["z"]),
        helper.make_node("Identity", ["z"], ["b"]),
    ]
    path = save(tmp_path / "names.onnx", nodes, [("x", FLOAT, [2])], [("z", FLOAT, [2]), ("b", FLOAT, [2])])
    session = adapter.load(path, {})
    assert [spec.name for spec in session.outputs] == ["z", "b"]
    session.bind({"x": np.ones(2, np.float32)})
    session.invoke()
    for array in session.fetch().values():
        np.testing.assert_array_equal(array, [2, 2])


def test_the_input_is_read_where_it_lies(matmul):
    session = adapter.load(matmul[0], {"batch": 1})
    x = np.zeros((1, 64), np.float32)
    assert not run(session, x).any()
    x[:] = 1
    session.invoke()
    assert session.fetch()["y"].any()


# --- options ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "name", "value"),
    [
        ({}, "INFERENCE_NUM_THREADS", 1),
        ({"threads": 2}, "INFERENCE_NUM_THREADS", 2),
        ({}, "NUM_STREAMS", 1),
        ({"threads": 2, "num_streams": 2}, "NUM_STREAMS", 2),
    ],
)
def test_options_reach_the_plugin(matmul, options, name, value):
    assert int(adapter.load(matmul[0], options)._compiled.get_property(name)) == value


@pytest.mark.parametrize("hint", FRAMEWORK.options["performance_hint"].choices)
def test_performance_hint_reaches_the_plugin(matmul, hint):
    found = adapter.load(matmul[0], {"performance_hint": hint})._compiled.get_property("PERFORMANCE_HINT")
    assert str(found).upper().endswith(hint.upper())


def test_fp32_is_the_default_on_every_cpu(matmul):
    session = adapter.load(matmul[0], {"batch": 1})
    placement = session.placement()
    assert placement.notes == {"inference_precision": "fp32"}
    assert {node.precision for node in placement.nodes if node.compute} == {"fp32"}


@pytest.mark.skipif(
    not {"avx512_bf16", "amx_bf16"} & cpu_flags(), reason="only a CPU with bf16 units runs a bf16 hint in bf16"
)
@pytest.mark.parametrize("hint", ["bf16", "f16"])
def test_a_narrower_hint_shows_what_the_cpu_made_of_it(matmul, hint):
    placement = adapter.load(matmul[0], {"batch": 1, "inference_precision": hint}).placement()
    ran = {node.precision for node in placement.nodes if node.compute}
    # Without fp16 units the plugin takes bf16 for f16, and says so.
    expected = "fp16" if hint == "f16" and "avx512_fp16" in cpu_flags() else "bf16"
    assert ran == {expected}
    assert placement.notes == {"inference_precision": expected}


@pytest.mark.skipif({"avx512_bf16", "amx_bf16"} & cpu_flags(), reason="this CPU has bf16 units")
def test_a_narrower_hint_without_the_units_stays_fp32(matmul):
    placement = adapter.load(matmul[0], {"batch": 1, "inference_precision": "bf16"}).placement()
    assert {node.precision for node in placement.nodes if node.compute} <= {"fp32", "bf16"}


# --- placement ----------------------------------------------------------------------------------------------


def test_placement_needs_no_input(matmul):
    placement = adapter.load(matmul[0], {"batch": 1}).placement()
    assert placement.source == "openvino get_runtime_model()"
    assert [node.op for node in placement.nodes if node.compute] == ["FullyConnected"]
    assert not {"Input", "Output", "Const"} & {node.op for node in placement.nodes}


def test_a_product_inside_a_fused_layer_counts(tmp_path):
    """Attention is fused into one layer whose own name does not say that it multiplies."""
    nodes = [
        helper.make_node("MatMul", ["q", "k"], ["scores"], name="scores"),
        helper.make_node("Softmax", ["scores"], ["weights"], name="softmax", axis=-1),
        helper.make_node("MatMul", ["weights", "v"], ["y"], name="mix"),
    ]
    inputs = [("q", FLOAT, [1, 4, 16, 32]), ("k", FLOAT, [1, 4, 32, 16]), ("v", FLOAT, [1, 4, 16, 32])]
    path = save(tmp_path / "attention.onnx", nodes, inputs, [("y", FLOAT, [1, 4, 16, 32])])
    session = adapter.load(path, {})
    computing = [node for node in session.placement().nodes if node.compute]
    assert computing
    assert {node.precision for node in computing} == {"fp32"}


def test_info_values_may_be_wrapped():
    class Wrapped:
        value = "f32"

    assert adapter._text("f32") == adapter._text(Wrapped()) == "f32"


def rss() -> int:
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * 4096


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads /proc")
def test_close_gives_the_memory_back(tmp_path):
    size = 3000
    weight = np.ones((size, size), np.float32)
    path = save(
        tmp_path / "large.onnx",
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        [("x", FLOAT, [1, size])],
        [("y", FLOAT, [1, size])],
        {"w": weight},
    )
    for _ in range(2):  # the first session also fills the library's own pools
        session = adapter.load(path, {})
        run(session, np.ones((1, size), np.float32))
        held = rss()
        session.close()
        gc.collect()
    assert held - rss() > weight.nbytes / 2
