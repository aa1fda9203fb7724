from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from pytest_mlbench.metrics import cost, emulated, latency, memory, quality, stages
from pytest_mlbench.metrics.catalogue import METRICS, absent, found
from pytest_mlbench.spec import Price


def test_the_modules_return_exactly_the_catalogue(measurement, samples) -> None:
    m = measurement(samples(), price=Price(1.0, "2026-01-01"))
    metrics = [metric for module in (latency, stages, memory, quality, cost) for metric in module.measure(m)]
    of_boards = {"emulated.time", "stage.connect", "stage.flash", "memory.device_peak"}  # and of GPUs
    assert sorted(metric.name for metric in metrics) == sorted(set(METRICS) - of_boards)
    board = measurement(samples(), facts={"emulated": True}, stages_ns={"flash": 5, "connect": 7})
    gpu = measurement(samples(), facts={"device_memory": {"peak_bytes": 5}})
    more = (*stages.measure(board), *emulated.measure(board), *memory.measure(gpu))
    metrics += [one for one in more if one.name in of_boards]
    assert {metric.name: (metric.unit, metric.direction) for metric in metrics} == dict(METRICS)


@pytest.mark.parametrize("ran", [True, False])
def test_every_metric_has_a_value_or_a_reason_and_never_both(measurement, samples, ran) -> None:
    m = measurement(
        samples(np.arange(1, 700)) if ran else None,
        price=Price(1.0, "2026-01-01"),
        task="classification",
        memory={"baseline_bytes": 1, "loaded_bytes": 2, "peak_bytes": 3} if ran else {},
        outputs={"y": np.eye(8)} if ran else None,
        labels=np.arange(8) if ran else None,
        model_bytes=5 if ran else None,
        stages_ns=dict.fromkeys(stages.STAGES, 1) if ran else {},
    )
    for module in (latency, stages, memory, quality, cost):
        for metric in module.measure(m):
            assert (metric.value is None) == bool(metric.reason), metric
            assert (metric.value is not None) == ran, metric


def test_the_table_is_read_only() -> None:
    with pytest.raises(TypeError):
        METRICS["latency.p50"] = ("s", "lower")  # type: ignore[index]


def test_the_table_is_known_without_numpy() -> None:
    code = "import sys, pytest_mlbench.metrics.catalogue; print('numpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_names_outside_the_table_are_refused() -> None:
    with pytest.raises(KeyError):
        found("latency.p98", 1.0)
    with pytest.raises(KeyError):
        absent("latency.p98", "no")


def test_a_metric_without_interval_states_no_confidence() -> None:
    assert found("latency.p50", 3, confidence=0.95).confidence is None
    assert found("latency.p50", 3, interval=(2, 4), confidence=0.95).confidence == 0.95
    assert isinstance(found("latency.p50", 3).value, float)
