"""One contract for every framework adapter, held by the real frameworks on small real models.

A framework that is not installed here is skipped with its install command, as in a run of mlbench.
"""

from __future__ import annotations

import ast
import gc
import importlib
import importlib.util
import subprocess
import sys
import weakref
import zipfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

import pytest_mlbench
from pytest_mlbench.frameworks.api import Framework

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
TOLERANCE = {"fp32": 1e-4, "fp16": 2e-2}
PRECISIONS = ("fp32", "fp16", "int8")

pytestmark = [
    # Frameworks warn about themselves (deprecations, converted constants); that is not what is tested here.
    pytest.mark.filterwarnings("ignore"),
]


def framework_of(name: str) -> Framework:
    module, _, attribute = FRAMEWORKS[name].partition(":")
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


def images(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((count, 1, 8, 8), dtype=np.float32)


# --- what the contract is held against ----------------------------------------------------------------------


@dataclass
class Subject:
    """One framework with files it can load; compiles once per file, batch and options."""

    name: str
    framework: Framework
    adapter: object
    files: dict[str, Path]
    folder: Path
    made: dict

    def open(self, precision: str = "fp32", batch: int = 1, **options):
        options = {"batch": batch, **options}
        path = self.files[precision]
        if self.framework.compiles:
            key = (path, repr(sorted(options.items())))
            if key not in self.made:
                self.made[key] = self.adapter.prepare(str(path), str(self.folder), options)
            path = self.made[key]
        return self.adapter.load(str(path), options)

    def reference(self, image: np.ndarray) -> np.ndarray:
        return onnxruntime_digits(image) if self.framework.format == "tflite" else numpy_net(image)


_MADE: dict = {}


@pytest.fixture(params=list(FRAMEWORKS))
def subject(request, tmp_path_factory):
    framework = framework_of(request.param)
    if importlib.util.find_spec(framework.module) is None:
        pytest.skip(f"{framework.module} is not installed: {framework.install}")
    files = request.getfixturevalue(f"{framework.format}_files")
    adapter = importlib.import_module(framework.adapter)
    folder = tmp_path_factory.mktemp(framework.name)
    return Subject(request.param, framework, adapter, files, folder, _MADE)


def feed(session, image: np.ndarray) -> dict[str, np.ndarray]:
    """Give the images to a session's single input, stored as that input stores real numbers."""
    (spec,) = session.inputs
    if spec.scale is None:
        return {spec.name: image}
    stored = np.round(image / spec.scale) + spec.zero_point
    limits = np.iinfo(spec.dtype)
    return {spec.name: np.clip(stored, limits.min, limits.max).astype(spec.dtype)}


def real(session, outputs: dict[str, np.ndarray]) -> np.ndarray:
    (spec,) = session.outputs
    array = outputs[spec.name]
    if spec.scale is None:
        return array
    return (array.astype(np.float64) - spec.zero_point) * spec.scale


def run(session, image: np.ndarray) -> np.ndarray:
    session.bind(feed(session, image))
    session.invoke()
    return real(session, session.fetch())


def sqnr_db(reference: np.ndarray, found: np.ndarray) -> float:
    noise = np.mean((reference - found) ** 2)
    return float(10 * np.log10(np.mean(reference**2) / noise)) if noise else float("inf")


# --- the host half ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FRAMEWORKS)
def test_declaration_is_whole(name):
    framework = framework_of(name)
    assert framework.name == name
    assert framework.format in ("onnx", "tflite")
    assert "pip install" in framework.install
    assert framework.options["threads"].minimum == 1
    for key, option in framework.options.items():
        assert option.help.endswith("."), key
        assert option.default is not None, key
        assert type(option.default) is option.type, key
        assert not option.choices or option.default in option.choices, key
        assert option.minimum is None or option.default >= option.minimum, key


@pytest.mark.parametrize("name", FRAMEWORKS)
def test_declaration_and_adapter_agree(name):
    framework = framework_of(name)
    adapter = importlib.import_module(framework.adapter)
    assert framework.module == adapter.NAME
    assert framework.compiles == hasattr(adapter, "prepare")


def test_every_builtin_is_registered_as_an_entry_point():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["entry-points"]["mlbench.frameworks"] == FRAMEWORKS


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
heavy = {"onnxruntime", "onnx", "ai_edge_litert", "tflite_runtime", "tvm", "openvino", "pytest"}
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


def test_versions_name_the_framework(subject):
    found = subject.adapter.versions()
    assert found
    assert all(isinstance(value, str) and value[0].isdigit() for value in found.values())


def test_specs_describe_the_model(subject):
    session = subject.open()
    (given,), (result,) = session.inputs, session.outputs
    assert given.dtype == result.dtype == "float32"
    assert given.scale is None
    assert given.shape[1:] == (1, 8, 8)
    assert result.shape[1:] == (10,)
    assert given.shape[0] in (-1, 1)
    if subject.framework.format == "onnx":
        assert (given.name, result.name) == ("image", "logits")


def test_quantised_tensors_have_scale_and_zero_point(subject):
    session = subject.open("int8")
    (given,), (result,) = session.inputs, session.outputs
    if subject.framework.format == "onnx":
        assert given.dtype == result.dtype == "float32", "QDQ files quantise inside"
    else:
        assert given.dtype == result.dtype == "int8"
        assert given.scale > 0
        assert result.scale > 0
        assert given.zero_point == -128


@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_outputs_equal_an_independent_reference(subject, precision, batch):
    image = images(batch, seed=batch)
    found = run(subject.open(precision, batch), image)
    wanted = subject.reference(image)
    assert found.shape == wanted.shape == (batch, 10)
    if precision == "int8":
        assert sqnr_db(wanted, found) > 20
    else:
        np.testing.assert_allclose(found, wanted, rtol=TOLERANCE[precision], atol=TOLERANCE[precision])


def test_a_call_is_deterministic(subject):
    session = subject.open(batch=4)
    image = images(4)
    first = run(session, image)
    session.invoke()
    np.testing.assert_array_equal(real(session, session.fetch()), first)
    np.testing.assert_array_equal(run(subject.open(batch=4), image), first)


def test_fetch_copies(subject):
    session = subject.open()
    session.bind(feed(session, images(1, seed=1)))
    session.invoke()
    kept = session.fetch()
    before = {name: array.copy() for name, array in kept.items()}
    run(session, images(1, seed=2))
    for name, array in kept.items():
        np.testing.assert_array_equal(array, before[name])
        array[...] = 0  # the caller owns it
    assert real(session, session.fetch()).any()


def test_each_bind_is_the_next_calls_input(subject):
    session = subject.open()
    for seed in range(4):
        image = images(1, seed)
        np.testing.assert_allclose(run(session, image), subject.reference(image), rtol=1e-4, atol=1e-4)


def test_bound_arrays_outlive_the_callers_name(subject):
    session = subject.open(batch=4)
    session.bind(feed(session, images(4, seed=5)))
    gc.collect()
    rubbish = [np.full((4, 1, 8, 8), 9, np.float32) for _ in range(64)]  # takes freed memory, if there is any
    session.invoke()
    found = real(session, session.fetch())
    np.testing.assert_allclose(found, subject.reference(images(4, seed=5)), rtol=1e-4, atol=1e-4)
    assert len(rubbish) == 64


def test_read_only_arrays_can_be_bound(subject):
    session = subject.open()
    image = images(1)
    image.flags.writeable = False
    np.testing.assert_allclose(run(session, image), subject.reference(image), rtol=1e-4, atol=1e-4)


def test_a_batch_the_model_cannot_take_is_refused(subject):
    session = subject.open("fixed", batch=2) if subject.framework.format == "onnx" else subject.open("fixed")
    (spec,) = session.inputs
    assert spec.shape[0] in (1, 2)
    with pytest.raises(ValueError) as caught:
        session.bind({spec.name: images(3)})
    message = str(caught.value)
    assert spec.name in message
    assert f"({spec.shape[0]}, 1, 8, 8)" in message
    assert "batch of 3" in message


def test_a_refused_batch_leaves_the_session_working(subject):
    session = subject.open()
    image = images(1)
    wanted = run(session, image)
    (spec,) = session.inputs
    with pytest.raises(ValueError):
        session.bind({spec.name: np.zeros((1, 3, 8, 8), np.float32)})
    np.testing.assert_array_equal(run(session, image), wanted)


@pytest.mark.parametrize("change", ["missing", "other", "extra"])
def test_wrong_names_are_refused_with_both_sides(subject, change):
    session = subject.open()
    (spec,) = session.inputs
    arrays = {
        "missing": {},
        "other": {"nobody": images(1)},
        "extra": {spec.name: images(1), "nobody": images(1)},
    }
    with pytest.raises(ValueError, match="inputs are") as caught:
        session.bind(arrays[change])
    assert spec.name in str(caught.value)
    assert change == "missing" or "nobody" in str(caught.value)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_placement_says_what_ran(subject, precision):
    session = subject.open(precision)
    run(session, images(1))
    placement = session.placement()
    assert placement.reason == ""
    assert placement.source
    assert placement.nodes
    shares = Counter(node.where for node in placement.nodes)
    assert sum(shares.values()) == len(placement.nodes)
    assert set(shares) <= {"cpu", "xnnpack"}
    computing = [node for node in placement.nodes if node.compute]
    assert len(computing) >= 2
    expected = EXECUTED.get((subject.name, precision), precision)
    assert {node.precision for node in computing} == {expected}
    assert all(node.op and node.name for node in placement.nodes)


def test_placement_counts_no_cast_or_pooling_as_compute(subject):
    session = subject.open("int8")
    run(session, images(1))
    for node in session.placement().nodes:
        if node.compute:
            assert any(word in node.op.lower() for word in ("conv", "gemm", "matmul", "fully")), node


def test_placement_leaves_the_session_as_it_was(subject):
    session = subject.open()
    wanted = run(session, images(1))
    first = session.placement()
    np.testing.assert_array_equal(real(session, session.fetch()), wanted)
    session.invoke()
    np.testing.assert_array_equal(real(session, session.fetch()), wanted)
    assert session.placement() == first


def test_threads_change_speed_only(subject):
    image = images(4)
    one, two = (run(subject.open(batch=4, threads=count), image) for count in (1, 2))
    np.testing.assert_allclose(one, two, rtol=1e-5, atol=1e-5)


def test_invoke_runs_no_python_of_the_adapter(subject):
    session = subject.open()
    session.bind(feed(session, images(1)))
    session.invoke()
    entered = []

    def watch(frame, event, _argument):
        if event == "call":
            entered.append(frame.f_code.co_filename)

    invoke = session.invoke
    sys.setprofile(watch)
    try:
        invoke()
    finally:
        sys.setprofile(None)
    assert not [name for name in entered if "pytest_mlbench" in name]


def test_the_callable_taken_before_a_bind_stays_valid(subject):
    session = subject.open()
    invoke = session.invoke
    session.bind(feed(session, images(1, seed=1)))
    invoke()
    found = real(session, session.fetch())
    np.testing.assert_allclose(found, subject.reference(images(1, seed=1)), rtol=1e-4, atol=1e-4)


def test_a_broken_file_fails_with_the_frameworks_own_error(subject, tmp_path):
    broken = tmp_path / f"broken.{subject.framework.format}"
    broken.write_bytes(b"not a model" * 100)
    with pytest.raises(Exception) as caught:
        if subject.framework.compiles:
            subject.adapter.prepare(str(broken), str(tmp_path), {"batch": 1})
        else:
            subject.adapter.load(str(broken), {"batch": 1})
    assert str(caught.value)


def test_close_lets_go_of_the_model(subject):
    session = subject.open()
    run(session, images(1))
    session.close()
    with pytest.raises(RuntimeError, match="closed"):
        session.invoke()
    gone = weakref.ref(session)
    del session
    gc.collect()
    assert gone() is None


def test_two_sessions_do_not_meet(subject):
    first, second = subject.open(), subject.open()
    first.bind(feed(first, images(1, seed=1)))
    second.bind(feed(second, images(1, seed=2)))
    first.invoke()
    second.invoke()
    for session, seed in ((first, 1), (second, 2)):
        found = real(session, session.fetch())
        np.testing.assert_allclose(found, subject.reference(images(1, seed=seed)), rtol=1e-4, atol=1e-4)
    first.close()
    assert run(second, images(1)).shape == (1, 10)
