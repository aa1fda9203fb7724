from __future__ import annotations

import numpy as np
import pytest

from pytest_mlbench.metrics import latency

TAILS = ("latency.p90", "latency.p99", "latency.p90.upper99", "latency.p99.upper99")


@pytest.fixture
def measured(measurement, samples):
    def run(*args, kind="single_stream", **kwargs):
        return {m.name: m for m in latency.measure(measurement(samples(*args, **kwargs), kind=kind))}

    return run


def test_one_call_samples_give_all_figures(measured) -> None:
    metrics = measured(np.random.default_rng(1).permutation(1000) + 1)
    values = {name: metric.value for name, metric in metrics.items()}
    assert values == {
        "latency.min": 1,
        "latency.mean": 500.5,
        "latency.p50": 501,
        "latency.p90": 901,
        "latency.p99": 991,
        "latency.p90.upper99": 923,  # discards 77
        "latency.p99.upper99": 999,  # discards 1: P(Binomial(1000, 0.01) <= 3) is 0.0101
        "throughput": pytest.approx(1e9 / 500.5),
    }
    assert {metric.n for metric in metrics.values()} == {1000}


def test_samples_of_several_calls_are_divided(measured) -> None:
    metrics = measured([1000, 2000, 3000], calls=10, single_ns=[500, 600])
    assert [metrics[f"latency.{name}"].value for name in ("min", "mean", "p50")] == [100, 200, 200]
    assert metrics["throughput"].value == pytest.approx(1e9 / 200)


def test_tails_come_from_the_one_call_pass_only(measured) -> None:
    metrics = measured([1000] * 500, calls=10, single_ns=np.arange(700))
    assert metrics["latency.p90"].value == 630
    assert metrics["latency.p99"].value == 693
    assert metrics["latency.p90"].n == 700
    assert metrics["latency.p50"].n == 500


def test_without_one_call_readings_the_tails_are_unknown(measured) -> None:
    metrics = measured([1000] * 500, calls=10, single_ns=[])
    assert all(metrics[name].value is None for name in TAILS)
    assert "spans 10 calls" in metrics["latency.p99"].reason
    assert metrics["latency.p50"].value == 100


@pytest.mark.parametrize(
    ("n", "name", "need"),
    [(63, "latency.p90.upper99", 64), (661, "latency.p99.upper99", 662)],
)
def test_a_bound_says_how_many_readings_it_needs(measured, n, name, need) -> None:
    metric = measured(np.arange(1, n + 1))[name]
    assert metric.value is None
    assert f"needs {need} one-call readings and there are {n}" in metric.reason
    assert f"min_samples to {need}" in metric.reason
    enough = measured(np.arange(1, need + 1))[name]
    assert enough.value == need


@pytest.mark.parametrize(("n", "says"), [(9, True), (10, False)])
def test_a_percentile_that_is_just_the_largest_says_so(measured, n, says) -> None:
    metric = measured(np.arange(1, n + 1))["latency.p90"]
    assert ("this is the largest" in metric.note) is says
    assert metric.value == n


def test_notes_state_the_share_of_the_clock(measured) -> None:
    metrics = measured([6400] * 9, calls=64, single_ns=[125] * 70, clock_ns=25.0)
    assert "mean of 64 calls per sample" in metrics["latency.p50"].note
    assert "clock is 0.391 %" in metrics["latency.p50"].note
    assert "clock is 20 %" in metrics["latency.p90"].note
    assert "one call per sample" in measured([100] * 9)["latency.min"].note


def test_the_median_has_an_interval_over_block_medians(measured) -> None:
    readings = [value for block in range(1, 9) for value in (block * 10, block * 10 + 1, block * 10 + 2)]
    metric = measured(readings, blocks=range(0, 24, 3))["latency.p50"]
    assert metric.interval == (11, 81)
    assert metric.confidence == 0.95
    assert "8 block medians, within one process" in metric.note


def test_few_blocks_give_no_interval_and_say_so(measured) -> None:
    metric = measured(range(1, 16), blocks=range(0, 15, 3))["latency.p50"]
    assert metric.interval is None
    assert metric.confidence is None
    assert "no interval: 5 blocks are too few" in metric.note


@pytest.mark.parametrize(
    ("starts", "medians"),
    [([0], [3.5]), ([0, 2], [1.5, 4.5]), ([0, 2, 6], [1.5, 4.5]), ([], [3.5]), ([2], [1.5, 4.5]), ([0, 1], [1, 4])],
)
def test_blocks_are_cut_where_they_start(samples, starts, medians) -> None:
    assert latency.block_medians(samples(range(1, 7), blocks=starts)).tolist() == medians


def test_a_batch_multiplies_throughput_and_not_latency(measured) -> None:
    metrics = measured([1_000_000] * 5, batch=8)
    assert metrics["latency.p50"].value == 1_000_000
    assert metrics["throughput"].value == pytest.approx(8000)
    assert metrics["throughput"].direction == "higher"


def test_an_offline_run_has_throughput_only(measured) -> None:
    metrics = measured([2_000_000] * 700, kind="offline", batch=4)
    assert metrics.pop("throughput").value == pytest.approx(2000)
    assert len(metrics) == 7
    assert {m.reason for m in metrics.values()} == {
        "an offline run has no latency of its own; its figure is throughput"
    }
    assert {m.value for m in metrics.values()} == {None}


@pytest.mark.parametrize(
    ("readings", "reason"),
    [(None, "did not run"), ([], "no readings"), ([0, 0, 0], "clock is too coarse")],
)
def test_nothing_measured_is_null_and_never_zero(measurement, samples, readings, reason) -> None:
    given = None if readings is None else samples(readings)
    metrics = latency.measure(measurement(given))
    assert len(metrics) == 8
    assert all(metric.value is None and reason in metric.reason for metric in metrics)
    offline = latency.measure(measurement(given, kind="offline"))
    assert all(metric.value is None and reason in metric.reason for metric in offline)
