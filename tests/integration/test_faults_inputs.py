"""A file or function a suite names and that is missing, damaged or wrong is an error of its case.

One run holds all of these suites, one case each.
"""

from __future__ import annotations

import io
import re
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

X = np.ones((4, 3), dtype=np.float32)
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 123\n"
CODE = """
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
TARGET_CODE = """
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


# suite -> its own keys of bed.suite(), files it has besides, outcome, stage, what the reason says
FAULTS = {
    "missing_model": ({"model": "nothing.json"}, {}, "error", "suite", r"file \S+/nothing\.json does not exist; make or fetch it"),
    "empty_model": ({"model": "m.json"}, {"m.json": b""}, "error", "suite", r"file \S+/m\.json is empty"),
    "lfs_pointer": ({"model": "m.json"}, {"m.json": POINTER.encode()}, "error", "suite", r"is a Git LFS pointer, not its content; run `git lfs pull`"),
    "truncated_json": ({"model": "m.json"}, {"m.json": b'{"weights": [[1.0,'}, "error", "load", r"load: json\.decoder\.JSONDecodeError: Expecting value"),
    "truncated_onnx": ({"model": "m.onnx"}, {"m.onnx": onnx("w.bin")[:-3]}, "error", "suite", r"m\.onnx is truncated or not an ONNX model; export or fetch it again"),
    "not_onnx": ({"model": "m.onnx"}, {"m.onnx": b"<html>404</html>"}, "error", "suite", r"m\.onnx is truncated or not an ONNX model"),
    "not_tflite": ({"model": "m.tflite"}, {"m.tflite": b"<html>404</html>"}, "error", "suite", r"m\.tflite is not a TFLite model"),
    "external_leaves": ({"model": "m.onnx"}, {"m.onnx": onnx("../model.json")}, "error", "suite", r"keeps weights in '\.\./model\.json', which leaves the suite's folder \S+: move the data beside the model"),
    "external_absolute": ({"model": "m.onnx"}, {"m.onnx": onnx("/etc/passwd")}, "error", "suite", r"keeps weights in '/etc/passwd', which leaves the suite's folder"),
    "external_missing": ({"model": "m.onnx"}, {"m.onnx": onnx("w.bin")}, "error", "suite", r"keeps weights in 'w\.bin', which does not exist"),
    "missing_data": ({"data": "none.npz"}, {}, "error", "suite", r"file \S+/none\.npz does not exist"),
    "no_npz": ({"data": "d.npz"}, {"d.npz": b"x,y\n1,2\n"}, "error", "suite", r"d\.npz is damaged or no npz of plain arrays \(.+\); write it again with numpy\.savez"),
    "damaged_npz": ({"data": "d.npz"}, {"d.npz": damaged()}, "error", "suite", r"d\.npz is damaged or no npz of plain arrays \((error|BadZipFile): "),
    "pickled_npz": ({"data": "d.npz"}, {"d.npz": npz(x=np.array([{}]))}, "error", "suite", r"d\.npz is damaged or no npz of plain arrays \(ValueError: Object arrays"),
    "unequal_npz": ({"data": "d.npz"}, {"d.npz": npz(x=X, y=np.zeros(3, np.int64))}, "error", "suite", r"must share their first dimension, the samples; found x: 4, y: 3"),
    "text_labels": ({"data": "d.npz"}, {"d.npz": npz(x=X, y=np.array(list("abcd")))}, "error", "suite", r"array 'y' of \S+ holds <U1, expected class numbers"),
    "other_shape": ({"data": "d.npz"}, {"d.npz": npz(x=np.ones((4, 5), np.float32))}, "error", "suite", r"model input 'x' takes \[-1, 3\] float32, one prepared sample is \[5\] float32: change `preprocess`"),
    "other_type": ({"data": "d.npz"}, {"d.npz": npz(x=np.array([["a"] * 3] * 4))}, "error", "suite", r"model input 'x' takes float32, the prepared samples are <U1: change `preprocess` \(cast\)"),
    "two_arrays": ({"data": "d.npz"}, {"d.npz": npz(a=X, b=X)}, "error", "suite", r"no array for model input 'x' \(array 'x'\); its arrays are 'a', 'b'"),
    "reshape": ({"dataset": "preprocess = [{ reshape = [7] }]"}, {}, "error", "suite", r"dataset\.data\.preprocess: array 'x': .*cannot reshape array of size 3 into shape \(1,7\); correct `preprocess` or the data"),
    "hash_mismatch": ({"dataset": f'sha256 = "{"0" * 64}"'}, {}, "error", "suite", r"has SHA-256 [0-9a-f]{64}, the suite declares 0{64}: restore the file, or correct `sha256`"),
    "no_reference": ({"benchmark": 'reference = { file = "ref.npz" }\nexpect.equivalence.fp32 = { atol = 1e-3 }'}, {}, "error", "suite", r"file \S+/ref\.npz does not exist"),
    "bad_reference": ({"benchmark": 'reference = { file = "ref.npz" }\nexpect.equivalence.fp32 = { atol = 1e-3 }'}, {"ref.npz": b"PK\x03\x04 no"}, "error", "suite", r"ref\.npz is damaged or no npz"),
    "other_reference": ({"benchmark": 'reference = { file = "ref.npz" }\nexpect.equivalence.fp32 = { atol = 1e-3 }'}, {"ref.npz": npz(z=X, w=X)}, "fail", "", r"equivalence.*: .*'?z'?"),
    "preprocess_raises": ({"benchmark": 'preprocess = "steps:raises"'}, {"steps.py": TARGET_CODE.encode()}, "error", "inputs", r"inputs: ValueError: no such colour"),
    "preprocess_missing": ({"benchmark": 'preprocess = "steps:rases"'}, {"steps.py": TARGET_CODE.encode()}, "error", "inputs", r"steps:rases: module steps has no rases; it has .*raises"),
    "preprocess_no_module": ({"benchmark": 'preprocess = "stepz:raises"'}, {}, "error", "inputs", r"inputs: .*No module named 'stepz'"),
    "preprocess_none": ({"benchmark": 'preprocess = "steps:gives_none"'}, {"steps.py": TARGET_CODE.encode()}, "error", "suite", r"bench_preprocess_none\.toml: dataset\.data: steps:gives_none gave a NoneType, expected a dict of numpy arrays; correct the `preprocess` function"),
    "preprocess_drops": ({"benchmark": 'preprocess = "steps:drops_rows"'}, {"steps.py": TARGET_CODE.encode()}, "error", "suite", r"steps:drops_rows gave 'x' with shape \[1, 3\], expected 12 samples first; correct the `preprocess`"),
    "preprocess_text": ({"benchmark": 'preprocess = "steps:gives_text"'}, {"steps.py": TARGET_CODE.encode()}, "error", "suite", r"steps:gives_text gave 'x' as list, expected a numpy array of numbers"),
    "postprocess_raises": ({"benchmark": 'postprocess = "steps:raises"'}, {"steps.py": TARGET_CODE.encode()}, "error", "accuracy", r"accuracy: ValueError: no such colour"),
    "postprocess_none": ({"benchmark": 'postprocess = "steps:gives_none"'}, {"steps.py": TARGET_CODE.encode()}, "error", "suite", r"steps:gives_none gave a NoneType, expected a dict of numpy arrays; correct the `postprocess` function"),
    "metric_sound": ({"benchmark": 'metrics = ["own:sound"]'}, {"own.py": CODE.encode()}, "pass", "", ""),
    "metric_raises": ({"benchmark": 'metrics = ["own:raises"]'}, {"own.py": CODE.encode()}, "error", "metrics", r"metric function own:raises raised ZeroDivisionError: division by zero"),
    "metric_none": ({"benchmark": 'metrics = ["own:gives_none"]'}, {"own.py": CODE.encode()}, "error", "metrics", r"metric function own:gives_none gave a NoneType, expected a list of Metric"),
    "metric_text": ({"benchmark": 'metrics = ["own:gives_text"]'}, {"own.py": CODE.encode()}, "error", "metrics", r"metric function own:gives_text gave a str, expected a list of Metric"),
    "metric_numbers": ({"benchmark": 'metrics = ["own:gives_numbers"]'}, {"own.py": CODE.encode()}, "error", "metrics", r"metric function own:gives_numbers gave a float in its list, expected Metric"),
    "metric_nan": ({"benchmark": 'metrics = ["own:gives_nan"]'}, {"own.py": CODE.encode()}, "error", "metrics", r"gave mine\.ratio the value nan, expected a finite number, or None with a reason"),
    "metric_no_reason": ({"benchmark": 'metrics = ["own:gives_no_reason"]'}, {"own.py": CODE.encode()}, "error", "metrics", r"gave mine\.ratio without a value, expected the reason"),
    "metric_direction": ({"benchmark": 'metrics = ["own:gives_wrong_direction"]'}, {"own.py": CODE.encode()}, "error", "metrics", r"mine\.ratio with direction 'up', expected lower, higher, none"),
    "metric_shadows": ({"benchmark": 'metrics = ["own:shadows"]'}, {"own.py": CODE.encode()}, "error", "metrics", r"metric function own:shadows gave latency\.p50, which is there already; rename it"),
    "metric_missing": ({"benchmark": 'metrics = ["own:riases"]'}, {"own.py": CODE.encode()}, "error", "suite", r"unknown function \"riases\"; did you mean \"raises\"\?"),
    "metric_no_module": ({"benchmark": 'metrics = ["owm:raises"]'}, {}, "error", "suite", r"'owm:raises': No module named 'owm'"),
    "metric_no_code": ({"benchmark": 'metrics = ["own:raises"]'}, {"own.py": b"1 / 0\n"}, "error", "suite", r"'own:raises': importing it raised ZeroDivisionError: division by zero"),
    "no_interpreter": ({"framework": '{ name = "faulty", python = "venv/bin/python" }'}, {}, "skip", "", r"interpreter \S+/no_interpreter/venv/bin/python for faulty does not exist"),
    "no_python": ({"framework": '{ name = "faulty", python = "/bin/false" }'}, {}, "error", "start", r"start: cannot start an agent with python=/bin/false"),
    "absent": ({"framework": '"faulty_absent"'}, {}, "skip", "", r"faulty_absent is not installed: pip install 'mlbench-faulty\[engine\]'"),
    "absent_on_target": ({"framework": '{ name = "faulty", options = { fault = "no_module", stage = "load" } }'}, {}, "skip", "", r"No module named 'mlbench_faulty_engine': pip install mlbench-faulty"),
    "absent_compiler": ({"framework": '{ name = "faulty_compiled", options = { fault = "no_module", stage = "prepare" } }'}, {}, "skip", "", r"No module named 'mlbench_faulty_engine': pip install 'mlbench-faulty\[compiler\]'"),
    "compile_raises": ({"framework": '{ name = "faulty_compiled", options = { fault = "raise", stage = "prepare" } }'}, {}, "error", "compile", r"compile: RuntimeError: injected fault"),
    "compile_crashes": ({"framework": '{ name = "faulty_compiled", options = { fault = "segfault", stage = "prepare" } }'}, {}, "error", "compile", r"compile: the agent ended: killed by SIGSEGV"),
    "compile_sound": ({"framework": '"faulty_compiled"'}, {}, "pass", "", ""),
}  # fmt: skip


@pytest.fixture(scope="module")
def measured(make_bed):
    bed = make_bed()
    for name, (keys, files, *_) in FAULTS.items():
        keys = dict(keys)
        data, framework = keys.pop("data", "data.npz"), keys.pop("framework", '"faulty"')
        path = bed.suite(framework, name=name, **keys)
        path.write_text(path.read_text().replace('file = "data.npz"', f'file = "{data}"'))
        for file, content in files.items():
            (path.parent / file).write_bytes(content)
    (bed.project / "suites" / "model.json").write_text("{}")
    return bed.run("-rs")


@pytest.mark.parametrize("name", FAULTS)
def test_a_wrong_input_is_an_error_of_its_case(measured, name):
    *_, outcome, stage, reason = FAULTS[name]
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
