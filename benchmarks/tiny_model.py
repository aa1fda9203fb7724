"""How far is the p50 we report for a 2 us model from a bare loop around the same call in the same process?

The model is digits int8 on LiteRT. Rounds alternate between the bare loop, our agent's own timing code,
pytest-benchmark's fixture code and, when installed, LoadGen, so that drift of the machine falls on all alike.
The figure of each is the median over the rounds; the bound for ours is 2 % of the bare loop's median.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import sys
import tempfile
import types
from collections.abc import Callable
from pathlib import Path
from statistics import fmean, median
from time import perf_counter_ns

import numpy as np
import pytest

from pytest_mlbench.agent.worker import Worker

MODEL = Path(__file__).parent.parent / "suites" / "digits" / "models" / "digits_int8.tflite"
DATA = MODEL.parent.parent / "data" / "test.npz"
BOUND = 0.02


def loaded() -> Worker:
    """Return our agent's worker with the model loaded, as it runs on the target (here in this process)."""
    worker = Worker(lock_file=None)
    images = np.load(DATA)["x"]
    worker.receive("x", images.dtype.str, list(images.shape), images.tobytes(), done=True)
    worker.steps([{"scale": 0.0625}, {"reshape": [1, 8, 8]}], {})
    adapter = "pytest_mlbench.agent.adapters.litert_adapter"
    worker.load(adapter, "ai_edge_litert", str(MODEL), {"threads": 1, "delegate": "xnnpack", "batch": 1, "shapes": {}})
    worker.fit(1, "invoke", 0)
    worker.first()
    return worker


def bare(invoke: Callable[[], object], calls: int = 1000, stretches: int = 100) -> tuple[float, float]:
    """Return nanoseconds per call of a loop that does nothing else: the median over its stretches, and the mean.

    A p50 is like the median. The mean also holds what else the machine did meanwhile.
    """
    found = []
    for _ in range(stretches):
        begin = perf_counter_ns()
        for _ in range(calls):
            invoke()
        found.append((perf_counter_ns() - begin) / calls)
    return median(found), fmean(found)


def ours(worker: Worker, calls: int) -> float:
    """Return the p50 our metric reports from the blocks of one round."""
    found = np.concatenate(
        [
            np.frombuffer(worker.block(0, calls, 75_000_000, 5, 1 << 31)["samples"], dtype=np.int64) / calls
            for _ in range(3)
        ]
    )
    return float(np.median(found))


def pytest_benchmark(invoke: Callable[[], object]) -> float:
    """Return the median pytest-benchmark reports for the same call: a real session, in this process."""
    with tempfile.TemporaryDirectory() as folder:
        test, result = Path(folder, "test_tiny.py"), Path(folder, "result.json")
        test.write_text(
            "import tiny_call\n\n\ndef test_tiny(benchmark):\n    benchmark(tiny_call.invoke)\n", encoding="utf-8"
        )
        module = types.ModuleType("tiny_call")
        module.invoke = invoke  # type: ignore[attr-defined]
        sys.modules["tiny_call"] = module
        arguments = [
            str(test),
            "-q",
            "-p",
            "no:cacheprovider",
            "--benchmark-max-time=0.3",
            f"--benchmark-json={result}",
        ]
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            code = pytest.main([*arguments, f"--rootdir={folder}", "--import-mode=importlib"])
        if code != 0:
            raise RuntimeError(f"pytest-benchmark's session ended with {code}")
        return float(json.loads(result.read_text(encoding="utf-8"))["benchmarks"][0]["stats"]["median"]) * 1e9


def loadgen(invoke: Callable[[], object], expected_ns: float) -> float | None:
    """Return the p50 LoadGen reports for SingleStream, or None when it is not installed."""
    try:
        import mlperf_loadgen as lg
    except ImportError:
        return None

    def issue(queries: list) -> None:
        for query in queries:
            invoke()
            lg.QuerySamplesComplete([lg.QuerySampleResponse(query.id, 0, 0)])

    settings = lg.TestSettings()
    settings.scenario, settings.mode = lg.TestScenario.SingleStream, lg.TestMode.PerformanceOnly
    settings.single_stream_expected_latency_ns = max(1, int(expected_ns))
    settings.single_stream_target_latency_percentile = 0.5
    settings.min_duration_ms, settings.min_query_count = 300, 10_000
    with tempfile.TemporaryDirectory() as folder:
        log = lg.LogSettings()
        log.log_output = lg.LogOutputSettings()
        log.log_output.outdir, log.log_output.copy_summary_to_stdout = folder, False
        log.enable_trace = False
        sut = lg.ConstructSUT(issue, lambda: None)
        qsl = lg.ConstructQSL(360, 360, lambda ids: None, lambda ids: None)
        lg.StartTestWithLogSettings(sut, qsl, settings, log, os.devnull)
        lg.DestroyQSL(qsl)
        lg.DestroySUT(sut)
        return _percentile(Path(folder, "mlperf_log_detail.txt").read_text(encoding="utf-8"))


def _percentile(log: str) -> float:
    for line in log.splitlines():
        found = json.loads(line.removeprefix(":::MLLOG ")) if line.startswith(":::MLLOG ") else {}
        if found.get("key") == "result_50.00_percentile_latency_ns":
            return float(found["value"])
    raise RuntimeError("LoadGen's log has no 50th percentile")


def main() -> int:
    """Measure, print the table, and exit 1 when our bound is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    worker = loaded()
    invoke = worker._model.invoke
    calls = worker.warm_up(0.3, 100)["calls"]
    expected, _ = bare(invoke)
    measures: dict[str, Callable[[], float | None]] = {
        "bare loop": lambda: bare(invoke)[0],
        "bare loop, mean": lambda: bare(invoke)[1],
        "pytest-mlbench p50": lambda: ours(worker, calls),
        "pytest-benchmark median": lambda: pytest_benchmark(invoke),
        "LoadGen p50": lambda: loadgen(invoke, expected),
    }
    figures: dict[str, list[float]] = {name: [] for name in measures}
    for _ in range(rounds):
        for name, measure in measures.items():
            value = measure()
            if value is not None:
                figures[name].append(value)
    base = figures["bare loop"]
    print(f"digits int8 on LiteRT, {rounds} alternating rounds, {calls} calls a sample")
    print(f"{'':<26}{'median ns':>10}{'over bare loop':>16}")
    ratios = {}
    for name, values in figures.items():
        if values:
            ratios[name] = median(value / other for value, other in zip(values, base, strict=True)) - 1
            print(f"{name:<26}{median(values):>10.1f}{ratios[name]:>+16.2%}")
    met = abs(ratios["pytest-mlbench p50"]) <= BOUND
    print(f"bound: within {BOUND:.0%} of the bare loop: {'met' if met else 'MISSED'}")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
