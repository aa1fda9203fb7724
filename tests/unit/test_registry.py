"""Nouns by entry point, a suite's own functions, and whether a framework is there."""

from __future__ import annotations

import importlib.metadata
import sys
from pathlib import Path

import pytest

from pytest_mlbench import registry
from pytest_mlbench.errors import MlbenchError, SuiteError
from pytest_mlbench.frameworks.api import Framework

JSON = Framework("plain", "plain", "plain_adapter", "json", install="pip install plain")


@pytest.fixture
def vendor(tmp_path, monkeypatch):
    """Install a package of entry points for the test."""
    registry._entry_points.cache_clear()

    def install(entries, code=""):
        folder = tmp_path / "site"
        info = folder / "mlbench_vendor-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: mlbench-vendor\nVersion: 1.0\n", encoding="utf-8")
        (info / "entry_points.txt").write_text(entries, encoding="utf-8")
        (folder / "mlbench_vendor.py").write_text(code, encoding="utf-8")
        monkeypatch.syspath_prepend(str(folder))

    yield install
    registry._entry_points.cache_clear()
    sys.modules.pop("mlbench_vendor", None)


# --- entry points -------------------------------------------------------------------------------------------


def test_what_this_package_registers():
    assert set(registry.names("frameworks")) >= {"onnxruntime", "litert", "tflite_runtime", "tvm", "openvino"}
    assert set(registry.names("scenarios")) >= {"single_stream", "offline"}
    found = registry.Registry()
    assert found.device("cpu").name == "cpu"
    assert found.scenario("offline").name == "offline"
    assert set(found.frameworks) >= {"onnxruntime", "litert"}
    assert set(found.metrics()) >= {"latency", "stages", "memory", "quality", "cost"}
    assert all(callable(function) for function in found.metrics().values())


def test_no_framework_is_imported_by_describing_it():
    import subprocess

    code = "import sys; from pytest_mlbench import registry; registry.Registry().frameworks\n"
    code += "print(sorted({'onnxruntime', 'tvm', 'openvino', 'ai_edge_litert', 'onnx'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("group", "name", "message"),
    [
        ("frameworks", "onnxruntim", 'unknown framework "onnxruntim"; did you mean "onnxruntime"? Known frameworks: '),
        ("devices", "gpu", 'unknown device "gpu"'),
        ("scenarios", "single_steam", 'unknown scenario "single_steam"; did you mean "single_stream"?'),
    ],
)
def test_an_unknown_name_has_a_near_match(group, name, message):
    with pytest.raises(SuiteError) as caught:
        registry.load(group, name)
    assert message in str(caught.value)
    assert f"(entry-point group mlbench.{group})" in str(caught.value)


def test_a_vendors_noun_is_found_without_any_change_here(vendor):
    code = "from pytest_mlbench.devices.cpu import Cpu\nDEVICE = Cpu(name='npu', resources=('npu0',))\n"
    vendor("[mlbench.devices]\nnpu = mlbench_vendor:DEVICE\n", code)
    assert "npu" in registry.names("devices")
    assert registry.Registry().device("npu").resources == ("npu0",)


@pytest.mark.parametrize(
    ("entry", "code", "reason"),
    [
        ("mlbench_vendor:DEVICE", "import no_such_sdk", "No module named 'no_such_sdk'"),
        ("mlbench_vendor:DEVISE", "DEVICE = 1", "has no attribute 'DEVISE'"),
        ("no_such_vendor:DEVICE", "", "No module named 'no_such_vendor'"),
    ],
)
def test_a_broken_vendor_package_is_named_with_the_remedy(vendor, entry, code, reason):
    vendor(f"[mlbench.devices]\nnpu = {entry}\n", code)
    with pytest.raises(MlbenchError) as caught:
        registry.load("devices", "npu")
    assert f"device 'npu' ({entry}) cannot be loaded: " in str(caught.value)
    assert reason in str(caught.value)
    assert "reinstall the package that provides it" in str(caught.value)


# --- functions ----------------------------------------------------------------------------------------------


@pytest.fixture
def forget():
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        del sys.modules[name]


def test_functions_of_two_suites_do_not_meet(tmp_path, forget):
    for folder, value in (("one", 1), ("two", 2)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "own.py").write_text(f"def f(): return {value}\n", encoding="utf-8")
    path = list(sys.path)
    found = [registry.function("own:f", tmp_path / folder)() for folder in ("one", "two", "one")]
    assert found == [1, 2, 1]
    assert sys.path == path


def test_a_function_in_a_package_beside_the_suite(tmp_path, forget):
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "own.py").write_text("def f(): return 7\n", encoding="utf-8")
    assert registry.function("inner.own:f", tmp_path)() == 7


def test_a_function_of_an_installed_module(tmp_path):
    import json

    assert registry.function("json:dumps", tmp_path) is json.dumps


@pytest.mark.parametrize(
    ("code", "reference", "message"),
    [
        (
            "",
            "no_such_module:f",
            "'no_such_module:f': No module named 'no_such_module'; the module is looked for beside",
        ),
        (
            "def f(): pass\n_x = 1",
            "own:ff",
            """'own:ff': unknown function "ff"; did you mean "f"? Known functions: f""",
        ),
        ("import no_such_dependency", "own:f", "'own:f': No module named 'no_such_dependency'"),
        ("1 / 0", "own:f", "'own:f': importing it raised ZeroDivisionError: division by zero"),
        ("def f(:", "own:f", "'own:f': importing it raised SyntaxError"),
    ],
)
def test_a_function_that_is_not_there(tmp_path, forget, code, reference, message):
    (tmp_path / "own.py").write_text(code, encoding="utf-8")
    path = list(sys.path)
    with pytest.raises(SuiteError) as caught:
        registry.function(reference, tmp_path)
    assert message in str(caught.value)
    assert sys.path == path


def test_a_module_that_failed_is_tried_again(tmp_path, forget):
    file = tmp_path / "own.py"
    file.write_text("1 / 0", encoding="utf-8")
    with pytest.raises(SuiteError):
        registry.function("own:f", tmp_path)
    file.write_text(
        "def f(): return 'good now'  # longer, so that no cached bytecode passes for it\n", encoding="utf-8"
    )
    assert registry.function("own:f", tmp_path)() == "good now"


# --- frameworks ---------------------------------------------------------------------------------------------


def framework(module="json", distributions=()):
    return Framework(
        "plain", "plain", "plain_adapter", module, install="pip install plain", distributions=distributions
    )


def test_a_framework_that_is_installed_is_not_missing():
    assert registry.missing(JSON, None) is None


@pytest.mark.parametrize("module", ["no_such_framework", "no_such_framework.core", "json.no_such_part"])
def test_a_missing_framework_is_told_with_the_install_line(module):
    assert registry.missing(framework(module), None) == "plain is not installed: pip install plain"


def test_a_framework_elsewhere_is_looked_for_there(tmp_path):
    assert registry.missing(framework("no_such_framework"), Path(sys.executable)) is None
    reason = registry.missing(framework(), tmp_path / "python")
    assert reason == f"interpreter {tmp_path / 'python'} for plain does not exist"


def test_versions_are_those_of_the_packages():
    numpy, pluggy = (importlib.metadata.version(name) for name in ("numpy", "pluggy"))
    assert registry.version(framework(distributions=("numpy", "pluggy"))) == f"numpy {numpy}, pluggy {pluggy}"
    assert registry.version(framework("numpy")) == f"numpy {numpy}"
    assert registry.version(framework(distributions=("numpy", "no-such-package"))) == ""
