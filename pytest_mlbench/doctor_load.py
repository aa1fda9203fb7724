"""Checks of `mlbench doctor` on who else uses the machine: processes, memory, containers, virtual machines."""

from __future__ import annotations

import os
import re
from pathlib import Path

from pytest_mlbench.checks.facts import plural
from pytest_mlbench.doctor_finding import BAD, BETTER, GOOD, UNKNOWN, Facts, Finding
from pytest_mlbench.fitness import CEILING, blame, enough, load, quota_count
from pytest_mlbench.machine import Machine, whole
from pytest_mlbench.units import percent, plain

_NOT_TOLD = "this system does not tell"
_STEADY = 0.05  # of the burn-in's spread: what an idle machine stays below


def foreign_load(facts: Facts) -> Finding:
    """Judge how many cores other processes keep busy."""
    average = load(facts.machine)
    if average is None and facts.machine.root == Path("/") and hasattr(os, "getloadavg"):
        average = os.getloadavg()[0]  # a system without /proc
    foreign = facts.state.foreign_cores if facts.state else None
    taken, told = foreign, []
    if foreign is not None:
        told.append(f"{foreign:.2f} of {plural(facts.cores, 'core')} busy with other processes")
    else:
        taken = average
    if taken is None:
        return Finding("other load", _NOT_TOLD, UNKNOWN)
    told += [f"load average {average:.2f}"] if average is not None else []
    if taken <= 0.15:
        return Finding("other load", ", ".join(told), GOOD)
    verdict = BETTER if enough(facts.cores - taken) else BAD
    return Finding("other load", ", ".join(told), verdict, blame(facts.busiest))


def memory(facts: Facts) -> Finding:
    """Judge whether memory is short, so that pages are fetched back while a model runs."""
    kb = facts.machine.fields("proc/meminfo")
    total, free = kb.get("MemTotal", 0), kb.get("MemAvailable")
    if not total or free is None:
        return Finding("memory", _NOT_TOLD, UNKNOWN)
    share, swap = free / total, kb.get("SwapTotal", 0)
    swapped = (swap - kb.get("SwapFree", 0)) / swap if swap else 0.0
    waited = re.search(r"^some avg10=(\d+(?:\.\d+)?)", facts.machine.text("proc/pressure/memory") or "", re.MULTILINE)
    pressure = float(waited[1]) if waited else 0.0  # % of the last 10 s in which some process waited for memory
    found = f"{plain(1024 * free, 'bytes')} of {plain(1024 * total, 'bytes')} free"
    found += f", {percent(swapped, 2)} of swap used" if swapped else ""
    found += f", processes wait for memory {percent(pressure / 100, 2)} of the time" if pressure else ""
    if share >= 0.15 and swapped <= 0.1 and pressure < 1:
        return Finding("memory", found, GOOD)
    bad = share < 0.05 or pressure >= 10
    remedy = "end programs that use much memory (ps aux --sort=-rss | head)"
    remedy += "; then empty the swap: sudo swapoff -a && sudo swapon -a" if swapped else ""
    return Finding("memory", found, BAD if bad else BETTER, remedy)


def container(facts: Facts) -> Finding:
    """Judge whether a quota of processor time stops this process in the middle of a measurement."""
    machine = facts.machine
    if machine.text("proc/self/cgroup") is None:
        return Finding("quota", _NOT_TOLD, UNKNOWN)
    limit, count = _quota(machine), quota_count(machine) or 0
    if limit is None:
        return Finding("quota", "none", GOOD)
    found = f"{limit:.2f} cores, used up in {plural(count, 'period')} so far"
    remedy = (
        "give the container whole cores instead of a quota: docker run --cpuset-cpus=2,3 in place of --cpus; "
        "Kubernetes: whole numbers, requests equal to limits, CPU manager policy static"
    )
    stopped = facts.state is not None and facts.state.quota_throttled
    if stopped or limit < 1:
        return Finding("quota", found + (", just now too" if stopped else ""), BAD, remedy)
    return Finding("quota", found, BETTER, remedy) if count or limit < facts.cores else Finding("quota", found, GOOD)


def virtual(facts: Facts) -> Finding:
    """Judge whether other virtual machines take time from this one."""
    is_virtual, since_boot = facts.machine.is_virtual(), _steal_share(facts.machine)
    now = (facts.state.steal_cores if facts.state else None) or 0.0
    if not is_virtual and not now and not since_boot:
        name = "virtual machine"
        return Finding(name, _NOT_TOLD, UNKNOWN) if is_virtual is None else Finding(name, "no", GOOD)
    told = f"{percent(since_boot, 2)} of the time stolen since boot, {now:.2f} cores now"
    remedy = (
        "take dedicated cores or a machine of your own; else trust only a comparison that measures both sides "
        "alternately here, not numbers of another day"
    )
    return Finding("virtual machine", f"yes, {told}", BAD if now > 0.05 * facts.cores else BETTER, remedy)


def steadiness(facts: Facts) -> Finding:
    """Judge how evenly a fixed loop ran."""
    if facts.burn_in is None:
        found, _, remedy = facts.broken.removeprefix("burn-in: ").partition(". ")
        return Finding("burn-in", found, BAD, remedy)
    spread, blocks = facts.burn_in.spread, len(facts.burn_in.block_ns)
    found = f"{blocks} blocks of a fixed loop differ by {percent(spread, 2)}"
    if spread <= _STEADY:
        return Finding("burn-in", found, GOOD)
    return Finding("burn-in", found, BAD if spread > CEILING else BETTER, blame(facts.busiest))


def _quota(machine: Machine) -> float | None:
    """Return the fewest cores that any cgroup above this process allows; None without a quota."""
    limits = []
    for folder in machine.cgroups():
        words = (machine.text(f"{folder}/cpu.max") or "").split()
        if len(words) == 2:  # version 2; the quota `max` is none
            quota, period = whole(words[0]) or 0, whole(words[1]) or 0
        else:  # version 1; -1 is no quota
            quota = machine.number(f"{folder}/cpu.cfs_quota_us") or 0
            period = machine.number(f"{folder}/cpu.cfs_period_us") or 0
        if quota > 0 and period > 0:
            limits.append(quota / period)
    return min(limits, default=None)


def _steal_share(machine: Machine) -> float:
    words = (machine.text("proc/stat") or "").partition("\n")[0].split()[1:9]
    times = [ticks for word in words if (ticks := whole(word)) is not None]
    total = sum(times)
    return times[7] / total if len(times) == 8 and total else 0.0
