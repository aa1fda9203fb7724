"""The time of an emulated board: instructions counted, under a name of its own so that nobody takes it for latency."""

from __future__ import annotations

from pytest_mlbench.metrics.api import Measurement
from pytest_mlbench.metrics.catalogue import absent, found
from pytest_mlbench.metrics.latency import untimed
from pytest_mlbench.record import Metric
from pytest_mlbench.stats.early_stopping import percentile

NAME = "emulated.time"
TICKS = 2  # in which two runs of the same instructions may differ


def measure(m: Measurement) -> list[Metric]:
    """Return emulated.time (ns per call by the emulated clock, the median); nothing where the device is not emulated.

    Its interval is what the clock's ticks leave open: two runs of one image may differ by a tick at either end.
    """
    if not m.facts.get("emulated"):
        return []
    reason = untimed(m)
    if m.samples is None or reason:
        return [absent(NAME, reason, origin="derived")]
    calls = m.samples.call_ns
    spread = float(calls.max() - calls.min())
    note = f"emulated: counted instructions, no time of hardware; readings differ by at most {spread:g} ns"
    value, off = percentile(calls, 0.5), TICKS * m.samples.clock_ns / m.samples.calls
    interval = (value - off, value + off)
    return [found(NAME, value, n=int(calls.size), interval=interval, origin="derived", note=note)]
