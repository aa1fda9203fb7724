"""What travels to a target runs on Python 3.9: by its syntax, by what it does when run, and on an interpreter."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pytest_mlbench import agent, deploy, loading, measure
from pytest_mlbench.devices.cpu import Cpu
from pytest_mlbench.frameworks.api import Framework

FOLDER = Path(agent.__file__).parent
FILES = sorted(FOLDER.rglob("*.py"))
# Of the standard library, what 3.9 has not.
LATER_NAMES = {
    "itertools": {"pairwise", "batched"},
    "enum": {"StrEnum"},
    "datetime": {"UTC"},
    "typing": {"Self", "TypeAlias", "ParamSpec", "TypeGuard", "Never", "assert_never", "override", "Unpack"},
    "contextlib": {"aclosing", "chdir"},
    "types": {"NoneType", "EllipsisType"},
    "statistics": {"correlation", "linear_regression"},
}
LATER_MODULES = {"tomllib"}
LATER_KEYWORDS = {"zip": {"strict"}, "dataclass": {"slots", "kw_only"}, "field": {"kw_only"}, "batched": {"strict"}}
TYPES = {"int", "float", "str", "bytes", "list", "dict", "set", "tuple", "type", "object", "bool"}


def name_of(function: ast.expr) -> str:
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def later(text: str) -> list[str]:
    """Return what in a module Python 3.9 cannot run, annotations left out when they are not evaluated."""
    tree = ast.parse(text, feature_version=(3, 9))
    lazy = any(
        isinstance(node, ast.ImportFrom) and node.module == "__future__" and node.names[0].name == "annotations"
        for node in tree.body
    )
    found, waiting = [], [tree]
    while waiting:
        node = waiting.pop()
        for field, value in ast.iter_fields(node):
            if lazy and field in ("annotation", "returns"):
                continue
            waiting += [each for each in (value if isinstance(value, list) else [value]) if isinstance(each, ast.AST)]
        line = getattr(node, "lineno", 0)
        if isinstance(node, ast.Call):
            used = {keyword.arg for keyword in node.keywords} & LATER_KEYWORDS.get(name_of(node.func), set())
            found += [f"{line}: {name_of(node.func)}({keyword}=)" for keyword in used]
            if name_of(node.func) in ("isinstance", "issubclass") and isinstance(node.args[1], ast.BinOp):
                found.append(f"{line}: isinstance(_, X | Y)")
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
            sides = (node.left, node.right)
            types = any(isinstance(side, ast.Constant) and side.value is None for side in sides)
            names = [name_of(side) for side in sides]
            if types or any(name in TYPES or (name[:1].isupper() and not name.isupper()) for name in names):
                found.append(f"{line}: X | Y of types")
        if isinstance(node, ast.ImportFrom):
            found += [f"{line}: {each.name}" for each in node.names if each.name in LATER_NAMES.get(node.module, ())]
        if isinstance(node, ast.Import):
            found += [f"{line}: {each.name}" for each in node.names if each.name in LATER_MODULES]
        if isinstance(node, ast.AnnAssign) and not lazy and "|" in ast.unparse(node.annotation):
            found.append(f"{line}: X | Y of types")
    return found


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.relative_to(FOLDER).as_posix())
def test_the_source_is_python_3_9(file):
    assert later(file.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("x = zip(a, b, strict=True)", "zip(strict=)"),
        ("from dataclasses import dataclass\n@dataclass(slots=True)\nclass A: pass", "dataclass(slots=)"),
        ("Number = int | float", "X | Y of types"),
        ("from typing import Any\nMaybe = Any | None", "X | Y of types"),
        ("def f(x: int | None): pass", "X | Y of types"),
        ("isinstance(x, int | str)", "isinstance(_, X | Y)"),
        ("from itertools import pairwise", "pairwise"),
        ("import tomllib", "tomllib"),
    ],
)
def test_the_scan_finds_what_is_later(text, reason):
    assert any(found.endswith(reason) for found in later(text))


def test_the_scan_lets_lazy_annotations_and_plain_bit_operations_be():
    lazy = "from __future__ import annotations\ndef f(x: int | None) -> str | None:\n    y: int | None = x\n"
    assert later(lazy) == []
    assert later("mask = (a | b) | 0x80") == []


def test_the_scan_refuses_later_syntax():
    with pytest.raises(SyntaxError):
        later("match x:\n    case 1: pass")


def test_nothing_but_the_standard_library_numpy_and_the_frameworks_is_imported():
    allowed = set(sys.stdlib_module_names) | {
        "numpy", "onnxruntime", "onnx", "openvino", "tvm", "ai_edge_litert", "tflite_runtime", "torch", "mlbench_agent",
    }  # fmt: skip
    for file in FILES:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                roots = {name.name.split(".")[0] for name in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                roots = {(node.module or "").split(".")[0]}
            else:
                continue
            assert roots <= allowed, f"{file.name}, line {node.lineno}"


def pythons_3_9() -> list[str]:
    """Return the interpreters called python3.9 that start and have numpy."""
    found = shutil.which("python3.9")
    if found is None:
        return []
    tried = subprocess.run([found, "-c", "import numpy"], capture_output=True, timeout=60, check=False)
    return [found] if tried.returncode == 0 else []


def test_an_agent_runs_on_python_3_9(tmp_path, monkeypatch):
    found = pythons_3_9()
    if not found:
        pytest.skip("no python3.9 with numpy on PATH")
    monkeypatch.setenv("MLBENCH_STATE", str(tmp_path))
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "vendor"))
    plain = Framework("faulty", "faulty", "mlbench_faulty_adapter", "json", install="")
    (tmp_path / "model.json").write_text('{"weights": [[1, 2], [3, 4]]}', encoding="utf-8")
    options = {"fault": "none", "stage": "load", "call_ms": 0, "reports": "fp32"}
    with deploy.Agent(Cpu(), Path(found[0]), deploy.agent_sources(plain)) as running:
        assert running.hello["python"].startswith("3.9.")
        running.send_array("x", np.eye(2, dtype=np.float32), 10.0)
        running.call("inputs", "steps", 10.0, steps=[{"scale": 2.0}], mapping={})
        running.call("start", "baseline", 10.0)
        loading.load(running, plain, str(tmp_path / "model.json"), options, 10.0)
        running.call("inputs", "fit", 10.0, batch=1, boundary="end_to_end", seed=0)
        target = measure.AgentTarget(running, 10.0)
        warm = target.warm_up(0.0, 3)
        assert len(target.block(warm.calls, max_samples=5, min_ns=0).sample_ns) == 5
        outputs = measure.accuracy_pass(running, 10.0)
        assert outputs["y"].tolist() == [[2, 4], [6, 8]]
        assert running.call("proof", "placement", 10.0)["source"] == "faulty"
        assert running.call("counters", "counters", 10.0)["used"]
