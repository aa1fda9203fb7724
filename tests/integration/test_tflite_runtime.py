"""A framework in an environment of its own: tflite-runtime, whose numpy is not the one that all others use."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pytest_mlbench.stores import runfile

DIGITS = Path(__file__).parents[2] / "suites" / "digits"
# The outputs of each case are kept beside the suite, so that they can be compared here without our own checks.
SUITE = """
import numpy as np, pytest
from pathlib import Path

mlbench_suite = {{
    "mlbench": 1,
    "model": [{{
        "name": "net",
        "task": "image_classification",
        "files": {{"tflite": {{"fp32": "digits.tflite", "int8": "digits_int8.tflite"}}}},
    }}],
    "dataset": {{
        "digits": {{"file": "test.npz", "preprocess": [{{"scale": 0.0625}}, {{"reshape": [1, 8, 8]}}]}},
    }},
}}

@pytest.mark.mlbench(
    model=["net"],
    framework={frameworks},
    precision=["fp32", "int8"],
    dataset="digits",
    scenario={{"kind": "single_stream", "min_duration_s": 0.05, "min_samples": 8, "warmup_s": 0.01}},
    expect={{"accuracy": {{"top1": ">= 0.97"}}, "compliance": ["timed_outputs"]}},
)
def bench_classify(mlbench, mlbench_case):
    mlbench.run()
    (scores,) = mlbench.outputs.values()
    np.save(Path(__file__).with_name(f"{{mlbench_case.framework.name}}_{{mlbench_case.precision}}.npy"), scores)
"""


def run(folder: Path, frameworks: list[object], *args: str) -> tuple[subprocess.CompletedProcess[str], runfile.Run]:
    for name in ("models/digits.tflite", "models/digits_int8.tflite", "data/test.npz"):
        shutil.copyfile(DIGITS / name, folder / Path(name).name)
    (folder / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
    (folder / "bench_own.py").write_text(SUITE.format(frameworks=json.dumps(frameworks)), encoding="utf-8")
    plain = ["-p", "no:cacheprovider", "-p", "no:hypothesispytest", "-p", "no:benchmark", f"--rootdir={folder}", "-rs"]
    command = [sys.executable, "-m", "pytest", "--mlbench", str(folder), "--mlbench-output=run.jsonl", *plain, *args]
    environment = {name: text for name, text in os.environ.items() if name != "PYTEST_ADDOPTS"}
    environment |= {"MLBENCH_CACHE": str(folder / "cache"), "MLBENCH_STATE": str(folder / "state"), "COLUMNS": "300"}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    return done, runfile.read(folder / "run.jsonl")


def by_case(found: runfile.Run) -> dict[tuple[str, str], runfile.Record]:
    return {(record.axes["framework"], record.axes["precision"]): record for record in found.records}


@pytest.fixture(scope="module")
def both(tmp_path_factory, tflite_python):
    """LiteRT here and tflite-runtime there, named on the command line."""
    folder = tmp_path_factory.mktemp("both")
    done, found = run(folder, ["litert", "tflite_runtime"], f"--mlbench-python=tflite_runtime={tflite_python}")
    assert done.returncode == 0, done.stdout
    return folder, by_case(found)


@pytest.fixture(scope="module")
def there(tflite_python):
    """What the other environment says of itself."""
    code = "import json, platform, sys, numpy, tflite_runtime as t\n"
    code += "print(json.dumps([platform.python_version(), numpy.__version__, t.__version__, sys.executable]))"
    done = subprocess.run([str(tflite_python), "-c", code], capture_output=True, text=True, timeout=60, check=True)
    return json.loads(done.stdout)


def test_both_frameworks_run_side_by_side(both):
    _, records = both
    assert set(records) == {(name, kind) for name in ("litert", "tflite_runtime") for kind in ("fp32", "int8")}
    for record in records.values():
        assert record.metric("latency.p50").value > 0
        assert record.metric("accuracy.top1").value > 0.97


def test_the_record_is_of_the_environment_the_framework_lives_in(both, there):
    python, numpy, tflite, executable = there
    target = both[1]["tflite_runtime", "int8"].target
    assert (target["python"], target["numpy"]) == (python, numpy)
    assert target["versions"] == {"tflite_runtime": tflite, "numpy": numpy}
    assert Path(target["executable"]) == Path(executable)
    here = both[1]["litert", "int8"].target
    assert here["numpy"] == np.__version__ != numpy
    assert Path(here["executable"]) == Path(sys.executable)


def test_the_two_are_never_compared_as_if_they_were_one(both):
    records = both[1]
    assert len({record.fingerprint for record in records.values()}) == 4
    assert records["tflite_runtime", "fp32"].hashes["model"] == records["litert", "fp32"].hashes["model"]
    assert records["tflite_runtime", "fp32"].hashes["inputs"] == records["litert", "fp32"].hashes["inputs"]


def test_fp32_outputs_are_those_of_litert(both):
    one, other = (np.load(both[0] / f"{name}_fp32.npy") for name in ("litert", "tflite_runtime"))
    assert one.shape == other.shape == (360, 10)
    np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)


def test_int8_outputs_are_those_of_litert_within_one_quantum(both):
    one, other = (np.load(both[0] / f"{name}_int8.npy") for name in ("litert", "tflite_runtime"))
    quantum = np.diff(np.unique(one)).min()
    assert np.abs(one - other).max() <= quantum * 1.001
    assert (one.argmax(axis=1) == other.argmax(axis=1)).mean() >= 0.99


def test_what_ran_where_is_told_by_that_runtime(both):
    """tflite-runtime 2.14 takes no int8 operators into XNNPACK, LiteRT does."""
    places = {key: record.placement["where"] for key, record in both[1].items()}
    assert places["litert", "int8"] == {"xnnpack": 1.0}
    assert places["tflite_runtime", "int8"] == {"cpu": 1.0}
    assert {record.placement["source"] for key, record in both[1].items() if key[0] == "tflite_runtime"} == {
        "tflite_runtime interpreter node list"
    }


def test_the_suite_may_name_the_interpreter(tmp_path, tflite_python, there):
    framework = {"name": "tflite_runtime", "id": "tfl", "python": str(tflite_python)}
    done, found = run(tmp_path, [framework], "-k", "int8")
    assert done.returncode == 0, done.stdout
    (record,) = found.records
    assert record.case == "own/classify[net-tfl-int8-cpu]"
    assert (record.outcome, record.target["python"], record.target["numpy"]) == ("pass", there[0], there[1])


def test_without_the_environment_the_case_is_skipped_with_the_install_line(tmp_path):
    done, found = run(tmp_path, ["litert", "tflite_runtime"], "-k", "int8")
    assert done.returncode == 0, done.stdout
    records = by_case(found)
    assert records["litert", "int8"].outcome == "pass"
    skipped = records["tflite_runtime", "int8"]
    assert skipped.outcome == "skip"
    line = "pip install 'pytest-mlbench[tflite]' in an environment of its own (it needs numpy < 2)"
    assert skipped.reason == f"tflite_runtime is not installed: {line}"
    assert f"skipped 1: tflite_runtime is not installed: {line} (classify[net-tflite_runtime-int8-cpu])" in done.stdout


def test_an_environment_without_the_framework_is_skipped_with_the_install_line(tmp_path):
    """An interpreter that is there says nothing of what is in it: that is found when the agent imports it."""
    done, found = run(tmp_path, ["tflite_runtime"], "-k", "int8", f"--mlbench-python=tflite_runtime={sys.executable}")
    (record,) = found.records
    assert (record.outcome, done.returncode) == ("skip", 13)  # nothing was measured
    assert "No module named 'tflite_runtime'" in record.reason
    assert "pip install 'pytest-mlbench[tflite]'" in record.reason


def test_where_everything_must_be_there_a_missing_environment_fails(pytester, monkeypatch):
    """The rule of the fixture these tests stand on."""
    shutil.copyfile(Path(__file__).parents[1] / "conftest.py", pytester.path / "conftest.py")
    pytester.makepyfile("def test_it(tflite_python): assert tflite_python.is_file()")
    monkeypatch.delenv("MLBENCH_TFLITE_PYTHON", raising=False)
    monkeypatch.delenv("MLBENCH_REQUIRE_ALL", raising=False)
    quick = ("-p", "no:hypothesispytest", "-p", "no:benchmark", "-rs")
    result = pytester.runpytest_subprocess(*quick)
    result.assert_outcomes(skipped=1)
    result.stdout.fnmatch_lines(["*.venv-tflite/bin/python does not exist: make .venv-tflite/.made, or set MLBENCH_*"])
    monkeypatch.setenv("MLBENCH_REQUIRE_ALL", "1")
    result = pytester.runpytest_subprocess(*quick)
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*MLBENCH_REQUIRE_ALL=1 demands it*"])
    monkeypatch.setenv("MLBENCH_TFLITE_PYTHON", sys.executable)
    pytester.runpytest_subprocess(*quick).assert_outcomes(passed=1)
