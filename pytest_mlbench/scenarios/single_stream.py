"""One call after another, the next one sent when the last has answered (MLPerf's SingleStream)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from pytest_mlbench.metrics.api import Samples
from pytest_mlbench.scenarios import blocks
from pytest_mlbench.scenarios.api import Passes, Target
from pytest_mlbench.spec import ScenarioSpec

# The share of the time spent on one-call readings when a sample has to be several calls long.
_SINGLE_SHARE = 0.25


@dataclass(frozen=True)
class SingleStream:
    """Measure the latency of single calls."""

    name: str = "single_stream"

    def run(self, target: Target, spec: ScenarioSpec, batch: int, progress: Callable[[float], None]) -> Passes:
        """Take samples; for a call too short for the clock, also a pass of one-call readings for the tail."""
        warm = target.warm_up(spec.warmup_s, spec.warmup_samples)
        several = warm.calls > 1
        main = _part(spec, 1 - _SINGLE_SHARE) if several else spec
        share = 1 - _SINGLE_SHARE if several else 1.0
        taken = blocks.take(target, main, warm.calls, 0 if several else spec.min_samples, lambda p: progress(p * share))
        sample_ns, starts = blocks.joined(taken)
        facts = {"warm_up": vars(warm), "main": blocks.facts(taken)}
        single_ns = sample_ns
        if several:
            tail = blocks.take(
                target,
                _part(spec, _SINGLE_SHARE),
                1,
                spec.min_samples,
                lambda p: progress(share + p * _SINGLE_SHARE),
            )
            single_ns, _ = blocks.joined(tail)
            facts["single"] = blocks.facts(tail)
        samples = Samples(
            sample_ns=sample_ns.astype(np.int64),
            block_starts=starts,
            single_ns=single_ns.astype(np.int64),
            calls=warm.calls,
            batch=batch,
            clock_ns=warm.clock_ns,
        )
        return Passes(samples, facts)


def _part(spec: ScenarioSpec, share: float) -> ScenarioSpec:
    """Return the scenario with its time bounds cut to a share."""
    return replace(spec, min_duration_s=spec.min_duration_s * share, max_duration_s=spec.max_duration_s * share)


SCENARIO = SingleStream()
