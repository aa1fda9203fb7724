"""Suite files: TOML and its errors, models, data sets, paths; what is accepted and what each refusal says."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_mlbench.errors import AssetError, SuiteError
from pytest_mlbench.frameworks.api import Framework, Option
from pytest_mlbench.spec import DatasetSpec, ModelSpec, Quantize
from pytest_mlbench.suitefile import Known, benchmark_from_table, load_suite, suite_from_tables

THREADS = {"threads": Option(int, "Threads.", minimum=1)}
KNOWN = Known(
    frameworks={
        "onnxruntime": Framework("onnxruntime", "onnx", "a", "onnxruntime", "", options=THREADS),
        "litert": Framework("litert", "tflite", "a", "ai_edge_litert", "", options=THREADS),
    },
    devices=["cpu"],
    scenarios=["single_stream", "offline"],
    metrics={"latency.p99": "ns", "accuracy.top1": ""},
)
DIGEST = "AB" * 32
SUITE = """
mlbench = 1

[[model]]
name = "digits_cnn"
task = "image_classification"
files = { onnx = { fp32 = "models/digits.onnx" }, tflite = { fp32 = "a.tflite", int8 = "b.tflite" } }
quantize = { int8 = { from = "fp32", how = "static_qdq", calibration = "data/calibration.npz" } }
sha256 = { "models/digits.onnx" = "DIGEST", "data/calibration.npz" = "DIGEST" }

[dataset.digits]
file = "data/test.npz"
preprocess = [{ scale = 0.0625 }, { reshape = [1, 8, 8] }]

[[benchmark]]
name = "classify"
model = ["digits_cnn"]
framework = ["onnxruntime", "litert"]
precision = ["fp32", "int8"]
dataset = "digits"
""".replace("DIGEST", DIGEST)


@pytest.fixture
def file(tmp_path):
    """Return a function that writes a suite and returns its path."""

    def write(text=SUITE, name="bench_digits.toml"):
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return write


def message_of(call, *args):
    with pytest.raises(SuiteError) as caught:
        call(*args)
    return str(caught.value)


def tables(model=None, dataset=None, **top):
    """Return a Python suite with one model and one data set, changed as asked."""
    made = {"mlbench": 1, "model": [{"name": "m", "files": {"onnx": {"fp32": "m.onnx"}}, **(model or {})}]}
    if dataset is not None:
        made["dataset"] = {"d": dataset}
    return {**made, **top}


def parse(made, path=Path("/suites/bench_x.py")):
    return suite_from_tables(made, path, KNOWN)


def test_a_whole_suite_is_read(file, tmp_path):
    suite = load_suite(file(), KNOWN)
    assert (suite.name, suite.path) == ("digits", tmp_path / "bench_digits.toml")
    assert suite.models == {
        "digits_cnn": ModelSpec(
            name="digits_cnn",
            task="image_classification",
            files={
                "onnx": {"fp32": tmp_path / "models/digits.onnx"},
                "tflite": {"fp32": tmp_path / "a.tflite", "int8": tmp_path / "b.tflite"},
            },
            quantize={"int8": Quantize("fp32", "static_qdq", tmp_path / "data/calibration.npz", True)},
            sha256={
                str(tmp_path / "models/digits.onnx"): DIGEST.lower(),
                str(tmp_path / "data/calibration.npz"): DIGEST.lower(),
            },
        )
    }
    steps = ({"scale": 0.0625}, {"reshape": (1, 8, 8)})
    assert suite.datasets == {
        "digits": DatasetSpec(name="digits", file=tmp_path / "data/test.npz", preprocess={"*": steps})
    }
    assert [benchmark.name for benchmark in suite.benchmarks] == ["classify"]


def test_parsing_opens_no_file_of_the_suite(file, tmp_path):
    load_suite(file(), KNOWN)
    assert [path.name for path in tmp_path.iterdir()] == ["bench_digits.toml"]


@pytest.mark.parametrize(
    ("top", "name"),
    [("mlbench = 1", "digits"), ('mlbench = 1\nname = "own-name"', "own-name")],
)
def test_the_name_is_given_or_comes_from_the_file(file, top, name):
    assert load_suite(file(SUITE.replace("mlbench = 1", top)), KNOWN).name == name


def test_a_relative_path_is_made_absolute(file, tmp_path, monkeypatch):
    file()
    monkeypatch.chdir(tmp_path)
    suite = load_suite(Path("bench_digits.toml"), KNOWN)
    assert suite.path == tmp_path / "bench_digits.toml"
    assert suite.models["digits_cnn"].files["onnx"]["fp32"] == tmp_path / "models/digits.onnx"


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ('mlbench = 1\n[[model]\nname = "a"', ["malformed TOML", "line 2, column 8"]),
        ("mlbench = 1\nmlbench = 1", ["malformed TOML", "line 2"]),
        ('mlbench = 1\nname = "a', ["malformed TOML", "line 2", "column 10"]),
        ("mlbench = 1\nname = [", ["malformed TOML", "line 2", "column 9"]),
    ],
)
def test_malformed_toml_gives_file_line_and_column(file, text, parts):
    message = message_of(load_suite, file(text), KNOWN)
    assert "bench_digits.toml" in message
    for part in parts:
        assert part in message


def test_a_file_that_is_no_utf8_gives_the_line(tmp_path):
    path = tmp_path / "bench_a.toml"
    path.write_bytes(b'mlbench = 1\nname = "\xff"\n')
    message = message_of(load_suite, path, KNOWN)
    assert "bench_a.toml: is not UTF-8 text" in message
    assert "line 2" in message


def test_a_missing_file_is_a_suite_error(tmp_path):
    assert "cannot be read: No such file" in message_of(load_suite, tmp_path / "bench_no.toml", KNOWN)


@pytest.mark.parametrize(
    ("old", "new", "parts"),
    [
        ("mlbench = 1", "", ['the key "mlbench" is missing', "mlbench = 1"]),
        ("mlbench = 1", "mlbench = 2", ["mlbench: suite schema 2 is not known", "reads 1"]),
        ("mlbench = 1", "mlbench = true", ["mlbench: expected a whole number, found true"]),
        (
            "mlbench = 1",
            "mlbench = 1\nmodels = 1",
            ["models: unknown key", 'did you mean "model"?', "benchmark"],
        ),
        ("mlbench = 1", 'mlbench = 1\nname = "a/b"', ["name:", "may hold only letters"]),
        ("[[model]]", "[model]", ["model: expected a list of tables", "write [[model]], not [model]"]),
        ("[[benchmark]]", "[benchmark]", ["write [[benchmark]], not [benchmark]"]),
        ("files = {", "fils = {", ["model[0].fils: unknown key", 'did you mean "files"?', "quantize"]),
        ('name = "digits_cnn"', "name = 3", ["model[0].name: expected a string, found 3 (a whole number)"]),
        ('name = "digits_cnn"', 'name = "digits-cnn"', ["model[0].name:", "letters, digits"]),
        ('name = "digits_cnn"', "", ['model[0]: the key "name" is missing']),
        ("onnx = {", "onxx = {", ["model[0].files.onxx: unknown format", 'did you mean "onnx"?']),
        ("{ fp32 = ", "{ f32 = ", ["model[0].files.onnx.f32: unknown precision", 'did you mean "fp32"?']),
        (
            'from = "fp32"',
            'from = "fp64"',
            ["quantize.int8.from", "has no fp64 to make int8 from (it has fp32)"],
        ),
        ('from = "fp32"', 'from = "fp23"', ["quantize.int8.from: unknown precision", 'did you mean "fp32"?']),
        ("static_qdq", "static", ["quantize.int8.how: unknown way", 'did you mean "static_qdq"?']),
        ("static_qdq", "float16", ["quantize.int8.how", '"float16" makes fp16, not int8']),
        (', calibration = "data/calibration.npz"', "", ['quantize.int8: the key "calibration" is missing']),
        (
            '"models/digits.onnx" = "',
            '"models/digit.onnx" = "',
            ["unknown file", 'did you mean "models/digits.onnx"?'],
        ),
        (DIGEST, "abc", ['sha256."models/digits.onnx": expected 64 hexadecimal digits']),
        (
            '"data/test.npz"',
            '["data/test.npz"]',
            ["dataset.digits.file: expected a string, found a list of 1"],
        ),
        ("[dataset.digits]", "[dataset.digits-0]", ["dataset.digits-0:", "letters, digits"]),
    ],
)
def test_a_refusal_names_file_key_path_and_remedy(file, old, new, parts):
    assert old in SUITE
    message = message_of(load_suite, file(SUITE.replace(old, new, 1)), KNOWN)
    assert "bench_digits.toml: " in message
    for part in parts:
        assert part in message


def test_a_suite_without_a_benchmark_measures_nothing(file):
    text = SUITE[: SUITE.index("[[benchmark]]")]
    assert "holds no [[benchmark]]" in message_of(load_suite, file(text), KNOWN)


@pytest.mark.parametrize(("what", "key"), [("model", "model[1].name"), ("benchmark", "benchmark[1].name")])
def test_a_name_given_twice_is_refused(file, what, key):
    start = SUITE.index(f"[[{what}]]")
    end = SUITE.index("[dataset") if what == "model" else len(SUITE)
    message = message_of(load_suite, file(SUITE + SUITE[start:end]), KNOWN)
    assert f"{key}: {what} " in message
    assert "is given twice" in message


class TestModels:
    def test_a_model_can_be_built_and_made_in_other_precisions(self):
        model = {
            "name": "net",
            "build": "nets:make.big",
            "seed": 3,
            "quantize": {"fp16": {"from": "fp32", "how": "float16"}},
        }
        suite = parse({"mlbench": 1, "model": [model]})
        assert suite.models["net"] == ModelSpec(
            "net", build="nets:make.big", seed=3, quantize={"fp16": Quantize("fp32", "float16")}
        )

    @pytest.mark.parametrize(
        ("change", "parts"),
        [
            ({"files": None}, ["model[0]:", 'neither "files" nor "build"']),
            ({"files": {"onnx": {}}}, ['neither "files" nor "build"']),
            ({"build": "nets:make"}, ["model[0].build", "fp32 ONNX file", "keep one"]),
            ({"files": None, "build": "nets.make"}, ["model[0].build", '"module:function"']),
            ({"seed": 1}, ["model[0].seed", '"build", which is not set']),
            ({"files": None, "build": "a:b", "seed": -1}, ["model[0].seed: must be at least 0"]),
            (
                {"quantize": {"fp32": {"from": "fp32", "how": "float16"}}},
                ["quantize.fp32", "gives fp32 already"],
            ),
            (
                {"quantize": {"fp16": {"from": "fp32", "how": "float16", "calibration": "c.npz"}}},
                ["calibration", "needs no calibration"],
            ),
            (
                {"quantize": {"fp16": {"how": "float16"}}},
                ['model[0].quantize.fp16: the key "from" is missing'],
            ),
            (
                {"quantize": {"fp16": {"from": 16, "how": "float16"}}},
                ["quantize.fp16.from: expected a string, found 16"],
            ),
            (
                {"quantize": {"fp16": {"from": "fp32", "how": "float16", "per_channel": "no"}}},
                ['per_channel: expected true or false, found "no"'],
            ),
            ({"task": ""}, ["model[0].task: expected a string that is not empty"]),
        ],
    )
    def test_a_model_that_cannot_work_is_refused(self, change, parts):
        message = message_of(parse, tables(model=change))
        for part in parts:
            assert part in message


class TestPaths:
    @pytest.mark.parametrize(
        ("path", "part"),
        [
            ("/etc/passwd", "must be relative to the folder of the suite"),
            ("~/m.onnx", "must be relative to the folder of the suite"),
            ("../m.onnx", "is outside the folder of the suite"),
            ("models/../../m.onnx", "is outside the folder of the suite"),
            (".", "is outside the folder of the suite"),
            ("a\0b", "is no usable path"),
        ],
    )
    def test_a_path_that_leaves_the_folder_is_an_asset_error(self, path, part, tmp_path):
        made = tables(model={"files": {"onnx": {"fp32": path}}})
        with pytest.raises(AssetError) as caught:
            parse(made, tmp_path / "bench_x.py")
        assert part in str(caught.value)
        assert "model[0].files.onnx.fp32" in str(caught.value)

    @pytest.mark.skipif(sys.platform == "win32", reason="symbolic links need a privilege on Windows")
    def test_a_link_that_leaves_the_folder_is_an_asset_error(self, tmp_path):
        (tmp_path / "suite").mkdir()
        (tmp_path / "secret.onnx").write_bytes(b"x")
        (tmp_path / "suite/m.onnx").symlink_to(tmp_path / "secret.onnx")
        with pytest.raises(AssetError, match="outside"):
            parse(tables(), tmp_path / "suite/bench_x.py")

    @pytest.mark.skipif(sys.platform == "win32", reason="symbolic links need a privilege on Windows")
    def test_a_suite_below_a_linked_folder_keeps_the_name_it_was_given(self, tmp_path):
        (tmp_path / "real").mkdir()
        (tmp_path / "link").symlink_to(tmp_path / "real")
        suite = parse(tables(), tmp_path / "link/bench_x.py")
        assert suite.models["m"].files["onnx"]["fp32"] == tmp_path / "link/m.onnx"

    def test_dots_that_stay_inside_are_taken_out(self, tmp_path):
        suite = parse(tables(model={"files": {"onnx": {"fp32": "a/../m.onnx"}}}), tmp_path / "bench_x.py")
        assert suite.models["m"].files["onnx"]["fp32"] == tmp_path / "m.onnx"

    def test_a_python_suite_may_use_paths_tuples_and_none(self, tmp_path):
        made = tables(
            model={"files": {"onnx": {"fp32": Path("models") / "m.onnx"}}, "task": None},
            dataset={"file": Path("d.npz"), "preprocess": ({"reshape": (1, 8)},), "count": None},
        )
        suite = parse(made, tmp_path / "bench_x.py")
        assert suite.models["m"].files["onnx"]["fp32"] == tmp_path / "models/m.onnx"
        assert suite.datasets["d"].preprocess == {"*": ({"reshape": (1, 8)},)}


class TestDatasets:
    def test_every_key_of_stored_data(self, tmp_path):
        made = {
            "file": "d.npz",
            "sha256": DIGEST,
            "labels": "truth",
            "inputs": {"image": "x"},
            "preprocess": {"onnx": [{"offset": -0.5}], "*": []},
            "count": 10,
            "inputs_sha256": {"onnx": DIGEST},
        }
        assert parse(tables(dataset=made), tmp_path / "bench_x.py").datasets["d"] == DatasetSpec(
            name="d",
            file=tmp_path / "d.npz",
            sha256=DIGEST.lower(),
            labels="truth",
            inputs={"image": "x"},
            preprocess={"onnx": ({"offset": -0.5},), "*": ()},
            count=10,
            inputs_sha256={"onnx": DIGEST.lower()},
        )

    def test_every_key_of_generated_data(self):
        made = {
            "generate": "integers",
            "count": 4,
            "seed": 7,
            "shapes": {"ids": [16]},
            "high": 30,
            "inputs_sha256": DIGEST,
        }
        assert parse(tables(dataset=made)).datasets["d"] == DatasetSpec(
            name="d",
            generate="integers",
            count=4,
            seed=7,
            shapes={"ids": (16,)},
            high=30,
            inputs_sha256={"*": DIGEST.lower()},
        )

    @pytest.mark.parametrize(
        ("step", "parsed"),
        [
            ({"scale": 2}, {"scale": 2.0}),
            ({"offset": -1}, {"offset": -1.0}),
            (
                {"normalize": {"mean": [1, 2], "std": [3, 4.5]}},
                {"normalize": {"mean": (1, 2), "std": (3, 4.5)}},
            ),
            ({"reshape": [-1, 8]}, {"reshape": (-1, 8)}),
            ({"reshape": []}, {"reshape": ()}),
            ({"transpose": [2, 0, 1]}, {"transpose": (2, 0, 1)}),
            ({"cast": "float32"}, {"cast": "float32"}),
            ({"clip": [0, 1]}, {"clip": (0, 1)}),
        ],
    )
    def test_each_step_is_read(self, step, parsed):
        suite = parse(tables(dataset={"file": "d.npz", "preprocess": [step]}))
        assert suite.datasets["d"].preprocess == {"*": (parsed,)}

    @pytest.mark.parametrize(
        ("step", "parts"),
        [
            ({"scal": 2}, ["preprocess[0].scal: unknown key", 'did you mean "scale"?']),
            ({"scale": 2, "offset": 1}, ["preprocess[0]: expected one step", "in a table of its own"]),
            ({}, ["preprocess[0]: expected one step"]),
            ("scale", ['preprocess[0]: expected a table, found "scale" (a string)']),
            ({"scale": 0}, ["preprocess[0].scale: a scale of 0"]),
            ({"scale": float("nan")}, ["preprocess[0].scale: expected a finite number"]),
            ({"offset": "1"}, ['preprocess[0].offset: expected a number, found "1"']),
            ({"normalize": {"mean": [1], "std": [1, 2]}}, ["equally long, found 1 and 2"]),
            ({"normalize": {"mean": [], "std": []}}, ["equally long, found 0 and 0"]),
            ({"normalize": {"mean": [1], "std": [0]}}, ["normalize.std[0]: must be above 0"]),
            ({"normalize": {"mean": [1]}}, ['normalize: the key "std" is missing']),
            ({"reshape": [-1, -1]}, ["reshape: [-1, -1] is no shape"]),
            ({"reshape": [0]}, ["reshape: [0] is no shape"]),
            ({"reshape": [-2]}, ["reshape[0]: must be at least -1"]),
            ({"reshape": 8}, ["reshape: expected a list of whole numbers, found 8"]),
            ({"transpose": [0, 2]}, ["transpose: [0, 2] is no order"]),
            ({"cast": "float"}, ["cast: unknown type", "did you mean"]),
            ({"clip": [1, 0]}, ["clip: expected [lowest, highest]"]),
            ({"clip": [1]}, ["clip: expected [lowest, highest]"]),
        ],
    )
    def test_a_step_that_cannot_work_is_refused(self, step, parts):
        message = message_of(parse, tables(dataset={"file": "d.npz", "preprocess": [step]}))
        assert "dataset.d.preprocess[0]" in message
        for part in parts:
            assert part in message

    @pytest.mark.parametrize(
        ("made", "parts"),
        [
            ({}, ["dataset.d: write either file"]),
            ({"file": "d.npz", "generate": "normal", "count": 1}, ["dataset.d: write either file"]),
            ({"generate": "normal"}, ['dataset.d: the key "count" is missing']),
            ({"generate": "norml", "count": 1}, ["unknown generator", 'did you mean "normal"?']),
            ({"generate": "normal", "count": 0}, ["count: must be at least 1"]),
            ({"generate": "normal", "count": 1, "labels": "y"}, ['labels: goes with "file"']),
            ({"file": "d.npz", "seed": 1}, ['seed: goes with "generate"']),
            ({"file": "d.npz", "shapes": {"x": [1]}}, ['shapes: goes with "generate"']),
            ({"generate": "normal", "count": 1, "shapes": {"x": [0]}}, ["shapes.x[0]: must be at least 1"]),
            ({"generate": "integers", "count": 1, "high": 0}, ["high: must be at least 1"]),
            ({"file": "d.npz", "preprocess": {"onxx": []}}, ["unknown format", 'did you mean "onnx"?']),
            ({"file": "d.npz", "inputs_sha256": 3}, ["inputs_sha256: expected a table, found 3"]),
            ({"file": "d.npz", "input": {}}, ["dataset.d.input: unknown key", 'did you mean "inputs"?']),
            ({"file": "../d.npz"}, ["dataset.d.file", "outside the folder"]),
        ],
    )
    def test_a_data_set_that_cannot_work_is_refused(self, made, parts):
        message = message_of(parse, tables(dataset=made))
        for part in parts:
            assert part in message


class TestPythonSuites:
    def test_a_benchmark_is_read_from_keyword_arguments(self):
        suite = parse(tables())
        benchmark = benchmark_from_table(
            {"model": ["m"], "framework": ("onnxruntime",), "precision": ["fp32"], "reference": None},
            "classify",
            suite,
            KNOWN,
        )
        assert (benchmark.name, benchmark.device, benchmark.reference) == ("classify", ("cpu",), None)
        assert benchmark.framework[0].id == "onnxruntime"

    def test_messages_begin_with_the_name_of_the_benchmark(self):
        made = {"model": ["m"], "framework": ["onnxruntime"], "precisions": ["fp32"]}
        message = message_of(benchmark_from_table, made, "classify", parse(tables()), KNOWN)
        assert "bench_x.py: classify.precisions: unknown key" in message
        assert 'did you mean "precision"?' in message

    def test_the_name_of_the_test_is_the_only_name(self):
        made = {"name": "other", "model": ["m"], "framework": ["onnxruntime"], "precision": ["fp32"]}
        message = message_of(benchmark_from_table, made, "classify", parse(tables()), KNOWN)
        assert "classify.name: unknown key" in message

    def test_keys_that_are_no_strings_are_refused(self):
        assert "expected strings as keys, found 1" in message_of(parse, tables(dataset={1: 2}))


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.floats() | st.sampled_from(["", "m", "fp32", "a:b", "<= 1"]),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["name", "onnx", "fp32", "*"]), inner, max_size=2)
    ),
    max_leaves=5,
)


@given(
    model=st.dictionaries(st.sampled_from(["name", "files", "quantize", "sha256", "build", "seed"]), _VALUES),
    dataset=st.dictionaries(st.sampled_from(["file", "generate", "count", "preprocess", "shapes"]), _VALUES),
)
def test_whatever_the_values_are_the_error_is_ours(model, dataset):
    # Any other exception than SuiteError fails this test.
    with contextlib.suppress(SuiteError):
        parse({"mlbench": 1, "model": [model], "dataset": {"d": dataset}})
