"""All inputs are there at the start and go through in batches; the figure is throughput (MLPerf's Offline)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from pytest_mlbench.metrics.api import Samples
from pytest_mlbench.scenarios import blocks
from pytest_mlbench.scenarios.api import Passes, Target
from pytest_mlbench.spec import ScenarioSpec


@dataclass(frozen=True)
class Offline:
    """Measure how many inputs a second go through, `batch` at a time."""

    name: str = "offline"

    def run(self, target: Target, spec: ScenarioSpec, batch: int, progress: Callable[[float], None]) -> Passes:
        """Take samples of whole batches; no one-call pass, since an offline run has no latency of its own."""
        warm = target.warm_up(spec.warmup_s, spec.warmup_samples)
        taken = blocks.take(target, spec, warm.calls, spec.min_samples if warm.calls == 1 else 0, progress)
        sample_ns, starts = blocks.joined(taken)
        samples = Samples(
            sample_ns=sample_ns.astype(np.int64),
            block_starts=starts,
            single_ns=np.zeros(0, dtype=np.int64),
            calls=warm.calls,
            batch=batch,
            clock_ns=warm.clock_ns,
        )
        return Passes(samples, {"warm_up": vars(warm), "main": blocks.facts(taken)})


SCENARIO = Offline()
