"""The built-in metrics: name, unit and direction, known without measuring. Standard library only.

Suite limits are validated against this table, and the metric modules build their values from it, so that a
name has one unit everywhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

from pytest_mlbench.record import Direction, Metric, Origin

Unit = Literal["ns", "1/s", "bytes", "usd", ""]

METRICS: Mapping[str, tuple[Unit, Direction]] = MappingProxyType(
    {
        "latency.min": ("ns", "lower"),
        "latency.mean": ("ns", "lower"),
        "latency.p50": ("ns", "lower"),
        "latency.p90": ("ns", "lower"),
        "latency.p99": ("ns", "lower"),
        "latency.p90.upper99": ("ns", "lower"),
        "latency.p99.upper99": ("ns", "lower"),
        "throughput": ("1/s", "higher"),
        "emulated.time": ("ns", "lower"),
        "stage.build": ("ns", "lower"),
        "stage.convert": ("ns", "lower"),
        "stage.compile": ("ns", "lower"),
        "stage.prepare": ("ns", "lower"),
        "stage.start": ("ns", "lower"),
        "stage.import": ("ns", "lower"),
        "stage.load": ("ns", "lower"),
        "stage.connect": ("ns", "lower"),
        "stage.flash": ("ns", "lower"),
        "stage.first": ("ns", "lower"),
        "stage.steady": ("ns", "lower"),
        "memory.loaded": ("bytes", "lower"),
        "memory.peak": ("bytes", "lower"),
        "memory.device_peak": ("bytes", "lower"),
        "model.size": ("bytes", "lower"),
        "accuracy.top1": ("", "higher"),
        "accuracy.top5": ("", "higher"),
        "cost_usd.per_inference": ("usd", "lower"),
    }
)
# Shares of right answers: compared in percentage points, and by counts of answers.
ACCURACIES = ("accuracy.top1", "accuracy.top5")

# Stages of making the model's file, which is then kept by its hash: most runs have none of them.
ONCE = ("stage.build", "stage.convert", "stage.compile", "stage.prepare")


def found(
    name: str,
    value: float,
    *,
    n: int | None = None,
    interval: tuple[float, float] | None = None,
    confidence: float | None = None,
    origin: Origin = "measured",
    note: str = "",
) -> Metric:
    """Build the built-in metric `name` with its value; KeyError when it is not in the table."""
    unit, direction = METRICS[name]
    return Metric(
        name,
        float(value),
        unit,
        direction,
        origin=origin,
        n=n,
        interval=interval,
        confidence=confidence if interval else None,
        note=note,
    )


def absent(name: str, reason: str, *, origin: Origin = "measured") -> Metric:
    """Build the built-in metric `name` without a value; `reason` says why, and what would give one."""
    unit, direction = METRICS[name]
    return Metric(name, None, unit, direction, origin=origin, reason=reason)
