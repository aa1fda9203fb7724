"""What a metric function is given. A vendor registers `measure(m) -> list[Metric]` under `mlbench.metrics`.

A suite names a user's own function of the same signature as `metrics = ["module:function"]`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pytest_mlbench.record import Metric

if TYPE_CHECKING:
    from pytest_mlbench.matrix import Case


@dataclass(frozen=True)
class Samples:
    """The timed readings of one case in one process.

    `sample_ns[i]` is the time of `calls` consecutive calls on the same input, `block_starts` the index of
    each block's first sample. `single_ns` holds one-call readings for tail percentiles: the same array
    when `calls` is 1, else those of a separate pass (empty when there was none). One call processes
    `batch` inputs. `clock_ns` is the cost of reading the clock, included once in each reading.
    """

    sample_ns: npt.NDArray[np.int64]
    block_starts: npt.NDArray[np.int64]
    single_ns: npt.NDArray[np.int64]
    calls: int
    batch: int
    clock_ns: float

    @property
    def call_ns(self) -> npt.NDArray[np.float64]:
        """Return nanoseconds per call, one value per sample."""
        return self.sample_ns / self.calls


@dataclass(frozen=True)
class Measurement:
    """Everything measured of one case, before it is judged."""

    case: Case
    samples: Samples | None  # None when the timed pass did not run
    stages_ns: Mapping[str, int]  # prepare, start, import, load, first
    memory: Mapping[str, int]  # baseline_bytes, loaded_bytes, peak_bytes (of the agent process)
    model_bytes: int | None
    outputs: Mapping[str, npt.NDArray[Any]] | None = None  # name -> (samples, ...) of the accuracy pass, dequantised
    labels: npt.NDArray[np.int64] | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)  # placement, versions and the like


MetricFunction = Callable[[Measurement], Iterable[Metric]]
