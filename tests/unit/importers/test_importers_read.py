"""What a file is, and what every imported run has."""

from __future__ import annotations

import gzip
import hashlib
import json

import jsonschema
import pytest

from pytest_mlbench import importers
from pytest_mlbench.errors import RunFileError
from pytest_mlbench.importers import document
from pytest_mlbench.record import Record
from pytest_mlbench.schemas import load_schema
from pytest_mlbench.stores import runfile

TOOLS = {"pytest-benchmark": "by_pytest_benchmark", "pyperf": "by_pyperf", "google-benchmark": "by_google_benchmark"}


@pytest.fixture(params=TOOLS)
def tool(request):
    return request.param


@pytest.fixture
def made(tool, request):
    return request.getfixturevalue(TOOLS[tool])


@pytest.fixture
def own(tmp_path):
    """A run file of our own."""
    path = tmp_path / "run.jsonl"
    runfile.begin(path, {"started": "2026-01-01T00:00:00+00:00", "id": "20260101T000000-00000000"})
    runfile.Journal(path, "main").append(Record("s/b[a]", "s::b[a]", {}, "pass"))
    runfile.finish(path, {"exitstatus": 0})
    return path


def lines(run):
    return [json.loads(runfile.dumps(line)) for line in (run.header, *(r.to_json() for r in run.records), run.footer)]


# --- recognised, or told -------------------------------------------------------------------------------------


def test_every_format_is_recognised_and_may_be_told(made, tool):
    for path in (made.whole, made.other):
        run = importers.read(path)
        assert run.header["imported"]["format"] == tool
        assert importers.read(path, tool) == run


def test_our_own_run_file_is_read_as_it_is(own):
    assert importers.read(own) == importers.read(own, "run") == runfile.read(own)
    assert "imported" not in importers.read(own).header


def test_what_a_killed_run_left_is_read_too(tmp_path):
    path = tmp_path / "run.jsonl"
    runfile.begin(path, {"id": "x"})
    runfile.Journal(path, "main").append(Record("s/b[a]", "s::b[a]", {}, "pass"))
    for name in (path, runfile.parts_dir(path)):
        assert [record.case for record in importers.read(name).records] == ["s/b[a]"]


def test_formats_are_those_that_can_be_told():
    assert importers.FORMATS == ("run", *TOOLS)


def test_a_format_that_is_none_is_refused(own):
    with pytest.raises(RunFileError, match='unknown format "pyperff"; did you mean "pyperf"'):
        importers.read(own, "pyperff")


def test_a_file_of_another_format_than_told_is_refused(made, tool, own):
    other = next(name for name in TOOLS if name != tool)
    with pytest.raises(RunFileError, match=f"{made.whole} is a file of {tool}, not of {other}"):
        importers.read(made.whole, other)
    with pytest.raises(RunFileError, match=r"line 1: not JSON|no header"):
        importers.read(made.whole, "run")
    with pytest.raises(RunFileError, match="not JSON"):
        importers.read(own, tool)


# --- what every imported run has -----------------------------------------------------------------------------


def test_every_line_holds_the_schema_and_survives_a_run_file(made, tmp_path):
    schema = load_schema()
    for source in (made.whole, made.other):
        run = importers.read(source)
        for line in lines(run):
            own = jsonschema.Draft202012Validator({**schema["$defs"][line["kind"]], "$defs": schema["$defs"]})
            assert [f"{list(error.absolute_path)}: {error.message}" for error in own.iter_errors(line)] == []
            jsonschema.validate(line, schema)
        copy = tmp_path / "copy.jsonl"
        copy.write_text("".join(json.dumps(line) + "\n" for line in lines(run)), encoding="utf-8")
        assert lines(importers.read(copy)) == lines(run)


def test_the_schema_still_asks_of_our_own_runs_what_imported_ones_cannot_tell(made):
    header, record, *_ = lines(importers.read(made.whole))
    schema = load_schema()
    del header["imported"]
    del record["target"]["imported"]
    for line in (header, record):
        own = jsonschema.Draft202012Validator({**schema["$defs"][line["kind"]], "$defs": schema["$defs"]})
        assert list(own.iter_errors(line)) != []


def test_the_id_is_that_of_the_content(made, tmp_path):
    run = importers.read(made.whole)
    copy = tmp_path / "elsewhere.json"
    copy.write_bytes(made.whole.read_bytes())
    assert importers.read(copy) == run
    assert run.header["imported"]["sha256"] == hashlib.sha256(made.whole.read_bytes()).hexdigest()
    assert run.header["id"].endswith("-" + run.header["imported"]["sha256"][:8])
    copy.write_bytes(made.whole.read_bytes().rstrip() + b" \n\n")
    changed = importers.read(copy)
    assert changed.header["id"] != run.header["id"]
    assert [record.case for record in changed.records] == [record.case for record in run.records]


def test_case_ids_do_not_depend_on_what_else_is_in_the_file(made, tmp_path):
    whole = json.loads(made.whole.read_text("utf-8"))
    cases = {record.node: record.case for record in importers.read(made.whole).records}
    key = {"pytest-benchmark": "fullname", "google-benchmark": "run_name"}.get(
        importers.read(made.whole).header["imported"]["format"]
    )
    last = whole["benchmarks"][-1]
    whole["benchmarks"] = [one for one in whole["benchmarks"] if key is not None and one[key] == last[key]] or [last]
    alone = tmp_path / "alone.json"
    alone.write_text(json.dumps(whole), encoding="utf-8")
    (record,) = importers.read(alone).records
    assert record.case == cases[record.node]


def test_names_too_long_for_an_id_are_cut_and_stay_apart(by_pyperf, tmp_path):
    whole = json.loads(by_pyperf.whole.read_text("utf-8"))
    for index, benchmark in enumerate(whole["benchmarks"]):
        benchmark["metadata"]["name"] = "x" * 500 + str(index)
    path = tmp_path / "long.json"
    path.write_text(json.dumps(whole), encoding="utf-8")
    cases = [record.case for record in importers.read(path).records]
    assert len(set(cases)) == 2
    assert all(len(case) < 250 for case in cases)


# --- what is none of them ------------------------------------------------------------------------------------

HOSTILE = {
    "empty": (b"", "not JSON: Expecting value.*cut off or of another format"),
    "text": (b"name,iterations,real_time\n", "not JSON"),
    "not-text": (b"\xff\xfe\x00", "not JSON: .*utf-8.* codec can't decode"),
    "list": (b"[]", "top level: expected an object, found a list"),
    "number": (b"5", "top level: expected an object, found 5"),
    "other": (
        b'{"b": 1, "a": 2}',
        r"is none of the formats that can be read \(run, pytest-.*: its top level holds a, b$",
    ),
    "nothing": (b"{}", "its top level holds nothing"),
    "deep": (b"[" * 100_000 + b"]" * 100_000, "not JSON"),
    "endless-number": (b'{"benchmarks": ' + b"9" * 100_000 + b"}", "not JSON"),
    "newer-run": (b'{"kind":"header","schema":99}\n', "has schema 99, this version reads up to 1; upgrade"),
    "record-alone": (b'{"kind":"record"}', "is not a run file: its first line is no header"),
    "null": (b'{"machine_info": null, "benchmarks": null}', "datetime is missing"),
    "cut-gzip": (gzip.compress(b'{"a": 1}' * 100)[:-12], "cannot read .*ended before"),
    "false-gzip": (b"\x1f\x8bnot gzip at all", "cannot read .*compression method"),
    "broken-gzip": (gzip.compress(bytes(range(256)) * 50)[:30] + b"\xff" * 400, "cannot read"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_a_run_file_error_that_says_why(tmp_path, name):
    content, message = HOSTILE[name]
    path = tmp_path / "results.json"
    path.write_bytes(content)
    with pytest.raises(RunFileError, match=message) as caught:
        importers.read(path)
    assert str(path) in str(caught.value)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("share", [0.3, 0.6, 0.99])
def test_a_truncated_file_is_refused(made, tmp_path, share):
    content = document.read_bytes(made.whole)
    path = tmp_path / "cut.json"
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(RunFileError, match=r"cut\.json: not JSON: .*; the file is cut off or of another format"):
        importers.read(path)


def test_a_packed_file_that_unpacks_without_end_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(document, "MOST_BYTES", 10_000)
    path = tmp_path / "bomb.json.gz"
    path.write_bytes(gzip.compress(b" " * 10_001))
    with pytest.raises(RunFileError, match="holds more than 10000 bytes"):
        importers.read(path)


def test_what_is_no_file_is_refused(tmp_path):
    with pytest.raises(RunFileError, match=r"cannot read .*gone\.json"):
        importers.read(tmp_path / "gone.json")
    with pytest.raises(RunFileError, match=r"cannot read .*gone\.json: there is no such file"):
        importers.read(tmp_path / "gone.json", "pyperf")
    with pytest.raises(RunFileError, match=r"cannot read .*: it is a folder"):
        importers.read(tmp_path, "pyperf")
    with pytest.raises(RunFileError, match=r"cannot read .*header\.json"):
        importers.read(tmp_path)


def test_a_pipe_is_not_waited_for(tmp_path):
    os = pytest.importorskip("os")
    if not hasattr(os, "mkfifo"):
        pytest.skip("no named pipes here")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(RunFileError, match="it is no regular file"):
        importers.read(tmp_path / "pipe")
