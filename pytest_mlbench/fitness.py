"""Is this machine fit to judge? A burn-in before measuring, and probes around each round.

What is found vetoes or annotates; it never rescales a measurement.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pytest_mlbench.errors import MlbenchError
from pytest_mlbench.machine import Busy, Machine, tree, watch, whole
from pytest_mlbench.units import percent

CEILING = 0.15  # of the burn-in's spread: above it, numbers of this machine say more of it than of a model

_CHECKSUM = 0xEEE578  # of _loop(); the same on every machine, or its arithmetic is broken
_STEPS = 2000
_BLOCK_NS = 2_000_000  # shorter than a scheduler's turn: some blocks are then free of other processes
_MIN_BLOCKS = 20
# A kernel and its services are never quite idle. With 2 cores this lets one busy process pass and two not (they
# and we then get 0.67 cores each); on more cores, one process too many slows each less.
_SLACK_CORES = 0.25
_WATCHED_S = 0.2


@dataclass(frozen=True)
class BurnIn:
    """How evenly a fixed loop ran: its checksum, the ns of each block in order, their spread (see spread_of)."""

    checksum: int
    block_ns: tuple[int, ...]
    spread: float


@dataclass(frozen=True)
class Probe:
    """What the kernel had counted at one moment; None where this machine does not tell."""

    monotonic_ns: int
    busy_ns: int | None  # of the cores this process may use, whoever used them
    steal_ns: int | None  # of the same cores, taken by the hypervisor for others
    own_ns: int | None
    processor: str | None  # the model; a virtual machine can be moved to another while it runs
    governor: str | None
    frequency_khz: int | None  # of the fastest core just now
    throttle_count: int | None  # by heat, all cores together, since boot
    cooling: bool | None  # a core's clock is held down by heat just now
    quota_count: int | None  # periods in which a cgroup used up its quota
    load: float | None


@dataclass(frozen=True)
class RoundState:
    """What disturbed a round; None where this machine does not tell. Serialise it with dataclasses.asdict."""

    elapsed_ns: int
    foreign_cores: float | None  # cores kept busy by other processes, on average
    steal_cores: float | None
    throttled: bool | None
    quota_throttled: bool | None
    processor_before: str | None
    processor: str | None
    governor_before: str | None
    governor: str | None
    frequency_khz: int | None
    load: float | None


# --- burn-in ----------------------------------------------------------------------------------------------


def burn_in(seconds: float = 0.5) -> BurnIn:
    """Run a fixed loop of small integers for about `seconds` and time it in blocks of about 2 ms.

    Raises MlbenchError when the loop's checksum is not the known one.
    """
    if not 0 < seconds <= 3600:
        raise ValueError(f"burn_in: seconds must be above 0 and at most 3600, got {seconds}")
    clock = time.perf_counter_ns
    # A tenth goes before: it wakes the clock up, and tells how many loops make a block.
    quickest, until = 1 << 62, clock() + int(seconds * 1e8)
    while (begin := clock()) < until or quickest == 1 << 62:
        _loop()
        quickest = min(quickest, clock() - begin)
    loops = range(max(1, round(_BLOCK_NS / max(quickest, 1))))
    blocks: list[int] = []
    until = clock() + int(seconds * 1e9)
    while (begin := clock()) < until or len(blocks) < _MIN_BLOCKS:
        checksums = {_loop() for _ in loops}
        blocks.append(clock() - begin)
        for checksum in checksums:
            _checked(checksum)
    return BurnIn(_CHECKSUM, tuple(blocks), spread_of(blocks))


def spread_of(block_ns: Sequence[int]) -> float:
    """Return by which share the blocks took longer, all together, than at the pace of their quickest tenth.

    It is mean / 10th percentile - 1. The time lost to others counts in full, be it a few long pauses (a quota)
    or many short ones (another process), and so does a slow drift of the clock; a quantile range would miss the
    pauses. The yardstick is the 10th percentile and not the minimum, so that one lucky block does not set it.
    """
    ordered = sorted(block_ns)
    return sum(ordered) / len(ordered) / ordered[len(ordered) // 10] - 1


def noise_reason(burn_in: BurnIn, ceiling: float = CEILING, machine: Machine | None = None) -> str:
    """Return "" when the blocks are even enough, else one sentence: how uneven, and what to end.

    A process that starts or ends just then makes one burn-in uneven: a machine is unfit when a second one is, too.
    Only for the sentence it looks, for 0.2 s, which processes besides this one and its children are busy.
    """
    if burn_in.spread <= ceiling:
        return ""
    found = f"timed blocks of a fixed loop differ by {percent(burn_in.spread, 2)}, ceiling {percent(ceiling, 2)}"
    return f"{found}; {blame(watch(machine or Machine(), _WATCHED_S))}"


def blame(found: Sequence[Busy]) -> str:
    """Return what to do about the processes found busy; without any, where else to look."""
    if found:
        return f"end what else runs here: {', '.join(one.text() for one in found)}"
    return (
        "no busy process can be seen, so look outside: another virtual machine or container on this hardware, "
        "or a changing clock rate (`mlbench doctor` tells more)"
    )


def _loop() -> int:
    # A generator of pseudo-random numbers below 53125 with full period, so that each step needs the one before;
    # all numbers stay below 2**30, which Python computes without allocating digits.
    value, total = 1, 0
    for _ in range(_STEPS):
        value = (value * 171 + 11213) % 53125
        total = (total * 31 + value) & 0xFFFFFF
    return total


def _checked(checksum: int) -> None:
    if checksum != _CHECKSUM:
        raise MlbenchError(
            f"burn-in: a fixed loop of integers gave checksum {checksum:#x}, expected {_CHECKSUM:#x}: this machine "
            "or its Python computes wrongly. Measure nothing here; test the memory, and reinstall Python"
        )


# --- probes -----------------------------------------------------------------------------------------------


def probe(machine: Machine | None = None, pids: Iterable[int] | None = None) -> Probe:
    """Read all counters once. `pids` are the roots of our own process trees, by default this process.

    A child that has ended stays in the count, with the parent that waited for it.
    """
    machine = machine or Machine()
    busy, steal = _machine_times(machine)
    return Probe(
        monotonic_ns=time.monotonic_ns(),
        busy_ns=busy,
        steal_ns=steal,
        own_ns=_own_time(machine, (os.getpid(),) if pids is None else tuple(pids)),
        processor=machine.processor(),
        governor=", ".join(sorted(set(machine.per_core("cpufreq/scaling_governor").values()))) or None,
        frequency_khz=max(machine.per_core_numbers("cpufreq/scaling_cur_freq").values(), default=None),
        throttle_count=throttle_count(machine),
        cooling=cooling(machine),
        quota_count=quota_count(machine),
        load=load(machine),
    )


def between(before: Probe, after: Probe, own_pids_cpu_ns: int | None = None) -> RoundState:
    """Return what happened from one probe to a later one of the same machine.

    `own_pids_cpu_ns` is the processor time that we ourselves used meanwhile, by default the difference of the
    probes' own. Times are counted in ticks of 10 ms, so below a second the cores are coarse.
    """
    elapsed = after.monotonic_ns - before.monotonic_ns
    if elapsed <= 0:
        raise ValueError(f"the second probe must be later than the first; it is {-elapsed} ns earlier")
    busy = _rise(before.busy_ns, after.busy_ns)
    own = _rise(before.own_ns, after.own_ns) if own_pids_cpu_ns is None else own_pids_cpu_ns
    steal = _rise(before.steal_ns, after.steal_ns)
    heat = _rise(before.throttle_count, after.throttle_count)
    quota = _rise(before.quota_count, after.quota_count)
    cooled = [one for one in (before.cooling, after.cooling) if one is not None]
    return RoundState(
        elapsed_ns=elapsed,
        foreign_cores=None if busy is None or own is None else max(0, busy - own) / elapsed,
        steal_cores=None if steal is None else steal / elapsed,
        throttled=None if heat is None and not cooled else bool(heat) or any(cooled),
        quota_throttled=None if quota is None else quota > 0,
        processor_before=before.processor,
        processor=after.processor,
        governor_before=before.governor,
        governor=after.governor,
        frequency_khz=after.frequency_khz,
        load=after.load,
    )


def troubles(state: RoundState, cores_allowed: int, cores_needed: int = 1) -> list[str]:
    """Return one sentence for each thing that makes a round unfit to judge; what is not known is no trouble.

    `cores_allowed` are the cores that this process may run on, `cores_needed` those that one side computes on.
    """
    found = []
    foreign, steal = state.foreign_cores or 0.0, state.steal_cores or 0.0
    free = cores_allowed - foreign - steal
    if not enough(free, cores_needed):
        taken = [f"{foreign:.2f} by other processes"] if foreign else []
        taken += [f"{steal:.2f} by other virtual machines (steal)"] if steal else []
        found.append(
            f"{max(free, 0):.2f} of {cores_allowed} cores were free and {cores_needed} needed: "
            f"{' and '.join(taken) or 'none'} taken; end other work on this machine, or use fewer threads"
        )
    if state.throttled:
        found.append("heat slowed the processor down; cool it better, or measure with pauses or at a lower clock rate")
    if state.quota_throttled:
        found.append("the container used up its quota of processor time (cgroup cpu.max); give it whole cores instead")
    if state.processor_before != state.processor:
        changed = f"from {state.processor_before} to {state.processor}"
        found.append(f"the processor changed {changed}; keep this virtual machine on one host, and measure again")
    if state.governor_before != state.governor:
        changed = f"from {state.governor_before} to {state.governor}"
        found.append(f"the frequency governor changed {changed}; stop what sets it (a power profile, a charger)")
    return found


def enough(free_cores: float, cores_needed: int = 1) -> bool:
    """Return whether so many cores are free as are needed, but for what an idle system uses itself."""
    return free_cores >= cores_needed - _SLACK_CORES


def throttle_count(machine: Machine) -> int | None:
    """Return how often heat slowed any core down since boot (x86); None where it is not counted."""
    counts = machine.numbers("sys/devices/system/cpu/cpu[0-9]*/thermal_throttle/core_throttle_count")
    return sum(counts) if counts else None


def cooling(machine: Machine) -> bool | None:
    """Return whether the kernel holds a core's clock down just now because of heat; None where it does not tell."""
    states = [
        machine.number(path.removesuffix("type") + "cur_state")
        for path in machine.paths("sys/class/thermal/cooling_device*/type")
        if (machine.text(path) or "").lower().startswith(("processor", "cpufreq-", "thermal-cpufreq"))
    ]
    known = [state for state in states if state is not None]
    return any(state > 0 for state in known) if known else None


def quota_count(machine: Machine) -> int | None:
    """Return in how many periods a cgroup of this process used up its quota so far; None without a count."""
    stats = [machine.fields(f"{folder}/cpu.stat") for folder in machine.cgroups()]
    counts = [stat["nr_throttled"] for stat in stats if "nr_throttled" in stat]
    return sum(counts) if counts else None


def load(machine: Machine) -> float | None:
    """Return how many processes ran or waited to run on average over the last minute."""
    found = re.match(r"\d{1,9}\.\d+ ", machine.text("proc/loadavg") or "")
    return float(found[0]) if found else None


def _machine_times(machine: Machine) -> tuple[int | None, int | None]:
    """Return the ns that the allowed cores were busy, and those stolen."""
    allowed = machine.cores()
    busy = steal = 0
    seen = False
    for line in (machine.text("proc/stat") or "").splitlines():
        name, *words = line.split()
        if not name.startswith("cpu"):
            break
        if not name[3:].isdecimal() or (allowed is not None and int(name[3:]) not in allowed):
            continue
        # proc(5): user nice system idle iowait irq softirq steal; guests are in user already.
        times = [ticks for word in words[:8] if (ticks := whole(word)) is not None]
        if len(times) < 8:
            return None, None
        user, nice, system, _, _, interrupts, soft, stolen = times
        seen = True
        busy += user + nice + system + interrupts + soft
        steal += stolen
    tick_ns = 1_000_000_000 // machine.ticks_per_s
    return (busy * tick_ns, steal * tick_ns) if seen else (None, None)


def _own_time(machine: Machine, roots: Sequence[int]) -> int | None:
    processes = machine.processes()
    ours = [processes[pid] for pid in tree(processes, roots) if pid in processes]
    return sum(one.own_ns + one.children_ns for one in ours) if ours else None


def _rise(before: int | None, after: int | None) -> int | None:
    """Return how far a counter rose; one that was reset meanwhile counts as not risen."""
    return None if before is None or after is None else max(0, after - before)
