"""Files that Google Benchmark wrote, and one written by hand after its documentation."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from pytest_mlbench import importers
from pytest_mlbench.errors import RunFileError
from pytest_mlbench.stores.runfile import decode_samples

EXAMPLE = Path(__file__).with_name("google_benchmark.json")


@pytest.fixture
def document():
    return json.loads(EXAMPLE.read_text("utf-8"))


@pytest.fixture
def write(tmp_path):
    def written(document):
        file = tmp_path / "changed.json"
        file.write_text(json.dumps(document), encoding="utf-8")
        return file

    return written


def by_name(run):
    return {record.node: record for record in run.records}


def latency(record):
    return [record.metric(f"latency.{name}").value for name in ("min", "mean", "p50")]


# --- files of the tool ---------------------------------------------------------------------------------------


def test_repetitions_are_readings_in_ns_whatever_the_unit(by_google_benchmark):
    written = json.loads(by_google_benchmark.whole.read_text("utf-8"))
    records = by_name(importers.read(by_google_benchmark.whole))
    assert {name: record.outcome for name, record in records.items()} == {
        "sorting/8": "pass",
        "sorting/64": "pass",
        "failing": "error",
    }
    for name in ("sorting/8", "sorting/64"):
        entries = [e for e in written["benchmarks"] if e["run_name"] == name]
        timed = np.array([e["real_time"] * 1e3 for e in entries if e["run_type"] == "iteration"])
        told = {e["aggregate_name"]: e["real_time"] * 1e3 for e in entries if e["run_type"] == "aggregate"}
        record = records[name]
        assert latency(record) == pytest.approx([timed.min(), told["mean"], told["median"]])
        assert record.metric("latency.p50").n == 5
        calls = entries[0]["iterations"]
        assert record.samples["calls"] == calls
        assert np.abs(decode_samples(record.samples["sample_ns"]) - timed * calls).max() <= 0.5


def test_aggregates_alone_give_mean_and_median(by_google_benchmark):
    record = by_name(importers.read(by_google_benchmark.other))["sorting/8"]
    least, mean, median = latency(record)
    assert least is None
    assert min(mean, median) > 0
    assert record.metric("latency.p50").n == 5
    assert record.metric("latency.min").reason == (
        "the file does not hold it (Google Benchmark, real time, aggregates of the repetitions only)"
    )
    assert record.samples == {}


def test_the_header_tells_machine_and_time(by_google_benchmark):
    context = json.loads(by_google_benchmark.whole.read_text("utf-8"))["context"]
    header = importers.read(by_google_benchmark.whole).header
    assert header["host"]["node"] == context["host_name"]
    assert header["host"]["cores"] == context["num_cpus"]
    assert header["versions"]["google-benchmark"] == context["library_version"]


# --- the example ---------------------------------------------------------------------------------------------


def test_the_example_gives_these_cases():
    run = importers.read(EXAMPLE)
    assert [(record.node, record.outcome, record.reason) for record in run.records] == [
        ("BM_Copy/64/threads:2", "pass", ""),
        ("BM_Sort<std::vector<int>>", "pass", ""),
        ("BM_Broken", "error", "no such file"),
        ("BM_Later", "skip", "needs AVX-512"),
    ]
    cases = [record.case for record in run.records]
    assert (cases[0], cases[2], cases[3]) == (
        "imported/BM_Copy[64-threads.2]",
        "imported/BM_Broken[google-benchmark]",
        "imported/BM_Later[google-benchmark]",
    )
    assert cases[1].startswith("imported/BM_Sort_std_vector_int_[google-benchmark-")
    assert run.header["started"] == "2024-05-06T06:30:00+00:00"  # 08:30 in its own zone
    assert run.header["id"].startswith("20240506T063000-")


def test_the_example_s_numbers():
    copy, sort, broken, _ = importers.read(EXAMPLE).records
    assert latency(copy) == [4000.0, 5000.0, 5000.0]
    assert copy.axes["threads"] == 2
    assert copy.samples["calls"] == 1000
    assert latency(sort) == [2.5e9] * 3
    assert sort.metric("latency.p99").value == 2.5e9  # one iteration: a reading of one call
    assert (broken.metrics, broken.samples, broken.stage) == ((), {}, "measure")


def test_a_number_that_is_not_used_may_be_nan():
    assert '"bytes_per_second": NaN' in EXAMPLE.read_text("utf-8")  # the tool writes it so
    assert len(importers.read(EXAMPLE).records) == 4


def test_one_failed_repetition_leaves_the_benchmark_unmeasured(document, write):
    document["benchmarks"][1].update(error_occurred=True, error_message="device lost")
    record = importers.read(write(document)).records[0]
    assert (record.outcome, record.reason, record.metrics) == ("error", "device lost", ())


def test_an_error_without_a_message_is_still_one(document, write):
    document["benchmarks"][0]["error_occurred"] = True
    record = importers.read(write(document)).records[0]
    assert (record.outcome, record.reason) == ("error", "error_occurred")


def test_repetitions_of_different_iterations_keep_the_summary_and_no_readings(document, write):
    document["benchmarks"][1]["iterations"] = 2000
    record = importers.read(write(document)).records[0]
    assert latency(record) == [4000.0, 5000.0, 5000.0]
    assert record.samples == {}
    assert "mean of 1000 to 2000 iterations per repetition" in record.metric("latency.p50").note


@pytest.mark.parametrize(
    ("name", "value", "same"),
    [
        ("host_name", "another", False),
        ("num_cpus", 9, False),
        ("library_build_type", "debug", False),
        ("caches", [], False),
        ("mhz_per_cpu", 2999, True),  # measured anew each time
        ("load_avg", [9.0], True),
        ("date", "2024-05-07T08:30:00+02:00", True),
    ],
)
def test_the_fingerprint_is_that_of_what_must_be_equal(document, write, name, value, same):
    document["context"][name] = value
    found = importers.read(write(document)).records[0].fingerprint
    assert (found == importers.read(EXAMPLE).records[0].fingerprint) is same


@pytest.mark.parametrize("unit", ["ns", "us", "ms", "s"])
def test_units(document, write, unit):
    document["benchmarks"][4].update(time_unit=unit, real_time=3.0)
    record = importers.read(write(document)).records[1]
    assert latency(record)[1] == pytest.approx({"ns": 3.0, "us": 3e3, "ms": 3e6, "s": 3e9}[unit])


@pytest.mark.parametrize(
    ("index", "name", "value", "message"),
    [
        (0, "real_time", float("nan"), r"benchmarks\[0\]\.real_time: expected a number from 0 to 1e\+12, found NaN"),
        (1, "real_time", -1, r"benchmarks\[1\]\.real_time: expected a number from 0 to 1e\+12, found -1"),
        (1, "real_time", 1e300, r"benchmarks\[1\]\.real_time: expected a number from 0 to 1e\+12, found 1e\+300"),
        (0, "time_unit", "min", r'benchmarks\[0\]\.time_unit: expected one of ns, us, ms, s, found "min"'),
        (0, "iterations", 0, r"benchmarks\[0\]\.iterations: expected a whole number from 1 to"),
        (0, "iterations", 1.5, r"benchmarks\[0\]\.iterations: expected a whole number from 1 to"),
        (0, "run_type", None, r"benchmarks\[0\]\.run_type is missing"),
        (0, "run_name", 3, r"benchmarks\[0\]\.run_name: expected a string, found 3"),
        (0, "threads", "two", r'benchmarks\[0\]\.threads: expected a whole number from 1 to 1000000, found "two"'),
        (4, "run_type", "aggregate", r"benchmarks\[4\]\.aggregate_name is missing"),
    ],
)
def test_what_cannot_be_is_refused_with_its_key(document, write, index, name, value, message):
    document["benchmarks"][index][name] = value
    with pytest.raises(RunFileError, match=message):
        importers.read(write(document))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.update(benchmarks=[]), "benchmarks: expected at least one, found none"),
        (lambda d: d["context"].pop("date"), r"context\.date is missing"),
        (lambda d: d["context"].update(date="2015/03/17-18:40:25"), r"context\.date: expected a date like"),
        (lambda d: d["context"].update(caches=[{}]), r"context\.caches\[0\]\.level is missing"),
        (lambda d: d.update(context=[]), "context: expected an object, found a list"),
        (lambda d: d["benchmarks"].pop(4), r"benchmarks\[4\]: expected an entry of run_type"),
    ],
)
def test_a_wrong_frame_is_refused_with_its_key(document, write, change, message):
    change(document)
    with pytest.raises(RunFileError, match=message):
        importers.read(write(document))
