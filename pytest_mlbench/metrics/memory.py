"""Memory of the process that runs the model, and the size of the model's files."""

from __future__ import annotations

from pytest_mlbench.metrics.api import Measurement
from pytest_mlbench.metrics.catalogue import absent, found
from pytest_mlbench.record import Metric

_WHAT = {
    "memory.loaded": ("loaded_bytes", "resident memory after the model was loaded"),
    "memory.peak": ("peak_bytes", "peak resident memory"),
}


def measure(m: Measurement) -> list[Metric]:
    """Return memory.loaded and memory.peak (bytes above the baseline before loading), and model.size.

    On a device with memory of its own also memory.device_peak.
    """
    metrics = [*(_above_baseline(m, name) for name in _WHAT), *_of_device(m)]
    if m.model_bytes is None:
        return [*metrics, absent("model.size", "no file was loaded: the board has the model already")]
    return [*metrics, found("model.size", m.model_bytes, note="size of the model's files on disk")]


def _of_device(m: Measurement) -> list[Metric]:
    told = m.facts.get("device_memory")
    if told is None:
        return []
    if told.get("peak_bytes") is None:
        reason = "neither the framework nor NVML tells what the process holds there (in a container NVML may not)"
        return [absent("memory.device_peak", reason)]
    return [found("memory.device_peak", told["peak_bytes"], n=1, note=str(told.get("source", "")))]


def _above_baseline(m: Measurement, name: str) -> Metric:
    key, words = _WHAT[name]
    if m.facts.get("on_board"):
        return absent(name, "the model is in a board, whose memory nobody here can read")
    lacking = [each for each in ("baseline_bytes", key) if m.memory.get(each) is None]
    if lacking:
        return absent(name, f"the platform reported no {' and no '.join(lacking)}")
    value = m.memory[key] - m.memory["baseline_bytes"]
    if value < 0:
        # A peak cannot lie below what was resident before: the counters count different things.
        return absent(name, f"{words} reads {-value} bytes below the baseline, so the counters disagree")
    return found(name, value, n=1, note=f"{words}, above the process's baseline before loading")
