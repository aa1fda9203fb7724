"""What is LiteRT's own: delegates, resizing, reading its node list; and tflite-runtime with the same source."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pytest_mlbench.agent.adapters import litert_adapter as adapter
from pytest_mlbench.agent.adapters import tflite_runtime_adapter

ROOT = Path(__file__).parents[2]
MODELS = ROOT / "suites" / "digits" / "models"
FLOAT, HALF, INT8 = (str(MODELS / f"digits{kind}.tflite") for kind in ("", "_fp16", "_int8"))

needs_litert = pytest.mark.skipif(
    importlib.util.find_spec("ai_edge_litert") is None, reason="ai-edge-litert is not installed"
)


def bound(path: str, batch: int = 1, **options):
    session = adapter.load(path, options)
    (spec,) = session.inputs
    rng = np.random.default_rng(0)
    stored = rng.random((batch, 1, 8, 8), dtype=np.float32)
    if spec.dtype == "int8":
        stored = rng.integers(-128, 128, stored.shape, dtype=np.int8)
    session.bind({spec.name: stored})
    session.invoke()
    return session


# --- delegates ----------------------------------------------------------------------------------------------


@needs_litert
@pytest.mark.parametrize("path", [FLOAT, HALF, INT8])
def test_the_delegate_takes_what_computes(path):
    placement = bound(path).placement()
    assert {node.where for node in placement.nodes if node.compute} == {"xnnpack"}
    taken = [node for node in placement.nodes if node.where == "xnnpack"]
    assert placement.notes == {"delegate": "xnnpack", "delegated_nodes": len(taken)}
    assert "DELEGATE" not in {node.op for node in placement.nodes}


@needs_litert
@pytest.mark.parametrize("path", [FLOAT, HALF, INT8])
def test_without_delegate_everything_runs_on_the_cpu(path):
    placement = bound(path, delegate="none").placement()
    assert {node.where for node in placement.nodes} == {"cpu"}
    assert placement.notes == {"delegate": "none", "delegated_nodes": 0}


@needs_litert
@pytest.mark.parametrize("path", [FLOAT, INT8])
def test_both_list_the_same_operators(path):
    listed = [[node.op for node in bound(path, delegate=each).placement().nodes] for each in ("xnnpack", "none")]
    assert listed[0] == listed[1]


@needs_litert
def test_the_delegate_is_applied_again_after_a_resize():
    session = bound(FLOAT, batch=5)
    assert "xnnpack" in {node.where for node in session.placement().nodes}


@needs_litert
def test_an_unknown_delegate_is_no_silent_default():
    with pytest.raises(KeyError):
        adapter.load(FLOAT, {"delegate": "gpu"})


@needs_litert
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="reads /proc")
@pytest.mark.parametrize("threads", [1, 3])
def test_threads_reach_the_delegate(threads):
    code = """
import os, sys
sys.path.insert(0, sys.argv[1])
import numpy as np
from pytest_mlbench.agent.adapters import litert_adapter as adapter
before = len(os.listdir("/proc/self/task"))
session = adapter.load(sys.argv[2], {"threads": int(sys.argv[3])})
session.bind({session.inputs[0].name: np.zeros((64, 1, 8, 8), np.float32)})
session.invoke()
print(len(os.listdir("/proc/self/task")) - before)
"""
    command = [sys.executable, "-c", code, str(ROOT), FLOAT, str(threads)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert int(done.stdout) == threads - 1, done.stderr


# --- shapes -------------------------------------------------------------------------------------------------


@needs_litert
def test_the_batch_may_change_from_bind_to_bind():
    session = adapter.load(FLOAT, {})
    name, out = session.inputs[0].name, session.outputs[0].name
    rows = np.random.default_rng(1).random((6, 1, 8, 8), dtype=np.float32)
    session.bind({name: rows})
    session.invoke()
    whole = session.fetch()[out]
    for batch in (1, 3, 1, 2):
        session.bind({name: rows[:batch]})
        session.invoke()
        np.testing.assert_allclose(session.fetch()[out], whole[:batch], rtol=1e-5, atol=1e-5)


@needs_litert
def test_int8_holds_its_scales():
    session = adapter.load(INT8, {})
    (given,), (result,) = session.inputs, session.outputs
    assert (given.dtype, given.zero_point) == ("int8", -128)
    assert given.scale == pytest.approx(1 / 255)
    assert result.scale > 0


@needs_litert
def test_a_batch_that_the_file_fixes_is_not_forced(tmp_path):
    """Without strict resizing the interpreter takes any batch; constants inside would then hold the old one."""
    free, fixed = (np.array(shape, "<i4").tobytes() for shape in ([-1, 1, 8, 8], [1, 1, 8, 8]))
    path = tmp_path / "fixed.tflite"
    path.write_bytes(Path(FLOAT).read_bytes().replace(free, fixed))
    session = adapter.load(str(path), {})
    (spec,) = session.inputs
    assert spec.shape == (1, 1, 8, 8)
    with pytest.raises(ValueError, match="a batch of 2"):
        session.bind({spec.name: np.zeros((2, 1, 8, 8), np.float32)})
    with pytest.raises(ValueError, match="cannot be resized"):
        session._shapes = None
        session.inputs = [type(spec)(spec.name, spec.dtype, (-1, 1, 8, 8))]
        session.bind({spec.name: np.zeros((2, 1, 8, 8), np.float32)})
    session.bind({spec.name: np.zeros((1, 1, 8, 8), np.float32)})
    session.invoke()


@needs_litert
def test_a_wrong_type_is_refused_by_the_interpreter():
    session = adapter.load(FLOAT, {})
    with pytest.raises(ValueError, match="FLOAT32"):
        session.bind({session.inputs[0].name: np.zeros((1, 1, 8, 8), np.float64)})


# --- reading the node list ----------------------------------------------------------------------------------


def op(index, name, inputs, outputs):
    return {"index": index, "op_name": name, "inputs": np.array(inputs), "outputs": np.array(outputs)}


# As LiteRT 2.3 lists a Keras CNN whose flatten is computed from its input's shape: two delegated parts with
# operators between them that stay on the CPU.
SPLIT = [
    op(0, "TRANSPOSE", [0, 7], [9]),
    op(1, "CONV_2D", [9, 2, 8], [10]),
    op(2, "MAX_POOL_2D", [10], [11]),
    op(3, "DEPTHWISE_CONV_2D", [11, 1, 8], [12]),
    op(4, "SHAPE", [12], [13]),
    op(5, "STRIDED_SLICE", [13, 5, 6, 6], [14]),
    op(6, "PACK", [14, 4], [15]),
    op(7, "RESHAPE", [12, 15], [16]),
    op(8, "FULLY_CONNECTED", [16, 3, -1], [17]),
    op(9, "SOFTMAX", [17], [18]),
    op(10, "DELEGATE", [0, 1, 2, 7, 8], [12]),
    op(11, "DELEGATE", [3, 16], [18]),
]


def test_delegated_parts_are_found_between_their_edges():
    assert adapter._delegated(SPLIT) == {0, 1, 2, 3, 8, 9}
    assert adapter._delegated(SPLIT[:10]) == set()


def test_a_part_with_two_outputs_one_feeding_another_part():
    ops = [
        op(0, "DEQUANTIZE", [6], [11]),
        op(1, "CONV_2D", [0, 2], [12]),
        op(2, "SHAPE", [12], [13]),
        op(3, "FULLY_CONNECTED", [13, 11], [14]),
        op(4, "DELEGATE", [0, 2, 6], [11, 12]),
        op(5, "DELEGATE", [11, 13], [14]),
    ]
    assert adapter._delegated(ops) == {0, 1, 3}


@pytest.mark.parametrize(
    ("name", "types", "word"),
    [
        ("CONV_2D", ["float32", "float32", "float32"], "fp32"),
        ("CONV_2D", ["int8", "int8", "int32"], "int8"),
        ("CONV_2D", ["uint8", "uint8", "int32"], "int8"),
        ("FULLY_CONNECTED", ["float16", "float16"], "fp16"),
        ("FULLY_CONNECTED", ["int16", "int8", "int64"], "int16"),
        ("FULLY_CONNECTED", ["float32", "int8"], "unknown"),
        ("FULLY_CONNECTED", ["int8", "int4"], "unknown"),
        ("TRANSPOSE_CONV", ["int32", "int8", "int8"], "int8"),
        ("TRANSPOSE_CONV", ["int32", "float32", "float32"], "fp32"),
        ("TRANSPOSE_CONV", ["int32", "int8", "float32"], "unknown"),
        ("BATCH_MATMUL", ["float32", "float32"], "fp32"),
        ("SOFTMAX", ["int8"], "int8"),
        ("DEQUANTIZE", ["float16"], "fp16"),
        ("RESHAPE", ["float32", "int32"], "fp32"),
    ],
)
def test_precision_by_activation_and_weight(name, types, word):
    listed = op(0, name, range(len(types)), [99])
    assert adapter._op_precision(listed, dict(enumerate(types))) == word


def test_an_operator_without_inputs_is_told_by_its_output():
    assert adapter._op_precision(op(0, "VAR_HANDLE", [], [1]), {1: "float32"}) == "fp32"
    assert adapter._op_precision(op(0, "NO_OP", [], []), {}) == "unknown"


def test_a_missing_optional_operand_is_passed_over():
    assert adapter._op_precision(op(0, "FULLY_CONNECTED", [0, 1, -1], [2]), {0: "int8", 1: "int8"}) == "int8"


def detail(**changes):
    found = {
        "name": "t",
        "shape": np.array([1, 8], np.int32),
        "shape_signature": np.array([-1, 8], np.int32),
        "dtype": np.int8,
        "quantization_parameters": {"scales": np.array([0.5], np.float32), "zero_points": np.array([3], np.int32)},
    }
    return {**found, **changes}


def test_spec_takes_free_sizes_from_the_signature():
    spec = adapter._spec(detail())
    assert (spec.shape, spec.dtype, spec.scale, spec.zero_point) == ((-1, 8), "int8", 0.5, 3)
    assert adapter._spec(detail(shape_signature=np.array([], np.int32))).shape == (1, 8)


def test_spec_of_a_tensor_without_one_scale():
    none = {"scales": np.array([], np.float32), "zero_points": np.array([], np.int32)}
    assert adapter._spec(detail(quantization_parameters=none)).scale is None
    several = {"scales": np.ones(8, np.float32), "zero_points": np.zeros(8, np.int32)}
    assert adapter._spec(detail(quantization_parameters=several)).scale is None


def test_a_type_numpy_does_not_know_keeps_its_name():
    assert adapter._dtype_name(np.float32) == "float32"
    assert adapter._dtype_name(object()).startswith("<object")


# --- tflite-runtime -----------------------------------------------------------------------------------------


def test_tflite_runtime_is_the_same_session_class():
    assert tflite_runtime_adapter.LitertSession is adapter.LitertSession
    assert tflite_runtime_adapter.NAME == "tflite_runtime"


@pytest.mark.parametrize(("path", "where"), [(FLOAT, "xnnpack"), (HALF, "xnnpack"), (INT8, "cpu")])
def test_tflite_runtime_runs_in_an_environment_of_its_own(tflite_python, path, where):
    code = """
import sys
sys.path.insert(0, sys.argv[1])
import numpy as np
from pytest_mlbench.agent.adapters import tflite_runtime_adapter as adapter
session = adapter.load(sys.argv[2], {"threads": 1})
(spec,) = session.inputs
for batch in (1, 4):
    session.bind({spec.name: np.ones((batch, 1, 8, 8), spec.dtype)})
    session.invoke()
    (out,) = session.fetch().values()
    assert out.shape == (batch, 10), out.shape
print(sorted({node.where for node in session.placement().nodes if node.compute}), *adapter.versions().values())
"""
    command = [str(tflite_python), "-c", code, str(ROOT), path]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == [f"['{where}']", "2.14.0"], done.stderr
