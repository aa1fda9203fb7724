"""How long each stage took, from an empty process to the steady state."""

from __future__ import annotations

from pytest_mlbench.metrics.api import Measurement
from pytest_mlbench.metrics.catalogue import METRICS, absent, found
from pytest_mlbench.metrics.latency import clock_note, not_latency
from pytest_mlbench.record import Metric
from pytest_mlbench.stats.early_stopping import percentile

STAGES = ("build", "convert", "compile", "prepare", "start", "import", "load", "first")


def measure(m: Measurement) -> list[Metric]:
    """Return stage.<name> (ns) for every stage, and stage.steady, the median call after them.

    A stage that this case does not have (only some frameworks compile) has no value. A stage that is not
    built in, for example a board's `flash`, is returned under its own name.
    """
    metrics = [_stage(m, name) for name in STAGES]
    metrics += [
        found(f"stage.{name}", value, n=1)
        if f"stage.{name}" in METRICS
        else Metric(f"stage.{name}", float(value), "ns", "lower", n=1)
        for name, value in m.stages_ns.items()
        if name not in STAGES
    ]
    return [*metrics, _steady(m)]


def _stage(m: Measurement, name: str) -> Metric:
    if name in m.stages_ns:
        return found(f"stage.{name}", m.stages_ns[name], n=1)
    return absent(f"stage.{name}", f"this case recorded no stage {name!r}")


def _steady(m: Measurement) -> Metric:
    reason = not_latency(m)
    if m.samples is None or reason:
        return absent("stage.steady", reason)
    note = f"median call; {clock_note(m.samples)}"
    return found("stage.steady", percentile(m.samples.call_ns, 0.5), n=int(m.samples.sample_ns.size), note=note)
