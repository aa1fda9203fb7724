"""Latency and throughput from the timed readings."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pytest_mlbench.metrics.api import Measurement, Samples
from pytest_mlbench.metrics.catalogue import absent, found
from pytest_mlbench.record import Metric
from pytest_mlbench.stats.early_stopping import minimum_n, percentile, upper_bound
from pytest_mlbench.stats.median_interval import median_interval
from pytest_mlbench.units import percent

CENTRE = ("latency.min", "latency.mean", "latency.p50")
TAILS = {"latency.p90": 0.90, "latency.p99": 0.99}
CONFIDENCE = 0.95


def measure(m: Measurement) -> list[Metric]:
    """Return latency.* (ns per call) and throughput (inputs per second; one call is `batch` inputs).

    min, mean and p50 come from all samples; p90, p99 and their upper bounds only from one-call readings,
    because a sample of several calls averages the tail away.
    """
    unmeasured = not_latency(m)
    if m.samples is None or unmeasured:
        return _all_absent(unmeasured)
    if m.case.scenario.kind == "offline":
        reason = "an offline run has no latency of its own; its figure is throughput"
        return [*(absent(name, reason) for name in _latency_names()), throughput(m.samples)]
    return [*_centre(m.samples), *_tails(m.samples), throughput(m.samples)]


def not_latency(m: Measurement) -> str:
    """Return why the readings give no time of hardware, "" when they do."""
    if m.facts.get("emulated"):
        return "emulated: instructions are counted, not the cycles of hardware; emulated.time has them"
    return untimed(m)


def untimed(m: Measurement) -> str:
    """Return why there are no readings to go by, "" when there are."""
    return str(m.facts.get("untimed") or "") or missing_samples(m.samples)


def missing_samples(samples: Samples | None) -> str:
    """Return why nothing can be said from `samples`, "" when something can."""
    if samples is None:
        return "the timed pass did not run"
    if not samples.sample_ns.size:
        return "the timed pass gave no readings"
    if not samples.sample_ns.any():
        return "every reading is 0 ns: the clock is too coarse for this model; raise the calls per sample"
    return ""


def throughput(samples: Samples) -> Metric:
    """Return inputs per second: batch * 1e9 / mean time of a call."""
    mean = float(samples.call_ns.mean())
    note = f"batch {samples.batch} / mean call time"
    return found("throughput", samples.batch * 1e9 / mean, n=int(samples.sample_ns.size), note=note)


def clock_note(samples: Samples) -> str:
    """Return how many calls a sample spans and which share of it is the clock's own cost."""
    share = samples.clock_ns / max(float(np.median(samples.sample_ns)), 1.0)
    return f"{_calls(samples.calls)}; reading the clock is {percent(share)} of a sample"


def _calls(calls: int) -> str:
    return "one call per sample" if calls == 1 else f"mean of {calls} calls per sample"


def _centre(samples: Samples) -> list[Metric]:
    calls, n, note = samples.call_ns, int(samples.sample_ns.size), clock_note(samples)
    blocks = block_medians(samples)
    interval = median_interval(blocks, CONFIDENCE)
    about = f"interval over {len(blocks)} block medians, within one process"
    if interval is None:
        about = f"no interval: {len(blocks)} blocks are too few for {percent(CONFIDENCE)}"
    return [
        found("latency.min", float(calls.min()), n=n, note=note),
        found("latency.mean", float(calls.mean()), n=n, note=note),
        found(
            "latency.p50",
            percentile(calls, 0.5),
            n=n,
            interval=interval,
            confidence=CONFIDENCE,
            note=f"{note}; {about}",
        ),
    ]


def block_medians(samples: Samples) -> npt.NDArray[np.float64]:
    """Return the median nanoseconds per call of each timed block, in order."""
    blocks = np.split(samples.call_ns, samples.block_starts[samples.block_starts > 0])
    return np.array([np.median(block) for block in blocks if block.size])


def _tails(samples: Samples) -> list[Metric]:
    singles = samples.single_ns
    if not singles.size:
        reason = f"each sample spans {samples.calls} calls and there was no one-call pass, so tails are unknown"
        return [absent(name, reason) for name in _latency_names() if name not in CENTRE]
    share = samples.clock_ns / max(float(np.median(singles)), 1.0)
    note = f"one-call readings; reading the clock is {percent(share)} of one"
    metrics = []
    for name, level in TAILS.items():
        few = f"; fewer than {round(1 / (1 - level))} readings, so this is the largest"
        largest = singles.size * (1 - level) < 1 - 1e-9
        metrics.append(found(name, percentile(singles, level), n=int(singles.size), note=note + few * largest))
    return metrics + [_bound(f"{name}.upper99", singles, level, note) for name, level in TAILS.items()]


def _bound(name: str, singles: npt.NDArray[np.int64], level: float, note: str) -> Metric:
    bound = upper_bound(singles, level)
    if bound is None:
        need = minimum_n(level)
        return absent(
            name,
            f"the p{100 * level:g} upper bound needs {need} one-call readings and there are {singles.size}: "
            f"raise the scenario's min_samples to {need}",
        )
    return found(name, bound, n=int(singles.size), note=f"{note}; MLPerf early-stopping rule, one-sided 99 %")


def _latency_names() -> list[str]:
    return [*CENTRE, *TAILS, *(f"{name}.upper99" for name in TAILS)]


def _all_absent(reason: str) -> list[Metric]:
    return [absent(name, reason) for name in (*_latency_names(), "throughput")]
