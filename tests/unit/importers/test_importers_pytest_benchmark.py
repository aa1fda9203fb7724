"""Files that pytest-benchmark wrote, against what it says of them itself."""

from __future__ import annotations

import json

import numpy as np
import pytest

from pytest_mlbench import importers
from pytest_mlbench.errors import RunFileError
from pytest_mlbench.stats.early_stopping import upper_bound
from pytest_mlbench.stores.runfile import decode_samples


@pytest.fixture
def written(by_pytest_benchmark):
    return json.loads(by_pytest_benchmark.whole.read_text("utf-8"))


@pytest.fixture
def run(by_pytest_benchmark):
    return importers.read(by_pytest_benchmark.whole)


@pytest.fixture
def changed(by_pytest_benchmark, tmp_path):
    """Return a function that writes the file with one value changed, and gives its path."""

    def change(value, *path):
        document = json.loads(by_pytest_benchmark.whole.read_text("utf-8"))
        at = document
        for step in path[:-1]:
            at = at[step]
        if value is ...:
            del at[path[-1]]
        else:
            at[path[-1]] = value
        file = tmp_path / "changed.json"
        file.write_text(json.dumps(document), encoding="utf-8")
        return file

    return change


def values(record):
    return {metric.name.removeprefix("latency."): metric.value for metric in record.metrics}


# --- names ---------------------------------------------------------------------------------------------------


def test_each_measured_test_is_a_passed_case_with_its_node_id(run):
    assert [(record.node, record.case) for record in run.records if "odd" not in record.node] == [
        ("tests/test_speed.py::test_sort[10]", "imported/tests.test_speed.test_sort[10]"),
        ("tests/test_speed.py::test_sort[100]", "imported/tests.test_speed.test_sort[100]"),
        ("tests/test_speed.py::test_once", "imported/tests.test_speed.test_once[pytest-benchmark]"),
    ]
    assert {record.outcome for record in run.records} == {"pass"}
    assert {record.axes["batch"] for record in run.records} == {1}


def test_characters_that_a_case_id_cannot_have_do_not_make_two_names_one(run):
    odd = {record.node.partition("[")[2]: record.case for record in run.records if "odd" in record.node}
    assert set(odd) == {"a b/c]", "a_b/c]"}
    assert len(set(odd.values())) == 2
    for case in odd.values():
        assert case.startswith("imported/tests.test_speed.TestNames.test_odd[a_b_c-")


# --- numbers -------------------------------------------------------------------------------------------------


def test_the_summary_is_the_one_the_table_showed(run, written):
    for record, bench in zip(run.records, written["benchmarks"], strict=True):
        stats = bench["stats"]
        found = values(record)
        assert found["min"] == pytest.approx(stats["min"] * 1e9, rel=1e-12)
        assert found["mean"] == pytest.approx(stats["mean"] * 1e9, rel=1e-12)
        assert found["p50"] == pytest.approx(stats["median"] * 1e9, rel=1e-12)
        metric = record.metric("latency.p50")
        assert (metric.unit, metric.direction, metric.origin, metric.n) == ("ns", "lower", "measured", stats["rounds"])
        assert metric.note.startswith("pytest-benchmark ")


def test_readings_are_kept_as_they_were_timed(run, written):
    for record, bench in zip(run.records, written["benchmarks"], strict=True):
        calls = bench["stats"]["iterations"]
        assert record.samples["calls"] == calls
        assert record.samples["batch"] == 1
        timed = decode_samples(record.samples["sample_ns"])
        assert np.abs(timed - np.array(bench["stats"]["data"]) * calls * 1e9).max() <= 0.5
        assert record.wall_s == pytest.approx(sum(bench["stats"]["data"]) * calls, rel=1e-6)


def test_tails_come_from_readings_of_one_call_only(run, written):
    once = next(record for record in run.records if "once" in record.node)
    data = np.array(next(b for b in written["benchmarks"] if b["name"] == "test_once")["stats"]["data"]) * 1e9
    assert values(once)["p90"] == pytest.approx(np.sort(data)[63])
    assert values(once)["p90.upper99"] == pytest.approx(upper_bound(data, 0.9))
    assert once.metric("latency.p99.upper99").reason == (
        "the p99 upper bound needs 662 readings of one call, and there are 70"
    )
    odd = next(record for record in run.records if "odd" in record.node)
    assert values(odd)["p99"] is None
    assert odd.metric("latency.p99").reason == "each reading spans 4 calls, so tails are unknown"


def test_a_file_without_readings_has_the_same_summary_and_says_what_it_lacks(by_pytest_benchmark, run):
    saved = importers.read(by_pytest_benchmark.other)
    for whole, record in zip(run.records, saved.records, strict=True):
        assert [values(record)[name] for name in ("min", "mean", "p50")] == [
            values(whole)[name] for name in ("min", "mean", "p50")
        ]
        assert (record.case, record.fingerprint) == (whole.case, whole.fingerprint)
        assert record.samples == {}
        assert record.metric("latency.p99").reason == "the file holds a summary and not the single readings"
    assert saved.header["id"] != run.header["id"]


def test_a_time_of_zero_is_not_taken_for_one(changed):
    record = importers.read(changed(0, "benchmarks", 0, "stats", "min")).records[0]
    assert record.metric("latency.min").value is None
    assert record.metric("latency.min").reason == (
        "0 in the file: the clock was too coarse for it; time more calls per reading"
    )
    assert record.metric("latency.mean").value > 0


# --- where it comes from -------------------------------------------------------------------------------------


def test_the_header_tells_machine_revision_and_time(run, written):
    machine, commit = written["machine_info"], written["commit_info"]
    host = run.header["host"]
    assert (host["node"], host["system"], host["python"]) == (
        machine["node"],
        machine["system"],
        machine["python_version"],
    )
    assert host["processor"] == machine["cpu"].get("brand_raw", "")
    assert host["cores"] == machine["cpu"]["count"]
    assert run.header["source"] == {"commit": commit["id"], "dirty": commit["dirty"], "branch": commit["branch"]}
    assert run.header["started"] == written["datetime"][:19] + "+00:00"
    assert run.header["versions"]["pytest-benchmark"] == written["version"]


def test_outside_a_repository_there_is_no_revision(changed):
    assert importers.read(changed("unversioned", "commit_info", "id")).header["source"] == {}
    assert importers.read(changed(..., "commit_info")).header["source"] == {}


@pytest.mark.parametrize(
    ("value", "path", "same"),
    [
        ("another", ("machine_info", "node"), False),
        ("3.99", ("machine_info", "python_version"), False),
        ("PyPy", ("machine_info", "python_implementation"), False),
        ("Other CPU", ("machine_info", "cpu", "brand_raw"), False),
        (999, ("machine_info", "cpu", "count"), False),
        ("process_time", ("benchmarks", 0, "options", "timer"), False),
        (True, ("benchmarks", 0, "options", "disable_gc"), False),
        ("9.9 GHz", ("machine_info", "cpu", "hz_actual_friendly"), True),  # changes by itself, from run to run
        ("6.99", ("machine_info", "release"), True),
        (9.0, ("benchmarks", 0, "stats", "max"), True),
    ],
)
def test_the_fingerprint_is_that_of_what_must_be_equal(changed, run, value, path, same):
    records = importers.read(changed(value, *path)).records
    assert (records[0].fingerprint == run.records[0].fingerprint) is same
    if path[0] == "benchmarks":  # another timer in one benchmark says nothing of the next
        assert records[1].fingerprint == run.records[1].fingerprint


def test_machine_facts_that_a_project_s_own_hooks_took_out_are_empty(changed):
    run = importers.read(changed({}, "machine_info"))
    assert run.header["host"]["processor"] == ""
    assert run.header["host"]["cores"] is None
    assert len(run.records) == 5


# --- what cannot be taken ------------------------------------------------------------------------------------

NAN = float("nan")


@pytest.mark.parametrize(
    ("value", "path", "message"),
    [
        (NAN, ("stats", "mean"), "benchmarks[0].stats.mean: expected a number from 0 to 1e+06, found NaN"),
        (float("inf"), ("stats", "min"), "benchmarks[0].stats.min: expected a number from 0 to 1e+06, found Infinity"),
        (-1e-9, ("stats", "min"), "benchmarks[0].stats.min: expected a number from 0 to 1e+06, found -1e-09"),
        (1e7, ("stats", "median"), "benchmarks[0].stats.median: expected a number from 0 to 1e+06, found 10000000.0"),
        (10**400, ("stats", "mean"), "stats.mean: expected a number from 0 to 1e+06, found a number of more than 30"),
        ("1", ("stats", "mean"), 'benchmarks[0].stats.mean: expected a number from 0 to 1e+06, found "1"'),
        (True, ("stats", "mean"), "benchmarks[0].stats.mean: expected a number from 0 to 1e+06, found true"),
        (None, ("stats", "mean"), "benchmarks[0].stats.mean is missing"),
        (..., ("stats",), "benchmarks[0].stats is missing"),
        ([], ("stats",), "benchmarks[0].stats: expected an object, found a list"),
        (0, ("stats", "rounds"), "benchmarks[0].stats.rounds: expected a whole number from 1 to 1000000000, found 0"),
        (2.0, ("stats", "rounds"), "benchmarks[0].stats.rounds: expected a whole number from 1 to"),
        (0, ("stats", "iterations"), "benchmarks[0].stats.iterations: expected a whole number from 1 to"),
        ([1e-6, NAN], ("stats", "data"), "benchmarks[0].stats.rounds: expected 2, as many as `data` holds"),
        ({}, ("stats", "data"), "benchmarks[0].stats.data: expected a list, found an object"),
        ("a\nb", ("fullname",), r'benchmarks[0].fullname: expected a string without control characters, found "a\nb"'),
        ("\ud800", ("fullname",), "benchmarks[0].fullname: expected a string without halves of characters"),
        (5, ("fullname",), "benchmarks[0].fullname: expected a string, found 5"),
    ],
)
def test_what_cannot_be_is_refused_with_its_key(changed, value, path, message):
    file = changed(value, "benchmarks", 0, *path)
    with pytest.raises(RunFileError) as caught:
        importers.read(file)
    assert str(caught.value).startswith(f"{file}: ")
    assert message in str(caught.value)
    assert len(str(caught.value)) < 400


def test_readings_of_more_than_a_century_are_refused(changed, written):
    stats = {**written["benchmarks"][0]["stats"], "min": 9000.0, "iterations": 10**12}
    file = changed(stats, "benchmarks", 0, "stats")
    expected = r"benchmarks\[0\]\.stats\.min: expected the time of one of 1000000000000 calls, not more than a century"
    with pytest.raises(RunFileError, match=expected):
        importers.read(file)


def test_one_reading_that_is_no_number_is_named(changed):
    file = changed(NAN, "benchmarks", 2, "stats", "data", 13)
    with pytest.raises(RunFileError, match=r"benchmarks\[2\]\.stats\.data\[13\]: expected a number .* found NaN"):
        importers.read(file)


@pytest.mark.parametrize(
    ("value", "path", "message"),
    [
        ([], ("benchmarks",), "benchmarks: expected at least one, found none; nothing was measured"),
        ({}, ("benchmarks",), "benchmarks: expected a list, found an object"),
        (..., ("datetime",), "datetime is missing"),
        ("yesterday", ("datetime",), 'datetime: expected a date like 2026-01-31T12:00:00+00:00, found "yesterday"'),
        ("0001-01-01T00:00:00+14:00", ("datetime",), "datetime: expected a date like"),
        ("1970-01-01T00:00:00", ("datetime",), "datetime: expected a date like"),
        (7, ("datetime",), "datetime: expected a string, found 7"),
        (..., ("version",), "version is missing"),
        ([], ("machine_info",), "machine_info: expected an object, found a list"),
        (3, ("machine_info", "node"), "machine_info.node: expected a string, found 3"),
        (["fpu", 1], ("machine_info", "cpu", "flags"), "machine_info.cpu.flags[1]: expected a string, found 1"),
        (0, ("machine_info", "cpu", "count"), "machine_info.cpu.count: expected a whole number from 1 to 1000000"),
    ],
)
def test_a_wrong_frame_is_refused_with_its_key(changed, value, path, message):
    file = changed(value, *path)
    with pytest.raises(RunFileError) as caught:
        importers.read(file)
    assert f"{file}: {message}" in str(caught.value)


def test_two_benchmarks_of_one_name_are_refused(changed, written):
    file = changed(written["benchmarks"][1]["fullname"], "benchmarks", 0, "fullname")
    with pytest.raises(RunFileError, match=r"would both be case imported/tests\.test_speed\.test_sort\[100\].*rename"):
        importers.read(file)


def test_a_date_without_a_zone_is_taken_for_utc(changed):
    assert importers.read(changed("2019-05-06T07:08:09.123456", "datetime")).header["started"] == (
        "2019-05-06T07:08:09+00:00"
    )
