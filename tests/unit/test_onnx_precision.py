"""Making float16 and int8 files: what they hold, that they are repeatable, and what is refused."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pytest_mlbench.agent import onnx_precision
from pytest_mlbench.agent.adapters import onnxruntime_adapter
from pytest_mlbench.agent.onnx_precision import calibration_feeds, prepare

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

pytestmark = pytest.mark.filterwarnings("ignore")

FLOAT, INT64 = onnx.TensorProto.FLOAT, onnx.TensorProto.INT64
helper = onnx.helper
ROOT = Path(__file__).parents[2]


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
def net(tmp_path):
    rng = np.random.default_rng(7)

    def normal(*shape):
        return (rng.standard_normal(shape) * 0.3).astype(np.float32)

    nodes = [
        helper.make_node("Conv", ["image", "w1", "b1"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("Flatten", ["r"], ["f"]),
        helper.make_node("Gemm", ["f", "w2"], ["logits"], transB=1),
    ]
    constants = {"w1": normal(8, 1, 3, 3), "b1": normal(8), "w2": normal(10, 512)}
    shapes = [("image", FLOAT, ["N", 1, 8, 8])], [("logits", FLOAT, ["N", 10])]
    return save(tmp_path / "net.onnx", nodes, *shapes, constants)


@pytest.fixture
def calibration(tmp_path):
    path = tmp_path / "calibration.npz"
    np.savez(path, image=images(32))
    return str(path)


def images(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((count, 1, 8, 8), dtype=np.float32)


def infer(path: str, image: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(None, {"image": image})[0]


def sqnr_db(reference: np.ndarray, found: np.ndarray) -> float:
    return float(10 * np.log10(np.mean(reference**2) / np.mean((reference - found) ** 2)))


def int8(net: str, folder: Path, calibration: str | None, **options) -> str:
    return prepare(net, str(folder), {"how": "static_qdq", "calibration": calibration, **options})


# --- what is made -------------------------------------------------------------------------------------------


def test_float16_keeps_the_interface_and_halves_the_weights(net, tmp_path):
    made = prepare(net, str(tmp_path), {"how": "float16"})
    model = onnx.load(made)
    onnx.checker.check_model(model, full_check=True)
    assert model.graph.input[0].type.tensor_type.elem_type == FLOAT
    assert model.graph.output[0].type.tensor_type.elem_type == FLOAT
    assert {tensor.data_type for tensor in model.graph.initializer} == {onnx.TensorProto.FLOAT16}
    assert Path(made).stat().st_size < 0.7 * Path(net).stat().st_size
    np.testing.assert_allclose(infer(made, images(4)), infer(net, images(4)), rtol=2e-2, atol=2e-2)


def test_float16_is_in_topological_order(net, tmp_path):
    graph = onnx.load(prepare(net, str(tmp_path), {"how": "float16"})).graph
    known = {value.name for value in graph.input} | {tensor.name for tensor in graph.initializer}
    for node in graph.node:
        assert set(node.input) <= known, f"{node.name} comes before what it needs"
        known |= set(node.output)


@pytest.mark.parametrize("per_channel", [False, True])
def test_int8_is_qdq_and_close(net, tmp_path, calibration, per_channel):
    made = int8(net, tmp_path, calibration, per_channel=per_channel)
    model = onnx.load(made)
    onnx.checker.check_model(model)
    ops = {node.op_type for node in model.graph.node}
    assert {"QuantizeLinear", "DequantizeLinear", "Conv", "Gemm"} <= ops
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    assert stored["w1_quantized"].data_type == onnx.TensorProto.INT8
    assert list(stored["w1_scale"].dims) == ([8] if per_channel else [])
    points = {t.data_type for name, t in stored.items() if name.startswith("image") and "zero" in name}
    assert points == {onnx.TensorProto.INT8}
    assert sqnr_db(infer(net, images(16, 1)), infer(made, images(16, 1))) > 25


def branching(path: Path) -> str:
    """Write a net with a tensor that two convolutions read, as squeeze-and-expand and residual nets have."""
    rng = np.random.default_rng(3)
    constants = {f"w{n}": (rng.standard_normal((8, c, 1, 1)) * 0.3).astype(np.float32) for n, c in enumerate((1, 8, 8))}
    nodes = [
        helper.make_node("Conv", ["image", "w0"], ["c0"]),
        helper.make_node("Relu", ["c0"], ["r0"]),
        helper.make_node("Conv", ["r0", "w1"], ["c1"]),
        helper.make_node("Conv", ["r0", "w2"], ["c2"]),
        helper.make_node("Concat", ["c1", "c2"], ["y"], axis=1),
    ]
    return save(path, nodes, [("image", FLOAT, ["N", 1, 8, 8])], [("y", FLOAT, ["N", 16, 8, 8])], constants)


def test_uint8_activations_leave_no_convolution_in_fp32(tmp_path, calibration):
    made = int8(branching(tmp_path / "b.onnx"), tmp_path, calibration, activations="uint8", per_channel=True)
    session = onnxruntime_adapter.load(made, {})
    session.bind({"image": images(1)})
    computing = [node for node in session.placement().nodes if node.compute]
    assert [(node.op, node.precision) for node in computing] == [("QLinearConv", "int8")] * 3


@pytest.mark.parametrize("activations", onnx_precision.ACTIVATIONS)
def test_activations_have_the_type_asked_for(net, tmp_path, calibration, activations):
    stored = onnx.load(int8(net, tmp_path, calibration, activations=activations)).graph.initializer
    (point,) = [onnx.numpy_helper.to_array(t) for t in stored if t.name == "image_zero_point"]
    assert point.dtype.name == activations


@pytest.mark.parametrize("how", onnx_precision.HOWS)
def test_the_same_input_gives_the_same_bytes(net, tmp_path, calibration, how):
    """Each time in a process of its own, as it is used."""
    code = """
import sys, warnings
warnings.simplefilter("ignore")
sys.path.insert(0, sys.argv[1])
from pytest_mlbench.agent.onnx_precision import prepare
print(prepare(sys.argv[2], sys.argv[3], {"how": sys.argv[4], "calibration": sys.argv[5]}))
"""
    contents = []
    for number in range(2):
        folder = tmp_path / str(number)
        folder.mkdir()
        command = [sys.executable, "-c", code, str(ROOT), net, str(folder), how, calibration]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        contents.append(Path(done.stdout.splitlines()[-1]).read_bytes())
    assert contents[0] == contents[1]


@pytest.mark.parametrize("how", onnx_precision.HOWS)
def test_only_the_finished_file_is_left(net, tmp_path, calibration, how):
    folder = tmp_path / "out"
    folder.mkdir()
    made = prepare(net, str(folder), {"how": how, "calibration": calibration})
    assert [path.name for path in folder.iterdir()] == [f"net_{how}.onnx"] == [Path(made).name]


def test_a_failure_leaves_nothing(net, tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    with pytest.raises(ValueError):
        int8(net, folder, None)
    assert list(folder.iterdir()) == []


def test_an_older_file_is_replaced_whole(net, tmp_path):
    older = tmp_path / "net_float16.onnx"
    older.write_bytes(b"older")
    prepare(net, str(tmp_path), {"how": "float16"})
    assert onnx.load(str(older)).graph.node


def test_the_source_is_not_touched(net, tmp_path, calibration):
    before = Path(net).read_bytes()
    prepare(net, str(tmp_path), {"how": "float16"})
    int8(net, tmp_path, calibration)
    assert Path(net).read_bytes() == before


def test_a_fixed_batch_is_calibrated_in_batches(tmp_path):
    weight = np.random.default_rng(0).standard_normal((8, 4)).astype(np.float32)
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    path = save(tmp_path / "f.onnx", nodes, [("x", FLOAT, [4, 8])], [("y", FLOAT, [4, 4])], {"w": weight})
    np.savez(tmp_path / "c.npz", x=np.random.default_rng(1).random((10, 8), dtype=np.float32))
    assert onnx.load(int8(path, tmp_path, str(tmp_path / "c.npz"))).graph.node


def test_versions_name_what_the_file_depends_on():
    found = onnx_precision.versions()
    assert found == {"onnx": onnx.__version__, "onnxruntime": onnxruntime.__version__}


def test_the_module_has_the_shape_of_an_adapter():
    assert onnx_precision.NAME == "onnx"
    assert not hasattr(onnx_precision, "load")


# --- what is refused ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", [None, "int8", "dynamic"])
def test_an_unknown_how_lists_the_known(net, tmp_path, how):
    with pytest.raises(ValueError, match="float16, static_qdq"):
        prepare(net, str(tmp_path), {"how": how})


def test_an_unknown_type_of_activations_lists_the_known(net, tmp_path, calibration):
    with pytest.raises(ValueError, match="int8, uint8"):
        int8(net, tmp_path, calibration, activations="int4")


def test_missing_calibration_is_named(net, tmp_path):
    with pytest.raises(ValueError, match="needs calibration data"):
        int8(net, tmp_path, None)
    with pytest.raises(ValueError, match=r"nowhere\.npz does not exist"):
        int8(net, tmp_path, str(tmp_path / "nowhere.npz"))


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"image": np.zeros((4, 8, 8), np.float32)}, ["'image'", "[4, 8, 8]", "[-1, 1, 8, 8]"]),
        ({"image": np.zeros((4, 3, 8, 8), np.float32)}, ["'image'", "[4, 3, 8, 8]", "[-1, 1, 8, 8]"]),
        ({"image": np.zeros((4, 1, 8, 8), np.uint8)}, ["'image'", "uint8", "float32"]),
        ({"x": np.zeros((4, 1, 8, 8)), "y": np.zeros(4)}, ["'x', 'y'", "'image'"]),
    ],
)
def test_unfitting_calibration_shows_both_sides(net, tmp_path, arrays, words):
    np.savez(tmp_path / "bad.npz", **arrays)
    with pytest.raises(ValueError) as caught:
        int8(net, tmp_path, str(tmp_path / "bad.npz"))
    for word in words:
        assert word in str(caught.value)


def test_pickled_calibration_is_not_executed(net, tmp_path):
    np.savez(tmp_path / "object.npz", image=np.array([object()], dtype=object))
    with pytest.raises(ValueError, match="allow_pickle"):
        int8(net, tmp_path, str(tmp_path / "object.npz"))


# --- feeds --------------------------------------------------------------------------------------------------

ROW = {"x": ("float32", (-1, 4))}


def shapes(feeds) -> list[dict]:
    return [{name: array.shape for name, array in feed.items()} for feed in feeds]


def rows(count: int, *shape: int, dtype: str = "float32") -> np.ndarray:
    return np.arange(count * int(np.prod(shape)), dtype=dtype).reshape(count, *shape)


def test_a_free_batch_is_fed_one_by_one():
    assert shapes(calibration_feeds(ROW, {"x": rows(3, 4)})) == [{"x": (1, 4)}] * 3


def test_one_array_fits_one_input_under_any_name():
    (feed,) = calibration_feeds(ROW, {"arr_0": rows(1, 4)})
    np.testing.assert_array_equal(feed["x"], rows(1, 4))


def test_a_fixed_batch_drops_the_incomplete_rest():
    feeds = list(calibration_feeds({"x": ("float32", (4, 2))}, {"x": rows(10, 2)}))
    assert shapes(feeds) == [{"x": (4, 2)}] * 2
    np.testing.assert_array_equal(feeds[1]["x"], rows(10, 2)[4:8])


def test_fewer_samples_than_a_batch():
    with pytest.raises(ValueError, match="one batch of 4 samples, the file holds 3"):
        list(calibration_feeds({"x": ("float32", (4, 2))}, {"x": rows(3, 2)}))


def test_no_sample_at_all():
    with pytest.raises(ValueError, match="holds 0"):
        list(calibration_feeds(ROW, {"x": rows(0, 4)}))


def test_a_model_without_batch_dimension_is_fed_whole_samples():
    inputs = {"x": ("float32", (4, 2))}
    assert shapes(calibration_feeds(inputs, {"x": rows(3, 4, 2)})) == [{"x": (4, 2)}] * 3


def test_several_inputs_are_cut_alike():
    inputs = {"tokens": ("int64", (2, -1)), "mask": ("bool", (2, -1))}
    arrays = {"mask": np.ones((4, 7), bool), "tokens": rows(4, 7, dtype="int64")}
    assert shapes(calibration_feeds(inputs, arrays)) == [{"mask": (2, 7), "tokens": (2, 7)}] * 2


def test_different_numbers_of_samples():
    inputs = {"a": ("float32", (-1, 4)), "b": ("float32", (-1, 4))}
    with pytest.raises(ValueError, match="different numbers of samples"):
        list(calibration_feeds(inputs, {"a": rows(3, 4), "b": rows(2, 4)}))


@pytest.mark.parametrize("array", [rows(3, 5), rows(3, 4, 1), np.float32(1), rows(3, 4, dtype="float64")])
def test_shapes_and_types_are_checked(array):
    with pytest.raises(ValueError):
        list(calibration_feeds(ROW, {"x": np.asarray(array)}))


def test_names_are_compared_as_sets():
    inputs = {"a": ("float32", (-1, 4)), "b": ("float32", (-1, 4))}
    with pytest.raises(ValueError, match=r"'a', 'c'.*'a', 'b'"):
        list(calibration_feeds(inputs, {"a": rows(1, 4), "c": rows(1, 4)}))
