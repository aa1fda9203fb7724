"""`mlbench doctor`: each check on made-up trees of /sys and /proc, and how the findings are shown."""

from __future__ import annotations

import json
import re
import time
from dataclasses import replace
from pathlib import Path

import pytest

from pytest_mlbench import doctor, doctor_clock, doctor_load, fitness
from pytest_mlbench.cli import main
from pytest_mlbench.doctor_finding import BAD, BETTER, GOOD, UNKNOWN, Facts, Finding, clock_step_ns, gather
from pytest_mlbench.fitness import BurnIn, RoundState
from pytest_mlbench.machine import Busy, Machine

CPU = "sys/devices/system/cpu"
PAGES = Path(__file__).parents[2] / "docs"
STATE = RoundState(10**9, 0.02, 0.0, False, False, *[None] * 6)
FFMPEG = Busy(812, "ffmpeg", 1.31)


@pytest.fixture
def facts(tmp_path):
    """Return a function that makes facts from files and what was measured."""

    def make(files=(), **measured):
        for name, text in dict(files).items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        given = {"cores": 2, "state": STATE, "busiest": (FFMPEG,), "burn_in": BurnIn(0, (1,) * 250, 0.02)}
        return Facts(Machine(tmp_path, ticks_per_s=100), **(given | measured))

    return make


def judged(finding):
    return finding.found, finding.verdict


# --- the clock ----------------------------------------------------------------------------------------------


def per_core(file, *values):
    return {f"{CPU}/cpu{core}/{file}": value for core, value in enumerate(values)}


VIRTUAL = {"proc/cpuinfo": "flags : fpu hypervisor\n"}
SET_GOVERNOR = "echo performance | sudo tee /sys/devices/system/cpu/cpu*/cpufreq/scaling_governor"


@pytest.mark.parametrize(
    ("governors", "found", "verdict"),
    [
        (["performance"] * 2, "performance on 2 cores", GOOD),
        (["userspace"], "userspace on 1 core", GOOD),
        (["powersave", "powersave"], "powersave on 2 cores", BETTER),
        (["schedutil", "performance"], "performance on 1 core, schedutil on 1 core", BETTER),
    ],
)
def test_the_governor(facts, governors, found, verdict):
    told = doctor_clock.governor(facts(per_core("cpufreq/scaling_governor", *governors)))
    assert judged(told) == (found, verdict)
    assert told.remedy == ("" if verdict == GOOD else SET_GOVERNOR)


def test_the_governors_driver_is_named(facts):
    files = per_core("cpufreq/scaling_governor", "powersave") | per_core("cpufreq/scaling_driver", "intel_pstate\n")
    assert doctor_clock.governor(facts(files)).found == "powersave on 1 core (driver intel_pstate)"


INTEL, BOOST, POLICY = f"{CPU}/intel_pstate/no_turbo", f"{CPU}/cpufreq/boost", f"{CPU}/cpufreq/policy0/boost"


@pytest.mark.parametrize(
    ("files", "found", "remedy"),
    [
        ({INTEL: "0"}, "on", f"echo 1 | sudo tee /{INTEL}"),
        ({INTEL: "1", BOOST: "1"}, "off", ""),
        ({BOOST: "1"}, "on", f"echo 0 | sudo tee /{BOOST}"),
        ({BOOST: "0"}, "off", ""),
        ({BOOST: "1", POLICY: "0"}, "off", ""),
        ({POLICY: "1"}, "on", f"echo 0 | sudo tee /{CPU}/cpufreq/policy*/boost"),
        ({POLICY: "0"}, "off", ""),
    ],
)
def test_turbo(facts, files, found, remedy):
    assert doctor_clock.turbo(facts(files)) == Finding("turbo", found, BETTER if remedy else GOOD, remedy)


def clock(low, high, now="1500000", governor="schedutil", *, fast=None):
    files = per_core("cpufreq/scaling_min_freq", low, low) | per_core("cpufreq/scaling_max_freq", high, fast or high)
    return files | per_core("cpufreq/scaling_cur_freq", now, "1000") | per_core("cpufreq/scaling_governor", governor)


def test_the_frequency(facts):
    moving = doctor_clock.frequency(facts(clock("800000", "4200000")))
    assert judged(moving) == ("0.80 GHz to 4.20 GHz, now 1.50 GHz", BETTER)
    assert moving.remedy == (
        "for f in /sys/devices/system/cpu/cpu*/cpufreq; do sudo cp $f/scaling_max_freq $f/scaling_min_freq; done"
    )
    held = doctor_clock.frequency(facts(clock("800000", "4200000", "4200000", "performance")))
    assert judged(held) == ("0.80 GHz to 4.20 GHz, now 4.20 GHz, held by the governor", GOOD)
    fixed = doctor_clock.frequency(facts(clock("2400000", "2400000")))
    assert judged(fixed) == ("fixed at 2.40 GHz", GOOD)


def test_cores_of_two_kinds(facts):
    told = doctor_clock.frequency(facts(clock("800000", "3800000", governor="performance", fast="5200000")))
    assert judged(told) == ("cores differ: up to 3.80 GHz or 5.20 GHz", BETTER)
    assert told.remedy == "measure on cores of one kind: taskset -c 1 pytest --mlbench ..."


@pytest.mark.parametrize(
    ("files", "found", "verdict"),
    [
        ({f"{CPU}/smt/active": "1"}, "several share a core (SMT)", BETTER),
        ({f"{CPU}/smt/active": "0"}, "one per core", GOOD),
        (per_core("topology/thread_siblings_list", "0-1", "0-1"), "several share a core (SMT)", BETTER),
        (per_core("topology/thread_siblings_list", "0", "1"), "one per core", GOOD),
        (VIRTUAL | {f"{CPU}/smt/active": "1"}, "several share a core (SMT)", BETTER),
        # A host may show two threads of one core as two cores.
        (VIRTUAL | {f"{CPU}/smt/active": "0"}, "not shown to a virtual machine", UNKNOWN),
    ],
)
def test_hardware_threads(facts, files, found, verdict):
    told = doctor_clock.smt(facts(files))
    assert judged(told) == (found, verdict)
    assert (told.remedy == "echo off | sudo tee /sys/devices/system/cpu/smt/control") is (verdict == BETTER)


@pytest.mark.parametrize(
    "check", [doctor_clock.governor, doctor_clock.turbo, doctor_clock.frequency, doctor_clock.smt, doctor_clock.heat]
)
def test_what_a_virtual_machine_hides_is_asked_of_its_host(facts, check):
    told = check(facts(VIRTUAL))
    assert judged(told) == ("not shown to a virtual machine", UNKNOWN)
    assert told.remedy == "run mlbench doctor on its host"


def allowed(text, online="0-7"):
    return {"proc/self/status": f"Cpus_allowed_list:\t{text}\n", f"{CPU}/online": online}


def test_the_cores(facts):
    assert judged(doctor_clock.cores(facts(allowed("0-7"), cores=8))) == ("8 of 8 cores allowed, none isolated", GOOD)
    one = doctor_clock.cores(facts(allowed("3"), cores=1))
    assert judged(one) == ("1 of 8 cores allowed, none isolated", BETTER)
    assert one.remedy.startswith("allow two cores or more (taskset, cpuset)")


def test_isolated_cores(facts):
    isolated = {f"{CPU}/isolated": "2-3,6\n", f"{CPU}/nohz_full": "2-3"}
    told = doctor_clock.cores(facts(allowed("0-1,4-5,7") | isolated, cores=5))
    assert judged(told) == ("5 of 8 cores allowed, 2-3,6 isolated, 2-3 without timer ticks", BETTER)
    assert told.remedy == "for cases with one thread: taskset -c 2-3,6 pytest --mlbench ..."
    assert doctor_clock.cores(facts(allowed("2-3") | isolated, cores=2)).verdict == GOOD


@pytest.mark.parametrize(("cores", "text"), [([], ""), ([3], "3"), ([8, 0, 1, 2], "0-2,8"), ([1, 3], "1,3")])
def test_cores_as_taskset_takes_them(cores, text):
    assert doctor_clock.listed(cores) == text


def zone(now, critical=None, number=0):
    folder = f"sys/class/thermal/thermal_zone{number}"
    files = {f"{folder}/type": "cpu-thermal\n", f"{folder}/temp": f"{now}\n"}
    files |= {f"{folder}/trip_point_0_type": "passive", f"{folder}/trip_point_0_temp": "60000"}
    if critical:
        files |= {f"{folder}/trip_point_1_type": "critical", f"{folder}/trip_point_1_temp": f"{critical}\n"}
    return files


def sensor(name, now, critical=None):
    files = {"sys/class/hwmon/hwmon3/name": name, "sys/class/hwmon/hwmon3/temp1_input": now}
    return files | ({"sys/class/hwmon/hwmon3/temp1_crit": critical} if critical else {})


THROTTLE = f"{CPU}/cpu0/thermal_throttle/core_throttle_count"


@pytest.mark.parametrize(
    ("files", "found", "verdict"),
    [
        (zone("61000", "100000"), "61 C, critical at 100 C (cpu-thermal)", GOOD),
        (zone("86000", "100000"), "86 C, critical at 100 C (cpu-thermal)", BETTER),
        (zone("96000", "100000"), "96 C, critical at 100 C (cpu-thermal)", BAD),
        (zone("40000", "70000", 1) | zone("61000", "100000"), "40 C, critical at 70 C (cpu-thermal)", GOOD),
        (sensor("coretemp", "97000", "100000"), "97 C, critical at 100 C (coretemp)", BAD),
        (sensor("k10temp", "70125"), "70 C (k10temp)", GOOD),
        (sensor("k10temp", "91000"), "91 C (k10temp)", BETTER),
        ({THROTTLE: "0"}, "never slowed down since boot", GOOD),
        ({THROTTLE: "1"}, "slowed down 1 time since boot", BETTER),
        (
            zone("61000", "100000") | {THROTTLE: "9"},
            "61 C, critical at 100 C (cpu-thermal), slowed down 9 times since boot",
            BETTER,
        ),
        # Another device's sensor; firmware that tells nonsense; a zone that may be a wireless card's.
        (sensor("nvme", "84000", "84850"), "this machine does not tell", UNKNOWN),
        (zone("0", "100000"), "this machine does not tell", UNKNOWN),
        (zone("61000", "20800"), "this machine does not tell", UNKNOWN),
        (zone("99000"), "this machine does not tell", UNKNOWN),
    ],
)
def test_heat(facts, files, found, verdict):
    told = doctor_clock.heat(facts(files))
    assert judged(told) == (found, verdict)
    assert ("scaling_max_freq" in told.remedy) is (verdict in (BETTER, BAD))


def test_heat_that_slows_down_now(facts):
    cooling = {
        "sys/class/thermal/cooling_device0/type": "Processor",
        "sys/class/thermal/cooling_device0/cur_state": "2",
    }
    assert judged(doctor_clock.heat(facts(cooling))) == ("slowed down now", BAD)
    throttled = facts({THROTTLE: "4"} | {"sys/class/thermal/cooling_device0/cur_state": "0"})
    throttled = replace(throttled, state=replace(STATE, throttled=True))
    assert judged(doctor_clock.heat(throttled)) == ("slowed down 4 times since boot, slowed down now", BAD)


def supply(name, **values):
    return {f"sys/class/power_supply/{name}/{key}": value for key, value in values.items()}


PROC = {"proc/stat": "cpu 1"}


@pytest.mark.parametrize(
    ("files", "found", "verdict"),
    [
        (supply("BAT0", type="Battery", status="Discharging"), "on battery", BAD),
        (
            supply("BAT0", type="Battery", status="Discharging") | supply("AC", type="Mains", online="0"),
            "on battery",
            BAD,
        ),
        # A battery that helps out while the machine is plugged in.
        (
            supply("BAT0", type="Battery", status="Discharging") | supply("AC", type="Mains", online="1"),
            "plugged in",
            GOOD,
        ),
        (supply("BAT0", type="Battery", status="Charging"), "plugged in", GOOD),
        (supply("mouse", type="Battery", status="Discharging", scope="Device") | PROC, "no battery", GOOD),
        (PROC, "no battery", GOOD),
        ({}, "this system does not tell", UNKNOWN),
    ],
)
def test_power(facts, files, found, verdict):
    told = doctor_clock.power(facts(files))
    assert judged(told) == (found, verdict)
    assert told.remedy == ("plug the machine in" if verdict == BAD else "")


SOURCE = "sys/devices/system/clocksource/clocksource0"


@pytest.mark.parametrize(
    ("cost", "step", "verdict"),
    [
        (24.4, 20, GOOD),
        (100.0, 100, GOOD),
        (350.0, 20, BETTER),
        (50.0, 512, BETTER),
        (1500.0, 70, BAD),
        (50.0, 15_600_000, BAD),
    ],
)
def test_the_timer_by_its_cost_and_step(facts, cost, step, verdict):
    assert doctor_clock.timer(facts(clock_cost_ns=cost, clock_step_ns=step)).verdict == verdict


def test_the_timer_in_words(facts):
    files = {f"{SOURCE}/current_clocksource": "hpet\n", f"{SOURCE}/available_clocksource": "hpet acpi_pm \n"}
    slow = facts(files, clock_cost_ns=1234.5, clock_step_ns=70)
    told = doctor_clock.timer(slow)
    assert told.found == "hpet: a reading costs 1.2 us, smallest step 70 ns"
    assert told.remedy == "take another machine, or measure only models far slower than the clock"
    files[f"{SOURCE}/available_clocksource"] = "tsc hpet acpi_pm"
    told = doctor_clock.timer(facts(files, clock_cost_ns=1234.5, clock_step_ns=70))
    assert told.remedy == "echo tsc | sudo tee /sys/devices/system/clocksource/clocksource0/current_clocksource"


def test_the_step_of_this_clock():
    assert 1 <= clock_step_ns() < time.get_clock_info("perf_counter").resolution * 1e9 + 20_000_000


# --- who else -----------------------------------------------------------------------------------------------

LOAD = {"proc/loadavg": "2.87 0.1 0.1 1/2 3\n"}
END = "end what else runs here: ffmpeg (process 812, 1.31 cores)"


@pytest.mark.parametrize(
    ("foreign", "verdict"), [(0.0, GOOD), (0.15, GOOD), (0.2, BETTER), (1.2, BETTER), (1.3, BAD), (2.0, BAD)]
)
def test_load_of_others(facts, foreign, verdict):
    told = doctor_load.foreign_load(facts(LOAD, state=replace(STATE, foreign_cores=foreign)))
    assert judged(told) == (f"{foreign:.2f} of 2 cores busy with other processes, load average 2.87", verdict)
    assert told.remedy == ("" if verdict == GOOD else END)


def test_load_where_processes_cannot_be_told_apart(facts):
    unknown = replace(STATE, foreign_cores=None)
    assert judged(doctor_load.foreign_load(facts(state=None))) == ("this system does not tell", UNKNOWN)
    assert judged(doctor_load.foreign_load(facts(LOAD, state=unknown))) == ("load average 2.87", BAD)
    assert judged(doctor_load.foreign_load(facts(LOAD, state=None, cores=8))) == ("load average 2.87", BETTER)


def test_load_of_nobody_that_can_be_seen(facts):
    told = doctor_load.foreign_load(facts(state=replace(STATE, foreign_cores=1.0), busiest=()))
    assert told.remedy.startswith("no busy process can be seen, so look outside: another virtual machine or container")


def kilobytes(available, swap_free=1000, pressure="0.00"):
    told = f"MemTotal: 1000000 kB\nMemAvailable: {available} kB\nSwapTotal: 1000 kB\nSwapFree: {swap_free} kB\n"
    return {"proc/meminfo": told, "proc/pressure/memory": f"some avg10={pressure} avg60=0.00\nfull avg10=99.00\n"}


@pytest.mark.parametrize(
    ("files", "found", "verdict"),
    [
        (kilobytes(800_000), "819 MB of 1.02 GB free", GOOD),
        (kilobytes(800_000, 950), "819 MB of 1.02 GB free, 5 % of swap used", GOOD),
        (kilobytes(800_000, 500), "819 MB of 1.02 GB free, 50 % of swap used", BETTER),
        (kilobytes(140_000), "143 MB of 1.02 GB free", BETTER),
        (kilobytes(40_000), "41.0 MB of 1.02 GB free", BAD),
        (
            kilobytes(800_000, pressure="2.50"),
            "819 MB of 1.02 GB free, processes wait for memory 2.5 % of the time",
            BETTER,
        ),
        (
            kilobytes(800_000, pressure="12.00"),
            "819 MB of 1.02 GB free, processes wait for memory 12 % of the time",
            BAD,
        ),
        ({"proc/meminfo": "MemTotal: 1000000 kB\nMemAvailable: 800000 kB\n"}, "819 MB of 1.02 GB free", GOOD),
        ({"proc/meminfo": "MemTotal: 0 kB\nMemAvailable: 0 kB\n"}, "this system does not tell", UNKNOWN),
        ({}, "this system does not tell", UNKNOWN),
    ],
)
def test_memory(facts, files, found, verdict):
    told = doctor_load.memory(facts(files))
    assert judged(told) == (found, verdict)
    assert ("ps aux --sort=-rss" in told.remedy) is (verdict in (BETTER, BAD))
    assert ("swapoff" in told.remedy) is ("50 %" in found)


GROUP = "sys/fs/cgroup"
MINE = {"proc/self/cgroup": "0::/job\n", f"{GROUP}/cpu.stat": "", f"{GROUP}/job/cpu.stat": "nr_throttled 0\n"}


def quota(job, root="max 100000", throttled=0):
    return MINE | {
        f"{GROUP}/job/cpu.max": job,
        f"{GROUP}/cpu.max": root,
        f"{GROUP}/job/cpu.stat": f"nr_throttled {throttled}\n",
    }


@pytest.mark.parametrize(
    ("files", "found", "verdict"),
    [
        ({}, "this system does not tell", UNKNOWN),
        ({"proc/self/cgroup": "0::/\n"}, "none", GOOD),
        (MINE, "none", GOOD),
        (quota("max 100000"), "none", GOOD),
        (quota("rubbish"), "none", GOOD),
        (quota("400000 100000"), "4.00 cores, used up in 0 periods so far", GOOD),
        (quota("150000 100000"), "1.50 cores, used up in 0 periods so far", BETTER),
        (quota("400000 100000", throttled=1), "4.00 cores, used up in 1 period so far", BETTER),
        (quota("400000 100000", "50000 100000"), "0.50 cores, used up in 0 periods so far", BAD),
    ],
)
def test_a_quota(facts, files, found, verdict):
    told = doctor_load.container(facts(files))
    assert judged(told) == (found, verdict)
    assert ("docker run --cpuset-cpus=2,3" in told.remedy) is (verdict in (BETTER, BAD))


def test_a_quota_of_version_1(facts):
    folder = f"{GROUP}/cpu"
    files = {"proc/self/cgroup": "3:cpu:/\n", f"{folder}/cpu.stat": "nr_throttled 5\n"}
    files |= {f"{folder}/cpu.cfs_quota_us": "-1", f"{folder}/cpu.cfs_period_us": "100000"}
    assert judged(doctor_load.container(facts(files))) == ("none", GOOD)
    files[f"{folder}/cpu.cfs_quota_us"] = "150000"
    told = doctor_load.container(facts(files))
    assert judged(told) == ("1.50 cores, used up in 5 periods so far", BETTER)


def test_a_quota_that_was_used_up_just_now(facts):
    told = doctor_load.container(facts(quota("400000 100000"), state=replace(STATE, quota_throttled=True)))
    assert judged(told) == ("4.00 cores, used up in 0 periods so far, just now too", BAD)


METAL = {"proc/cpuinfo": "flags : fpu sse\n"}


@pytest.mark.parametrize(
    ("files", "steal", "found", "verdict"),
    [
        (METAL, 0.0, "no", GOOD),
        ({}, 0.0, "this system does not tell", UNKNOWN),
        (VIRTUAL, 0.0, "yes, 0 % of the time stolen since boot, 0.00 cores now", BETTER),
        (
            VIRTUAL | {"proc/stat": "cpu 20 0 0 70 0 0 0 10 0 0\ncpu0 1"},
            0.1,
            "yes, 10 % of the time stolen since boot, 0.10 cores now",
            BETTER,
        ),
        (VIRTUAL, 0.11, "yes, 0 % of the time stolen since boot, 0.11 cores now", BAD),
        # A processor that does not tell, on a kernel that does.
        (
            {"proc/stat": "cpu 20 0 0 70 0 0 0 10 0 0"},
            0.0,
            "yes, 10 % of the time stolen since boot, 0.00 cores now",
            BETTER,
        ),
    ],
)
def test_a_virtual_machine(facts, files, steal, found, verdict):
    told = doctor_load.virtual(facts(files, state=replace(STATE, steal_cores=steal)))
    assert judged(told) == (found, verdict)
    assert told.remedy.startswith("take dedicated cores") is (verdict in (BETTER, BAD))


@pytest.mark.parametrize(
    ("spread", "verdict"), [(0.02, GOOD), (0.05, GOOD), (0.1, BETTER), (0.15, BETTER), (0.31, BAD)]
)
def test_the_burn_in(facts, spread, verdict):
    told = doctor_load.steadiness(facts(burn_in=BurnIn(0, (1,) * 126, spread)))
    assert judged(told) == (f"126 blocks of a fixed loop differ by {spread:.0%}".replace("%", " %"), verdict)
    assert told.remedy == ("" if verdict == GOOD else END)


# --- all of them --------------------------------------------------------------------------------------------


def test_a_machine_that_tells_nothing_is_unknown_and_not_bad(facts):
    found = {finding.name: finding.verdict for finding in doctor.examine(facts(state=None, busiest=()))}
    assert {name for name, verdict in found.items() if verdict != UNKNOWN} == {"burn-in", "cores", "timer"}
    assert set(found.values()) == {GOOD, UNKNOWN}


# Every file that any check reads.
READ = [
    *per_core("cpufreq/scaling_governor", ""),
    *clock("", ""),
    *(INTEL, BOOST, POLICY, THROTTLE, f"{CPU}/smt/active", f"{CPU}/isolated", f"{CPU}/nohz_full", f"{CPU}/online"),
    *per_core("topology/thread_siblings_list", ""),
    *zone("", "1"),
    *sensor("", "", "1"),
    *supply("BAT0", type="", status="", scope="", online=""),
    *(f"{SOURCE}/current_clocksource", f"{SOURCE}/available_clocksource"),
    *(*LOAD, *kilobytes(1), *quota(""), *PROC, *VIRTUAL, "proc/self/status", "proc/7/stat", "sys/hypervisor/type"),
]


@pytest.mark.parametrize(
    "text", ["", "\0", "rubbish", "-1", "9" * 5000, "cpu x\n" * 9, "1e999", "MemTotal: -5", "\u0661"]
)
def test_garbled_files_are_never_an_error(facts, text):
    made = facts(dict.fromkeys(READ, text))
    assert len(doctor.examine(made)) == 13
    fitness.probe(made.machine)


def test_every_check_is_in_the_reference(facts):
    page = (PAGES / "reference" / "command.md").read_text(encoding="utf-8")
    listed = re.findall(
        r"^\| `([^`-][^`]*)` \|", page.partition("## `mlbench doctor`")[2].partition("\n## ")[0], re.MULTILINE
    )
    assert listed == [finding.name for finding in doctor.examine(facts())]


def test_a_wrong_checksum_is_a_finding(monkeypatch, tmp_path):
    monkeypatch.setattr(fitness, "_loop", lambda: 1)
    made = gather(Machine(tmp_path), 0.02)
    assert made.burn_in is None
    told = doctor_load.steadiness(made)
    assert told.verdict == BAD
    assert told.found.startswith(
        "a fixed loop of integers gave checksum 0x1, expected 0xeee578: this machine or its Pyt"
    )


def test_what_is_gathered_of_this_machine():
    made = gather(seconds=0.05)
    assert made.cores == len(made.machine.cores() or range(made.cores))
    assert made.state is not None
    assert made.state.elapsed_ns >= 0.05e9
    assert made.burn_in is not None
    assert made.burn_in.block_ns
    assert 1 <= made.clock_cost_ns < 1e6


# --- shown --------------------------------------------------------------------------------------------------

FOUND = [
    Finding("governor", "powersave", BETTER, "echo performance"),
    Finding("heat", "it does not tell", UNKNOWN, "ask"),
    Finding("turbo", "it does not tell", UNKNOWN, "ask"),
    Finding("power", "no battery", GOOD),
]


def test_remedies_stand_below_the_table_and_once():
    assert doctor.lines(FOUND) == [
        "check     verdict          found",
        "--------  ---------------  ----------------",
        "governor  could be better  powersave",
        "heat      unknown          it does not tell",
        "turbo     unknown          it does not tell",
        "power     good             no battery",
        "",
        "4 checks: 1 good, 1 could be better, 2 unknown",
        "",
        "What to do:",
        "  governor: echo performance",
        "  heat, turbo: ask",
    ]
    assert doctor.lines(FOUND[3:])[-1] == "1 check: 1 good"


def test_the_page_shows_what_the_command_prints(facts):
    files = clock("800000", "4200000", "3912000") | per_core("cpufreq/scaling_governor", "powersave", "powersave")
    files |= per_core("cpufreq/scaling_driver", "intel_pstate") | {INTEL: "0", f"{CPU}/smt/active": "0"}
    files |= sensor("coretemp", "61000", "100000") | supply("BAT0", type="Battery", status="Full") | LOAD | METAL
    files |= {
        f"{SOURCE}/current_clocksource": "tsc",
        "proc/meminfo": "MemTotal: 8200000 kB\nMemAvailable: 6055000 kB\n",
    }
    made = facts(files | allowed("0-1", "0-1") | {"proc/self/cgroup": "0::/\n"}, busiest=(FFMPEG,))
    made = replace(made, burn_in=BurnIn(0, (1,) * 126, 1.1), state=replace(STATE, foreign_cores=1.42))
    made = replace(made, clock_cost_ns=24.1, clock_step_ns=20)
    page = (PAGES / "how-to" / "quiet-machine.md").read_text(encoding="utf-8")
    assert f"```text\n{chr(10).join(doctor.lines(doctor.examine(made)))}\n```" in page


@pytest.mark.parametrize(("verdict", "code"), [(GOOD, 0), (BETTER, 0), (UNKNOWN, 0), (BAD, 1)])
def test_the_exit_code_is_1_only_for_what_is_bad(monkeypatch, capsys, facts, verdict, code):
    monkeypatch.setattr("pytest_mlbench.doctor_finding.gather", facts)
    finding = Finding("power", "found", verdict, "do this")
    monkeypatch.setattr(doctor, "checks", lambda: (lambda facts: FOUND[3], lambda facts: finding))
    assert main(["doctor"]) == code
    assert f"power  {verdict}" in re.sub(" +", "  ", capsys.readouterr().out).replace("could  be  better", BETTER)
    assert main(["doctor", "--format", "json"]) == code
    printed = json.loads(capsys.readouterr().out)
    assert printed["findings"][1] == {"name": "power", "found": "found", "verdict": verdict, "remedy": "do this"}
