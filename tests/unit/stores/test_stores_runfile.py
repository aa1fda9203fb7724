"""The run file: journals that survive, a merge that is whole or not at all, reading what anyone may have written."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest

from pytest_mlbench.errors import RunFileError
from pytest_mlbench.record import SCHEMA, CheckResult, Metric, Record
from pytest_mlbench.stores import runfile
from pytest_mlbench.stores.runfile import MAX_SAMPLES, Journal, decode_samples, encode_samples


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run.jsonl"


def record(name="a", **changes):
    return Record(f"s/b[{name}]", f"suite::b[{name}]", {"model": name}, changes.pop("outcome", "pass"), **changes)


def cases(run):
    return [each.axes["model"] for each in run.records]


# --- samples ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [0, 1, 999, MAX_SAMPLES])
def test_samples_survive(count):
    samples = np.random.default_rng(0).integers(-(2**62), 2**62, count)
    encoded = json.loads(json.dumps(encode_samples(samples)))
    assert (encoded["kept"], encoded["total"], encoded["rule"]) == (count, count, "all")
    found = decode_samples(encoded)
    assert found.dtype == np.int64
    np.testing.assert_array_equal(found, samples)


def test_more_samples_are_thinned_in_order_and_the_rule_is_told():
    samples = np.arange(25_000, dtype=np.int64)
    encoded = encode_samples(samples, seed=7)
    assert (encoded["kept"], encoded["total"]) == (MAX_SAMPLES, 25_000)
    assert encoded["rule"] == "uniform without replacement, seed 7"
    found = decode_samples(encoded)
    assert len(found) == MAX_SAMPLES
    assert (np.diff(found) > 0).all()  # in order of time, none twice
    assert abs(found.mean() - samples.mean()) < 5 * samples.std() / MAX_SAMPLES**0.5
    np.testing.assert_array_equal(found, decode_samples(encode_samples(samples, seed=7)))
    assert not np.array_equal(found, decode_samples(encode_samples(samples, seed=8)))


def test_samples_are_little_endian_whatever_the_machine():
    encoded = encode_samples(np.array([1, 256], dtype=">i8"))
    assert zlib.decompress(base64.b64decode(encoded["int64_zlib_base64"])) == b"\1" + bytes(8) + b"\1" + bytes(6)


def packed(data):
    return {"int64_zlib_base64": base64.b64encode(data).decode()}


@pytest.mark.parametrize(
    "encoded",
    [
        {},
        {"int64_zlib_base64": None},
        {"int64_zlib_base64": "not base64!"},
        packed(b"not zlib"),
        packed(zlib.compress(bytes(16))[:-3]),
        packed(zlib.compress(bytes(7))),
        packed(zlib.compress(bytes(100_000_000))),
    ],
    ids=["nothing", "null", "no-base64", "no-zlib", "cut-off", "half-a-number", "bomb"],
)
def test_samples_that_are_none_are_refused(encoded):
    with pytest.raises(RunFileError, match="the samples of a record cannot be read"):
        decode_samples(encoded)


# --- lines --------------------------------------------------------------------------------------------------


def test_what_json_has_no_number_for_becomes_null():
    line = runfile.dumps({"a": float("nan"), "b": [np.float64("inf"), {"c": -float("inf")}], "d": (1.5, np.int64(3))})
    assert line == '{"a":null,"b":[null,{"c":null}],"d":[1.5,3]}'


def test_numpy_values_and_paths_become_plain_ones():
    line = runfile.dumps({"a": np.float32(0.5), "b": np.arange(3), "c": Path("x") / "y", "d": np.bool_(True)})
    assert json.loads(line) == {"a": 0.5, "b": [0, 1, 2], "c": str(Path("x") / "y"), "d": True}


def test_anything_else_is_refused_by_name():
    with pytest.raises(TypeError, match="set cannot be kept in a run file"):
        runfile.dumps({"a": {1}})


def test_a_line_is_one_line():
    assert "\n" not in runfile.dumps({"reason": "two\nlines\u2028and more"})


# --- writing ------------------------------------------------------------------------------------------------


def test_a_run_from_begin_to_finish(path):
    runfile.begin(path, {"id": "r1"})
    one, two = Journal(path, "gw0"), Journal(path, "gw1")
    one.append(record("a", metrics=(Metric("latency.p50", 5.0, "ns", "lower", interval=(4.0, 6.0)),)))
    two.append(record("b", outcome="fail", checks=(CheckResult("x", "fail", "no"),)))
    assert not path.exists()
    run = runfile.finish(path, {"exitstatus": 1})
    assert runfile.read(path) == run
    assert run.header == {"kind": "header", "schema": SCHEMA, "id": "r1"}
    assert run.footer["exitstatus"] == 1
    assert run.footer["finished"].endswith("+00:00")
    assert [json.loads(line)["kind"] for line in path.read_text().splitlines()] == [
        "header",
        "record",
        "record",
        "footer",
    ]
    assert [file.name for file in path.parent.iterdir()] == ["run.jsonl"]


def test_records_are_put_in_the_order_of_collection_and_strangers_last(path):
    runfile.begin(path, {})
    for worker, names in (("gw0", "cxa"), ("gw1", "db")):
        for name in names:
            Journal(path, worker).append(record(name))
    run = runfile.finish(path, {}, [f"suite::b[{name}]" for name in "abcd"])
    assert cases(run) == ["a", "b", "c", "d", "x"]
    assert cases(runfile.read(path)) == ["a", "b", "c", "d", "x"]


def test_each_record_is_on_disk_when_append_returns(path):
    """A process that ends without a chance to flush anything has written its records."""
    code = """
import os, sys
from pathlib import Path
from pytest_mlbench.record import Record
from pytest_mlbench.stores import runfile
path = Path(sys.argv[1])
runfile.begin(path, {"id": "r1"})
journal = runfile.Journal(path, "main")
for name in "ab":
    journal.append(Record(f"s/b[{name}]", name, {"model": name}, "pass"))
os.kill(os.getpid(), 9)
"""
    done = subprocess.run([sys.executable, "-c", code, str(path)], timeout=30, check=False)
    assert done.returncode != 0
    run = runfile.read(path)  # of the folder of journals
    assert cases(run) == ["a", "b"]
    assert run.header["id"] == "r1"
    assert run.footer == {}


@pytest.mark.parametrize("cut", [1, 10, -2])
def test_a_line_cut_off_by_a_kill_is_dropped(path, cut):
    runfile.begin(path, {})
    journal = Journal(path, "main")
    for name in "ab":
        journal.append(record(name))
    whole = journal.path.read_bytes()
    second = whole.index(b"\n") + 1
    journal.path.write_bytes(whole[: second + cut] if cut > 0 else whole[:cut])
    assert cases(runfile.read(path)) == ["a"]
    assert cases(runfile.finish(path, {})) == ["a"]


def test_a_line_broken_in_the_middle_is_no_cut(path):
    runfile.begin(path, {})
    journal = Journal(path, "main")
    journal.append(record("a"))
    whole = journal.path.read_bytes()
    journal.path.write_bytes(whole[:20] + b"\n" + whole)
    with pytest.raises(RunFileError, match=r"main.jsonl, line 1: not JSON"):
        runfile.read(path)


def test_a_merged_file_is_never_cut(path):
    runfile.begin(path, {})
    Journal(path, "main").append(record("a"))
    runfile.finish(path, {})
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(RunFileError, match="line 3: not JSON"):
        runfile.read(path)


def test_finish_leaves_the_earlier_file_when_it_cannot_write(path, monkeypatch):
    path.write_text("earlier", encoding="utf-8")
    runfile.begin(path, {})
    Journal(path, "main").append(record("a"))
    replace = Path.replace

    def full(self, target):
        if self.name == "run.jsonl.part":
            raise OSError(28, "No space left on device")
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(RunFileError, match=r"cannot write .*run.jsonl: No space left on device; free space there"):
        runfile.finish(path, {})
    assert path.read_text() == "earlier"
    assert not path.with_name("run.jsonl.part").exists()
    monkeypatch.undo()
    assert cases(runfile.finish(path, {})) == ["a"]


def test_a_header_that_could_not_be_written_does_not_stand_in_the_way(path, monkeypatch):
    write = Path.write_text

    def full(self, text, **options):
        write(self, text[:10], **options)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(RunFileError, match="No space left on device"):
        runfile.begin(path, {})
    monkeypatch.undo()
    runfile.begin(path, {"id": "next"})
    assert runfile.finish(path, {}).header["id"] == "next"


def test_what_a_killed_run_left_is_merged_before_the_next_begins(path):
    runfile.begin(path, {"id": "killed"})
    Journal(path, "main").append(record("a"))
    runfile.begin(path, {"id": "next"})
    left = runfile.read(path)
    assert (left.header["id"], cases(left), left.footer["exitstatus"]) == ("killed", ["a"], None)
    assert runfile.read(runfile.parts_dir(path)).records == ()


def test_a_folder_in_the_place_of_the_run_file_is_told(path):
    path.mkdir()
    with pytest.raises(RunFileError, match=r"run.jsonl: it is a folder; name a file with --mlbench-output"):
        runfile.begin(path, {})


def test_a_place_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(RunFileError, match=r"cannot write .*; free space there or choose another place"):
        runfile.begin(tmp_path / "file" / "run.jsonl", {})


def test_the_default_folder_is_kept_out_of_git(tmp_path):
    runfile.begin(tmp_path / ".mlbench" / "run.jsonl", {})
    assert (tmp_path / ".mlbench" / ".gitignore").read_text() == "*\n"
    runfile.begin(tmp_path / "other" / "run.jsonl", {})
    assert not (tmp_path / "other" / ".gitignore").exists()


def test_a_record_that_cannot_be_written_leaves_the_journal_as_it_was(path):
    runfile.begin(path, {})
    journal = Journal(path, "main")
    journal.append(record("a"))
    before = journal.path.read_bytes()
    with pytest.raises(TypeError):
        journal.append(record("b", target={"x": object()}))
    assert journal.path.read_bytes() == before


# --- reading what anyone may have written -------------------------------------------------------------------

HEADER = '{"kind":"header","schema":1}\n'
GOOD = '{"kind":"record","case":"s/b[a]","node":"n","axes":{},"outcome":"pass"}\n'


def test_the_least_there_can_be(path):
    path.write_text(HEADER + GOOD + '\n{"kind":"from a later version"}\n', encoding="utf-8")
    run = runfile.read(path)
    assert [each.case for each in run.records] == ["s/b[a]"]


HOSTILE = {
    "empty": ("", "is not a run file: its first line is no header"),
    "no-header": (GOOD, "is not a run file: its first line is no header"),
    "text": ("hello\n", "line 1: not JSON"),
    "list": ("[]\n", "line 1: expected an object, found list"),
    "number": ("5\n", "line 1: expected an object, found int"),
    "newer": ('{"kind":"header","schema":2}\n', "has schema 2, this version reads up to 1; upgrade pytest-mlbench"),
    "schema-true": ('{"kind":"header","schema":true}\n', "has schema True"),
    "schema-0": ('{"kind":"header","schema":0}\n', "has schema 0"),
    "schema-text": ('{"kind":"header","schema":"1"}\n', "has schema '1'"),
    "schema-none": ('{"kind":"header"}\n', "has schema None"),
    "deep": (HEADER + "[" * 100_000 + "]" * 100_000 + "\n", "line 2: not JSON"),
    "deep-within-the-stack": (
        HEADER + GOOD[:-2] + ',"target":' + '{"a":' * 300 + "1" + "}" * 300 + "}\n",
        "line 2: not JSON: nested deeper than 40 levels",
    ),
    "huge-number": (HEADER + GOOD[:-2] + ',"wall_s":' + "9" * 400 + "}\n", "wall_s: expected a finite number"),
    "endless-number": (HEADER + GOOD[:-2] + ',"wall_s":' + "9" * 100_000 + "}\n", "line 2: not JSON"),
    "overflow": (HEADER + GOOD[:-2] + ',"wall_s":1e999}\n', "line 2: not JSON: 1e999 is no number of JSON"),
    "nan": (HEADER + GOOD[:-2] + ',"wall_s":NaN}\n', "line 2: not JSON: NaN is no number of JSON"),
    "infinity": (HEADER + GOOD[:-2] + ',"wall_s":-Infinity}\n', "not JSON: -Infinity is no number of JSON"),
    "wrong-type": (HEADER + GOOD.replace('"s/b[a]"', "[]"), "holds a record that is not one: case: expected str"),
    "no-case": (HEADER + '{"kind":"record"}\n', "holds a record that is not one: case is missing"),
    "metrics": (HEADER + GOOD[:-2] + ',"metrics":[3]}\n', r"metrics\[0\]: expected an object, found int"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_a_run_file_error_that_says_why(path, name):
    text, message = HOSTILE[name]
    path.write_text(text, encoding="utf-8")
    with pytest.raises(RunFileError, match=message) as caught:
        runfile.read(path)
    assert str(path) in str(caught.value)
    assert len(str(caught.value)) < 500


def test_a_file_that_is_no_text(path):
    path.write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(RunFileError, match=r"cannot read .*run.jsonl"):
        runfile.read(path)


def test_a_file_that_is_not_there(path):
    with pytest.raises(RunFileError, match=r"cannot read .*run.jsonl"):
        runfile.read(path)


def test_a_folder_without_a_header(path):
    runfile.parts_dir(path).mkdir()
    with pytest.raises(RunFileError, match=r"cannot read .*header.json"):
        runfile.read(path)
