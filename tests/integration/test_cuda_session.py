"""A whole session with devices that compute beside the processor: absent, computing elsewhere than they say, fine.

NVML is the fake one and the processor computes in the GPU's place; what a GPU does itself is not tested here.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest

from pytest_mlbench.schemas import load_schema
from pytest_mlbench.stores import runfile

pytest.importorskip("onnxruntime")

DIGITS = Path(__file__).parents[2] / "suites" / "digits"
SUITE = """
mlbench = 1
[[model]]
name = "net"
files = { onnx = { fp32 = "digits.onnx" } }
"""
BENCHMARK = """
[[benchmark]]
name = "NAME"
model = ["net"]
framework = ["onnxruntime_gpu"]
precision = ["fp32"]
device = ["cuda.0"]
scenario = { kind = "single_stream", min_duration_s = 0.05, min_samples = 8, warmup_s = 0.01 }
"""
CONFTEST = """
from dataclasses import dataclass
import pytest
from pytest_mlbench.devices.cuda import CudaDevice
from pytest_mlbench.testing.fake_nvml import FakeNvml

@dataclass(frozen=True)
class OnCpu(CudaDevice):
    def adapter_options(self):
        return {}

@pytest.fixture
def mlbench_device(mlbench_case):
    name = mlbench_case.benchmark.name
    if name == "absent":
        return CudaDevice("cuda.0", 0, library=FakeNvml(failure="Driver Not Loaded"))
    if name == "cpu_build":
        return CudaDevice("cuda.0", 0, library=FakeNvml())
    return OnCpu("cuda.0", 0, library=FakeNvml(), places=("cuda",) if name == "elsewhere" else ("cpu",))
"""


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cuda")
    shutil.copyfile(DIGITS / "models" / "digits.onnx", folder / "digits.onnx")
    names = ("absent", "cpu_build", "elsewhere", "accepted", "fine")
    text = SUITE + "".join(BENCHMARK.replace("NAME", name) for name in names)
    text = text.replace('name = "accepted"', 'name = "accepted"\nexpect = { placement = { cpu = "<= 100 %" } }')
    (folder / "bench_g.toml").write_text(text, encoding="utf-8")
    (folder / "conftest.py").write_text(CONFTEST, encoding="utf-8")
    (folder / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
    plain = ["-p", "no:cacheprovider", "-p", "no:benchmark", f"--rootdir={folder}", "-rs"]
    command = [sys.executable, "-m", "pytest", "--mlbench", str(folder), "--mlbench-output=run.jsonl", *plain]
    environment = {name: text for name, text in os.environ.items() if name not in ("PYTEST_ADDOPTS",)}
    environment |= {"MLBENCH_CACHE": str(folder / "cache"), "MLBENCH_STATE": str(folder / "state"), "COLUMNS": "300"}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=170, check=False
    )
    lines = (folder / "run.jsonl").read_text(encoding="utf-8").splitlines()
    records = {
        record.axes["model"] + record.case.split("/")[1].split("[")[0]: record
        for record in runfile.read(folder / "run.jsonl").records
    }
    return done, {key.removeprefix("net"): record for key, record in records.items()}, lines


def test_a_gpu_that_is_not_there_skips_its_cases_with_the_remedy(session):
    done, records, _ = session
    assert records["absent"].outcome == "skip"
    reason = "cuda.0: no NVIDIA driver answers on this machine (NVML: Driver Not Loaded); install or load it"
    assert records["absent"].reason == reason
    assert reason in done.stdout


def test_a_build_for_the_processor_skips_them_with_the_line_that_installs_the_other(session):
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this ONNX Runtime is built for CUDA")
    _, records, _ = session
    assert records["cpu_build"].outcome == "skip"
    assert "was built without CUDAExecutionProvider" in records["cpu_build"].reason
    assert "pip install 'pytest-mlbench[onnxruntime-gpu]' in an environment of its own" in records["cpu_build"].reason


def test_nodes_that_fell_back_to_the_processor_fail_their_label(session):
    done, records, _ = session
    assert done.returncode == 1
    assert records["elsewhere"].outcome == "fail"
    (check,) = [one for one in records["elsewhere"].checks if one.name == "placement.device"]
    assert check.outcome == "fail"
    assert check.message.startswith("labelled cuda.0 but computing nodes ran elsewhere (cpu 100 %): conv1.")
    assert check.message in done.stdout


def test_a_suite_may_accept_what_runs_on_the_processor(session):
    _, records, _ = session
    assert records["accepted"].outcome == "pass"
    assert [one.name for one in records["accepted"].checks if "placement" in one.name] == ["placement.cpu"]


def test_a_case_on_its_device_is_recorded_with_it(session):
    _, records, _ = session
    fine = records["fine"]
    assert fine.outcome == "pass"
    assert fine.case == "g/fine[net-onnxruntime_gpu-fp32-cuda.0]"
    assert (fine.target["device"], fine.target["gpu_name"]) == ("cuda.0", "NVIDIA Fake 1")
    assert fine.environment["before"]["accelerator"]["reasons"] == []
    assert fine.metric("memory.device_peak").value is None
    assert "gpu.GPU-00000000-0000-0000-0000-000000000000" in fine.lease["resources"]
    assert "cpu" in fine.lease["resources"], "its kernels are launched from there"


def test_the_run_file_is_what_its_schema_says(session):
    import json

    _, _, lines = session
    validator = jsonschema.Draft202012Validator(load_schema("run-1"))
    for line in lines:
        validator.validate(json.loads(line))
