"""A project with the digits suite, run by a pytest inside pytest or in a process of its own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

# A pytest inside pytest forgets the modules it imported: what it needs is imported here, once and for all.
from pytest_mlbench import fixtures, listing, registry, session  # noqa: F401
from pytest_mlbench.reporters import json as json_reporter  # noqa: F401
from pytest_mlbench.reporters import terminal  # noqa: F401
from pytest_mlbench.stores import runfile

for _group in ("frameworks", "devices", "scenarios", "metrics"):
    for _name in registry.names(_group):
        registry.load(_group, _name)

DIGITS = Path(__file__).parents[2] / "suites" / "digits"
FILES = (
    "models/digits.onnx",
    "models/digits.tflite",
    "models/digits_int8.tflite",
    "data/test.npz",
    "data/calibration.npz",
)

TABLES = """\
mlbench = 1

[[model]]
name = "digits_cnn"
task = "image_classification"
[model.files]
onnx = { fp32 = "models/digits.onnx" }
tflite = { fp32 = "models/digits.tflite", int8 = "models/digits_int8.tflite" }
[model.quantize]
int8 = { from = "fp32", how = "static_qdq", calibration = "data/calibration.npz" }

[dataset.digits]
file = "data/test.npz"
preprocess = [{ scale = 0.0625 }, { reshape = [1, 8, 8] }]
"""

CLASSIFY = """
[[benchmark]]
name = "classify"
model = ["digits_cnn"]
framework = ["onnxruntime", "litert"]
precision = ["fp32", "int8"]
device = ["cpu"]
dataset = "digits"
scenario = { kind = "single_stream", min_duration_s = 0.05, min_samples = 8, warmup_s = 0.01 }
reference = { framework = "onnxruntime", precision = "fp32" }
marks = ["vision"]
[benchmark.expect]
accuracy = { top1 = ">= 0.97" }
equivalence = { fp32 = { rtol = 1e-4, atol = 1e-4 }, int8 = { sqnr_db = ">= 20" } }
"""

SUITE = TABLES + CLASSIFY

PYTHON_TABLES = """\
import os

import numpy as np
import pytest

mlbench_suite = {
    "mlbench": 1,
    "model": [
        {
            "name": "digits_cnn",
            "task": "image_classification",
            "files": {
                "onnx": {"fp32": "models/digits.onnx"},
                "tflite": {"fp32": "models/digits.tflite", "int8": "models/digits_int8.tflite"},
            },
        }
    ],
    "dataset": {
        "digits": {"file": "data/test.npz", "preprocess": [{"scale": 0.0625}, {"reshape": [1, 8, 8]}]}
    },
}
QUICK = {"kind": "single_stream", "min_duration_s": 0.05, "min_samples": 8, "warmup_s": 0.01}
AXES = dict(model=["digits_cnn"], framework=["litert"], precision=["fp32"], dataset="digits", scenario=QUICK)

"""

NODE = "suites/digits/bench_digits.toml::classify[digits_cnn-{}-cpu]"
CASES = ("onnxruntime-fp32", "onnxruntime-int8", "litert-fp32", "litert-int8")
NODES = [NODE.format(case) for case in CASES]


@pytest.fixture(scope="session")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mapping[str, str]]:
    """Keep locks and made files out of the user's folders; models are converted once for all tests."""
    folder = tmp_path_factory.mktemp("mlbench")
    chosen = {"MLBENCH_STATE": str(folder / "state"), "MLBENCH_CACHE": str(folder / "cache")}
    patch = pytest.MonkeyPatch()
    for name, value in chosen.items():
        patch.setenv(name, value)
    patch.delenv("PYTEST_ADDOPTS", raising=False)
    yield chosen
    patch.undo()


def make_project(root: Path) -> Path:
    """Write a project of one TOML suite under `root`; returns the suite's folder."""
    suite = root / "suites" / "digits"
    for name in FILES:
        (suite / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(DIGITS / name, suite / name)
    (suite / "bench_digits.toml").write_text(SUITE, encoding="utf-8")
    (root / "pytest.ini").write_text("[pytest]\nmarkers =\n    vision: of images\n", encoding="utf-8")
    return suite


@dataclass(frozen=True)
class Project:
    """The project of one test: its folder, and how to run pytest in it."""

    pytester: pytest.Pytester
    suite: Path

    @property
    def root(self) -> Path:
        return self.pytester.path

    def write(self, name: str, text: str) -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    def python_suite(self, text: str, name: str = "bench_py.py") -> Path:
        """Write a Python suite in place of the TOML one."""
        (self.suite / "bench_digits.toml").unlink(missing_ok=True)
        return self.write(f"suites/digits/{name}", PYTHON_TABLES + text)

    def run(self, *args: object) -> pytest.RunResult:
        """Run pytest inside this process."""
        # Hypothesis' plugin imports (and rewrites) all of it for each summary, a second every time.
        return self.pytester.runpytest_inprocess("-p", "no:hypothesispytest", *map(str, args))

    def subprocess(self, *args: object, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        """Run pytest in a process of its own, stdout apart from stderr."""
        return run_pytest(self.root, args, env)

    def read(self, name: str) -> runfile.Run:
        """Return a run file by its path from the project."""
        return runfile.read(self.root / name)

    def last_run(self) -> runfile.Run:
        """Return the newest run file."""
        return runfile.read(self.last_run_file())

    def last_run_file(self) -> Path:
        found = sorted((self.root / ".mlbench").glob("*.jsonl"), key=lambda path: path.stat().st_mtime_ns)
        assert found, "no run file was written"
        return found[-1]

    def outcomes(self) -> dict[str, str]:
        """Return case -> outcome of the newest run file."""
        return {record.case: record.outcome for record in self.last_run().records}


def run_pytest(
    root: Path, args: Sequence[object], env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run pytest in `root`, in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "pytest", *map(str, args)],
        cwd=root,
        env={**os.environ, "COLUMNS": "200", **(env or {})},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture
def project(pytester: pytest.Pytester, machine: Mapping[str, str], monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project with the digits suite (four cases: onnxruntime and LiteRT, fp32 and int8)."""
    monkeypatch.setenv("COLUMNS", "200")
    return Project(pytester, make_project(pytester.path))


@dataclass(frozen=True)
class Finished:
    """One run of the four cases that many tests look at."""

    root: Path
    done: subprocess.CompletedProcess[str]
    lines: list[dict[str, Any]]
    run: runfile.Run
    run_file: Path


def finished(root: Path, *args: object) -> Finished:
    """Run the project's suite in a process of its own and read its run file."""
    run_file = root / "run.jsonl"
    done = run_pytest(root, ["--mlbench", f"--mlbench-output={run_file}", *args])
    assert run_file.is_file(), done.stdout + done.stderr
    lines = [json.loads(line) for line in run_file.read_text(encoding="utf-8").splitlines()]
    return Finished(root, done, lines, runfile.read(run_file), run_file)


@pytest.fixture(scope="session")
def plain_run(tmp_path_factory: pytest.TempPathFactory, machine: Mapping[str, str]) -> Finished:
    """One verbose run of the four cases in a git repository, with JUnit XML."""
    root = tmp_path_factory.mktemp("plain")
    make_project(root)
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    for command in (["init", "-q"], ["add", "."], [*identity, "commit", "-qm", "first"]):
        subprocess.run(["git", *command], cwd=root, check=True)
    return finished(root, "-v", "--durations=2", "--durations-min=0", f"--junitxml={root / 'junit.xml'}")


@pytest.fixture(scope="session")
def parallel_run(tmp_path_factory: pytest.TempPathFactory, machine: Mapping[str, str]) -> Finished:
    """The same four cases by two xdist workers."""
    root = tmp_path_factory.mktemp("parallel")
    make_project(root)
    return finished(root, "-n", "2", "-p", "no:cacheprovider")
