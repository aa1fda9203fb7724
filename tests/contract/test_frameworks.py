"""One contract for every framework adapter, held by the real frameworks on small real models.

A framework that is not installed here is skipped with its install command, as in a run of mlbench.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import subprocess
import sys
import zipfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

import pytest_mlbench
from pytest_mlbench.frameworks.api import Framework
from pytest_mlbench.testing.frameworks import PRECISIONS, FrameworkContract, Subject, run

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
PACKAGE = Path(pytest_mlbench.__file__).parent  # of the sources, or of the wheel that is tested
AGENT = PACKAGE / "agent"
ADAPTERS = sorted(path.stem for path in (AGENT / "adapters").glob("*.py"))
DIGITS = ROOT / "suites" / "digits" / "models"

FRAMEWORKS = {
    "onnxruntime": "pytest_mlbench.frameworks.onnxruntime:FRAMEWORK",
    "litert": "pytest_mlbench.frameworks.litert:FRAMEWORK",
    "tflite_runtime": "pytest_mlbench.frameworks.litert:TFLITE_RUNTIME",
    "tvm": "pytest_mlbench.frameworks.tvm:FRAMEWORK",
    "openvino": "pytest_mlbench.frameworks.openvino:FRAMEWORK",
    "torch": "pytest_mlbench.frameworks.torch:FRAMEWORK",
}
# Without a board and without a GPU there is nothing to hold these to but what they declare.
ELSEWHERE = {
    "onnxruntime_gpu": "pytest_mlbench.frameworks.onnxruntime:GPU",
    "firmware": "pytest_mlbench.frameworks.firmware:FRAMEWORK",
}
# What runs where the file says otherwise. CPUs with fp16 or without int8 units could differ: these are what
# each framework does on any x86 CPU.
EXECUTED = {
    ("onnxruntime", "fp16"): "fp32",
    ("litert", "fp16"): "fp32",
    ("tflite_runtime", "fp16"): "fp32",
    ("openvino", "fp16"): "fp32",
    ("tvm", "int8"): "fp32",
}

pytestmark = [
    # Frameworks warn about themselves (deprecations, converted constants); that is not what is tested here.
    pytest.mark.filterwarnings("ignore"),
]


def framework_of(name: str) -> Framework:
    module, _, attribute = {**FRAMEWORKS, **ELSEWHERE}[name].partition(":")
    found = getattr(importlib.import_module(module), attribute)
    assert isinstance(found, Framework)
    return found


# --- models -----------------------------------------------------------------------------------------------


def weights() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(7)
    shapes = {"w1": (8, 1, 3, 3), "b1": (8,), "w2": (10, 128), "b2": (10,)}
    return {name: (rng.standard_normal(shape) * 0.3).astype(np.float32) for name, shape in shapes.items()}


def write_onnx(path: Path, batch: int | str) -> Path:
    """Write convolution, ReLU, pooling and a fully connected layer, as any small classifier has them."""
    onnx = pytest.importorskip("onnx")
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    nodes = [
        helper.make_node("Conv", ["image", "w1", "b1"], ["c"], name="conv", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"], name="relu"),
        helper.make_node("MaxPool", ["r"], ["p"], name="pool", kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Flatten", ["p"], ["f"], name="flat"),
        helper.make_node("Gemm", ["f", "w2", "b2"], ["logits"], name="gemm", transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("image", kind, [batch, 1, 8, 8])],
        [helper.make_tensor_value_info("logits", kind, [batch, 10])],
        [onnx.numpy_helper.from_array(array, name) for name, array in weights().items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    onnx.save(model, str(path))
    return path


def numpy_net(image: np.ndarray) -> np.ndarray:
    """Compute the same net in float64, written without any framework."""
    w = {name: array.astype(np.float64) for name, array in weights().items()}
    padded = np.pad(image.astype(np.float64), ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))
    conv = np.einsum("nchwij,ocij->nohw", windows, w["w1"]) + w["b1"][None, :, None, None]
    pooled = np.maximum(conv, 0).reshape(len(image), 8, 4, 2, 4, 2).max(axis=(3, 5))
    return pooled.reshape(len(image), -1) @ w["w2"].T + w["b2"]


def onnxruntime_digits(image: np.ndarray) -> np.ndarray:
    """Compute the digits model by another framework from another file of the same weights."""
    onnxruntime = pytest.importorskip("onnxruntime")
    session = onnxruntime.InferenceSession(str(DIGITS / "digits.onnx"), providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: image})[0]


@pytest.fixture(scope="session")
def onnx_files(tmp_path_factory):
    """Make the net in fp32, fp16 and int8, and once with its batch fixed to 2."""
    folder = tmp_path_factory.mktemp("onnx")
    files = {"fp32": write_onnx(folder / "net.onnx", "N"), "fixed": write_onnx(folder / "fixed.onnx", 2)}
    pytest.importorskip("onnxruntime")
    from pytest_mlbench.agent import onnx_precision

    np.savez(folder / "calibration.npz", image=images(64, seed=3))
    files["fp16"] = Path(onnx_precision.prepare(str(files["fp32"]), str(folder), {"how": "float16"}))
    options = {"how": "static_qdq", "calibration": str(folder / "calibration.npz"), "per_channel": True}
    files["int8"] = Path(onnx_precision.prepare(str(files["fp32"]), str(folder), options))
    return files


@pytest.fixture(scope="session")
def tflite_files(tmp_path_factory):
    """Take the digits files, and make one whose batch is fixed by overwriting its shape signatures."""
    files = {"fp32": DIGITS / "digits.tflite", "fp16": DIGITS / "digits_fp16.tflite"}
    files["int8"] = DIGITS / "digits_int8.tflite"
    free, fixed = (np.array(shape, "<i4").tobytes() for shape in ([-1, 1, 8, 8], [1, 1, 8, 8]))
    content = files["fp32"].read_bytes()
    assert free in content
    files["fixed"] = tmp_path_factory.mktemp("tflite") / "fixed.tflite"
    files["fixed"].write_bytes(content.replace(free, fixed))
    return files


@pytest.fixture(scope="session")
def torch_files(tmp_path_factory):
    """Export the net with a free batch, and once with its batch fixed to 2."""
    torch = pytest.importorskip("torch")

    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            for name, array in weights().items():
                self.register_buffer(name, torch.from_numpy(array))

        def forward(self, image):
            x = torch.nn.functional.conv2d(image, self.w1, self.b1, padding=1)
            x = torch.nn.functional.max_pool2d(torch.relu(x), 2).flatten(1)
            return {"logits": torch.nn.functional.linear(x, self.w2, self.b2)}

    folder, example = tmp_path_factory.mktemp("torch"), torch.zeros(2, 1, 8, 8)
    files = {"fp32": folder / "net.pt2", "fixed": folder / "fixed.pt2"}
    free = {"image": {0: torch.export.Dim("N", min=1)}}
    torch.export.save(torch.export.export(Net().eval(), (example,), dynamic_shapes=free), files["fp32"])
    torch.export.save(torch.export.export(Net().eval(), (example,)), files["fixed"])
    return files


def images(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((count, 1, 8, 8), dtype=np.float32)


# --- what the contract is held against ----------------------------------------------------------------------


@dataclass
class Ours(Subject):
    """One of our frameworks, with what is known of it beyond the contract."""

    name: str = ""


_MADE: dict = {}


@pytest.fixture(params=list(FRAMEWORKS))
def subject(request, tmp_path_factory):
    name = request.param
    framework = framework_of(name)
    if importlib.util.find_spec(framework.module) is None:
        pytest.skip(f"{framework.module} is not installed: {framework.install}")
    is_tflite = framework.format == "tflite"
    return Ours(
        framework,
        files=request.getfixturevalue(f"{framework.format}_files"),
        samples=images,
        reference=onnxruntime_digits if is_tflite else numpy_net,
        folder=tmp_path_factory.mktemp(framework.name),
        executed={precision: runs for (known, precision), runs in EXECUTED.items() if known == name},
        fixed_batch=1 if is_tflite else 2,
        # PyTorch returns its outputs and keeps none, so one frame must hold on to them.
        frames=1 if name == "torch" else 0,
        made=_MADE,
        name=name,
    )


# --- the host half ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*FRAMEWORKS, "onnxruntime_gpu"])
def test_declaration_is_whole(name):
    framework = framework_of(name)
    assert framework.name == name
    assert framework.format in ("onnx", "tflite", "torch")
    assert "pip install" in framework.install
    assert framework.options["threads"].minimum == 1
    for key, option in framework.options.items():
        assert option.help.endswith("."), key
        assert option.default is not None, key
        assert type(option.default) is option.type, key
        assert not option.choices or option.default in option.choices, key
        assert option.minimum is None or option.default >= option.minimum, key


@pytest.mark.parametrize("name", [*FRAMEWORKS, "onnxruntime_gpu"])
def test_declaration_and_adapter_agree(name):
    framework = framework_of(name)
    adapter = importlib.import_module(framework.adapter)
    assert framework.module == adapter.NAME
    assert framework.compiles == hasattr(adapter, "prepare")


def test_every_builtin_is_registered_as_an_entry_point():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["entry-points"]["mlbench.frameworks"] == {**FRAMEWORKS, **ELSEWHERE}


# --- travelling ---------------------------------------------------------------------------------------------


def python(code: str, *arguments: str, **kwargs) -> subprocess.CompletedProcess:
    command = [sys.executable, "-I", "-c", code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, **kwargs)


def test_importing_adapters_and_declarations_imports_no_framework():
    code = """
import sys
sys.path.insert(0, sys.argv[1])
import importlib
for name in sys.argv[2:]:
    importlib.import_module(name)
heavy = {"onnxruntime", "onnx", "ai_edge_litert", "tflite_runtime", "tvm", "openvino", "torch", "pytest"}
print(sorted(heavy & set(sys.modules)))
"""
    modules = [f"pytest_mlbench.agent.adapters.{name}" for name in ADAPTERS if name != "__init__"]
    modules += ["pytest_mlbench.agent.onnx_precision"]
    modules += [path.partition(":")[0] for path in FRAMEWORKS.values()]
    done = python(code, str(PACKAGE.parent), *modules)
    assert done.stdout.strip() == "[]", done.stderr


def test_adapters_load_from_a_zip_as_the_agents_own_package(tmp_path):
    archive = tmp_path / "agent.zip"
    with zipfile.ZipFile(archive, "w") as out:
        for file in AGENT.rglob("*.py"):
            out.write(file, Path("mlbench_agent") / file.relative_to(AGENT))
    code = """
import sys, importlib
sys.path.insert(0, sys.argv[1])
for name in sys.argv[2:]:
    module = importlib.import_module("mlbench_agent." + name)
    assert sys.argv[1] in module.__file__
    assert "pytest_mlbench" not in sys.modules
print("ok")
"""
    names = [f"adapters.{name}" for name in ADAPTERS if name != "__init__"] + ["onnx_precision"]
    done = python(code, str(archive), *names, cwd=tmp_path)
    assert done.stdout.strip() == "ok", done.stderr


@pytest.mark.parametrize("name", [f"adapters/{name}.py" for name in ADAPTERS] + ["onnx_precision.py"])
def test_what_travels_is_python_3_9(name):
    tree = ast.parse((AGENT / name).read_text(encoding="utf-8"), feature_version=(3, 9))
    for node in ast.walk(tree):
        assert not isinstance(node, ast.Match)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "zip":
            assert not node.keywords, "zip(strict=) needs Python 3.10"
    allowed = {"__future__", "typing", "collections", "numpy", None} | set(sys.stdlib_module_names)
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and not node.level:
            assert node.module.partition(".")[0] in allowed
        if isinstance(node, ast.Import):
            assert {alias.name.partition(".")[0] for alias in node.names} <= allowed


# --- the target half ----------------------------------------------------------------------------------------


class TestAdapter(FrameworkContract):
    """Every adapter keeps the contract that vendors' adapters keep, and some more."""

    @pytest.fixture
    def subject(self, subject):
        return subject

    def test_names_of_the_model_are_kept(self, subject):
        session = subject.open()
        (given,), (result,) = session.inputs, session.outputs
        assert given.dtype == result.dtype == "float32"
        assert given.scale is None
        if subject.framework.format != "tflite":
            assert (given.name, result.name) == ("image", "logits")

    def test_quantised_tensors_have_scale_and_zero_point(self, subject):
        session = subject.open("int8")
        (given,), (result,) = session.inputs, session.outputs
        if subject.framework.format == "onnx":
            assert given.dtype == result.dtype == "float32", "QDQ files quantise inside"
        else:
            assert given.dtype == result.dtype == "int8"
            assert given.scale > 0
            assert result.scale > 0
            assert given.zero_point == -128

    def test_a_refused_batch_is_told_with_both_shapes(self, subject):
        session = subject.open("fixed", batch=subject.fixed_batch)
        (spec,) = session.inputs
        with pytest.raises(ValueError, match="batch of 3") as caught:
            session.bind({spec.name: images(3)})
        assert f"({spec.shape[0]}, 1, 8, 8)" in str(caught.value)

    def test_wrong_names_are_told_in_one_way(self, subject):
        with pytest.raises(ValueError, match="inputs are"):
            subject.open().bind({"nobody": images(1)})

    @pytest.mark.parametrize("precision", PRECISIONS)
    def test_placement_is_known_and_on_the_processor(self, subject, precision):
        session = subject.open(precision)
        run(session, images(1))
        placement = session.placement()
        assert placement.reason == ""
        shares = Counter(node.where for node in placement.nodes)
        assert set(shares) <= {"cpu", "xnnpack"}
        computing = [node for node in placement.nodes if node.compute]
        assert len(computing) >= 2
        assert {node.precision for node in computing} == {EXECUTED.get((subject.name, precision), precision)}

    def test_placement_counts_no_cast_or_pooling_as_compute(self, subject):
        session = subject.open("fp32" if subject.framework.format == "torch" else "int8")
        run(session, images(1))
        for node in session.placement().nodes:
            if node.compute:
                assert any(word in node.op.lower() for word in ("conv", "gemm", "matmul", "fully", "linear")), node
