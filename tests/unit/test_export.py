"""Run files written for tools that read those of pytest-benchmark."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from pytest_mlbench import export, importers
from pytest_mlbench.cli import main
from pytest_mlbench.errors import MlbenchError, RunFileError
from pytest_mlbench.record import Record
from pytest_mlbench.stores import runfile
from pytest_mlbench.stores.runfile import Run, encode_samples

HEADER = {
    "started": "2026-01-02T03:04:05+00:00",
    "id": "20260102T030405-00000000",
    "host": {"node": "box", "system": "Linux", "python": "3.12.1", "processor": "A CPU", "cores": 4, "flags": ["fma"]},
    "source": {"commit": "a" * 40, "dirty": True, "branch": "main"},
}
AXES = {"model": "m", "framework": "litert", "precision": "fp32", "device": "cpu", "batch": 1, "threads": None}


def record(name="a", outcome="pass", readings=(1000, 3000, 2000, 2000), calls=2, **changes):
    samples = {"sample_ns": encode_samples(np.array(readings, dtype=np.int64)), "calls": calls, "batch": 1}
    return Record(
        f"s/b[{name}]",
        f"suites/bench_s.toml::b[{name}]",
        {**AXES, "scenario": "single_stream"},
        outcome,
        reason="" if outcome == "pass" else "why",
        samples=samples if readings is not None else {},
        fingerprint="f" * 16,
        **changes,
    )


def unread(name, outcome):
    return replace(record(name, outcome), samples={})


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run.jsonl"


@pytest.fixture
def write(path):
    def written(*records):
        runfile.begin(path, HEADER)
        journal = runfile.Journal(path, "main")
        for one in records:
            journal.append(one)
        runfile.finish(path, {"exitstatus": 0}, [one.node for one in records])
        return path

    return written


# --- a row ---------------------------------------------------------------------------------------------------


def test_a_passed_case_is_named_as_pytest_names_it():
    row = export.row(record("m-litert-fp32-cpu"))
    assert row.name == "b[m-litert-fp32-cpu]"
    assert row.fullname == "suites/bench_s.toml::b[m-litert-fp32-cpu]"
    assert (row.group, row.param) == ("s/b", "m-litert-fp32-cpu")
    assert row.params == {**AXES, "scenario": "single_stream"}
    assert row.extra_info == {"mlbench": {"case": "s/b[m-litert-fp32-cpu]", "fingerprint": "f" * 16, "rounds_taken": 4}}
    assert (row.rounds_s, row.iterations) == ([1e-6, 3e-6, 2e-6, 2e-6], 2)


def test_a_method_is_named_without_its_class():
    assert export.row(replace(record(), node="bench_s.py::BenchA::bench_b[a]")).name == "bench_b[a]"


def test_of_more_readings_than_are_kept_the_number_taken_is_told():
    row = export.row(record(readings=range(1, 12_001)))
    assert len(row.rounds_s) == 10_000
    assert row.extra_info["mlbench"]["rounds_taken"] == 12_000


@pytest.mark.parametrize("outcome", ["fail", "skip", "invalid", "insufficient", "error"])
def test_what_did_not_pass_has_no_row(outcome):
    assert export.row(record(outcome=outcome)) is None
    assert export.row(unread("a", outcome)) is None


def test_what_was_not_timed_has_no_row():
    assert export.row(unread("a", "pass")) is None
    assert export.row(record(readings=())) is None


@pytest.mark.parametrize("calls", [0, -1, 1.5, True, "2", None])
def test_calls_that_cannot_be_are_refused(calls):
    with pytest.raises(MlbenchError, match=r"s/b\[a\]: samples\.calls: expected a whole number of 1 or more, found"):
        export.row(record(calls=calls))


def test_readings_that_cannot_be_read_are_refused():
    broken = replace(record(), samples={"sample_ns": {"int64_zlib_base64": "!"}, "calls": 1})
    with pytest.raises(RunFileError, match="the samples of a record cannot be read"):
        export.row(broken)


# --- the document --------------------------------------------------------------------------------------------


def test_statistics_are_per_call_and_pytest_benchmark_s_own():
    (one,) = export.pytest_benchmark(Run(HEADER, (record(),)))["benchmarks"]
    stats = one["stats"]
    assert stats["data"] == [5e-7, 1.5e-6, 1e-6, 1e-6]
    assert (stats["min"], stats["max"], stats["median"]) == (5e-7, 1.5e-6, 1e-6)
    assert stats["mean"] == pytest.approx(1e-6)
    assert stats["ops"] == pytest.approx(1e6)
    assert (stats["rounds"], stats["iterations"]) == (4, 2)
    from pytest_benchmark.stats import Stats

    assert set(stats) == {*Stats.fields, "data", "iterations"}


def test_machine_and_revision_are_those_of_the_run():
    document = export.pytest_benchmark(Run(HEADER, (record(),), {"finished": "2026-01-02T03:09:05+00:00"}))
    machine, commit = document["machine_info"], document["commit_info"]
    assert (machine["node"], machine["python_version"], machine["cpu"]["brand_raw"]) == ("box", "3.12.1", "A CPU")
    assert machine["cpu"]["count"] == 4
    assert (commit["id"], commit["dirty"], commit["branch"]) == ("a" * 40, True, "main")
    assert document["datetime"] == "2026-01-02T03:09:05+00:00"


def test_a_run_outside_a_repository_or_cut_off_is_exported_too():
    document = export.pytest_benchmark(Run({"started": "2026-01-02T03:04:05+00:00"}, (record(),)))
    assert document["commit_info"]["id"] == "unversioned"
    assert document["datetime"] == "2026-01-02T03:04:05+00:00"


def test_without_pytest_benchmark_the_install_line_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "pytest_benchmark.stats", None)
    with pytest.raises(MlbenchError, match=r"needs pytest-benchmark: pip install 'pytest-mlbench\[benchmark\]'"):
        export.pytest_benchmark(Run(HEADER, (record(),)))


# --- the verb ------------------------------------------------------------------------------------------------


def test_the_command_writes_the_passed_cases_and_names_the_others(write, tmp_path, capsys):
    source = write(record("a"), record("b", "fail"), unread("c", "skip"), record("d"))
    target = tmp_path / "bench.json"
    assert main(["export", str(source), "--format", "pytest-benchmark", "-o", str(target)]) == 0
    assert [one["name"] for one in json.loads(target.read_text("utf-8"))["benchmarks"]] == ["b[a]", "b[d]"]
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err == f"wrote 2 of 4 cases to {target}; left out:\n  s/b[b]: fail\n  s/b[c]: skip\n"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["bench.json", "run.jsonl"]


def test_the_command_prints_without_a_file(write, capsys):
    assert main(["export", str(write(record())), "--format", "pytest-benchmark"]) == 0
    printed = capsys.readouterr()
    assert len(json.loads(printed.out)["benchmarks"]) == 1
    assert printed.err == "wrote 1 of 1 cases\n"


def test_what_it_writes_is_read_by_pytest_benchmark_compare_and_by_our_importer(write, tmp_path):
    target = tmp_path / "bench.json"
    main(["export", str(write(record())), "--format", "pytest-benchmark", "-o", str(target)])
    command = [sys.executable, "-m", "pytest_benchmark", "compare", str(target), "--csv=table.csv"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True)
    assert "benchmark 's/b': 1 tests" in done.stdout
    assert "Failed to load" not in done.stdout + done.stderr
    assert "suites/bench_s.toml::b[a]" in (tmp_path / "table.csv").read_text("utf-8")
    back = importers.read(target)
    assert back.records[0].metric("latency.p50").value == pytest.approx(1000)
    assert back.header["host"]["processor"] == "A CPU"
    assert back.header["source"] == HEADER["source"]


def test_nothing_to_export_is_an_error_and_writes_nothing(write, tmp_path, capsys):
    source = write(record("b", "fail"))
    assert main(["export", str(source), "--format", "pytest-benchmark", "-o", str(tmp_path / "bench.json")]) == 2
    assert capsys.readouterr().err == (
        f"mlbench: {source}: no case of this run passed with readings, so there is nothing to export\n"
    )
    assert not (tmp_path / "bench.json").exists()


def test_a_file_that_cannot_be_read_or_written_is_an_error(write, tmp_path, capsys):
    assert main(["export", str(tmp_path / "gone.jsonl"), "--format", "pytest-benchmark"]) == 2
    assert "gone.jsonl" in capsys.readouterr().err
    target = tmp_path / "no" / "folder" / "bench.json"
    assert main(["export", str(write(record())), "--format", "pytest-benchmark", "-o", str(target)]) == 2
    assert capsys.readouterr().err == f"mlbench: cannot write {target}: No such file or directory\n"


@pytest.mark.parametrize("arguments", [["export", "run.jsonl"], ["export", "run.jsonl", "--format", "csv"]])
def test_a_format_must_be_named(capsys, arguments):
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert "--format" in capsys.readouterr().err


def test_a_record_whose_readings_are_broken_is_an_error_that_names_the_file(write, capsys):
    source = write(record(calls=0))
    assert main(["export", str(source), "--format", "pytest-benchmark"]) == 2
    assert capsys.readouterr().err.startswith(f"mlbench: {source}: s/b[a]: samples.calls: expected")


def test_the_command_s_start_imports_neither_numpy_nor_pytest_benchmark():
    code = "import sys, pytest_mlbench.export\nprint(sorted({'numpy', 'pytest_benchmark'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout.strip() == "[]"
