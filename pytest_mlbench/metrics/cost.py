"""The price of one inference, derived from the measured time and a declared price of the machine."""

from __future__ import annotations

from pytest_mlbench.metrics.api import Measurement
from pytest_mlbench.metrics.catalogue import absent, found
from pytest_mlbench.metrics.latency import not_latency
from pytest_mlbench.record import Metric

NAME = "cost_usd.per_inference"


def measure(m: Measurement) -> list[Metric]:
    """Return cost_usd.per_inference = seconds per input * usd_per_hour / 3600; nothing without a price.

    The price assumes a machine that is busy all the time. Source of the formula: ReQuEST (ASPLOS 2018).
    """
    price = m.case.benchmark.price
    if price is None:
        return []
    reason = not_latency(m)
    if m.samples is None or reason:
        return [absent(NAME, reason, origin="derived")]
    seconds = float(m.samples.call_ns.mean()) / m.samples.batch / 1e9
    note = f"mean time at {price.usd_per_hour:g} usd per hour of {price.date}"
    if price.source:
        note += f" ({price.source})"
    n = int(m.samples.sample_ns.size)
    return [found(NAME, seconds * price.usd_per_hour / 3600, n=n, origin="derived", note=note)]
