"""Files that pyperf wrote, against what pyperf reads from them."""

from __future__ import annotations

import gzip
import json

import numpy as np
import pyperf
import pytest

from pytest_mlbench import importers
from pytest_mlbench.errors import RunFileError
from pytest_mlbench.stats.median_interval import median_interval
from pytest_mlbench.stores.runfile import decode_samples


@pytest.fixture
def suite(by_pyperf):
    return pyperf.BenchmarkSuite.load(str(by_pyperf.whole))


@pytest.fixture
def run(by_pyperf):
    return importers.read(by_pyperf.whole)


@pytest.fixture
def document(by_pyperf):
    return json.loads(by_pyperf.whole.read_text("utf-8"))


@pytest.fixture
def write(tmp_path):
    def written(document):
        file = tmp_path / "changed.json"
        file.write_text(json.dumps(document), encoding="utf-8")
        return file

    return written


def runs_with_values(document, benchmark=0):
    return [run for run in document["benchmarks"][benchmark]["runs"] if run.get("values")]


def test_each_benchmark_is_a_passed_case_of_its_name(run):
    assert [(record.node, record.outcome) for record in run.records] == [("sort/100 é", "pass"), ("sum", "pass")]
    odd, plain = (record.case for record in run.records)
    assert odd.startswith("imported/sort_100_[pyperf-")
    assert plain == "imported/sum[pyperf]"


def test_the_summary_is_pyperf_s_and_calibration_and_warm_up_are_left_out(run, suite):
    for record, bench in zip(run.records, suite.get_benchmarks(), strict=True):
        assert record.metric("latency.mean").value == pytest.approx(bench.mean() * 1e9)
        assert record.metric("latency.p50").value == pytest.approx(bench.median() * 1e9)
        assert record.metric("latency.min").value == pytest.approx(min(bench.get_values()) * 1e9)
        assert record.metric("latency.p50").n == bench.get_nvalue() == 12


def test_readings_are_whole_values_and_each_process_is_a_block(run, suite):
    for record, bench in zip(run.records, suite.get_benchmarks(), strict=True):
        calls = bench.get_total_loops()
        assert record.samples["calls"] == calls
        timed = decode_samples(record.samples["sample_ns"])
        assert np.abs(timed - np.array(bench.get_values()) * calls * 1e9).max() <= 0.5
        assert record.samples["block_starts"] == [0, 2, 4, 6, 8, 10]
    assert [record.samples["calls"] for record in run.records] == [20, 40]  # inner_loops=2


def test_the_interval_is_over_processes(run, suite):
    values = np.array(suite.get_benchmarks()[0].get_values()).reshape(6, 2) * 1e9
    metric = run.records[0].metric("latency.p50")
    assert metric.interval == pytest.approx(median_interval(np.median(values, axis=1)))
    assert metric.note == "pyperf, 6 processes, mean of 20 calls per value; interval over the medians of 6 processes"


def test_values_of_one_call_have_tails_and_gzip_is_read(by_pyperf):
    record = importers.read(by_pyperf.other).records[0]
    values = np.array(pyperf.BenchmarkSuite.load(str(by_pyperf.other)).get_benchmarks()[0].get_values()) * 1e9
    assert record.metric("latency.p90").value == pytest.approx(np.sort(values)[72])
    assert record.metric("latency.p90.upper99").value is not None
    assert record.metric("latency.p50").interval is None
    assert record.metric("latency.p50").note.endswith("no interval: the medians of 2 processes are too few")


def test_an_unpacked_file_is_the_same_run(by_pyperf, tmp_path):
    (tmp_path / "single.json").write_bytes(gzip.decompress(by_pyperf.other.read_bytes()))
    assert importers.read(tmp_path / "single.json") == importers.read(by_pyperf.other)


def test_the_header_tells_machine_and_time(run, suite):
    metadata = suite.get_metadata()
    host = run.header["host"]
    assert (host["node"], host["system"], host["python"]) == (
        metadata["hostname"],
        metadata["platform"].split("-")[0],
        metadata["python_version"],
    )
    assert host["cores"] == metadata["cpu_count"]
    assert run.header["versions"]["pyperf"] == pyperf.__version__
    timed = [one for bench in suite.get_benchmarks() for one in bench.get_runs() if one.values]
    first = min(one.get_metadata()["date"] for one in timed)
    assert run.header["started"] == first[:19].replace(" ", "T") + "+00:00"
    assert run.header["source"] == {}


@pytest.mark.parametrize(
    ("name", "value", "same"),
    [
        ("hostname", "another", False),
        ("cpu_model_name", "Other CPU", False),
        ("python_version", "3.99", False),
        ("cpu_count", 999, False),
        ("timer", "time.time", False),
        ("cpu_affinity", "0", False),
        ("boot_time", "2020-01-01 00:00:00", True),
        ("load_avg_1min", 9.5, True),
    ],
)
def test_the_fingerprint_is_that_of_what_must_be_equal(run, document, write, name, value, same):
    document["metadata"][name] = value
    assert (importers.read(write(document)).records[0].fingerprint == run.records[0].fingerprint) is same


def test_a_fact_of_the_benchmark_goes_before_that_of_the_file(document, write):
    document["benchmarks"][1].setdefault("metadata", {})["hostname"] = "second-box"
    records = importers.read(write(document)).records
    assert records[1].target["node"] == "second-box"
    assert records[0].target["node"] == document["metadata"]["hostname"]
    assert records[0].fingerprint != records[1].fingerprint


def test_runs_of_different_loops_keep_the_summary_and_no_readings(document, write):
    first = runs_with_values(document)[0]
    first["metadata"]["loops"] = 1000
    record = importers.read(write(document)).records[0]
    assert record.samples == {}
    assert record.metric("latency.p50").note.startswith("pyperf, 6 processes, mean of 20 to 1000 calls per value")
    assert record.metric("latency.p99").reason == "each reading spans several calls, so tails are unknown"


def test_a_run_without_values_among_others_is_left_out(document, write):
    runs_with_values(document)[2]["values"] = []
    record = importers.read(write(document)).records[0]
    assert record.samples["block_starts"] == [0, 2, 4, 6, 8]


def test_format_6_is_read_too(document, write, run):
    document["version"] = 6
    assert importers.read(write(document)).records[0].metrics == run.records[0].metrics


@pytest.mark.parametrize("version", [5, 7, "2.0", None, [1]])
def test_another_format_is_refused_with_the_remedy(document, write, version):
    document["version"] = version
    message = (
        r"version( is missing|: expected format 1\.0 or 6, found .*; write the file anew: python -m pyperf convert)"
    )
    with pytest.raises(RunFileError, match=message):
        importers.read(write(document))


@pytest.mark.parametrize("value", [float("nan"), -1.0, "1", None, 1e9])
def test_a_value_that_is_no_time_is_named(document, write, value):
    runs = document["benchmarks"][1]["runs"]
    place = next(index for index, one in enumerate(runs) if one.get("values"))
    runs[place]["values"][1] = value
    with pytest.raises(RunFileError, match=rf"benchmarks\[1\]\.runs\[{place}\]\.values\[1\]: expected a number from 0"):
        importers.read(write(document))


def test_only_times_are_taken(document, write):
    document["metadata"]["unit"] = "byte"
    with pytest.raises(
        RunFileError, match=r'metadata\.unit: expected "second", found "byte"; only times can be imported'
    ):
        importers.read(write(document))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d["benchmarks"].clear(), "benchmarks: expected a benchmark at least, found a list"),
        (lambda d: d["benchmarks"][0].pop("runs"), r"benchmarks\[0\]\.runs is missing"),
        (lambda d: d["benchmarks"][0].update(runs=[]), r"benchmarks\[0\]\.runs: expected runs with values"),
        (lambda d: d["benchmarks"][0].update(runs=7), r"benchmarks\[0\]\.runs: expected a list, found 7"),
        (lambda d: d["benchmarks"].append(None), r"benchmarks\[2\]: expected an object, found null"),
        (lambda d: d["benchmarks"].append(d["benchmarks"][0]), "would both be case imported/sort_100_"),
        (lambda d: d["metadata"].update(inner_loops=0), r"metadata\.inner_loops: expected a whole number from 1"),
        (lambda d: d["metadata"].update(hostname=["a"]), r"metadata\.hostname: expected a string, found a list"),
    ],
)
def test_a_wrong_frame_is_refused_with_its_key(document, write, change, message):
    change(document)
    with pytest.raises(RunFileError, match=message):
        importers.read(write(document))


def without(document, name):
    for holder in (document, *document["benchmarks"], *(run for b in document["benchmarks"] for run in b["runs"])):
        holder.get("metadata", {}).pop(name, None)
    return document


@pytest.mark.parametrize("name", ["name", "date"])
def test_a_file_without_what_a_record_needs_is_refused(document, write, name):
    with pytest.raises(RunFileError, match=rf"benchmarks\[0\]\.runs\[\d\]\.metadata\.{name} is missing"):
        importers.read(write(without(document, name)))


def test_facts_of_the_machine_may_be_missing(document, write):
    run = importers.read(write(without(without(document, "cpu_model_name"), "platform")))
    assert (run.header["host"]["processor"], run.header["host"]["system"]) == ("", "")
