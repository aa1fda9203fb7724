"""What a scenario does: ask the agent for blocks of samples until its bounds are met."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from pytest_mlbench.metrics.api import Samples
from pytest_mlbench.spec import ScenarioSpec

BLOCK_NS = 75_000_000  # a block is at least this long and at least BLOCK_SAMPLES calls (DESIGN decision 4)
BLOCK_SAMPLES = 5


@dataclass(frozen=True)
class WarmUp:
    """What the warm-up found: how many calls make a sample that the clock does not distort."""

    samples: int
    duration_ns: int
    clock_ns: float
    call_ns: float
    calls: int


@dataclass(frozen=True)
class Block:
    """One timed stretch, as it happened."""

    sample_ns: npt.NDArray[np.int64]
    begin_ns: int
    end_ns: int
    used: dict[str, int]
    gc_was_enabled: bool = True  # outside the block; inside it is always off


class Target(Protocol):
    """A loaded model that takes timed calls."""

    def warm_up(self, min_s: float, min_samples: int) -> WarmUp: ...

    def block(self, calls: int, *, max_samples: int, min_ns: int = BLOCK_NS, min_samples: int = BLOCK_SAMPLES) -> Block:
        """Time a block of samples of `calls` calls each; goes on in the seeded order of samples."""


@dataclass(frozen=True)
class Passes:
    """What a scenario returns: the samples, and facts about how they were taken."""

    samples: Samples
    facts: dict[str, Any]


class Scenario(Protocol):
    """Registered as an instance under `mlbench.scenarios`."""

    @property
    def name(self) -> str: ...

    def run(self, target: Target, spec: ScenarioSpec, batch: int, progress: Callable[[float], None]) -> Passes:
        """Warm up and take samples; `progress` is told the share done, from 0 to 1."""
