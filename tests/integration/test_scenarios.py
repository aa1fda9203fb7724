"""Scenarios, boundaries and bounds on real frameworks: the digits model, one run of short cases."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pytest_mlbench.stores import runfile

pytestmark = pytest.mark.alone  # times what it runs

DIGITS = Path(__file__).parents[2] / "suites" / "digits"
SUITE = """
mlbench = 1
[[model]]
name = "net"
task = "image_classification"
files = { onnx = { fp32 = "digits.onnx" }, tflite = { fp32 = "digits.tflite" } }
[dataset.digits]
file = "test.npz"
count = 48
preprocess = [{ scale = 0.0625 }, { reshape = [1, 8, 8] }]

[[benchmark]]
name = "batches"
model = ["net"]
framework = ["onnxruntime", "litert"]
precision = ["fp32"]
batch = [1, 8, 32]
dataset = "digits"
scenario = { kind = "offline", min_duration_s = 0.05, min_samples = 8, warmup_s = 0.01 }
reference = { framework = "onnxruntime" }
expect.equivalence.fp32 = { rtol = 1e-4, atol = 1e-4 }
expect.compliance = ["batch_invariance", "timed_outputs"]

[[benchmark]]
name = "boundaries"
model = ["net"]
framework = ["onnxruntime", "litert"]
precision = ["fp32"]
dataset = "digits"
scenario = [
  { kind = "single_stream", min_duration_s = 0.2, min_samples = 8, warmup_s = 0.02 },
  { kind = "single_stream", boundary = "set_invoke_get", min_duration_s = 0.2, min_samples = 8, warmup_s = 0.02 },
  { kind = "single_stream", boundary = "end_to_end", min_duration_s = 0.2, min_samples = 8, warmup_s = 0.02 },
]
expect.compliance = ["timed_outputs"]

[[benchmark]]
name = "few"
model = ["net"]
framework = ["litert"]
precision = ["fp32"]
dataset = "digits"
scenario = { kind = "single_stream", min_duration_s = 0, min_samples = 8, max_samples = 8, seed = 1 }

[[benchmark]]
name = "short"
model = ["net"]
framework = ["litert"]
precision = ["fp32"]
dataset = "digits"
scenario = { kind = "single_stream", min_duration_s = 0, max_duration_s = 0.04, min_samples = 100000000, seed = 2 }

[[benchmark]]
name = "many"
model = ["net"]
framework = ["litert"]
precision = ["fp32"]
dataset = "digits"
scenario = { kind = "single_stream", min_duration_s = 0.05, min_samples = 700, warmup_s = 0.03, warmup_samples = 77 }
"""


def run_suite(folder: Path, output: Path) -> runfile.Run:
    """Run the suites in a folder by a pytest of its own; everything must pass."""
    command = [sys.executable, "-m", "pytest", "--mlbench", str(folder), f"--mlbench-output={output}"]
    command += ["-p", "no:cacheprovider", "-p", "no:hypothesispytest", "-p", "no:benchmark", f"--rootdir={folder}"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return runfile.read(output)


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    """Return the records of one run of the suite, by case without its benchmark's and framework's common words."""
    folder = tmp_path_factory.mktemp("scenarios")
    for name in ("models/digits.onnx", "models/digits.tflite", "data/test.npz"):
        shutil.copyfile(DIGITS / name, folder / Path(name).name)
    (folder / "bench_scenarios.toml").write_text(SUITE, encoding="utf-8")
    (folder / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLBENCH_CACHE", str(folder / "cache"))
        patch.setenv("MLBENCH_STATE", str(folder / "state"))
        patch.delenv("PYTEST_ADDOPTS", raising=False)
        run = run_suite(folder, folder / "run.jsonl")
    return {
        record.case.removeprefix("scenarios/").replace("net-", "").replace("fp32-cpu", ""): record
        for record in run.records
    }


def value(record, name):
    return record.metric(name).value


# --- offline ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("framework", ["onnxruntime", "litert"])
@pytest.mark.parametrize("batch", [1, 8, 32])
def test_offline_counts_inputs_a_second(records, framework, batch):
    record = records[f"batches[{framework}--b{batch}]"]
    assert record.axes["batch"] == batch == record.samples["batch"]
    calls = runfile.decode_samples(record.samples["sample_ns"]) / record.samples["calls"]
    assert value(record, "throughput") == pytest.approx(batch * 1e9 / calls.mean())


@pytest.mark.parametrize("framework", ["onnxruntime", "litert"])
def test_a_batch_makes_a_small_model_faster_by_the_input(records, framework):
    """A call's own cost is shared by the inputs in it; by how much depends on the machine."""
    found = [value(records[f"batches[{framework}--b{batch}]"], "throughput") for batch in (1, 8, 32)]
    assert max(found[1:]) > 1.3 * found[0]


def test_offline_has_no_latency_and_says_why(records):
    record = records["batches[onnxruntime--b8]"]
    for name in ("latency.p50", "latency.min", "latency.p99", "latency.p90.upper99"):
        metric = record.metric(name)
        assert metric.value is None
        assert metric.reason == "an offline run has no latency of its own; its figure is throughput"
    assert "single_ns" not in record.samples


def test_outputs_do_not_depend_on_the_batch(records):
    for framework in ("onnxruntime", "litert"):
        for batch in (1, 8, 32):
            checks = {check.name: check.outcome for check in records[f"batches[{framework}--b{batch}]"].checks}
            names = [name for name in checks if name.startswith(("batch_invariance", "compliance.batch", "compliance"))]
            assert names, checks
            assert set(checks.values()) == {"pass"}


# --- boundaries ---------------------------------------------------------------------------------------------


def boundary(records, framework, name):
    suffix = "single_stream" if name == "invoke" else f"single_stream.{name}"
    return records[f"boundaries[{framework}--{suffix}]"]


@pytest.mark.parametrize("framework", ["onnxruntime", "litert"])
def test_each_boundary_is_a_case_of_its_own(records, framework):
    made = [boundary(records, framework, name) for name in ("invoke", "set_invoke_get", "end_to_end")]
    assert [record.scenario["boundary"] for record in made] == ["invoke", "set_invoke_get", "end_to_end"]
    assert len({record.fingerprint for record in made}) == 3  # never compared with each other


@pytest.mark.parametrize("framework", ["onnxruntime", "litert"])
def test_a_wider_boundary_takes_longer(records, framework):
    """Measured: LiteRT 3 us, 6 us and 20 us. Times from a shared machine, so only the order is held."""
    invoke, set_get, whole = (
        value(boundary(records, framework, name), "latency.p50") for name in ("invoke", "set_invoke_get", "end_to_end")
    )
    assert invoke * 1.1 < set_get
    assert set_get * 1.1 < whole


# --- bounds -------------------------------------------------------------------------------------------------


def test_the_most_samples_are_kept_to(records):
    record = records["few[litert-]"]
    assert record.samples["sample_ns"]["total"] <= 8
    assert record.samples["single_ns"]["total"] == 8


def test_the_longest_duration_is_kept_to(records):
    record = records["short[litert-]"]
    assert record.samples["single_ns"]["total"] < 100_000_000
    happened = record.scenario["happened"]
    for part in ("main", "single"):
        assert happened[part]["duration_ns"] < 0.5e9  # the bound is 0.04 s; a shared machine may stop for long


def test_the_minima_are_reached(records):
    record = records["many[litert-]"]
    happened = record.scenario["happened"]
    assert happened["main"]["duration_ns"] + happened["single"]["duration_ns"] >= 0.05e9
    assert record.samples["single_ns"]["total"] >= 700
    assert happened["single"]["samples"] == record.samples["single_ns"]["total"]


def test_what_was_asked_and_what_happened_are_recorded(records):
    record = records["many[litert-]"]
    assert record.scenario["kind"] == "single_stream"
    assert record.scenario["min_samples"] == 700
    happened = record.scenario["happened"]
    assert happened["warm_up"]["samples"] >= 77
    assert happened["warm_up"]["duration_ns"] >= 0.03e9
    assert happened["main"]["gc"] == {"on_in_block": False, "on_outside": True}
    bounds = np.array(happened["main"]["bounds_ns"])
    assert len(bounds) == happened["main"]["blocks"] == len(record.samples["block_starts"])
    assert (bounds[:, 1] > bounds[:, 0]).all()
    assert (bounds[1:, 0] >= bounds[:-1, 1]).all()
    assert happened["main"]["timed_ns"] <= happened["main"]["duration_ns"]


def test_the_seed_of_the_order_is_recorded(records):
    assert records["few[litert-]"].scenario["happened"]["seeds"] == {"order": 1}
    assert records["short[litert-]"].scenario["happened"]["seeds"] == {"order": 2}
    assert records["many[litert-]"].scenario["happened"]["seeds"] == {"order": 0}


# --- tails --------------------------------------------------------------------------------------------------


def test_too_few_readings_have_no_upper_bound_and_say_how_many_it_takes(records):
    few = records["few[litert-]"]
    for name, need in (("latency.p90.upper99", 64), ("latency.p99.upper99", 662)):
        metric = few.metric(name)
        assert metric.value is None
        assert metric.reason.endswith(
            f"needs {need} one-call readings and there are 8: raise the scenario's min_samples to {need}"
        )


def test_enough_readings_have_an_upper_bound_above_the_percentile(records):
    many = records["many[litert-]"]
    singles = runfile.decode_samples(many.samples["single_ns"])
    for name, level in (("latency.p90", 0.90), ("latency.p99", 0.99)):
        bound = many.metric(f"{name}.upper99")
        assert bound.n == len(singles)
        assert value(many, name) <= bound.value <= singles.max()
        assert (singles <= bound.value).mean() >= level
