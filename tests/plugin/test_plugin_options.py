"""The options: the list, JSON, the run file's place, resuming, interpreters, verbosity and the live line."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import subprocess
import sys
import time

import pytest

ONE = ("-k", "litert-fp32")


def test_list_prints_the_matrix_with_the_reason_of_each_skip_and_runs_nothing(project):
    path = project.suite / "bench_digits.toml"
    text = path.read_text("utf-8").replace(
        '["onnxruntime", "litert"]',
        '["onnxruntime", "tflite_runtime", { name = "litert", python = "gone/bin/python" }]',
    )
    rule = 'exclude = [{ framework = "onnxruntime", precision = "int8", reason = "wrong on our boards" }]\n'
    path.write_text(text.replace('marks = ["vision"]\n', rule), "utf-8")
    result = project.run("--mlbench-list")
    assert result.ret == 0
    case = "digits/classify[[]digits_cnn-{}-cpu[]]"
    result.stdout.fnmatch_lines(
        [
            "case *runs",
            f"{case.format('onnxruntime-fp32')} *yes",
            f"{case.format('onnxruntime-int8')} *skip: wrong on our boards",
            f"{case.format('tflite_runtime-fp32')} *skip: tflite_runtime is not installed: pip install *tflite*",
            f"{case.format('litert-fp32')} *skip: interpreter *gone/bin/python for litert does not exist",
            "6 cases, 1 run, 5 skipped",
        ]
    )
    assert not (project.root / ".mlbench").exists()


@pytest.mark.parametrize("extra", [[], ["-n", "2"], ["-q", "--mlbench"]], ids=["plain", "xdist", "quiet"])
def test_list_as_json_is_the_last_line(project, extra):
    done = project.subprocess("--mlbench-list", "--mlbench-format", "json", "-k", "int8", *extra)
    assert done.returncode == 0, done.stdout
    rows = json.loads(done.stdout.splitlines()[-1])["cases"]
    assert [row["case"] for row in rows] == [
        "digits/classify[digits_cnn-onnxruntime-int8-cpu]",
        "digits/classify[digits_cnn-litert-int8-cpu]",
    ]
    assert rows[0] == {
        "case": "digits/classify[digits_cnn-onnxruntime-int8-cpu]",
        "node": "suites/digits/bench_digits.toml::classify[digits_cnn-onnxruntime-int8-cpu]",
        "model": "digits_cnn",
        "framework": "onnxruntime",
        "precision": "int8",
        "device": "cpu",
        "batch": 1,
        "threads": None,
        "scenario": "single_stream",
        "skip": None,
    }
    assert not (project.root / ".mlbench").exists()


def test_list_leaves_the_journals_of_a_killed_run_alone(project):
    project.write("r.jsonl.parts/header.json", '{"kind": "header", "schema": 1}\n')
    project.run("--mlbench-list", "--mlbench-output", "r.jsonl")
    assert (project.root / "r.jsonl.parts" / "header.json").exists()
    assert not (project.root / "r.jsonl").exists()


@pytest.mark.parametrize("extra", [[], ["-q"], ["-n", "2"]], ids=["plain", "quiet", "xdist"])
def test_json_is_the_last_line_with_all_records(project, extra):
    done = project.subprocess("--mlbench", "--mlbench-format", "json", "-k", "fp32", *extra)
    assert done.returncode == 0, done.stdout
    document = json.loads(done.stdout.splitlines()[-1])
    assert [record["case"] for record in document["records"]] == [
        "digits/classify[digits_cnn-onnxruntime-fp32-cpu]",
        "digits/classify[digits_cnn-litert-fp32-cpu]",
    ]
    assert {record["outcome"] for record in document["records"]} == {"pass"}
    assert document["footer"]["exitstatus"] == 0
    assert document["header"]["schema"] == 1
    assert "Run file:" not in done.stdout  # no table


def test_json_of_a_failed_run_carries_the_exit_code(project):
    path = project.suite / "bench_digits.toml"
    path.write_text(path.read_text("utf-8").replace(">= 0.97", ">= 0.9999"), "utf-8")
    done = project.subprocess("--mlbench", "--mlbench-format", "json", *ONE)
    document = json.loads(done.stdout.splitlines()[-1])
    assert (done.returncode, document["footer"]["exitstatus"]) == (1, 1)
    assert document["records"][0]["outcome"] == "fail"


def test_output_names_the_run_file_relative_to_the_working_directory(project):
    project.run("--mlbench", *ONE, "--mlbench-output", "out/run.jsonl").assert_outcomes(passed=1)
    lines = (project.root / "out" / "run.jsonl").read_text("utf-8").splitlines()
    assert [json.loads(line)["kind"] for line in lines] == ["header", "record", "footer"]
    assert not (project.root / ".mlbench").exists()
    assert [path.name for path in (project.root / "out").iterdir()] == ["run.jsonl"]


def test_an_output_that_is_a_folder_is_a_usage_error(project):
    result = project.run("--mlbench", *ONE, "--mlbench-output", "suites")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: cannot write *suites: it is a folder*--mlbench-output"])


def test_resume_takes_what_passed_and_is_the_same_and_measures_the_rest(project):
    first = project.run("--mlbench", *ONE, "--mlbench-output", "one.jsonl")
    first.assert_outcomes(passed=1)
    result = project.run("--mlbench", "-k", "litert", "--mlbench-resume", "one.jsonl")
    result.assert_outcomes(passed=2)
    before = project.read("one.jsonl")
    taken, measured = project.last_run().records
    assert (taken.resumed, measured.resumed) == (before.header["id"], "")
    assert taken.started == before.records[0].started
    assert taken.samples == before.records[0].samples
    assert measured.started > taken.started
    assert project.last_run().header["resumed"].endswith("one.jsonl")


def test_resume_measures_again_when_the_suite_changed(project):
    project.run("--mlbench", *ONE, "--mlbench-output", "one.jsonl")
    path = project.suite / "bench_digits.toml"
    path.write_text(path.read_text("utf-8") + "# changed\n", "utf-8")
    project.run("--mlbench", *ONE, "--mlbench-resume", "one.jsonl").assert_outcomes(passed=1)
    assert project.last_run().records[0].resumed == ""


def test_resume_under_xdist(project):
    project.run("--mlbench", *ONE, "--mlbench-output", "one.jsonl").assert_outcomes(passed=1)
    done = project.subprocess("--mlbench", "-n", "2", "-k", "litert", "--mlbench-resume", "one.jsonl")
    assert done.returncode == 0, done.stdout
    assert [bool(record.resumed) for record in project.last_run().records] == [True, False]


def test_outputs_are_there_for_a_resumed_python_suite(project):
    project.python_suite(
        "@pytest.mark.mlbench(**AXES)\ndef bench_classify(mlbench):\n"
        "    mlbench.run()\n    assert next(iter(mlbench.outputs.values())).shape == (360, 10)\n"
    )
    project.run("--mlbench", "--mlbench-output", "one.jsonl").assert_outcomes(passed=1)
    project.run("--mlbench", "--mlbench-resume", "one.jsonl").assert_outcomes(passed=1)
    assert project.last_run().records[0].resumed


def test_resuming_a_killed_run_into_the_same_file(project):
    """The journals it left are kept for resuming, and their records do not pass for this run's."""
    project.run("--mlbench", "-k", "litert", "--mlbench-output", "one.jsonl").assert_outcomes(passed=2)
    header, first, second, _ = (project.root / "one.jsonl").read_text("utf-8").splitlines()
    (project.root / "one.jsonl").unlink()
    project.write("one.jsonl.parts/header.json", header + "\n")
    project.write("one.jsonl.parts/main.jsonl", f"{first}\n{second[:200]}")  # killed while it wrote the second
    again = project.run("--mlbench", "-k", "litert", "--mlbench-output", "one.jsonl", "--mlbench-resume", "one.jsonl")
    again.assert_outcomes(passed=2)
    run = project.read("one.jsonl")
    assert [(record.axes["precision"], bool(record.resumed)) for record in run.records] == [
        ("fp32", True),
        ("int8", False),
    ]
    project.write("one.jsonl.parts/header.json", header + "\n")
    project.write("one.jsonl.parts/main.jsonl", f"{first}\n")
    project.run("--mlbench", "-k", "litert-int8", "--mlbench-output", "one.jsonl").assert_outcomes(passed=1)
    assert [record.axes["precision"] for record in project.read("one.jsonl").records] == ["int8"]


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "*cannot read*nothing.jsonl*"), ("{}\n", "*nothing.jsonl is not a run file*"), ("x", "*line 1: not JSON*")],
)
def test_resuming_from_what_is_no_run_file_is_a_usage_error(project, content, message):
    if content is not None:
        project.write("nothing.jsonl", content)
    result = project.run("--mlbench", "--mlbench-resume", "nothing.jsonl")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(
        [
            f"ERROR: --mlbench-resume: {message.lstrip('*')}"
            if message[0] != "*"
            else f"ERROR: --mlbench-resume: {message}"
        ]
    )


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("litert", "ERROR: --mlbench-python 'litert': expected FRAMEWORK=PATH"),
        (
            "litrt=/usr/bin/env",
            'ERROR: --mlbench-python litrt=/usr/bin/env: unknown framework "litrt"; did you mean "litert"*',
        ),
        ("litert=/nowhere/python", "ERROR: --mlbench-python litert=/nowhere/python: there is no interpreter*"),
    ],
)
def test_bad_interpreters_are_usage_errors(project, value, message):
    result = project.run("--mlbench", "--mlbench-python", value)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([message])
    assert not (project.root / ".mlbench").exists()


def test_an_interpreter_given_for_a_framework_runs_it(project):
    link = project.root / "other-python"
    link.symlink_to(sys.executable)
    wrapper = project.write(
        "python-of-litert", f'#!/bin/sh\necho used >> "{project.root}/used"\nexec {sys.executable} "$@"\n'
    )
    wrapper.chmod(0o755)
    project.run("--mlbench", *ONE, "--mlbench-python", f"litert={wrapper}").assert_outcomes(passed=1)
    assert "used" in (project.root / "used").read_text("utf-8")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--mlbench-format", "xml"), "*--mlbench-format: invalid choice: 'xml'*"),
        (("--mlbench-lease-timeout", "soon"), "*--mlbench-lease-timeout: invalid float value: 'soon'*"),
    ],
)
def test_unknown_values_are_usage_errors(project, arguments, message):
    result = project.run("--mlbench", *arguments)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([message])


def test_quiet_prints_one_summary_line(project):
    result = project.run("--mlbench", "-q", *ONE)
    ours = [line for line in result.outlines if "digits" in line]
    assert len(ours) == 0 or all("Run file:" in line for line in ours)
    result.stdout.fnmatch_lines(["1 case: 1 pass. Run file: *.jsonl"])
    result.stdout.no_fnmatch_line("*p50*")


def test_verbose_prints_every_metric_and_check(plain_run):
    out = plain_run.done.stdout
    for record in plain_run.run.records:
        block = out[out.index(f"\n{record.case}\n") :]
        for metric in record.metrics:
            assert re.search(rf"\n  {re.escape(metric.name)} ", block), metric.name
        for check in record.checks:
            assert f"  {check.outcome:<4} {check.name}: " in block


def test_the_table_and_the_place_of_the_run_file(plain_run):
    out = plain_run.done.stdout
    assert re.search(r"\ncase +precision +outcome +p50 ", out)
    assert re.search(r"\nclassify\[digits_cnn-onnxruntime-int8-cpu\] +int8 +pass ", out)
    assert f"\n4 cases: 4 pass. Run file: {plain_run.run_file}\n" in out


def test_no_table_when_nothing_ran(project):
    project.write("tests/test_ordinary.py", "def test_it(): pass\n")
    result = project.run("--mlbench", "tests")
    result.assert_outcomes(passed=1)
    result.stdout.no_fnmatch_line("*= mlbench =*")
    result.stdout.no_fnmatch_line("*Run file:*")
    assert result.ret == 13


# --- the live line -------------------------------------------------------------------------------------


def slow(project) -> None:
    path = project.suite / "bench_digits.toml"
    path.write_text(path.read_text("utf-8").replace("min_duration_s = 0.05", "min_duration_s = 1.2"), "utf-8")


def on_terminal(project, *arguments: str, **environment: str) -> str:
    """Run pytest on a pseudo-terminal of 100 columns and return all that was written there."""
    import fcntl
    import struct
    import termios

    host, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))
    inherited = {name: value for name, value in os.environ.items() if name not in ("CI", "COLUMNS", "TERM")}
    process = subprocess.Popen(
        [sys.executable, "-m", "pytest", "--mlbench", "-k", "litert-fp32", *arguments],
        cwd=project.root,
        env={**inherited, "TERM": "xterm", **environment},
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
    )
    os.close(terminal)
    written, end = b"", time.monotonic() + 60
    try:
        while time.monotonic() < end:
            if not select.select([host], [], [], 1.0)[0]:
                continue
            try:
                part = os.read(host, 1 << 16)
            except OSError:  # Linux: the other side was closed
                break
            if not part:
                break
            written += part
    finally:
        process.wait(30)
        os.close(host)
    assert process.returncode == 0, written.decode()
    return written.decode()


LIVE = re.compile(r"\x1b7\x1b\[B\r([^\x1b]*)\x1b\[K\x1b8")


@pytest.mark.parametrize("arguments", [(), ("-v",)], ids=["plain", "verbose"])
def test_a_live_line_with_stage_and_time_left_appears_and_is_erased(project, arguments):
    slow(project)
    written = on_terminal(project, *arguments)
    lines = LIVE.findall(written)
    told = [line for line in lines if line]
    assert any(
        re.fullmatch(r"digits/classify\[digits_cnn-litert-fp32-cpu\]: measure \d+%, \d+ s left", line) for line in told
    ), told
    assert lines[-1] == ""  # erased
    assert written.rindex("s left") < written.index("passed")
    # What pytest wrote on its own line still stands there: the outcome follows it directly.
    plain = re.sub(r"\x1b\[[0-9;]*m", "", LIVE.sub("", written)).replace("\x1bD\x1bM", "")
    node = (
        "bench_digits.toml::classify[digits_cnn-litert-fp32-cpu] PASSED" if "-v" in arguments else "bench_digits.toml ."
    )
    assert node in plain.replace("\r\n", "")


@pytest.mark.parametrize(
    ("arguments", "environment"),
    [(("-q",), {}), ((), {"CI": "1"}), ((), {"TERM": "dumb"}), (("-n", "1"), {})],
    ids=["quiet", "ci", "dumb", "xdist"],
)
def test_no_live_line_where_nobody_watches(project, arguments, environment):
    slow(project)
    written = on_terminal(project, *arguments, **environment)
    assert not LIVE.search(written)
    assert "s left" not in written


def test_no_live_line_in_a_pipe(project):
    slow(project)
    done = project.subprocess("--mlbench", *ONE)
    assert "\x1b" not in done.stdout
    assert "s left" not in done.stdout
