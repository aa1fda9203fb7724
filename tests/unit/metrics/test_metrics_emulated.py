"""An emulated board has a time of its own name and no latency; what cannot be timed says why."""

from __future__ import annotations

import numpy as np
import pytest

from pytest_mlbench.metrics import cost, emulated, latency, stages
from pytest_mlbench.spec import Price

EMULATED = {"emulated": True}


def read(metrics):
    return {metric.name: metric for metric in metrics}


def test_the_time_is_the_median_call_and_says_that_it_is_emulated(measurement, samples):
    m = measurement(samples([3000, 1000, 2000], clock_ns=1000.0), facts=EMULATED)
    (metric,) = emulated.measure(m)
    assert (metric.name, metric.value, metric.unit, metric.origin) == ("emulated.time", 2000.0, "ns", "derived")
    assert metric.note.startswith("emulated: counted instructions, no time of hardware")
    assert metric.n == 3


def test_the_interval_is_what_two_ticks_leave_open(measurement, samples):
    m = measurement(samples([8000], calls=4, clock_ns=1000.0), facts=EMULATED)
    assert emulated.measure(m)[0].interval == (2000.0 - 500.0, 2000.0 + 500.0)


def test_a_device_that_is_not_emulated_has_no_such_metric(measurement, samples):
    assert emulated.measure(measurement(samples([5]))) == []


def test_no_latency_throughput_steady_state_or_cost_is_said_of_an_emulated_board(measurement, samples):
    m = measurement(samples(np.arange(1, 900)), facts=EMULATED, price=Price(1.0, "2026-01-01"))
    metrics = read([*latency.measure(m), *stages.measure(m), *cost.measure(m)])
    of_time = [one for name, one in metrics.items() if name.startswith("latency") or name == "throughput"]
    assert len(of_time) == 8
    for metric in [*of_time, metrics["stage.steady"], metrics["cost_usd.per_inference"]]:
        assert metric.value is None
        assert metric.reason.startswith("emulated: instructions are counted, not the cycles of hardware")


@pytest.mark.parametrize("facts", [{"untimed": "no meter"}, {"untimed": "no meter", "emulated": True}])
def test_what_cannot_be_timed_says_why(measurement, samples, facts):
    m = measurement(samples([]), facts=facts)
    metrics = read([*latency.measure(m), *emulated.measure(m)])
    name = "emulated.time" if "emulated" in facts else "latency.p50"
    assert (metrics[name].value, metrics[name].reason) == (None, "no meter")
