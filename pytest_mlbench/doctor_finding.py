"""What `mlbench doctor` passes around: the facts it gathered, and the finding of one check."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from pytest_mlbench.agent.timing import clock, clock_cost_ns
from pytest_mlbench.errors import MlbenchError
from pytest_mlbench.fitness import BurnIn, RoundState, between, burn_in, probe
from pytest_mlbench.machine import Busy, Machine, busiest

Verdict = Literal["good", "could be better", "bad", "unknown"]

GOOD: Verdict = "good"
BETTER: Verdict = "could be better"  # noise that a comparison measured alternately copes with
BAD: Verdict = "bad"  # a measurement here misleads
UNKNOWN: Verdict = "unknown"


@dataclass(frozen=True)
class Finding:
    """One row: what was looked at, what was found, and the command or setting that makes it better."""

    name: str
    found: str
    verdict: Verdict
    remedy: str = ""


@dataclass(frozen=True)
class Facts:
    """What the checks judge: files of the machine, and what was measured during the burn-in."""

    machine: Machine
    cores: int  # that this process may run on
    state: RoundState | None  # None: this system does not tell
    busiest: tuple[Busy, ...]
    burn_in: BurnIn | None
    broken: str = ""  # why there is no burn-in
    clock_cost_ns: float = 50.0
    clock_step_ns: int = 1


def gather(machine: Machine | None = None, seconds: float = 0.5) -> Facts:
    """Run a burn-in of `seconds` and watch meanwhile what else the machine does."""
    machine = machine or Machine()
    known, burned, broken = machine.cores(), None, ""
    processes, before = machine.processes(), probe(machine)
    try:
        burned = burn_in(seconds)
    except MlbenchError as error:
        broken = str(error)
    after = probe(machine)
    elapsed = after.monotonic_ns - before.monotonic_ns
    return Facts(
        machine=machine,
        cores=len(known) if known else os.cpu_count() or 1,
        state=between(before, after) if elapsed > 0 else None,
        busiest=busiest(processes, machine.processes(), max(elapsed, 1), (os.getpid(),)),
        burn_in=burned,
        broken=broken,
        clock_cost_ns=clock_cost_ns(),
        clock_step_ns=clock_step_ns(),
    )


def clock_step_ns(seconds: float = 0.02) -> int:
    """Return the smallest step between two readings of the clock that differ."""
    readings, end = [clock()], time.monotonic() + seconds
    while time.monotonic() < end:
        readings += [clock() for _ in range(100)]
    return min((later - earlier for earlier, later in pairwise(readings) if later > earlier), default=1 << 62)
