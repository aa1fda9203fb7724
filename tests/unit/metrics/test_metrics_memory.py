from __future__ import annotations

import pytest

from pytest_mlbench.metrics import memory


def read(measurement, **facts):
    model_bytes = facts.pop("model_bytes", None)
    return {m.name: m for m in memory.measure(measurement(memory=facts, model_bytes=model_bytes))}


def test_memory_is_counted_above_the_baseline(measurement) -> None:
    metrics = read(measurement, baseline_bytes=10_000, loaded_bytes=14_000, peak_bytes=19_000, model_bytes=1234)
    assert {name: m.value for name, m in metrics.items()} == {
        "memory.loaded": 4000,
        "memory.peak": 9000,
        "model.size": 1234,
    }
    assert {(m.unit, m.direction) for m in metrics.values()} == {("bytes", "lower")}
    assert "above the process's baseline" in metrics["memory.peak"].note


@pytest.mark.parametrize(
    ("facts", "loaded", "peak"),
    [
        ({}, "no baseline_bytes and no loaded_bytes", "no baseline_bytes and no peak_bytes"),
        ({"baseline_bytes": 1, "loaded_bytes": 2}, "", "no peak_bytes"),
        ({"peak_bytes": 9, "loaded_bytes": 2}, "no baseline_bytes", "no baseline_bytes"),
    ],
)
def test_what_the_platform_does_not_give_is_null(measurement, facts, loaded, peak) -> None:
    metrics = read(measurement, **facts)
    for name, words in (("memory.loaded", loaded), ("memory.peak", peak)):
        assert (metrics[name].value is None) == bool(words)
        assert words in metrics[name].reason


def test_a_peak_below_the_baseline_is_not_believed(measurement) -> None:
    metrics = read(measurement, baseline_bytes=100, loaded_bytes=100, peak_bytes=60)
    assert metrics["memory.peak"].value is None
    assert "40 bytes below the baseline" in metrics["memory.peak"].reason
    assert metrics["memory.loaded"].value == 0


def test_an_unknown_model_size_is_null(measurement) -> None:
    metric = read(measurement)["model.size"]
    assert metric.value is None
    assert metric.reason == "no file was loaded: the board has the model already"


def test_the_memory_of_a_board_is_not_that_of_its_agent(measurement) -> None:
    memory_of = {"baseline_bytes": 1, "loaded_bytes": 2, "peak_bytes": 3}
    metrics = {one.name: one for one in memory.measure(measurement(memory=memory_of, facts={"on_board": True}))}
    assert metrics["memory.peak"].value is None
    assert metrics["memory.peak"].reason == "the model is in a board, whose memory nobody here can read"
