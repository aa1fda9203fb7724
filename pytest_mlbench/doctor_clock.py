"""Checks of `mlbench doctor` on the processor: how steady its clock is, and which cores are there to measure on."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from pytest_mlbench.checks.facts import plural
from pytest_mlbench.doctor_finding import BAD, BETTER, GOOD, UNKNOWN, Facts, Finding
from pytest_mlbench.fitness import cooling, throttle_count
from pytest_mlbench.machine import Machine, cores_of
from pytest_mlbench.units import plain

_CPU = "sys/devices/system/cpu"
# A governor that keeps the clock where it is, whatever the load.
_STEADY_GOVERNORS = ("performance", "userspace")
_CLOCK_SOURCE = "sys/devices/system/clocksource/clocksource0"
_PROCESSOR_SENSORS = ("coretemp", "k10temp", "zenpower", "cpu_thermal")
_HOT_C = 85.0  # where no critical temperature is told


def governor(facts: Facts) -> Finding:
    """Judge whether the governor keeps the clock steady."""
    found = list(facts.machine.per_core("cpufreq/scaling_governor").values())
    if not found:
        return _not_told("governor", facts)
    names = sorted(set(found))
    driver = facts.machine.text(f"{_CPU}/cpu0/cpufreq/scaling_driver")
    told = ", ".join(f"{name} on {plural(found.count(name), 'core')}" for name in names)
    told += f" (driver {driver})" if driver else ""
    if len(names) == 1 and names[0] in _STEADY_GOVERNORS:
        return Finding("governor", told, GOOD)
    remedy = f"echo performance | sudo tee /{_CPU}/cpu*/cpufreq/scaling_governor"
    return Finding("governor", told, BETTER, remedy)


def turbo(facts: Facts) -> Finding:
    """Judge whether the clock may rise above its nominal rate, which heat and other cores then end."""
    machine, no_turbo, boost = facts.machine, f"{_CPU}/intel_pstate/no_turbo", f"{_CPU}/cpufreq/boost"
    each = f"{_CPU}/cpufreq/policy*/boost"
    intel, common, single = machine.number(no_turbo), machine.number(boost), machine.numbers(each)
    if intel is not None:
        on, remedy = intel == 0, f"echo 1 | sudo tee /{no_turbo}"
    elif common is not None:
        on, remedy = common == 1 and (not single or any(single)), f"echo 0 | sudo tee /{boost}"
    elif single:
        on, remedy = any(single), f"echo 0 | sudo tee /{each}"
    else:
        return _not_told("turbo", facts)
    return Finding("turbo", "on", BETTER, remedy) if on else Finding("turbo", "off", GOOD)


def frequency(facts: Facts) -> Finding:
    """Judge between which rates the clock moves, and whether all cores have the same."""
    limits = facts.machine.per_core_numbers("cpufreq/scaling_max_freq")
    lowest = facts.machine.per_core_numbers("cpufreq/scaling_min_freq")
    if not limits or not lowest:
        return _not_told("frequency", facts)
    least, most, slowest = min(lowest.values()), max(limits.values()), min(limits.values())
    if slowest != most:
        best = listed(core for core, limit in limits.items() if limit == most)
        remedy = f"measure on cores of one kind: taskset -c {best} pytest --mlbench ..."
        return Finding("frequency", f"cores differ: up to {_hertz(slowest)} or {_hertz(most)}", BETTER, remedy)
    if least == most:
        return Finding("frequency", f"fixed at {_hertz(most)}", GOOD)
    now = max(facts.machine.per_core_numbers("cpufreq/scaling_cur_freq").values(), default=0)
    found = f"{_hertz(least)} to {_hertz(most)}" + (f", now {_hertz(now)}" if now else "")
    if governor(facts).verdict == GOOD:
        return Finding("frequency", f"{found}, held by the governor", GOOD)
    remedy = f"for f in /{_CPU}/cpu*/cpufreq; do sudo cp $f/scaling_max_freq $f/scaling_min_freq; done"
    return Finding("frequency", found, BETTER, remedy)


def smt(facts: Facts) -> Finding:
    """Judge whether two hardware threads share a core."""
    active = facts.machine.number(f"{_CPU}/smt/active")
    siblings = facts.machine.per_core("topology/thread_siblings_list").values()
    if active is None and siblings:
        active = int(any(len(cores_of(text)) > 1 for text in siblings))
    # A virtual machine shows what its host made up: cores of it may be threads of one.
    if active is None or (not active and facts.machine.is_virtual()):
        return _not_told("hardware threads", facts)
    if not active:
        return Finding("hardware threads", "one per core", GOOD)
    remedy = f"echo off | sudo tee /{_CPU}/smt/control"
    return Finding("hardware threads", "several share a core (SMT)", BETTER, remedy)


def cores(facts: Facts) -> Finding:
    """Judge on how many cores, and on which, this process may run."""
    machine = facts.machine
    allowed, isolated = machine.cores(), cores_of(machine.text(f"{_CPU}/isolated") or "")
    online = len(cores_of(machine.text(f"{_CPU}/online") or "")) or facts.cores
    quiet = cores_of(machine.text(f"{_CPU}/nohz_full") or "")
    told = f"{facts.cores} of {plural(online, 'core')} allowed"
    told += f", {listed(isolated)} isolated" if isolated else ", none isolated"
    told += f", {listed(quiet)} without timer ticks" if quiet else ""
    if facts.cores < 2:
        remedy = "allow two cores or more (taskset, cpuset), so that the system and pytest have one of their own"
        return Finding("cores", told, BETTER, remedy)
    if isolated and allowed is not None and not allowed & isolated:
        remedy = f"for cases with one thread: taskset -c {listed(isolated)} pytest --mlbench ..."
        return Finding("cores", told, BETTER, remedy)
    return Finding("cores", told, GOOD)


@dataclass(frozen=True)
class _Sensor:
    name: str
    now_c: float
    critical_c: float | None


def heat(facts: Facts) -> Finding:
    """Judge how near the processor is to being slowed down by its temperature."""
    machine = facts.machine
    count, held, sensors = throttle_count(machine), cooling(machine), _sensors(machine)
    if count is None and held is None and not sensors:
        return _not_told("heat", facts)
    told = []
    room = min((one.critical_c - one.now_c for one in sensors if one.critical_c is not None), default=None)
    hottest = max(sensors, key=lambda one: one.now_c, default=None)
    if room is not None:
        near = next(one for one in sensors if one.critical_c is not None and one.critical_c - one.now_c == room)
        told.append(f"{near.now_c:.0f} C, critical at {near.critical_c:.0f} C ({near.name})")
    elif hottest:
        told.append(f"{hottest.now_c:.0f} C ({hottest.name})")
    if count:
        told.append(f"slowed down {plural(count, 'time')} since boot")
    slowed = held or (facts.state is not None and facts.state.throttled)
    if slowed:
        told.append("slowed down now")
    found = ", ".join(told) or "never slowed down since boot"
    remedy = f"cool it better, or lower the clock: echo KHZ | sudo tee /{_CPU}/cpu*/cpufreq/scaling_max_freq"
    if slowed or (room is not None and room <= 5):
        return Finding("heat", found, BAD, remedy)
    warm = room <= 15 if room is not None else hottest is not None and hottest.now_c >= _HOT_C
    return Finding("heat", found, BETTER, remedy) if warm or count else Finding("heat", found, GOOD)


def power(facts: Facts) -> Finding:
    """Judge whether the machine runs on its battery, which lowers the clock as it empties."""
    supplies = [path.removesuffix("type") for path in facts.machine.paths("sys/class/power_supply/*/type")]
    mains, discharging, battery = False, False, False
    for folder in supplies:
        kind = facts.machine.text(f"{folder}type")
        if facts.machine.text(f"{folder}scope") == "Device":  # of a mouse or a pen
            continue
        if kind == "Battery":
            battery = True
            discharging |= facts.machine.text(f"{folder}status") == "Discharging"
        else:
            mains |= facts.machine.number(f"{folder}online") == 1
    if discharging and not mains:
        return Finding("power", "on battery", BAD, "plug the machine in")
    if battery:
        return Finding("power", "plugged in", GOOD)
    if facts.machine.text("proc/stat") is None:
        return Finding("power", "this system does not tell", UNKNOWN)
    return Finding("power", "no battery", GOOD)


def timer(facts: Facts) -> Finding:
    """Judge what reading the clock costs and how finely it counts."""
    source = facts.machine.text(f"{_CLOCK_SOURCE}/current_clocksource")
    step, cost = facts.clock_step_ns, facts.clock_cost_ns
    found = f"a reading costs {plain(cost, 'ns', 2)}, smallest step {plain(step, 'ns', 2)}"
    found = f"{source}: {found}" if source else found
    if step <= 200 and cost <= 200:
        return Finding("timer", found, GOOD)
    available = (facts.machine.text(f"{_CLOCK_SOURCE}/available_clocksource") or "").split()
    if source != "tsc" and "tsc" in available:
        remedy = f"echo tsc | sudo tee /{_CLOCK_SOURCE}/current_clocksource"
    else:
        remedy = "take another machine, or measure only models far slower than the clock"
    return Finding("timer", found, BAD if step > 1000 or cost > 1000 else BETTER, remedy)


def listed(cores: Iterable[int]) -> str:
    """Return cores as the kernel and taskset write them: `0-3,8`."""
    parts: list[list[int]] = []
    for core in sorted(cores):
        if parts and parts[-1][1] == core - 1:
            parts[-1][1] = core
        else:
            parts.append([core, core])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in parts)


def _not_told(name: str, facts: Facts) -> Finding:
    """Return the finding of a check whose files are not there."""
    if facts.machine.is_virtual():
        return Finding(name, "not shown to a virtual machine", UNKNOWN, "run mlbench doctor on its host")
    return Finding(name, "this machine does not tell", UNKNOWN)


def _sensors(machine: Machine) -> list[_Sensor]:
    found = []
    for path in machine.paths("sys/class/thermal/thermal_zone*/type"):
        zone = path.removesuffix("type")
        trips = [
            machine.number(trip.removesuffix("type") + "temp")
            for trip in machine.paths(f"{zone}trip_point_*_type")
            if machine.text(trip) == "critical"
        ]
        known = [limit for trip in trips if (limit := _celsius(trip)) is not None and limit >= 50]
        now = _celsius(machine.number(f"{zone}temp"))
        # A zone without a critical temperature may be the wireless card's.
        if known and now is not None:
            found.append(_Sensor(machine.text(path) or "", now, min(known)))
    for path in machine.paths("sys/class/hwmon/hwmon*/name"):
        name = machine.text(path) or ""
        if name not in _PROCESSOR_SENSORS:
            continue
        for reading in machine.paths(path.removesuffix("name") + "temp*_input"):
            now = _celsius(machine.number(reading))
            limit = _celsius(machine.number(reading.removesuffix("input") + "crit"))
            if now is not None:
                found.append(_Sensor(name, now, limit if limit is not None and limit >= 50 else None))
    return found


def _celsius(millidegrees: int | None) -> float | None:
    """Return a temperature that can be one: firmware also tells 0, -273.2 and 256."""
    return None if millidegrees is None or not 1000 <= millidegrees <= 130_000 else millidegrees / 1000


def _hertz(khz: int) -> str:
    return f"{khz / 1e6:.2f} GHz"
