from __future__ import annotations

import pytest

from pytest_mlbench.metrics import cost
from pytest_mlbench.spec import Price


def test_without_a_price_there_is_no_metric(measurement, samples) -> None:
    assert cost.measure(measurement(samples())) == []


@pytest.mark.parametrize(
    ("call_ns", "batch", "usd_per_hour", "expected"),
    [
        (1_000_000_000, 1, 3.6, 0.001),  # one second at 3.6 usd per hour
        (1_000_000_000, 4, 3.6, 0.00025),
        (250_000, 1, 0.9, 0.9 * 250e-6 / 3600),
        (7, 1, 0.0, 0.0),
    ],
)
def test_cost_is_seconds_per_input_times_the_price(
    measurement, samples, call_ns, batch, usd_per_hour, expected
) -> None:
    readings = samples([call_ns - 1, call_ns, call_ns + 1], batch=batch)
    (metric,) = cost.measure(measurement(readings, price=Price(usd_per_hour, "2026-02-03")))
    assert metric.value == pytest.approx(expected)
    assert (metric.name, metric.unit, metric.direction) == ("cost_usd.per_inference", "usd", "lower")
    assert metric.origin == "derived"


def test_the_note_dates_the_price_and_names_its_source(measurement, samples) -> None:
    price = Price(0.096, "2026-02-03", "cloud list price, t3.large")
    (metric,) = cost.measure(measurement(samples(calls=10), price=price))
    assert "0.096 usd per hour of 2026-02-03 (cloud list price, t3.large)" in metric.note
    (bare,) = cost.measure(measurement(samples(), price=Price(0.096, "2026-02-03")))
    assert bare.note.endswith("2026-02-03")


def test_calls_per_sample_are_divided_out(measurement, samples) -> None:
    price = Price(3600.0, "2026-02-03")
    (metric,) = cost.measure(measurement(samples([5_000_000_000], calls=10), price=price))
    assert metric.value == pytest.approx(0.5)


@pytest.mark.parametrize("readings", [None, []])
def test_a_price_without_a_measurement_is_null(measurement, samples, readings) -> None:
    given = None if readings is None else samples(readings)
    (metric,) = cost.measure(measurement(given, price=Price(1.0, "2026-02-03")))
    assert metric.value is None
    assert metric.reason
    assert metric.origin == "derived"
