"""The digits suite: its files are the ones declared, the split is clean, and each model classifies."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

SUITE = Path(__file__).parents[2] / "suites" / "digits"
TFLITE = {"fp32": "digits.tflite", "fp16": "digits_fp16.tflite", "int8": "digits_int8.tflite"}


@pytest.fixture(scope="module")
def test_set():
    with np.load(SUITE / "data/test.npz", allow_pickle=False) as archive:
        return archive["x"], archive["y"]


@pytest.fixture(scope="module")
def images(test_set):
    return (test_set[0].astype(np.float32) * np.float32(0.0625)).reshape(-1, 1, 8, 8)


@pytest.fixture(scope="module")
def calibration():
    with np.load(SUITE / "data/calibration.npz", allow_pickle=False) as archive:
        return dict(archive)


@pytest.fixture(scope="module")
def onnx_logits(images):
    runtime = pytest.importorskip("onnxruntime")
    session = runtime.InferenceSession(SUITE / "models/digits.onnx", providers=["CPUExecutionProvider"])
    return session.run(["logits"], {"image": images})[0]


def tflite_logits(images, name):
    """Run a TFLite file on all images at once, quantising and dequantising as its input and output say."""
    interpreter = pytest.importorskip("ai_edge_litert.interpreter")
    runner = interpreter.Interpreter(str(SUITE / "models" / name), num_threads=1)
    ((source,), (sink,)) = runner.get_input_details(), runner.get_output_details()
    assert list(source["shape_signature"]) == [-1, 1, 8, 8]
    runner.resize_tensor_input(source["index"], images.shape)
    runner.allocate_tensors()
    if source["dtype"] == np.int8:
        scale, zero = source["quantization"]
        images = np.clip(np.round(images / scale) + zero, -128, 127).astype(np.int8)
    runner.set_tensor(source["index"], images)
    runner.invoke()
    logits = runner.get_tensor(sink["index"])
    assert logits.dtype == source["dtype"]
    if logits.dtype == np.int8:
        scale, zero = sink["quantization"]
        logits = (logits.astype(np.float32) - zero) * np.float32(scale)
    return logits


def sums():
    lines = (SUITE / "SHA256SUMS").read_text(encoding="ascii").splitlines()
    return {name: digest for digest, name in (line.split("  ") for line in lines)}


def test_every_file_has_the_declared_hash():
    committed = {
        path.relative_to(SUITE).as_posix() for folder in ("data", "models") for path in (SUITE / folder).glob("*.*")
    }
    assert set(sums()) == committed
    for name, digest in sums().items():
        assert hashlib.sha256((SUITE / name).read_bytes()).hexdigest() == digest, name


def test_the_suite_declares_the_same_hashes():
    suite = tomllib.loads((SUITE / "bench_digits.toml").read_text(encoding="utf-8"))
    dataset = suite["dataset"]["digits"]
    (model,) = suite["model"]
    assert {**model["sha256"], dataset["file"]: dataset["sha256"]} == sums()


def test_files_stay_small():
    assert all((SUITE / name).stat().st_size < 100_000 for name in sums())


def test_the_readme_names_licence_source_and_change():
    text = (SUITE / "README.md").read_text(encoding="utf-8")
    for words in ("CC BY 4.0", "E. Alpaydin", "C. Kaynak", "10.24432/C50P49", "BSD-3-Clause", "Changes:"):
        assert words in text


def test_the_test_set_is_360_labelled_images(test_set):
    x, y = test_set
    assert (x.dtype, x.shape, x.min(), x.max()) == (np.uint8, (360, 8, 8), 0, 16)
    assert (y.dtype, y.shape) == (np.int64, (360,))


def test_the_test_set_is_stratified(test_set):
    counts = np.bincount(test_set[1], minlength=10)
    assert counts.min() >= 35
    assert counts.max() <= 37


def test_calibration_samples_are_as_a_model_sees_them(calibration):
    assert list(calibration) == ["image"]
    image = calibration["image"]
    assert (image.dtype, image.shape) == (np.float32, (128, 1, 8, 8))
    assert (image.min(), image.max()) == (0.0, 1.0)
    assert len(np.unique(image.reshape(128, -1), axis=0)) == 128


def test_calibration_holds_no_test_sample(calibration, images):
    seen = {sample.tobytes() for sample in calibration["image"]}
    assert not any(sample.tobytes() in seen for sample in images)


def test_the_split_is_the_one_the_readme_tells(test_set, calibration):
    """Draw it again from the source: the rest, trained on, shares no sample with the test set."""
    datasets = pytest.importorskip("sklearn.datasets")
    selection = pytest.importorskip("sklearn.model_selection")
    digits = datasets.load_digits()
    x, y = digits.images.astype(np.uint8), digits.target.astype(np.int64)
    train_x, test_x, _, test_y = selection.train_test_split(x, y, test_size=360, stratify=y, random_state=20)
    np.testing.assert_array_equal(test_set[0], test_x)
    np.testing.assert_array_equal(test_set[1], test_y)
    trained = {sample.tobytes() for sample in train_x}
    assert len(trained) == 1437
    assert not any(sample.tobytes() in trained for sample in test_x)
    drawn = np.round(calibration["image"] * 16).astype(np.uint8)
    assert all(sample.tobytes() in trained for sample in drawn)


def test_onnx_classifies(onnx_logits, test_set):
    assert (onnx_logits.dtype, onnx_logits.shape) == (np.float32, (360, 10))
    assert (onnx_logits.argmax(1) == test_set[1]).mean() >= 0.97


@pytest.mark.parametrize("precision", TFLITE)
def test_tflite_classifies(precision, images, test_set):
    logits = tflite_logits(images, TFLITE[precision])
    assert logits.shape == (360, 10)
    assert (logits.argmax(1) == test_set[1]).mean() >= 0.97


def test_onnx_and_tflite_are_the_same_network(onnx_logits, images):
    np.testing.assert_allclose(tflite_logits(images, TFLITE["fp32"]), onnx_logits, rtol=1e-4, atol=1e-4)


def test_int8_loses_at_most_a_point(images, test_set):
    fp32, int8 = (tflite_logits(images, TFLITE[precision]).argmax(1) for precision in ("fp32", "int8"))
    assert (int8 == test_set[1]).mean() >= (fp32 == test_set[1]).mean() - 0.01


def test_the_int8_file_keeps_to_operators_a_microcontroller_has():
    interpreter = pytest.importorskip("ai_edge_litert.interpreter")
    resolver = interpreter.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    path = SUITE / "models" / TFLITE["int8"]
    runner = interpreter.Interpreter(str(path), experimental_op_resolver_type=resolver)
    operators = {operator["op_name"] for operator in runner._get_ops_details()}
    assert operators == {"CONV_2D", "MAX_POOL_2D", "FULLY_CONNECTED", "RESHAPE"}


@pytest.mark.filterwarnings("ignore")
def test_torch_and_onnx_are_the_same_network(onnx_logits, images):
    torch = pytest.importorskip("torch")
    program = torch.export.load(SUITE / "models" / "digits.pt2").module()
    with torch.inference_mode():
        logits = program(torch.from_numpy(images))["logits"].numpy()
    np.testing.assert_allclose(logits, onnx_logits, rtol=1e-4, atol=1e-4)


def test_the_torch_archive_holds_no_path_of_who_made_it():
    with zipfile.ZipFile(SUITE / "models" / "digits.pt2") as archive:
        model = next(name for name in archive.namelist() if name.endswith("model.json"))
        assert b"stack_trace" not in archive.read(model)


def test_torch_makes_the_archive_again_byte_for_byte(tmp_path):
    torch = pytest.importorskip("torch")
    with zipfile.ZipFile(SUITE / "models" / "digits.pt2") as archive:
        model = next(name for name in archive.namelist() if name.endswith("model.json"))
        made_with = json.loads(archive.read(model))["torch_version"]
    if torch.__version__ != made_with:
        pytest.skip(f"the archive was made with torch {made_with}, this is {torch.__version__}")
    command = [sys.executable, str(SUITE / "make_torch.py"), "--out", str(tmp_path)]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    assert (tmp_path / "models/digits.pt2").read_bytes() == (SUITE / "models/digits.pt2").read_bytes()
    assert (tmp_path / "SHA256SUMS").read_text(encoding="ascii").split()[0] == sums()["models/digits.pt2"]
