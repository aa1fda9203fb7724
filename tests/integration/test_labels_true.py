"""Each column of the table that `make bench` prints, checked against an instrument that shares no code with ours.

The instruments: a bare loop around the framework in a process of its own, numpy on the raw samples of the run
file, the framework's own profiler or dump, the file system, the kernel's own count of resident pages. Times come
from a shared machine, so they are held to a factor and not to a percentage; benchmarks/tiny_model.py holds the
percentage.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pytest_mlbench.reporters import terminal
from pytest_mlbench.stores import runfile

pytestmark = pytest.mark.alone  # times what it runs

ROOT = Path(__file__).parent.parent.parent
SUITE = ROOT / "suites" / "digits"
DATA = SUITE / "data" / "test.npz"

# What a person would write without us: the framework's documented calls, one thread, a loop and a clock.
BARE_ONNXRUNTIME = """
import json, os, sys, time
import numpy as np
data = np.load(sys.argv[2])
images = (data["x"].astype(np.float32) / 16).reshape(-1, 1, 8, 8)
def resident():
    return int(open('/proc/self/statm').read().split()[1]) * os.sysconf('SC_PAGESIZE')
before = resident()
import onnxruntime as ort
options = ort.SessionOptions()
options.intra_op_num_threads = 1
session = ort.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
answers = [session.run(None, {"image": image[None]})[0].argmax() for image in images]
right = sum(int(answer) == label for answer, label in zip(answers, data["y"]))
binding = session.io_binding()
binding.bind_cpu_input("image", images[:1])
binding.bind_output("logits")
times = []
for _ in range(60):
    begin = time.perf_counter()
    for _ in range(2000):
        session.run_with_iobinding(binding)
    times.append((time.perf_counter() - begin) / 2000)
after = resident()
print(json.dumps({"top1": right / len(images), "call_ns": min(times) * 1e9, "bytes": after - before}))
"""

BARE_LITERT = """
import json, os, sys, time
import numpy as np
data = np.load(sys.argv[2])
images = (data["x"].astype(np.float32) / 16).reshape(-1, 1, 8, 8)
def resident():
    return int(open('/proc/self/statm').read().split()[1]) * os.sysconf('SC_PAGESIZE')
before = resident()
from ai_edge_litert.interpreter import Interpreter
interpreter = Interpreter(sys.argv[1], num_threads=1)
interpreter.allocate_tensors()
entry, result = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
scale, zero = entry["quantization"]
right = 0
for image, label in zip(images, data["y"]):
    stored = image if not scale else np.clip(np.round(image / scale + zero), -128, 127).astype(np.int8)
    interpreter.set_tensor(entry["index"], stored[None])
    interpreter.invoke()
    right += int(interpreter.get_tensor(result["index"]).argmax()) == label
times = []
for _ in range(60):
    begin = time.perf_counter()
    for _ in range(5000):
        interpreter.invoke()
    times.append((time.perf_counter() - begin) / 5000)
after = resident()
print(json.dumps({"top1": right / len(images), "call_ns": min(times) * 1e9, "bytes": after - before}))
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> runfile.Run:
    """Return one real run of the embedded digits suite."""
    output = tmp_path_factory.mktemp("labels") / "run.jsonl"
    command = [sys.executable, "-m", "pytest", "--mlbench", str(SUITE), "-q", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, f"--mlbench-output={output}", "-k", "(fp32 or int8) and not torch and not firmware"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return runfile.read(output)


def case(run: runfile.Run, framework: str, precision: str):
    """Return one case's record."""
    return next(r for r in run.records if f"-{framework}-{precision}-" in r.case)


def bare(script: str, model: Path) -> dict:
    """Return what the bare loop found."""
    done = subprocess.run(
        [sys.executable, "-c", script, str(model), str(DATA)], capture_output=True, text=True, timeout=120, check=True
    )
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def bare_onnxruntime() -> dict:
    """Return the bare loop's figures for onnxruntime fp32."""
    return bare(BARE_ONNXRUNTIME, SUITE / "models" / "digits.onnx")


@pytest.fixture(scope="module")
def bare_litert() -> dict:
    """Return the bare loop's figures for LiteRT int8."""
    return bare(BARE_LITERT, SUITE / "models" / "digits_int8.tflite")


PAIRS = [("onnxruntime", "fp32", "bare_onnxruntime"), ("litert", "int8", "bare_litert")]


@pytest.mark.parametrize(("framework", "precision", "instrument"), PAIRS)
def test_times_are_those_of_a_bare_loop(run, framework, precision, instrument, request):
    """The least time is what a busy machine leaves alone; p50 and throughput follow from the same samples, below."""
    found = request.getfixturevalue(instrument)
    record = case(run, framework, precision)
    assert record.metric("latency.min").value == pytest.approx(found["call_ns"], rel=0.25)
    assert record.metric("latency.p50").value >= record.metric("latency.min").value


@pytest.mark.parametrize(("framework", "precision", "instrument"), PAIRS)
def test_top1_is_counted_right(run, framework, precision, instrument, request):
    found = request.getfixturevalue(instrument)
    assert case(run, framework, precision).metric("accuracy.top1").value == pytest.approx(found["top1"], abs=1e-12)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory is read from /proc")
@pytest.mark.parametrize(("framework", "precision", "instrument"), PAIRS)
def test_memory_is_what_the_kernel_counts_resident(run, framework, precision, instrument, request):
    found = request.getfixturevalue(instrument)
    assert case(run, framework, precision).metric("memory.peak").value == pytest.approx(found["bytes"], rel=0.35)


def test_size_is_the_size_of_the_file(run):
    files = {("onnxruntime", "fp32"): "digits.onnx", ("litert", "int8"): "digits_int8.tflite"}
    for (framework, precision), name in files.items():
        size = (SUITE / "models" / name).stat().st_size
        assert case(run, framework, precision).metric("model.size").value == size


def test_times_throughput_and_interval_follow_from_the_raw_samples(run):
    for record in run.records:
        calls = runfile.decode_samples(record.samples["sample_ns"]) / record.samples["calls"]
        whole = record.samples["sample_ns"]["kept"] == record.samples["sample_ns"]["total"]
        p50 = record.metric("latency.p50")
        assert p50.value == pytest.approx(np.median(calls), rel=1e-3 if whole else 0.02)
        single = runfile.decode_samples(record.samples.get("single_ns", record.samples["sample_ns"]))
        p99 = record.metric("latency.p99").value
        # Within the ranks that a sample of this size cannot tell apart.
        assert np.percentile(single, 97) <= p99 <= np.percentile(single, 99.9)
        low, high = p50.interval
        assert low <= p50.value <= high
        assert record.metric("latency.min").value == pytest.approx(calls.min(), rel=1e-9 if whole else 0.05)
        assert record.metric("throughput").value == pytest.approx(1e9 / calls.mean(), rel=1e-9 if whole else 0.1)


def test_int8_runs_integer_kernels_by_onnxruntimes_own_dump(run, tmp_path):
    """onnxruntime's optimised graph, saved by itself, holds quantised operators and no float convolution."""
    onnx = pytest.importorskip("onnx")
    import onnxruntime

    record = case(run, "onnxruntime", "int8")
    model = _made_int8(record)
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    options.log_severity_level = 4  # it warns that the file suits this machine only, which is why it is asked for
    onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    ops = {node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node}
    assert any(op.startswith("QLinear") for op in ops)
    assert not ops & {"Conv", "FusedConv", "Gemm", "MatMul"}
    assert record.placement["precision"] == {"int8": 1.0}


def test_precision_runs_by_openvinos_profiler(run):
    """OpenVINO's profiler names the kernel of each node, with the precision at its end."""
    openvino = pytest.importorskip("openvino")
    for precision, ending in (("fp32", "f32"), ("int8", "i8")):
        record = case(run, "openvino", precision)
        model = SUITE / "models" / "digits.onnx" if precision == "fp32" else _made_int8(record)
        core = openvino.Core()
        compiled = core.compile_model(
            core.read_model(str(model)), "CPU", {"PERF_COUNT": True, "INFERENCE_PRECISION_HINT": "f32"}
        )
        request = compiled.create_infer_request()
        request.infer({0: np.zeros((1, 1, 8, 8), np.float32)})
        computing = [
            info.exec_type.lower()
            for info in request.get_profiling_info()
            if info.node_type in ("Convolution", "FullyConnected", "MatMul")
        ]
        assert computing
        assert all(kernel.endswith(ending) for kernel in computing), computing
        assert record.placement["precision"] == {precision: 1.0}


def _made_int8(record) -> Path:
    """Return the int8 ONNX file the run made, found in the cache by the hash in the record."""
    from pytest_mlbench import assets

    for path in assets.cache_dir().rglob("*.onnx"):
        if assets.sha256_of(path) == record.hashes["loaded"]:
            return path
    raise AssertionError("the int8 file is not in the cache")


def test_columns_show_those_values(run):
    """The printed table is made of the same numbers: outcome, precision, and the ratio to the reference."""
    text = "\n".join(terminal.lines(run.records))
    reference = case(run, "onnxruntime", "fp32").metric("latency.p50").value
    for record in run.records:
        line = next(line for line in text.splitlines() if line.startswith(record.case.split("/", 1)[1]))
        ratio = reference / record.metric("latency.p50").value
        assert line.split()[-1] == ("ref" if record.case == record.reference else f"{ratio:.2f}x")
        assert f"{record.metric('accuracy.top1').value:.2%}" in line
        assert " pass " in line
    assert "int8 (runs fp32)" in next(line for line in text.splitlines() if "-tvm-int8-" in line)
