"""Models of every shape of input and output, made here and run on the frameworks that take them.

What each gives is compared with numpy's own result for the same samples.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from pytest_mlbench.stores import runfile

FLOAT, INT = TensorProto.FLOAT, TensorProto.INT64
ALL = ("onnxruntime", "openvino", "tvm")
INTERPRETED = ("onnxruntime", "openvino")  # TVM takes seconds to compile: it is given what differs for it
RANDOM = np.random.default_rng(0)
W = RANDOM.standard_normal((4, 3)).astype(np.float32)
TABLE = RANDOM.standard_normal((10, 4)).astype(np.float32)
X = RANDOM.standard_normal((12, 4)).astype(np.float32)
IDS = RANDOM.integers(0, 10, (12, 5))


def info(name, kind, shape):
    return helper.make_tensor_value_info(name, kind, shape)


def model(nodes, inputs, outputs, weights):
    made = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    graph = helper.make_graph(nodes, "g", inputs, outputs, made)
    whole = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(whole)
    return whole


def matmul(x="x", y="y"):
    return helper.make_node("MatMul", [x, "w"], [y])


@dataclass(frozen=True)
class Shape:
    """A model, the samples it is given, what it must give, and lines of the suite."""

    model: onnx.ModelProto
    data: dict[str, np.ndarray]
    expected: dict[str, np.ndarray]
    dataset: str = ""
    benchmark: str = ""
    frameworks: tuple[str, ...] = ALL
    external: bool = False


SHAPES = {
    "two_inputs": Shape(
        model(
            [matmul("left", "z"), helper.make_node("Mul", ["z", "right"], ["y"])],
            [info("left", FLOAT, ["N", 4]), info("right", FLOAT, ["N", 3])],
            [info("y", FLOAT, ["N", 3])],
            {"w": W},
        ),
        {"a": X, "b": X[:, :3]},
        {"y": (X @ W) * X[:, :3]},
        dataset='inputs = { left = "a", right = "b" }',
        benchmark="batch = [5]",
    ),
    "integers": Shape(
        model(
            [helper.make_node("Gather", ["table", "ids"], ["e"]), matmul("e", "y")],
            [info("ids", INT, ["N", 5])],
            [info("y", FLOAT, ["N", 5, 3])],
            {"table": TABLE, "w": W},
        ),
        {"ids": IDS.astype(np.int32)},  # kept in another type: the values survive
        {"y": TABLE[IDS] @ W},
        frameworks=INTERPRETED,
    ),
    "dynamic_sequence": Shape(
        model(
            [helper.make_node("Gather", ["table", "ids"], ["e"]), matmul("e", "y")],
            [info("ids", INT, ["N", "S"])],
            [info("y", FLOAT, ["N", "S", 3])],
            {"table": TABLE, "w": W},
        ),
        {"tokens": IDS},  # not named as the input: there is only one of each
        {"y": TABLE[IDS] @ W},
        benchmark="batch = [3]",
    ),
    "no_batch": Shape(
        model([matmul()], [info("x", FLOAT, [4])], [info("y", FLOAT, [3])], {"w": W}),
        {"x": X},
        {"y": X @ W},
    ),
    "scalar_beside": Shape(
        model(
            [matmul("x", "z"), helper.make_node("Mul", ["z", "k"], ["y"])],
            [info("x", FLOAT, ["N", 4]), info("k", FLOAT, [])],
            [info("y", FLOAT, ["N", 3])],
            {"w": W},
        ),
        {"x": X, "k": X[:, 0]},
        {"y": (X @ W) * X[:, :1]},
        frameworks=INTERPRETED,
    ),
    "several_outputs": Shape(
        model(
            [
                matmul("x", "y"),
                helper.make_node("Relu", ["y"], ["r"]),
                helper.make_node("ArgMax", ["y"], ["best"], axis=1, keepdims=0),
            ],
            [info("x", FLOAT, ["N", 4])],
            [info("y", FLOAT, ["N", 3]), info("r", FLOAT, ["N", 3]), info("best", INT, ["N"])],
            {"w": W},
        ),
        {"x": X},
        {"y": X @ W, "r": np.maximum(X @ W, 0), "best": (X @ W).argmax(axis=1)},
        benchmark="batch = [5]",
    ),
    "fixed_batch": Shape(
        model([matmul()], [info("x", FLOAT, [2, 4])], [info("y", FLOAT, [2, 3])], {"w": W}),
        {"x": X[:11]},  # the last batch is not full
        {"y": X[:11] @ W},
        benchmark="batch = [2]",
        frameworks=INTERPRETED,
    ),
    "external_data": Shape(
        model([matmul()], [info("x", FLOAT, ["N", 4])], [info("y", FLOAT, ["N", 3])], {"w": W}),
        {"x": X},
        {"y": X @ W},
        external=True,
    ),
}  # fmt: skip


def write_suite(folder: Path, name: str, shape: Shape) -> None:
    path = folder / f"bench_{name}.toml"
    if shape.external:
        onnx.save(
            shape.model, folder / f"{name}.onnx", save_as_external_data=True, location=f"{name}.bin", size_threshold=0
        )
        assert (folder / f"{name}.bin").stat().st_size >= W.nbytes
    else:
        onnx.save(shape.model, folder / f"{name}.onnx")
    np.savez(folder / f"{name}.npz", **shape.data)
    np.savez(folder / f"{name}_expected.npz", **shape.expected)
    frameworks = ", ".join(f'"{each}"' for each in shape.frameworks)
    path.write_text(
        f"""mlbench = 1
[[model]]
name = "net"
files = {{ onnx = {{ fp32 = "{name}.onnx" }} }}
[dataset.data]
file = "{name}.npz"
{shape.dataset}
[[benchmark]]
name = "run"
model = ["net"]
framework = [{frameworks}]
precision = ["fp32"]
dataset = "data"
scenario = {{ kind = "single_stream", boundary = "end_to_end", min_duration_s = 0.02, min_samples = 8, warmup_s = 0.0 }}
reference = {{ file = "{name}_expected.npz" }}
expect.equivalence.fp32 = {{ rtol = 1e-5, atol = 1e-5 }}
expect.compliance = ["timed_outputs"]
{shape.benchmark}
""",
        encoding="utf-8",
    )


def pytest_mlbench(folder: Path, *args: str) -> subprocess.CompletedProcess[str]:
    plain = ["-p", "no:cacheprovider", "-p", "no:hypothesispytest", "-p", "no:benchmark", f"--rootdir={folder}"]
    command = [sys.executable, "-m", "pytest", "--mlbench", *plain, *args]
    environment = {name: text for name, text in os.environ.items() if name != "PYTEST_ADDOPTS"}
    environment |= {"MLBENCH_CACHE": str(folder / "cache"), "MLBENCH_STATE": str(folder / "state")}
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=180, check=False
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Return one run of all shapes: what it printed, and its records."""
    folder = tmp_path_factory.mktemp("shapes")
    (folder / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
    for name, shape in SHAPES.items():
        write_suite(folder, name, shape)
    done = pytest_mlbench(folder, str(folder), "--mlbench-output=run.jsonl")
    return done, runfile.read(folder / "run.jsonl").records


CASES = [(name, framework) for name, shape in SHAPES.items() for framework in shape.frameworks]


@pytest.mark.parametrize(("name", "framework"), CASES)
def test_a_model_gives_what_numpy_gives(finished, name, framework):
    done, records = finished
    found = [one for one in records if one.case.startswith(f"{name}/") and one.axes["framework"] == framework]
    assert found, done.stdout
    for record in found:
        assert record.outcome == "pass", f"{record.case}: {record.reason}"
        checked = [check.name for check in record.checks if check.name.startswith("equivalence")]
        assert checked, record.checks


def test_external_data_counts_in_the_size_and_the_hash(finished):
    outside = next(one for one in finished[1] if one.case == "external_data/run[net-onnxruntime-fp32-cpu]")
    assert outside.metric("model.size").value > len(SHAPES["external_data"].model.SerializeToString())
    assert outside.hashes["model"] != outside.hashes["loaded"]  # of the model with its data; of the file alone


# --- a user's own model -------------------------------------------------------------------------------------


def test_init_writes_a_suite_that_runs_at_once(tmp_path):
    """Two inputs, one of whole numbers; free sequence and batch: the suite is green without a change."""
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["e"]),
        helper.make_node("Mul", ["e", "mask"], ["m"]),
        helper.make_node("MatMul", ["m", "w"], ["scores"]),
    ]
    inputs = [info("ids", INT, ["batch", "length"]), info("mask", FLOAT, ["batch", "length", 1])]
    made = model(nodes, inputs, [info("scores", FLOAT, ["batch", "length", 3])], {"table": TABLE, "w": W})
    onnx.save(made, tmp_path / "own.onnx")
    (tmp_path / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
    mlbench = [sys.executable, "-m", "pytest_mlbench", "init", "own.onnx"]
    done = subprocess.run(mlbench, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    suite = tmp_path / "suites" / "own" / "bench_own.toml"
    assert f"pytest --mlbench {suite.relative_to(tmp_path)}" in done.stdout
    text = suite.read_text(encoding="utf-8")
    assert "min_duration_s = 1" in text
    suite.write_text(text.replace("min_duration_s = 1", "min_duration_s = 0.05"), encoding="utf-8")
    done = pytest_mlbench(tmp_path, str(suite.relative_to(tmp_path)), "--mlbench-output=run.jsonl")
    assert done.returncode == 0, done.stdout
    records = runfile.read(tmp_path / "run.jsonl").records
    assert {record.axes["framework"] for record in records} == set(ALL)
    assert {record.outcome for record in records} == {"pass"}
    compared = [check for record in records for check in record.checks if check.name == "equivalence.sqnr_db"]
    assert len(compared) == len(ALL) - 1  # each with the first
    shutil.rmtree(tmp_path / "suites")
