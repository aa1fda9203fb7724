"""A killed run goes on with --mlbench-resume: what has passed is not measured again."""

from __future__ import annotations

import json
import signal

import pytest

from pytest_mlbench.stores import runfile

FIRST = '{ name = "faulty", id = "first" }'
WRONG = '{ name = "faulty", id = "wrong", options = { fault = "nan", stage = "accuracy" } }'
HELD = '{ name = "faulty", id = "held", options = { fault = "hold", stage = "measure" } }'
LAST = '{ name = "faulty", id = "last" }'


def killed_run(bed):
    """Run two cases and kill pytest while the third is measured; returns what was left."""
    bed.held.touch()
    bed.suite(FIRST, WRONG, HELD, LAST)
    running = bed.start()
    bed.wait_for_event("hold")
    running.signal(signal.SIGKILL)
    left = running.wait(5)
    assert {key: record.outcome for key, record in left.records.items()} == {"first": "pass", "wrong": "fail"}
    bed.held.unlink()
    bed.log.unlink()
    return left


@pytest.mark.parametrize("same_file", [True, False], ids=["same file", "another file"])
def test_a_killed_run_goes_on_where_it_was(bed, same_file):
    left = killed_run(bed)
    output = bed.run_file if same_file else bed.project / "second.jsonl"
    result = bed.run("--mlbench-resume", "run.jsonl", output=output)
    assert bed.count("load") == 3, "the case that had passed is not loaded again"
    outcomes = {key: record.outcome for key, record in result.records.items()}
    assert outcomes == {"first": "pass", "wrong": "fail", "held": "pass", "last": "pass"}
    before, after = left.records["first"], result.records["first"]
    assert (after.samples, after.metrics, after.started) == (before.samples, before.metrics, before.started)
    assert after.resumed == left.run.header["id"]
    assert not result.records["held"].resumed
    assert result.records["wrong"].started > left.records["wrong"].started, "what had failed is measured again"
    assert result.run.header["resumed"].endswith("run.jsonl")
    assert result.code == 1


def test_with_workers_a_killed_run_goes_on_too(bed):
    killed_run(bed)
    result = bed.run("--mlbench-resume", "run.jsonl", "-n", "2")
    assert bed.count("load") == 3
    assert result.records["first"].resumed
    assert [record.axes["framework"] for record in result.run.records] == ["first", "wrong", "held", "last"]


def test_a_case_whose_suite_changed_is_measured_again(bed):
    killed_run(bed)
    bed.suite(FIRST, WRONG, HELD, LAST, benchmark="timeout_s = 60")
    result = bed.run("--mlbench-resume", "run.jsonl")
    assert bed.count("load") == 4
    assert not result.records["first"].resumed


def test_a_case_whose_model_changed_is_measured_again(bed):
    killed_run(bed)
    bed.suite(FIRST, WRONG, HELD, LAST).with_name("model.json").write_text('{"weights": [[1, 2], [3, 4], [5, 6]]}')
    result = bed.run("--mlbench-resume", "run.jsonl")
    assert bed.count("load") == 4
    assert not result.records["first"].resumed


def test_a_journal_cut_off_by_the_kill_goes_on(bed):
    killed_run(bed)
    journal = runfile.parts_dir(bed.run_file) / "main.jsonl"
    whole = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(whole[0] + whole[1][:100])
    result = bed.run("--mlbench-resume", "run.jsonl")
    assert bed.count("load") == 3
    assert result.records["first"].resumed


HEADER = json.dumps({"kind": "header", "schema": 1}) + "\n"
RECORD = {"kind": "record", "case": "faults/run[x]", "node": "n", "axes": {}, "outcome": "pass"}


def line(**changes):
    return (HEADER + json.dumps({**RECORD, **changes}) + "\n").encode()


NO_RUN_FILES = {
    "empty": (b"", "is not a run file: its first line is no header"),
    "truncated": (line()[:-20], "line 2: not JSON: "),
    "binary": (b"\x00\xff\xfe\x80", "cannot read "),
    "text": (b"hello\n", "line 1: not JSON: "),
    "a list": (b"[1, 2]\n", "line 1: expected an object, found list"),
    "deep": (b"[" * 100_000, "line 1: not JSON: "),
    "a long number": (b"9" * 10_000, "line 1: not JSON: "),
    "no header": (line().splitlines()[1], "is not a run file: its first line is no header"),
    "newer": (
        HEADER.replace("1", "99").encode(),
        "has schema 99, this version reads up to 1; upgrade pytest-mlbench",
    ),
    "no schema": (b'{"kind": "header"}\n', "has schema None"),
    "old schema": (HEADER.replace("1", "-1").encode(), "has schema -1"),
    "case is an object": (line(case={"a": 1}), "holds a record that is not one: case: expected str, found dict"),
    "no case": (HEADER.encode() + b'{"kind": "record", "outcome": "pass"}\n', "holds a record that is not one: "),
    "hashes is a list": (line(hashes=["identity"]), "hashes: expected dict, found list"),
    "unknown outcome": (
        line(outcome="splendid"),
        "outcome: expected one of pass, fail, skip, invalid, insufficient, error, found 'splendid'",
    ),
    "metrics is text": (line(metrics="fast"), "metrics: expected list, found str"),
    "metric is a number": (line(metrics=[1]), "holds a record that is not one: "),
    "value is text": (
        line(metrics=[{"name": "m", "value": "1", "unit": "", "direction": "lower"}]),
        "metrics[0].value: expected a number, found str",
    ),
}


@pytest.fixture(scope="module")
def sound(make_bed):
    bed = make_bed()
    bed.suite()
    return bed


def test_a_folder_pytest_guessed_from_an_options_value_is_explained(sound):
    result = sound.run("--mlbench-resume", "/dev/null")  # read as a path before pytest knows our options
    assert result.code == pytest.ExitCode.USAGE_ERROR
    assert "--mlbench: no suites: /dev/suites does not exist; " in result.text
    assert "write options with =, as in --mlbench-output=FILE" in result.text


@pytest.mark.parametrize("name", NO_RUN_FILES)
def test_what_is_no_run_file_is_refused(name, tmp_path):
    content, message = NO_RUN_FILES[name]
    path = tmp_path / "earlier.jsonl"
    path.write_bytes(content)
    with pytest.raises(runfile.RunFileError) as raised:
        runfile.read(path)
    assert str(path) in str(raised.value)
    assert message in str(raised.value)


@pytest.mark.parametrize("name", ["newer", "truncated", "case is an object"])
def test_a_run_that_cannot_be_resumed_is_a_usage_error(sound, name):
    content, message = NO_RUN_FILES[name]
    path = sound.project / "earlier.jsonl"
    path.write_bytes(content)
    result = sound.run("--mlbench-resume", "earlier.jsonl")
    assert result.code == pytest.ExitCode.USAGE_ERROR
    assert f"ERROR: --mlbench-resume: {path}" in result.text
    assert message in result.text
    assert "give the run file of an earlier run, or leave the option out" in result.text
    assert result.run is None, "nothing was begun"


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("nothing.jsonl", "cannot read {project}/nothing.jsonl: [Errno 2] No such file or directory"),
        ("suites", "cannot read {project}/suites/header.json: [Errno 2] No such file or directory"),
        ("/dev/zero", "cannot read /dev/zero: it is no regular file"),
    ],
)
def test_a_path_that_is_no_run_file_is_a_usage_error(sound, path, message):
    result = sound.run(f"--mlbench-resume={path}")
    assert result.code == pytest.ExitCode.USAGE_ERROR
    assert f"ERROR: --mlbench-resume: {message.format(project=sound.project)}" in result.text
