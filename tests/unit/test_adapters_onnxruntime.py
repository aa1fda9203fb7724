"""What is ONNX Runtime's own: options, outputs of varying shape, reading its profile."""

from __future__ import annotations

import gc
import itertools
import json
from pathlib import Path

import numpy as np
import pytest

from pytest_mlbench.agent import onnx_precision
from pytest_mlbench.agent.adapters import onnxruntime_adapter as adapter
from pytest_mlbench.frameworks.onnxruntime import FRAMEWORK

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

pytestmark = pytest.mark.filterwarnings("ignore")

FLOAT, INT64, BOOL = onnx.TensorProto.FLOAT, onnx.TensorProto.INT64, onnx.TensorProto.BOOL
helper = onnx.helper


def save(path: Path, nodes, inputs, outputs, constants=None) -> str:
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info(*each) for each in inputs],
        [helper.make_tensor_value_info(*each) for each in outputs],
        [onnx.numpy_helper.from_array(array, name) for name, array in (constants or {}).items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, str(path))
    return str(path)


@pytest.fixture
def matmul(tmp_path):
    weight = np.random.default_rng(0).standard_normal((64, 32)).astype(np.float32)
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["m"], name="mul"),
        helper.make_node("Relu", ["m"], ["y"]),
    ]
    path = save(tmp_path / "matmul.onnx", nodes, [("x", FLOAT, ["N", 64])], [("y", FLOAT, ["N", 32])], {"w": weight})
    return path, weight


@pytest.fixture
def matmul_int8(matmul, tmp_path):
    np.savez(tmp_path / "c.npz", x=np.random.default_rng(1).random((16, 64), dtype=np.float32))
    options = {"how": "static_qdq", "calibration": str(tmp_path / "c.npz")}
    return onnx_precision.prepare(matmul[0], str(tmp_path), options)


def test_two_inputs_and_two_outputs_keep_their_names(tmp_path):
    nodes = [
        helper.make_node("Add", ["a", "b"], ["sum"]),
        helper.make_node("Sub", ["a", "b"], ["difference"]),
    ]
    row = ["N", 4]
    path = save(
        tmp_path / "pair.onnx",
        nodes,
        [("a", FLOAT, row), ("b", FLOAT, row)],
        [("sum", FLOAT, row), ("difference", FLOAT, row)],
    )
    session = adapter.load(path, {})
    a, b = np.ones((2, 4), np.float32), np.full((2, 4), 3, np.float32)
    session.bind({"b": b, "a": a})
    session.invoke()
    found = session.fetch()
    assert list(found) == ["sum", "difference"]
    np.testing.assert_array_equal(found["sum"], a + b)
    np.testing.assert_array_equal(found["difference"], a - b)


def test_the_batch_may_change_from_bind_to_bind(matmul):
    path, weight = matmul
    session = adapter.load(path, {})
    for batch in (4, 1, 4, 7):
        x = np.random.default_rng(batch).standard_normal((batch, 64)).astype(np.float32)
        session.bind({"x": x})
        session.invoke()
        np.testing.assert_allclose(session.fetch()["y"], np.maximum(x @ weight, 0), rtol=1e-4, atol=1e-4)


def test_outputs_are_written_in_place_from_call_to_call(matmul):
    session = adapter.load(matmul[0], {})
    session.bind({"x": np.ones((2, 64), np.float32)})
    session.invoke()
    (first,) = session._binding.get_outputs()
    address = first.data_ptr()
    for _ in range(5):
        session.invoke()
        assert session._binding.get_outputs()[0].data_ptr() == address


def test_an_output_whose_size_depends_on_data(tmp_path):
    path = save(
        tmp_path / "nonzero.onnx",
        [helper.make_node("NonZero", ["x"], ["where"])],
        [("x", FLOAT, ["N"])],
        [("where", INT64, [1, "found"])],
    )
    session = adapter.load(path, {})
    assert session.outputs[0].shape == (1, -1)
    assert session.outputs[0].dtype == "int64"
    for values in ([1, 0, 1, 1], [0, 0, 0, 1], [1, 1, 1, 1]):
        session.bind({"x": np.array(values, np.float32)})
        session.invoke()
        session.invoke()
        np.testing.assert_array_equal(session.fetch()["where"], np.nonzero(values))


def test_types_have_numpys_names(tmp_path):
    nodes = [
        helper.make_node("Cast", ["x"], ["half"], to=onnx.TensorProto.FLOAT16),
        helper.make_node("Cast", ["x"], ["double"], to=onnx.TensorProto.DOUBLE),
        helper.make_node("Cast", ["x"], ["truth"], to=BOOL),
    ]
    outputs = [
        ("half", onnx.TensorProto.FLOAT16, [2]),
        ("double", onnx.TensorProto.DOUBLE, [2]),
        ("truth", BOOL, [2]),
    ]
    session = adapter.load(save(tmp_path / "types.onnx", nodes, [("x", FLOAT, [2])], outputs), {})
    assert [spec.dtype for spec in session.outputs] == ["float16", "float64", "bool"]
    session.bind({"x": np.array([0, 2.5], np.float32)})
    session.invoke()
    assert [array.dtype.name for array in session.fetch().values()] == ["float16", "float64", "bool"]


def test_scalar_inputs(tmp_path):
    nodes = [helper.make_node("Mul", ["x", "factor"], ["y"])]
    path = save(tmp_path / "scalar.onnx", nodes, [("x", FLOAT, ["N"]), ("factor", FLOAT, [])], [("y", FLOAT, ["N"])])
    session = adapter.load(path, {})
    assert session.inputs[1].shape == ()
    session.bind({"x": np.ones(3, np.float32), "factor": np.array(2, np.float32)})
    session.invoke()
    np.testing.assert_array_equal(session.fetch()["y"], [2, 2, 2])


# --- options ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "intra", "inter"),
    [
        ({}, 1, 1),
        ({"threads": 2}, 2, 1),
        ({"threads": 2, "execution_mode": "parallel"}, 2, 2),
        ({"execution_mode": "sequential"}, 1, 1),
    ],
)
def test_threads_reach_the_session(matmul, options, intra, inter):
    settings = adapter.load(matmul[0], options)._session.get_session_options()
    assert settings.intra_op_num_threads == intra
    assert settings.inter_op_num_threads == inter
    assert settings.execution_mode.name == "ORT_" + options.get("execution_mode", "sequential").upper()


@pytest.mark.parametrize("level", FRAMEWORK.options["graph_level"].choices)
def test_graph_levels_reach_the_session(matmul, level):
    settings = adapter.load(matmul[0], {"graph_level": level})._session.get_session_options()
    assert adapter._LEVELS[level] == settings.graph_optimization_level.name


@pytest.mark.parametrize(("spinning", "entry"), [(True, "1"), (False, "0")])
def test_spinning_reaches_the_session(matmul, spinning, entry):
    settings = adapter.load(matmul[0], {"spinning": spinning})._session.get_session_options()
    assert settings.get_session_config_entry("session.intra_op.allow_spinning") == entry


def test_declared_choices_are_the_adapters():
    assert set(FRAMEWORK.options["graph_level"].choices) == set(adapter._LEVELS)
    assert set(FRAMEWORK.options["execution_mode"].choices) == set(adapter._MODES)


# --- placement ----------------------------------------------------------------------------------------------


def placed(path: str, **options):
    session = adapter.load(path, options)
    session.bind({"x": np.ones((2, 64), np.float32)})
    return session.placement()


def test_int8_runs_as_int8_only_when_fused(matmul_int8):
    fused = [node for node in placed(matmul_int8, graph_level="extended").nodes if node.compute]
    assert [(node.op, node.precision) for node in fused] == [("QLinearMatMul", "int8")]
    unfused = placed(matmul_int8, graph_level="basic")
    assert [(n.op, n.precision) for n in unfused.nodes if n.compute] == [("MatMul", "fp32")]
    assert "DequantizeLinear" in {node.op for node in unfused.nodes}
    assert unfused.notes == {"graph_level": "basic"}


def test_placement_without_a_bind_gives_its_reason(matmul):
    placement = adapter.load(matmul[0], {}).placement()
    assert placement.nodes == ()
    assert "bound" in placement.reason


def test_placement_leaves_no_profile_behind(matmul, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = set(tmp_path.iterdir())
    assert placed(matmul[0]).nodes
    assert set(tmp_path.iterdir()) == before


def event(name, op, types, provider="CPUExecutionProvider", index="1", category="Node", outputs=None):
    arguments = {"op_name": op, "provider": provider, "node_index": index, "input_type_shape": types}
    if outputs:
        arguments["output_type_shape"] = outputs
    return {"cat": category, "name": name, "args": arguments}


def test_other_events_and_repeats_are_left_out():
    events = [
        {"cat": "Session", "name": "model_loading_uri", "args": {}},
        event("a_fence_before", "Conv", [{"float": [1]}]),
        event("a_kernel_time", "Conv", [{"float": [1]}]),
        event("a_kernel_time", "Conv", [{"float": [1]}]),
        event("a_kernel_time", "Conv", [{"float": [1]}], index="2"),
    ]
    assert [node.name for node in adapter._nodes(events)] == ["a", "a"]


@pytest.mark.parametrize(
    ("op", "types", "outputs", "word", "compute"),
    [
        ("Conv", [{"float": [1]}, {"float": [1]}], None, "fp32", True),
        ("Conv", [{"float16": [1]}, {"float16": [1]}], None, "fp16", True),
        ("Gemm", [{"bfloat16": [1]}], None, "bf16", True),
        ("Gemm", [{"double": [1]}], None, "fp64", True),
        ("QLinearConv", [{"uint8": [1]}, {"float": []}], None, "int8", True),
        ("DynamicQuantizeMatMul", [{"float": [1]}], None, "int8", True),
        ("MatMulIntegerToFloat", [{"uint8": [1]}], None, "int8", True),
        ("MatMulNBits", [{"float": [1]}, {"uint8": [1]}], None, "unknown", True),
        ("MaxPool", [{"int8": [1]}], None, "int8", False),
        ("QuantizeLinear", [{"float": [1]}], None, "fp32", False),
        ("Gather", [{"int64": [1]}], None, "int64", False),
        ("RandomNormal", [], [{"float": [1]}], "fp32", False),
        ("Conv", [], None, "unknown", True),
        ("Conv", [{}], None, "unknown", True),
    ],
)
def test_kernel_precision(op, types, outputs, word, compute):
    (node,) = adapter._nodes([event("n_kernel_time", op, types, outputs=outputs)])
    assert (node.precision, node.compute) == (word, compute)


@pytest.mark.parametrize(
    ("provider", "where"),
    [("CPUExecutionProvider", "cpu"), ("CUDAExecutionProvider", "cuda"), ("DnnlExecutionProvider", "dnnl")],
)
def test_where_is_the_provider(provider, where):
    (node,) = adapter._nodes([event("n_kernel_time", "Conv", [{"float": [1]}], provider=provider)])
    assert node.where == where


def test_a_kernel_inside_a_loop_counts_once(tmp_path):
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go"], ["go_on"]),
            helper.make_node("MatMul", ["v", "w"], ["v_out"], name="step"),
        ],
        "body",
        [
            helper.make_tensor_value_info("i", INT64, []),
            helper.make_tensor_value_info("go", BOOL, []),
            helper.make_tensor_value_info("v", FLOAT, [2, 64]),
        ],
        [
            helper.make_tensor_value_info("go_on", BOOL, []),
            helper.make_tensor_value_info("v_out", FLOAT, [2, 64]),
        ],
    )
    path = save(
        tmp_path / "loop.onnx",
        [helper.make_node("Loop", ["count", "", "x"], ["y"], body=body)],
        [("x", FLOAT, [2, 64])],
        [("y", FLOAT, [2, 64])],
        {"count": np.array(5), "w": np.eye(64, dtype=np.float32)},
    )
    nodes = placed(path).nodes
    assert [node.op for node in nodes if node.compute] == ["MatMul"]


def rss() -> int:
    fields = Path("/proc/self/statm").read_text(encoding="ascii").split()
    return int(fields[1]) * 4096


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
        session.bind({"x": np.ones((1, size), np.float32)})
        session.invoke()
        held = rss()
        session.close()
        gc.collect()
    assert held - rss() > weight.nbytes / 2


def test_every_combination_of_options_gives_the_same_answer(matmul):
    path, weight = matmul
    x = np.random.default_rng(0).standard_normal((3, 64)).astype(np.float32)
    choices = [FRAMEWORK.options[name].choices for name in ("graph_level", "execution_mode")]
    for level, mode in itertools.product(*choices):
        session = adapter.load(path, {"graph_level": level, "execution_mode": mode, "threads": 2, "batch": 3})
        session.bind({"x": x})
        session.invoke()
        np.testing.assert_allclose(session.fetch()["y"], np.maximum(x @ weight, 0), rtol=1e-4, atol=1e-4)


def test_specs_and_placement_are_plain_values(matmul):
    session = adapter.load(matmul[0], {})
    session.bind({"x": np.ones((1, 64), np.float32)})
    placement = session.placement()
    values = [vars(spec) for spec in session.inputs + session.outputs] + [vars(n) for n in placement.nodes]
    assert json.loads(json.dumps(values))


# --- a CUDA device --------------------------------------------------------------------------------------------


@pytest.fixture
def beside(monkeypatch):
    """Let the processor stand in for a GPU: ONNX Runtime binds and copies its own values there alike."""
    monkeypatch.setattr(adapter, "select", lambda options: "cpu:0")
    monkeypatch.setattr(adapter, "_on_processor", lambda place: False)


def test_inputs_and_outputs_live_on_the_device(matmul, beside):
    path, weight = matmul
    session = adapter.load(path, {})
    x = np.random.default_rng(0).standard_normal((2, 64)).astype(np.float32)
    session.bind({"x": x})
    session.invoke()
    np.testing.assert_allclose(session.fetch()["y"], np.maximum(x @ weight, 0), rtol=1e-4, atol=1e-4)
    session.bind({"x": np.ones((5, 64), np.float32)})
    session.invoke()
    assert session.fetch()["y"].shape == (5, 32), "another shape, another buffer"
    session.close()
    with pytest.raises(RuntimeError, match="closed"):
        session.invoke()


def test_a_call_ends_when_the_device_is_done(matmul, beside):
    session = adapter.load(matmul[0], {})
    done = []

    class Waiting:
        def __init__(self, binding):
            self._binding = binding

        def __getattr__(self, name):
            done.append(name)
            return getattr(self._binding, name)

    binding = session._binding
    session._session = type("Runs", (), {"run_with_iobinding": lambda self, given: done.append("run")})()
    session._binding = Waiting(binding)
    session.bind({"x": np.ones((1, 64), np.float32)})
    assert done[-1] == "synchronize_inputs"
    session.invoke()
    assert done[-2:] == ["run", "synchronize_outputs"]


def test_providers_are_those_of_the_device():
    assert adapter._providers({"provider": "tensorrt"}) == [("CPUExecutionProvider", {})]
    cuda = ("CUDAExecutionProvider", {"device_id": "0", "use_tf32": "0"})
    rest = [cuda, ("CPUExecutionProvider", {})]
    assert (
        adapter._providers({"device": "cuda:0"}) == adapter._providers({"device": "cuda:0", "provider": "cuda"}) == rest
    )
    tensorrt = ("TensorrtExecutionProvider", {"device_id": "1"})
    found = adapter._providers({"device": "cuda:1", "provider": "tensorrt"})
    assert found[0] == tensorrt
    assert found[1][1]["device_id"] == "1"


@pytest.mark.parametrize(
    ("options", "lacking"),
    [
        ({"device": "cuda:0"}, "CUDAExecutionProvider"),
        ({"device": "cuda:0", "provider": "tensorrt"}, "CUDAExecutionProvider and TensorrtExecutionProvider"),
    ],
)
def test_a_build_without_the_provider_says_so(matmul, monkeypatch, options, lacking):
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this ONNX Runtime is built for CUDA")
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "")
    with pytest.raises(ImportError) as caught:
        adapter.load(matmul[0], options)
    assert str(caught.value) == f"onnxruntime {onnxruntime.__version__} was built without {lacking}"


def test_a_provider_that_does_not_start_is_told_and_never_replaced_by_the_processor(matmul, monkeypatch):
    import onnxruntime

    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "")
    providers = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: providers)
    whole = onnxruntime.InferenceSession

    def falls_back(path, settings, providers):
        return whole(path, settings, providers=["CPUExecutionProvider"])

    monkeypatch.setattr(onnxruntime, "InferenceSession", falls_back)
    with pytest.raises(ImportError) as caught:
        adapter.load(matmul[0], {"device": "cuda:0"})
    assert str(caught.value) == (
        f"onnxruntime {onnxruntime.__version__} could not start CUDAExecutionProvider: libraries of CUDA, cuDNN or "
        "TensorRT lack"
    )


def test_the_profile_of_a_gpu_is_read():
    def event(name, op, provider, kind="float"):
        arguments = {"op_name": op, "provider": f"{provider}ExecutionProvider", "input_type_shape": [{kind: [1]}]}
        return {"cat": "Node", "name": f"{name}_kernel_time", "args": {**arguments, "node_index": name}}

    events = [
        event("conv", "Conv", "CUDA", "float16"),
        event("copy", "MemcpyFromHost", "CUDA"),
        event("part", "TRTKernel_graph_main_1_0", "Tensorrt"),
        event("left", "Gemm", "CPU"),
    ]
    assert [(node.name, node.where, node.precision, node.compute) for node in adapter._nodes(events)] == [
        ("conv", "cuda", "fp16", True),
        ("copy", "cuda", "fp32", False),
        ("part", "tensorrt", "unknown", True),
        ("left", "cpu", "fp32", True),
    ]
