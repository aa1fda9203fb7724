"""Take everything from a loaded model that is measured: accuracy pass, timed pass, counters, placement."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from pytest_mlbench.deploy import Agent
from pytest_mlbench.scenarios.api import BLOCK_NS, BLOCK_SAMPLES, Block, WarmUp

_REPEAT_NS = BLOCK_NS // 5  # many short blocks tell more than few long ones; a slow model takes two calls in each
REPEAT_PAIRS = 9  # block pairs of the repeated-sample check; the sign test needs at least five


@dataclass
class AgentTarget:
    """A loaded model behind an agent, as scenarios see it. Keeps the place in the order of samples."""

    agent: Agent
    deadline_s: float
    next_call: int = 0

    def warm_up(self, min_s: float, min_samples: int) -> WarmUp:
        """Run calls that are not measured and calibrate the length of a sample."""
        found = self.agent.call("warm-up", "warm_up", self.deadline_s, min_s=min_s, min_samples=min_samples)
        return WarmUp(**found)

    def block(
        self,
        calls: int,
        *,
        max_samples: int,
        min_ns: int = BLOCK_NS,
        min_samples: int = BLOCK_SAMPLES,
        repeat_sample: bool = False,
    ) -> Block:
        """Time one block."""
        found = self.agent.call(
            "measure",
            "block",
            self.deadline_s,
            first=self.next_call,
            calls=calls,
            min_ns=min_ns,
            min_samples=min(min_samples, max_samples),
            max_samples=min(max_samples, 1 << 31),
            repeat_sample=repeat_sample,
        )
        self.next_call = found["next"]
        return Block(
            np.frombuffer(found["samples"], dtype=np.int64),
            found["begin_ns"],
            found["end_ns"],
            found["used"],
            found["gc_was_enabled"],
        )


@dataclass(frozen=True)
class ComplianceData:
    """What the compliance checks compare; each part is there when it was asked for."""

    timed_ids: tuple[int, ...] = ()
    timed: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict)
    repeated_ns: tuple[float, ...] = ()
    varied_ns: tuple[float, ...] = ()
    duration_ns: int = 0  # of the timed blocks behind the two above


def accuracy_pass(agent: Agent, deadline_s: float) -> dict[str, npt.NDArray[Any]]:
    """Run every sample once and fetch all outputs (real numbers, samples first)."""
    described = agent.call("accuracy", "run_outputs", deadline_s)
    return agent.fetch_arrays(described, deadline_s)


def compliance(agent: Agent, target: AgentTarget, wanted: tuple[str, ...], calls: int) -> ComplianceData:
    """Take what the wanted compliance checks need; the timed outputs were kept during the timed pass."""
    ids: tuple[int, ...] = ()
    timed: Mapping[str, npt.NDArray[Any]] = {}
    if "timed_outputs" in wanted:
        found = agent.call("compliance", "timed_outputs", target.deadline_s)
        ids, timed = tuple(found["ids"]), agent.fetch_arrays(found["outputs"], target.deadline_s)
    times: dict[bool, list[float]] = {True: [], False: []}
    duration_ns = 0
    for pair in range(REPEAT_PAIRS if "repeat_sample" in wanted else 0):
        for repeat in (True, False) if pair % 2 else (False, True):  # ABBA: drift falls on both alike
            block = target.block(calls, max_samples=1 << 31, min_ns=_REPEAT_NS, min_samples=2, repeat_sample=repeat)
            times[repeat].append(float(block.sample_ns.min()) / calls)
            duration_ns += block.end_ns - block.begin_ns
    return ComplianceData(ids, timed, tuple(times[True]), tuple(times[False]), duration_ns)


def memory_of(baseline: Mapping[str, Any], counters: Mapping[str, Any], loaded: Mapping[str, int]) -> dict[str, int]:
    """Return the memory facts a metric needs: what the agent used before the framework, after loading, at most.

    Samples made after the baseline are taken off. Empty where the platform told nothing usable: without a
    reset of the peak, a peak that did not rise says nothing about the model.
    """
    now = counters["memory"]
    if "rss_bytes" not in baseline or "peak_bytes" not in now:
        return {}
    if not baseline["reset"] and now["peak_bytes"] <= baseline["peak_bytes"]:
        return {}
    return {
        "baseline_bytes": baseline["rss_bytes"],
        "loaded_bytes": loaded.get("rss_bytes", 0),
        "peak_bytes": now["peak_bytes"] - counters["generated_bytes"],
    }


Progress = Callable[[str, float], None]
