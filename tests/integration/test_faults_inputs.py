"""A file or function a suite names and that is missing, damaged or wrong is an error of its case.

One run holds all of these suites, one case each.
"""

from __future__ import annotations

import io
import re
import sys
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

X = np.ones((4, 3), dtype=np.float32)
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 123\n"
METRICS = """
import numpy as np
from pytest_mlbench.record import Metric

def sound(m): return [Metric("mine.ratio", np.float32(0.5), "", "higher")]
def raises(m): return 1 / 0
def gives_none(m): return None
def gives_text(m): return "fast"
def gives_numbers(m): return [1.5]
def gives_nan(m): return [Metric("mine.ratio", float("nan"), "", "higher")]
def gives_no_reason(m): return [Metric("mine.ratio", None, "", "higher")]
def gives_wrong_direction(m): return [Metric("mine.ratio", 1.0, "", "up")]
def shadows(m): return [Metric("latency.p50", 1.0, "ns", "lower")]
"""
STEPS = """
def raises(batch): raise ValueError("no such colour")
def gives_none(batch): return None
def gives_text(batch): return {"x": ["red"]}
def drops_rows(batch): return {name: array[:1] for name, array in batch.items()}
"""


def message(number: int, *parts: bytes) -> bytes:
    """Return one length-delimited protobuf field."""
    body = b"".join(parts)
    assert len(body) < 128
    return bytes([number << 3 | 2, len(body)]) + body


def onnx(location: str) -> bytes:
    """Return a model of onnx.proto3 whose one weight lies in another file."""
    entry = message(13, message(1, b"location"), message(2, location.encode()))
    return message(7, message(5, entry))


def npz(**arrays: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.savez_compressed(stream, **arrays)
    return stream.getvalue()


def damaged() -> bytes:
    """Return an npz that is a whole zip archive and whose one array's compressed bytes are damaged."""
    data = bytearray(npz(x=np.random.default_rng(0).standard_normal((64, 3)).astype(np.float32)))
    with zipfile.ZipFile(io.BytesIO(bytes(data))) as archive:
        header = archive.infolist()[0]
        begin = header.header_offset + 30 + len(header.filename) + 20
    data[begin + 50 : begin + 90] = b"\xff" * 40
    return bytes(data)


@dataclass(frozen=True)
class Fault:
    """What is wrong with a suite of its own, and what is said of it: a pattern in the record's reason."""

    reason: str
    stage: str = "suite"
    outcome: str = "error"
    framework: str = '"faulty"'
    keys: Mapping[str, str] = field(default_factory=dict)  # of bed.suite()
    files: Mapping[str, bytes] = field(default_factory=dict)
    data: str = "data.npz"


def in_model(reason, name, content=None, **others):
    return Fault(reason, keys={"model": name}, files={} if content is None else {name: content}, **others)


def in_data(reason, content=None, **arrays):
    return Fault(reason, data="d.npz", files={"d.npz": npz(**arrays) if content is None else content})


def in_reference(reason, content=None, **others):
    lines = 'reference = { file = "ref.npz" }\nexpect.equivalence.fp32 = { atol = 1e-3 }'
    return Fault(reason, keys={"benchmark": lines}, files={"ref.npz": content} if content else {}, **others)


def in_steps(reason, key, function, **others):
    return Fault(reason, keys={"benchmark": f'{key} = "{function}"'}, files={"steps.py": STEPS.encode()}, **others)


def in_metric(reason, function, stage="metrics", code=METRICS, **others):
    keys = {"benchmark": f'metrics = ["{function}"]'}
    return Fault(reason, stage, keys=keys, files={"own.py": code.encode()}, **others)


PREPARE = {"stage ": "prepare"}  # the option, not this function's own argument


def in_framework(reason, stage, outcome="error", name="faulty", **options):
    chosen = ", ".join(f'{key} = "{value}"' for key, value in options.items())
    return Fault(reason, stage, outcome, f'{{ name = "{name}", options = {{ {chosen} }} }}')


FAULTS = {
    "missing_model": in_model(r"file \S+/nothing\.json does not exist; make or fetch it", "nothing.json"),
    "empty_model": in_model(r"file \S+/m\.json is empty", "m.json", b""),
    "lfs_pointer": in_model(r"is a Git LFS pointer, not its content; run `git lfs pull`", "m.json", POINTER),
    "truncated_json": in_model(
        r"load: json\.decoder\.JSONDecodeError: Expecting value", "m.json", b'{"weights": [[1.0,', stage="load"
    ),
    "truncated_onnx": in_model(
        r"m\.onnx is truncated or not an ONNX model; export or fetch it again", "m.onnx", onnx("w.bin")[:-3]
    ),
    "not_onnx": in_model(r"m\.onnx is truncated or not an ONNX model", "m.onnx", b"<html>404</html>"),
    "not_tflite": in_model(r"m\.tflite is not a TFLite model", "m.tflite", b"<html>404</html>"),
    "external_leaves": in_model(
        r"keeps weights in '\.\./model\.json', which leaves the suite's folder \S+: move the data beside the model",
        "m.onnx",
        onnx("../model.json"),
    ),
    "external_absolute": in_model(
        r"keeps weights in '/etc/passwd', which leaves the suite's folder", "m.onnx", onnx("/etc/passwd")
    ),
    "external_missing": in_model(r"keeps weights in 'w\.bin', which does not exist", "m.onnx", onnx("w.bin")),
    "missing_data": Fault(r"file \S+/none\.npz does not exist", data="none.npz"),
    "empty_data": in_data(r"file \S+/d\.npz is empty", b""),
    "no_npz": in_data(
        r"d\.npz is damaged or no npz of plain arrays \(.+\); write it again with numpy\.savez", b"x,y\n1,2\n"
    ),
    "damaged_npz": in_data(r"d\.npz is damaged or no npz of plain arrays \((error|BadZipFile): ", damaged()),
    "pickled_npz": in_data(
        r"d\.npz is damaged or no npz of plain arrays \(ValueError: Object arrays", x=np.array([{}])
    ),
    "unequal_npz": in_data(
        r"must share their first dimension, the samples; found x: 4, y: 3", x=X, y=np.zeros(3, np.int64)
    ),
    "text_labels": in_data(
        r"array 'y' of \S+ holds <U1, expected class numbers", x=X, y=np.array(["a", "b", "c", "d"])
    ),
    "other_shape": in_data(
        r"model input 'x' takes \[-1, 3\] float32, one prepared sample is \[5\] float32: change `preprocess`",
        x=np.ones((4, 5), np.float32),
    ),
    "other_type": in_data(
        r"model input 'x' takes float32, the prepared samples are <U1: change `preprocess` \(cast\)",
        x=np.array([["a"] * 3] * 4),
    ),
    "two_arrays": in_data(r"no array for model input 'x' \(array 'x'\); its arrays are 'a', 'b'", a=X, b=X),
    "reshape": Fault(
        r"dataset\.data\.preprocess: array 'x': .*cannot reshape array .*; correct `preprocess` or the data",
        keys={"dataset": "preprocess = [{ reshape = [7] }]"},
    ),
    "hash_mismatch": Fault(
        r"has SHA-256 [0-9a-f]{64}, the suite declares 0{64}: restore the file, or correct `sha256`",
        keys={"dataset": f'sha256 = "{"0" * 64}"'},
    ),
    "no_reference": in_reference(r"file \S+/ref\.npz does not exist"),
    "bad_reference": in_reference(r"ref\.npz is damaged or no npz", b"PK\x03\x04 no"),
    "other_reference": in_reference(r"equivalence.*'y'", npz(z=X, w=X), stage="", outcome="fail"),
    "preprocess_raises": in_steps(r"inputs: ValueError: no such colour", "preprocess", "steps:raises", stage="inputs"),
    "preprocess_missing": in_steps(
        r"steps:rases: module steps has no rases; it has .*raises", "preprocess", "steps:rases", stage="inputs"
    ),
    "preprocess_no_module": in_steps(
        r"inputs: .*No module named 'stepz'", "preprocess", "stepz:raises", stage="inputs"
    ),
    "preprocess_none": in_steps(
        r"dataset\.data: steps:gives_none gave a NoneType, expected a dict of numpy arrays; correct the `preprocess`",
        "preprocess",
        "steps:gives_none",
    ),
    "preprocess_text": in_steps(
        r"steps:gives_text gave 'x' as list, expected a numpy array of numbers", "preprocess", "steps:gives_text"
    ),
    "preprocess_drops": in_steps(
        r"steps:drops_rows gave 'x' with shape \[1, 3\], expected 12 samples first; correct the `preprocess`",
        "preprocess",
        "steps:drops_rows",
    ),
    "postprocess_raises": in_steps(
        r"accuracy: ValueError: no such colour", "postprocess", "steps:raises", stage="accuracy"
    ),
    "postprocess_none": in_steps(
        r"steps:gives_none gave a NoneType, expected a dict of numpy arrays; correct the `postprocess` function",
        "postprocess",
        "steps:gives_none",
    ),
    "metric_sound": in_metric("", "own:sound", stage="", outcome="pass"),
    "metric_raises": in_metric(r"metric function own:raises raised ZeroDivisionError: division by zero", "own:raises"),
    "metric_none": in_metric(
        r"metric function own:gives_none gave a NoneType, expected a list of Metric", "own:gives_none"
    ),
    "metric_text": in_metric(r"metric function own:gives_text gave a str, expected a list of Metric", "own:gives_text"),
    "metric_numbers": in_metric(r"own:gives_numbers gave a float in its list, expected Metric", "own:gives_numbers"),
    "metric_nan": in_metric(
        r"gave mine\.ratio the value nan, expected a finite number, or None with a reason", "own:gives_nan"
    ),
    "metric_no_reason": in_metric(r"gave mine\.ratio without a value, expected the reason", "own:gives_no_reason"),
    "metric_direction": in_metric(
        r"mine\.ratio with direction 'up', expected lower, higher, none", "own:gives_wrong_direction"
    ),
    "metric_shadows": in_metric(
        r"metric function own:shadows gave latency\.p50, which is there already; rename it", "own:shadows"
    ),
    "metric_missing": in_metric(r"unknown function \"riases\"; did you mean \"raises\"\?", "own:riases", stage="suite"),
    "metric_no_module": in_metric(r"'owm:raises': No module named 'owm'", "owm:raises", stage="suite"),
    "metric_no_code": in_metric(
        r"'own:raises': importing it raised ZeroDivisionError: division by zero",
        "own:raises",
        stage="suite",
        code="1 / 0\n",
    ),
    "no_interpreter": Fault(
        r"interpreter \S+/no_interpreter/venv/bin/python for faulty does not exist",
        stage="",
        outcome="skip",
        framework='{ name = "faulty", python = "venv/bin/python" }',
    ),
    "echo_for_python": Fault(
        r"start: cannot start an agent with python=/bin/cat.*; it must be a Python interpreter",
        stage="start",
        framework='{ name = "faulty", python = "/bin/cat" }',
    ),
    "no_python": Fault(
        r"start: (cannot start an agent with python=/bin/false|the agent ended: its connection closed)",
        stage="start",
        framework='{ name = "faulty", python = "/bin/false" }',
    ),
    "absent": Fault(
        r"faulty_absent is not installed: pip install 'mlbench-faulty\[engine\]'",
        stage="",
        outcome="skip",
        framework='"faulty_absent"',
    ),
    "absent_on_target": in_framework(
        r"No module named 'mlbench_faulty_engine': pip install mlbench-faulty",
        stage="",
        outcome="skip",
        fault="no_module",
    ),
    "absent_compiler": in_framework(
        r"No module named 'mlbench_faulty_engine': pip install 'mlbench-faulty\[compiler\]'",
        stage="",
        outcome="skip",
        name="faulty_compiled",
        fault="no_module",
        **PREPARE,
    ),
    "compile_raises": in_framework(
        r"compile: RuntimeError: injected fault", "compile", name="faulty_compiled", fault="raise", **PREPARE
    ),
    "compile_crashes": in_framework(
        r"compile: the agent ended: killed by SIGSEGV", "compile", name="faulty_compiled", fault="segfault", **PREPARE
    ),
    "compile_sound": in_framework("", "", "pass", name="faulty_compiled"),
}


@pytest.fixture(scope="module")
def measured(make_bed):
    bed = make_bed()
    for name, fault in FAULTS.items():
        path = bed.suite(fault.framework, name=name, **fault.keys)
        path.write_text(path.read_text().replace('file = "data.npz"', f'file = "{fault.data}"'))
        for file, content in fault.files.items():
            (path.parent / file).write_bytes(content)
    (bed.project / "suites" / "model.json").write_text("{}")
    return bed.run("-rs")


@pytest.mark.parametrize("name", FAULTS)
def test_a_wrong_input_is_an_error_of_its_case(measured, name):
    fault = FAULTS[name]
    outcome, stage, reason = fault.outcome, fault.stage, fault.reason
    record = next(record for record in measured.run.records if record.case.startswith(f"{name}/"))
    assert (record.outcome, record.stage) == (outcome, stage), record.reason
    assert re.search(reason, record.reason, re.DOTALL), record.reason
    if outcome == "error":
        begin = measured.out.index(f"error({stage}): {record.case}: ")
        part = measured.out[begin : measured.out.find("\n____", begin)]
        assert "pytest_mlbench/" not in part, "a message for people, and no traceback of ours"
    if outcome == "skip":
        shown = re.search(rf"SKIPPED \[1\] suites/{name}/bench_{name}\.toml:\d+: .*", measured.out)
        assert shown, "the line of pytest's summary points at the suite"
        assert re.search(reason, shown[0])


def test_the_whole_run_is_recorded(measured):
    assert [record.case.partition("/")[0] for record in measured.run.records] == sorted(FAULTS)
    assert measured.code == 1  # wrong input is for the user to mend, so it is no infrastructure error (12)
    assert "INTERNALERROR" not in measured.out


def test_a_users_metric_is_kept(measured):
    record = next(record for record in measured.run.records if record.case.startswith("metric_sound/"))
    assert record.metric("mine.ratio").value == 0.5


def test_a_users_function_that_raises_is_shown_with_its_own_lines(measured):
    assert re.search(r'own\.py", line 6, in raises\s+def raises\(m\): return 1 / 0', measured.out)
    assert re.search(r'steps\.py", line 2, in raises', measured.out)


def test_the_interpreter_of_a_case_is_this_one_by_default(measured):
    record = next(record for record in measured.run.records if record.case.startswith("metric_sound/"))
    assert Path(record.target["executable"]) == Path(sys.executable)
