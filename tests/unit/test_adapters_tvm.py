"""What is TVM's own: compiling, its artefact and sidecar, the compiler it needs, precision in lowered code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pytest_mlbench.agent.adapters import tvm_adapter as adapter
from pytest_mlbench.agent.adapters import tvm_precision

onnx = pytest.importorskip("onnx")
tvm = pytest.importorskip("tvm")

pytestmark = pytest.mark.filterwarnings("ignore")

ROOT = Path(__file__).parents[2]
FLOAT, HALF = onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16
INT8, INT32 = onnx.TensorProto.INT8, onnx.TensorProto.INT32
helper = onnx.helper


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


WEIGHT = np.random.default_rng(0).standard_normal((64, 32)).astype(np.float32)


@pytest.fixture
def matmul(tmp_path):
    nodes = [helper.make_node("MatMul", ["x", "w"], ["m"], name="mul"), helper.make_node("Relu", ["m"], ["y"])]
    inputs, outputs = [("x", FLOAT, ["N", 64])], [("y", FLOAT, ["N", 32])]
    return save(tmp_path / "matmul.onnx", nodes, inputs, outputs, {"w": WEIGHT})


def opened(path: str, folder: Path, **options):
    return adapter.load(adapter.prepare(path, str(folder), options), options)


def called(session) -> dict[str, str]:
    """Run once; returns operator -> precision of the kernels that compute."""
    return {node.op: node.precision for node in session.placement().nodes if node.compute}


# --- the artefact -------------------------------------------------------------------------------------------


def test_prepare_writes_a_library_and_its_sidecar_and_nothing_else(matmul, tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    artefact = Path(adapter.prepare(matmul, str(folder), {"batch": 2}))
    assert {path.name for path in folder.iterdir()} == {artefact.name, artefact.name + ".json"}
    sidecar = json.loads((folder / (artefact.name + ".json")).read_text(encoding="utf-8"))
    assert sidecar["inputs"] == [{"name": "x", "dtype": "float32", "shape": [2, 64]}]
    assert sidecar["outputs"] == [{"name": "y", "dtype": "float32", "shape": [2, 32]}]
    assert sidecar["kernels"]


def test_batches_and_options_have_artefacts_of_their_own(matmul, tmp_path):
    options = [{}, {"batch": 2}, {"batch": 2, "opt_level": 0}, {"target": "llvm"}]
    made = [adapter.prepare(matmul, str(tmp_path), each) for each in options]
    assert len(set(made)) == len(made)
    assert adapter.prepare(matmul, str(tmp_path), {"batch": 2}) == made[1]


def test_an_artefact_loads_in_another_process(matmul, tmp_path):
    artefact = adapter.prepare(matmul, str(tmp_path), {"batch": 3})
    code = """
import sys
sys.path.insert(0, sys.argv[1])
import numpy as np
from pytest_mlbench.agent.adapters import tvm_adapter as adapter
session = adapter.load(sys.argv[2], {})
session.bind({"x": np.ones((3, 64), np.float32)})
session.invoke()
print(float(session.fetch()["y"].sum()))
assert "onnx" not in sys.modules, "loading needs no front end"
"""
    command = [sys.executable, "-c", code, str(ROOT), artefact]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    wanted = np.maximum(np.ones((3, 64), np.float32) @ WEIGHT, 0).sum()
    assert float(done.stdout) == pytest.approx(wanted, rel=1e-4), done.stderr


def test_two_artefacts_of_one_model_live_in_one_process(matmul, tmp_path):
    for batch in (1, 4):
        session = opened(matmul, tmp_path, batch=batch)
        x = np.random.default_rng(batch).standard_normal((batch, 64)).astype(np.float32)
        session.bind({"x": x})
        session.invoke()
        np.testing.assert_allclose(session.fetch()["y"], np.maximum(x @ WEIGHT, 0), rtol=1e-4, atol=1e-4)


def test_a_library_without_its_sidecar_says_what_is_missing(matmul, tmp_path):
    artefact = Path(adapter.prepare(matmul, str(tmp_path), {}))
    (tmp_path / (artefact.name + ".json")).unlink()
    with pytest.raises(FileNotFoundError, match=r"\.so\.json is missing"):
        adapter.load(str(artefact), {})


def change_sidecar(artefact: str, **changes) -> None:
    path = Path(artefact + ".json")
    sidecar = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**sidecar, **changes}), encoding="utf-8")


def test_code_for_another_cpu_is_refused_before_it_runs(matmul, tmp_path):
    artefact = adapter.prepare(matmul, str(tmp_path), {})
    change_sidecar(artefact, cpu="z80")
    with pytest.raises(RuntimeError, match="compiled for z80, this CPU is"):
        adapter.load(artefact, {})


def test_portable_code_is_bound_to_no_cpu(matmul, tmp_path):
    artefact = adapter.prepare(matmul, str(tmp_path), {"target": "llvm"})
    assert json.loads(Path(artefact + ".json").read_text(encoding="utf-8"))["cpu"] == ""
    assert adapter.load(artefact, {}).inputs


def test_a_sidecar_of_another_layout_is_refused(matmul, tmp_path):
    artefact = adapter.prepare(matmul, str(tmp_path), {})
    change_sidecar(artefact, sidecar=0)
    with pytest.raises(RuntimeError, match="another version"):
        adapter.load(artefact, {})


# --- the compiler -------------------------------------------------------------------------------------------


def test_without_a_c_compiler_the_remedy_is_named(matmul, tmp_path):
    code = """
import sys
sys.path.insert(0, sys.argv[1])
from pytest_mlbench.agent.adapters import tvm_adapter as adapter
try:
    adapter.prepare(sys.argv[2], sys.argv[3], {})
except RuntimeError as error:
    print(error)
print("tvm" in sys.modules)
"""
    environment = {name: value for name, value in os.environ.items() if name not in ("CC", "CXX")}
    environment["PATH"] = str(tmp_path / "nothing")
    command = [sys.executable, "-c", code, str(ROOT), matmul, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)
    message, imported = done.stdout.splitlines()
    assert message.startswith("TVM needs a C compiler (cc, gcc or clang) to export")
    assert "apt-get install gcc" in message
    assert imported == "False", "it is told before any work is done"


def test_a_compiler_named_by_cc_is_enough(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("CC", "/opt/cross/bin/cc")
    adapter._require_compiler()
    monkeypatch.delenv("CC")
    if sys.platform.startswith("linux"):
        with pytest.raises(RuntimeError, match="C compiler"):
            adapter._require_compiler()


@pytest.mark.parametrize("name", ["cc", "gcc", "clang"])
def test_any_compiler_in_the_path_is_enough(monkeypatch, tmp_path, name):
    compiler = tmp_path / name
    compiler.write_text("#!/bin/sh\n", encoding="ascii")
    compiler.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.delenv("CXX", raising=False)
    adapter._require_compiler()


# --- shapes and tensors -------------------------------------------------------------------------------------


def test_two_inputs_and_two_outputs_keep_names_and_order(tmp_path):
    nodes = [helper.make_node("Add", ["a.x", "b:0"], ["sum"]), helper.make_node("Sub", ["a.x", "b:0"], ["less"])]
    row = ["N", 4]
    path = save(
        tmp_path / "pair.onnx",
        nodes,
        [("a.x", FLOAT, row), ("b:0", FLOAT, row)],
        [("sum", FLOAT, row), ("less", FLOAT, row)],
    )
    session = opened(path, tmp_path, batch=2)
    assert [spec.name for spec in session.inputs] == ["a.x", "b:0"]
    assert [spec.shape for spec in session.outputs] == [(2, 4), (2, 4)]
    a, b = np.ones((2, 4), np.float32), np.full((2, 4), 3, np.float32)
    session.bind({"b:0": b, "a.x": a})
    session.invoke()
    found = session.fetch()
    np.testing.assert_array_equal(found["sum"], a + b)
    np.testing.assert_array_equal(found["less"], a - b)


def test_other_free_sizes_need_shapes(tmp_path):
    shape = ["N", "length", 64]
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    path = save(tmp_path / "t.onnx", nodes, [("x", FLOAT, shape)], [("y", FLOAT, ["N", "length", 32])], {"w": WEIGHT})
    with pytest.raises(ValueError, match="`shapes`"):
        adapter.prepare(path, str(tmp_path), {"batch": 2})
    session = opened(path, tmp_path, batch=2, shapes={"x": [2, 5, 64]})
    assert session.inputs[0].shape == (2, 5, 64)
    assert session.outputs[0].shape == (2, 5, 32)


def test_a_fixed_batch_that_differs_is_refused_before_compiling(tmp_path):
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    path = save(tmp_path / "f.onnx", nodes, [("x", FLOAT, [2, 64])], [("y", FLOAT, [2, 32])], {"w": WEIGHT})
    with pytest.raises(ValueError, match="'x' has shape"):
        adapter.prepare(path, str(tmp_path), {"batch": 3})


def test_constants_listed_as_inputs_are_not_inputs(tmp_path):
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    inputs = [("x", FLOAT, ["N", 64]), ("w", FLOAT, [64, 32])]  # as files of the first ONNX versions have it
    path = save(tmp_path / "old.onnx", nodes, inputs, [("y", FLOAT, ["N", 32])], {"w": WEIGHT})
    session = opened(path, tmp_path, batch=1)
    assert [spec.name for spec in session.inputs] == ["x"]


# --- options ------------------------------------------------------------------------------------------------


def test_opt_level_decides_what_is_fused(matmul, tmp_path):
    counts = {}
    for level in (0, 3):
        session = opened(matmul, tmp_path, opt_level=level)
        counts[level] = len(session.placement().nodes)
    assert counts == {0: 2, 3: 1}


@pytest.mark.parametrize(
    ("target", "shown"), [("native", '"mcpu"'), ("llvm", "llvm"), ('{"kind": "llvm", "mcpu": "x86-64"}', "x86-64")]
)
def test_target_reaches_the_compiler(matmul, tmp_path, target, shown):
    if "x86-64" in target and os.uname().machine != "x86_64":
        pytest.skip("names an x86 CPU")
    placement = opened(matmul, tmp_path, target=target).placement()
    assert shown in placement.notes["target"]
    assert placement.notes["tuning"] == "none"


@pytest.mark.parametrize("threads", [1, 2])
def test_threads_size_the_pool_and_pin_nothing(matmul, tmp_path, threads):
    artefact = adapter.prepare(matmul, str(tmp_path), {})
    code = """
import os, sys
sys.path.insert(0, sys.argv[1])
import numpy as np
from pytest_mlbench.agent.adapters import tvm_adapter as adapter
cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
session = adapter.load(sys.argv[2], {"threads": int(sys.argv[3])})
session.bind({"x": np.ones((1, 64), np.float32)})
session.invoke()
assert cores is None or os.sched_getaffinity(0) == cores
import tvm
print(tvm.get_global_func("runtime.NumThreads")())
"""
    command = [sys.executable, "-c", code, str(ROOT), artefact, str(threads)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == threads


# --- precision in lowered code ------------------------------------------------------------------------------


def test_float_products(matmul, tmp_path):
    assert called(opened(matmul, tmp_path)) == {"matmul": "fp32"}


def test_half_products(tmp_path):
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    path = save(
        tmp_path / "half.onnx",
        nodes,
        [("x", HALF, [1, 64])],
        [("y", HALF, [1, 32])],
        {"w": WEIGHT.astype(np.float16)},
    )
    session = opened(path, tmp_path)
    assert session.inputs[0].dtype == "float16"
    assert called(session) == {"matmul": "fp16"}


def test_integer_products_are_told_by_what_is_stored(tmp_path):
    nodes = [helper.make_node("MatMulInteger", ["x", "w"], ["y"])]
    weight = np.random.default_rng(0).integers(-9, 9, (64, 32), dtype=np.int8)
    path = save(tmp_path / "integer.onnx", nodes, [("x", INT8, [1, 64])], [("y", INT32, [1, 32])], {"w": weight})
    session = opened(path, tmp_path)
    x = np.random.default_rng(1).integers(-9, 9, (1, 64), dtype=np.int8)
    session.bind({"x": x})
    session.invoke()
    np.testing.assert_array_equal(session.fetch()["y"], x.astype(np.int32) @ weight.astype(np.int32))
    precisions = set(called(session).values())
    # Which of the two depends on whether the cast to 32 bits is fused into the product.
    assert precisions <= {"int8", "int32"}
    assert precisions


def test_pooling_softmax_and_norms_do_not_count_as_compute(tmp_path):
    shape = [1, 4, 8, 8]
    nodes = [
        helper.make_node("MaxPool", ["x"], ["m"], kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        helper.make_node("AveragePool", ["m"], ["a"], kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        helper.make_node("ReduceL2", ["a"], ["l"], axes=[1]),
        helper.make_node("Div", ["a", "l"], ["d"]),
        helper.make_node("Softmax", ["d"], ["s"], axis=-1),
        helper.make_node("ReduceSumSquare", ["s"], ["q"], axes=[1]),
        helper.make_node("Add", ["s", "q"], ["t"]),
        helper.make_node("LayerNormalization", ["t", "gain"], ["y"]),
    ]
    gain = {"gain": np.ones(8, np.float32)}
    path = save(tmp_path / "none.onnx", nodes, [("x", FLOAT, shape)], [("y", FLOAT, shape)], gain)
    placement = opened(path, tmp_path).placement()
    assert placement.nodes
    assert [node for node in placement.nodes if node.compute] == []


def test_grouped_and_strided_convolutions_count(tmp_path):
    depthwise = np.ones((8, 1, 3, 3), np.float32)
    nodes = [helper.make_node("Conv", ["x", "w"], ["y"], group=8, strides=[2, 2], pads=[1, 1, 1, 1])]
    path = save(
        tmp_path / "dw.onnx", nodes, [("x", FLOAT, [1, 8, 8, 8])], [("y", FLOAT, [1, 8, 4, 4])], {"w": depthwise}
    )
    session = opened(path, tmp_path)
    assert set(called(session).values()) == {"fp32"}


@pytest.mark.parametrize(
    ("product", "stored", "word"),
    [
        ("float32", ["float32", "float32"], "fp32"),
        ("float32", ["float16", "float16"], "fp32"),
        ("float16", ["float16", "float16"], "fp16"),
        ("float32", ["int8", "float32"], "fp32"),
        ("int32", ["int8", "uint8"], "int8"),
        ("int32", ["int8", "int16"], "int16"),
        ("int32", ["int32", "int8"], "int32"),
        ("int64", ["int64", "int8"], "int64"),
    ],
)
def test_product_precision(product, stored, word):
    assert tvm_precision._product_precision(product, stored) == word


def test_a_kernel_that_is_not_in_the_table_is_unknown(matmul, tmp_path):
    artefact = adapter.prepare(matmul, str(tmp_path), {})
    change_sidecar(artefact, kernels={})
    (node,) = adapter.load(artefact, {}).placement().nodes
    assert (node.precision, node.compute) == ("unknown", False)
