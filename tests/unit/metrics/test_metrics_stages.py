from __future__ import annotations

import pytest

from pytest_mlbench.metrics import stages


def test_each_stage_is_a_metric(measurement, samples) -> None:
    times = {"build": 8, "convert": 7, "compile": 6, "prepare": 5, "start": 4, "import": 3, "load": 2, "first": 1}
    metrics = {m.name: m for m in stages.measure(measurement(samples([10, 20, 30]), stages_ns=times))}
    assert {name: m.value for name, m in metrics.items()} == {
        "stage.build": 8,
        "stage.convert": 7,
        "stage.compile": 6,
        "stage.prepare": 5,
        "stage.start": 4,
        "stage.import": 3,
        "stage.load": 2,
        "stage.first": 1,
        "stage.steady": 20,
    }
    assert {(m.unit, m.direction) for m in metrics.values()} == {("ns", "lower")}
    assert metrics["stage.load"].n == 1
    assert metrics["stage.steady"].n == 3


def test_the_steady_stage_is_per_call(measurement, samples) -> None:
    m = measurement(samples([1000, 1200, 1400], calls=100))
    steady = stages.measure(m)[-1]
    assert steady.value == 12
    assert "mean of 100 calls" in steady.note


def test_a_stage_that_did_not_happen_is_null(measurement, samples) -> None:
    metrics = {m.name: m for m in stages.measure(measurement(samples(), stages_ns={"load": 0}))}
    assert metrics["stage.load"].value == 0
    assert metrics["stage.prepare"].value is None
    assert metrics["stage.prepare"].reason == "this case recorded no stage 'prepare'"


def test_a_boards_own_stage_is_kept(measurement) -> None:
    metrics = {m.name: m for m in stages.measure(measurement(stages_ns={"flash": 7_000_000_000}))}
    assert metrics["stage.flash"].value == 7e9
    assert metrics["stage.flash"].unit == "ns"


@pytest.mark.parametrize(("readings", "reason"), [(None, "did not run"), ([], "no readings")])
def test_without_readings_there_is_no_steady_stage(measurement, samples, readings, reason) -> None:
    steady = stages.measure(measurement(None if readings is None else samples(readings)))[-1]
    assert steady.name == "stage.steady"
    assert steady.value is None
    assert reason in steady.reason
