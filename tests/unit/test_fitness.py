"""The burn-in and the probes around rounds: exact arithmetic on made-up counters, and this machine's own."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import time
from dataclasses import replace

import pytest

from pytest_mlbench import fitness
from pytest_mlbench.errors import MlbenchError
from pytest_mlbench.fitness import BurnIn, Probe, RoundState, between, blame, burn_in, noise_reason, spread_of, troubles
from pytest_mlbench.machine import Busy, Machine, Process

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
CPU = "sys/devices/system/cpu"
S = 1_000_000_000


def made(folder, files):
    """Return a machine with these files."""
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return Machine(folder, ticks_per_s=100)


# --- burn-in ------------------------------------------------------------------------------------------------


def test_the_loop_has_the_checksum_of_its_definition():
    value, total = 1, 0
    for _ in range(2000):
        value = (171 * value + 11213) % 53125
        total = (31 * total + value) % 2**24
    assert fitness._loop() == total == burn_in(0.02).checksum


def test_a_burn_in_lasts_as_long_as_asked():
    found = burn_in(0.1)
    assert len(found.block_ns) >= 20
    assert sum(found.block_ns) >= 0.09 * S
    assert min(found.block_ns) > 0
    assert found.spread == spread_of(found.block_ns) >= 0


def test_a_short_burn_in_still_has_enough_blocks_to_judge():
    assert len(burn_in(1e-6).block_ns) == 20


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf"), 1e9])
def test_a_burn_in_of_no_or_endless_time_is_refused(seconds):
    with pytest.raises(ValueError, match="seconds must be above 0 and at most 3600"):
        burn_in(seconds)


def test_one_wrong_checksum_is_an_error(monkeypatch):
    right, calls = fitness._loop, []

    def loop():
        calls.append(1)
        return right() ^ (len(calls) == 300)

    monkeypatch.setattr(fitness, "_loop", loop)
    with pytest.raises(MlbenchError) as raised:
        burn_in(0.2)
    assert str(raised.value) == (
        "burn-in: a fixed loop of integers gave checksum 0xeee579, expected 0xeee578: this machine or its Python "
        "computes wrongly. Measure nothing here; test the memory, and reinstall Python"
    )


def test_the_spread_is_the_time_above_the_quick_pace():
    assert spread_of([100] * 50) == 0
    assert spread_of([100] * 40 + [200] * 10) == pytest.approx(0.2)
    assert spread_of([7]) == 0


def test_one_lucky_block_is_not_the_pace():
    assert spread_of([50] + [100] * 99) < 0


@pytest.mark.parametrize(
    ("blocks", "least"),
    [
        ([2] * 245 + [52] * 5, 0.45),  # a quota: five pauses of 50 ms in half a second, in 2 % of the blocks
        ([2, 5] * 90, 0.7),  # another process on the same core
        ([2] * 100 + [3] * 75, 0.2),  # the clock goes down half-way
        ([2 + 0.01 * i for i in range(100)], 0.18),  # it goes down little by little
    ],
)
def test_pauses_and_drift_both_raise_the_spread(blocks, least):
    assert least < spread_of([int(1e6 * block) for block in blocks]) < 2.5


# --- why a machine is unfit ---------------------------------------------------------------------------------


def burned(spread):
    return BurnIn(0, (1,), spread)


class Moving(Machine):
    """A machine whose processes use processor time between two looks at them."""

    looks = 0

    def processes(self):
        looks = Moving.looks = Moving.looks + 1
        names = {1: "systemd", 50: "ffmpeg", 60: "cc1plus", os.getpid(): "pytest", 99: "our_agent"}
        used = {50: 0.2, 60: 0.1, os.getpid(): 0.3, 99: 0.3}
        parents = {99: os.getpid()}
        return {
            pid: Process(pid, parents.get(pid, 1), name, int(looks * used.get(pid, 0) * S), 0)
            for pid, name in names.items()
        }


def test_an_even_burn_in_gives_no_reason():
    assert noise_reason(burned(0.149), 0.15) == noise_reason(burned(0.15)) == ""


def test_an_uneven_one_names_who_else_is_busy():
    found = noise_reason(burned(0.314), 0.15, Moving())
    start = "timed blocks of a fixed loop differ by 31 %, ceiling 15 %; end what else runs here: ffmpeg (process 50, "
    assert found.startswith(start)
    assert "cores), cc1plus (process 60, " in found
    assert "pytest" not in found
    assert "our_agent" not in found
    assert "systemd" not in found, "it is idle"


def test_where_nobody_is_busy_the_reason_is_outside(tmp_path):
    assert noise_reason(burned(1.5), 0.15, Machine(tmp_path)) == (
        "timed blocks of a fixed loop differ by 150 %, ceiling 15 %; no busy process can be seen, so look outside: "
        "another virtual machine or container on this hardware, or a changing clock rate (`mlbench doctor` tells more)"
    )


def test_the_blame_names_processes_and_no_arguments():
    told = blame([Busy(7, "ffmpeg", 0.98), Busy(812, "cc1plus", 0.4)])
    assert told == "end what else runs here: ffmpeg (process 7, 0.98 cores), cc1plus (process 812, 0.40 cores)"


# --- probes -------------------------------------------------------------------------------------------------

#                user nice system idle iowait irq softirq steal guest guest_nice
STAT = """cpu  9999 9999 9999 9999 9999 9999 9999 9999 0 0
cpu0 100 10 20 5000 40 1 2 7 50 0
cpu1 200 0 30 5000 0 0 3 5 0 0
cpu2 900 0 0 5000 0 0 0 900 0 0
intr 1 2 3
"""
ME = os.getpid()


def process(pid, parent, *ticks):
    return f"{pid} (python) S {parent} 1 1 0 -1 0 0 0 0 0 {' '.join(map(str, ticks))} 20 0 1 0 55\n"


def files():
    return {
        "proc/stat": STAT,
        "proc/self/status": "Cpus_allowed_list:\t0-1\n",
        "proc/self/cgroup": "0::/ci/job\n",
        f"proc/{ME}/stat": process(ME, 1, 30, 10, 5, 5),
        "proc/50/stat": process(50, ME, 20, 0, 0, 0),
        "proc/51/stat": process(51, 50, 0, 7, 1, 2),
        "proc/60/stat": process(60, 1, 500, 0, 0, 0),
        "proc/cpuinfo": "processor\t: 0\nmodel name\t: Test CPU\n\nprocessor\t: 1\nmodel name\t: Test CPU\n",
        "proc/loadavg": "1.25 0.50 0.25 2/97 7354\n",
        "sys/fs/cgroup/ci/job/cpu.stat": "usage_usec 5\nnr_periods 9\nnr_throttled 3\n",
        "sys/fs/cgroup/ci/cpu.stat": "nr_periods 9\nnr_throttled 4\n",
        f"{CPU}/cpu0/thermal_throttle/core_throttle_count": "2\n",
        f"{CPU}/cpu2/thermal_throttle/core_throttle_count": "5\n",
        f"{CPU}/cpu0/cpufreq/scaling_governor": "powersave\n",
        f"{CPU}/cpu1/cpufreq/scaling_governor": "powersave\n",
        f"{CPU}/cpu2/cpufreq/scaling_governor": "performance\n",
        f"{CPU}/cpu0/cpufreq/scaling_cur_freq": "1200000\n",
        f"{CPU}/cpu1/cpufreq/scaling_cur_freq": "2400000\n",
        f"{CPU}/cpu2/cpufreq/scaling_cur_freq": "3000000\n",
        "sys/class/thermal/cooling_device0/type": "Processor\n",
        "sys/class/thermal/cooling_device0/cur_state": "0\n",
        "sys/class/thermal/cooling_device1/type": "Fan\n",
        "sys/class/thermal/cooling_device1/cur_state": "3\n",
    }


def test_a_probe_counts_the_allowed_cores_and_our_processes(tmp_path):
    found = fitness.probe(made(tmp_path, files()))
    assert replace(found, monotonic_ns=0) == Probe(
        monotonic_ns=0,
        busy_ns=3_660_000_000,  # 133 and 233 ticks of 10 ms, guests being in user already
        steal_ns=120_000_000,
        own_ns=800_000_000,  # 50 ticks, 20 of the child, 10 of its child
        processor="Test CPU",
        governor="powersave",
        frequency_khz=2_400_000,
        throttle_count=7,
        cooling=False,
        quota_count=7,
        load=1.25,
    )
    assert found.monotonic_ns <= time.monotonic_ns()


def test_our_processes_can_be_named(tmp_path):
    machine = made(tmp_path, files())
    assert fitness.probe(machine, [50]).own_ns == 300_000_000
    assert fitness.probe(machine, [51, 60]).own_ns == 5_100_000_000
    assert fitness.probe(machine, [50, 51]).own_ns == 300_000_000, "each counts once"
    assert fitness.probe(machine, [12345]).own_ns is None


def test_governors_that_differ_are_both_told(tmp_path):
    machine = made(tmp_path, files() | {f"{CPU}/cpu1/cpufreq/scaling_governor": "performance"})
    assert fitness.probe(machine).governor == "performance, powersave"


@pytest.mark.parametrize("kind", ["Processor", "cpufreq-cpu0", "thermal-cpufreq-0"])
def test_a_clock_held_down_by_heat_is_seen(tmp_path, kind):
    folder = "sys/class/thermal/cooling_device0"
    machine = made(tmp_path, files() | {f"{folder}/type": kind, f"{folder}/cur_state": "2"})
    assert fitness.probe(machine).cooling is True


def test_what_a_machine_does_not_tell_is_none(tmp_path):
    found = dataclasses.asdict(fitness.probe(Machine(tmp_path)))
    assert found.pop("monotonic_ns") > 0
    assert set(found.values()) == {None}


@pytest.mark.parametrize(
    "text",
    ["", "nonsense", "9" * 400 + " x", "9" * 5000, "nan nan", "1e999 -1", "cpu0 1 2\n", "cpu0 a b c d e f g h\n", "\0"],
)
def test_garbled_files_are_as_good_as_none(tmp_path, text):
    found = dataclasses.asdict(fitness.probe(made(tmp_path, dict.fromkeys(files(), text))))
    found.pop("monotonic_ns")
    found.pop("governor")  # any word may be one
    assert set(found.values()) == {None}


@linux
def test_the_probe_of_this_machine_is_json_and_rises():
    before = fitness.probe()
    burn_in(0.3)
    after = fitness.probe()
    assert after.busy_ns > before.busy_ns
    assert after.own_ns - before.own_ns >= 0.05 * S
    state = between(before, after)
    assert json.loads(json.dumps(dataclasses.asdict(state))) == dataclasses.asdict(state)
    assert state.load == after.load
    assert 0 <= state.foreign_cores <= (os.cpu_count() or 1) + 0.5


@linux
def test_a_child_that_has_ended_is_still_ours():
    before = fitness.probe()
    code = "import time\nwhile time.process_time() < 0.5: pass"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
    after = fitness.probe()
    assert after.own_ns - before.own_ns >= 0.45 * S


# --- between two probes -------------------------------------------------------------------------------------

FIRST = Probe(
    monotonic_ns=5 * S,
    busy_ns=100 * S,
    steal_ns=10 * S,
    own_ns=40 * S,
    processor="Xeon 8370C",
    governor="performance",
    frequency_khz=2_000_000,
    throttle_count=3,
    cooling=False,
    quota_count=8,
    load=0.5,
)
QUIET = replace(FIRST, monotonic_ns=9 * S, busy_ns=104 * S, own_ns=44 * S, frequency_khz=2_100_000, load=0.75)
NOTHING = Probe(0, None, None, None, None, None, None, None, None, None, None)


def test_a_quiet_round():
    state = RoundState(
        elapsed_ns=4 * S,
        foreign_cores=0.0,
        steal_cores=0.0,
        throttled=False,
        quota_throttled=False,
        processor_before="Xeon 8370C",
        processor="Xeon 8370C",
        governor_before="performance",
        governor="performance",
        frequency_khz=2_100_000,
        load=0.75,
    )
    assert between(FIRST, QUIET) == state
    assert troubles(state, 2) == troubles(state, 1) == troubles(state, 2, 2) == []


def test_cores_of_others_are_what_we_did_not_use():
    later = replace(QUIET, busy_ns=110 * S, steal_ns=11 * S)
    state = between(FIRST, later)
    assert (state.foreign_cores, state.steal_cores) == (1.5, 0.25)
    # 2 s of our own instead of 4: what was ours and ended is given by the caller.
    assert between(FIRST, later, 2 * S).foreign_cores == 2.0
    assert between(replace(FIRST, own_ns=None), later, 6 * S).foreign_cores == 1.0


def test_ticks_that_do_not_add_up_give_no_negative_cores():
    assert between(FIRST, replace(QUIET, busy_ns=103 * S)).foreign_cores == 0
    assert between(FIRST, replace(QUIET, steal_ns=9 * S)).steal_cores == 0
    assert between(FIRST, replace(QUIET, own_ns=1 * S)).foreign_cores == 1.0


def test_counters_that_rose():
    assert between(FIRST, replace(QUIET, throttle_count=4)).throttled
    assert between(FIRST, replace(QUIET, cooling=True)).throttled
    assert between(replace(FIRST, cooling=True), replace(QUIET, throttle_count=None)).throttled
    assert between(FIRST, replace(QUIET, quota_count=9)).quota_throttled
    assert not between(FIRST, replace(QUIET, throttle_count=0, quota_count=0)).throttled, "the counters were reset"


def test_what_is_not_told_is_none_and_no_trouble():
    state = between(NOTHING, replace(NOTHING, monotonic_ns=1))
    assert state == RoundState(1, *[None] * 10)
    assert troubles(state, 1) == []
    assert between(FIRST, replace(QUIET, throttle_count=None)).throttled is False, "cooling still tells"
    assert between(replace(FIRST, busy_ns=None), QUIET).foreign_cores is None
    assert between(replace(FIRST, own_ns=None), QUIET).foreign_cores is None


@pytest.mark.parametrize("later", [5 * S, 4 * S])
def test_probes_in_the_wrong_order_are_refused(later):
    with pytest.raises(ValueError, match="the second probe must be later than the first; it is"):
        between(FIRST, replace(QUIET, monotonic_ns=later))


# --- troubles -----------------------------------------------------------------------------------------------

STATE = between(FIRST, QUIET)


@pytest.mark.parametrize(
    ("foreign", "steal", "allowed", "needed", "fit"),
    [
        (1.0, 0.0, 2, 1, True),  # one busy process beside us
        (1.2, 0.0, 2, 1, True),  # and what a system does
        (1.33, 0.0, 2, 1, False),  # two of them: each gets two thirds of a core
        (1.0, 0.3, 2, 1, False),
        (0.0, 1.3, 2, 1, False),
        (0.2, 0.0, 1, 1, True),
        (0.5, 0.0, 1, 1, False),
        (0.2, 0.0, 2, 2, True),
        (1.0, 0.0, 2, 2, False),
        (3.0, 0.0, 64, 2, True),
        (0.0, 0.0, 2, 4, False),
    ],
)
def test_enough_cores_must_be_free(foreign, steal, allowed, needed, fit):
    state = replace(STATE, foreign_cores=foreign, steal_cores=steal)
    assert (troubles(state, allowed, needed) == []) is fit
    assert fitness.enough(allowed - foreign - steal, needed) is fit


def test_too_few_cores_in_words():
    remedy = "end other work on this machine, or use fewer threads"
    assert troubles(replace(STATE, foreign_cores=1.4, steal_cores=0.2), 2) == [
        "0.40 of 2 cores were free and 1 needed: 1.40 by other processes and 0.20 by other virtual machines (steal) "
        f"taken; {remedy}"
    ]
    assert troubles(replace(STATE, foreign_cores=2.4), 2) == [
        f"0.00 of 2 cores were free and 1 needed: 2.40 by other processes taken; {remedy}"
    ]
    assert troubles(STATE, 2, 4) == [f"2.00 of 2 cores were free and 4 needed: none taken; {remedy}"]


def test_a_machine_that_moved_in_words():
    assert troubles(between(FIRST, replace(QUIET, processor="Xeon 8272CL")), 2) == [
        "the processor changed from Xeon 8370C to Xeon 8272CL; keep this virtual machine on one host, and measure again"
    ]


def test_heat_quota_and_governor_in_words():
    state = replace(STATE, throttled=True, quota_throttled=True, governor_before="powersave")
    assert troubles(state, 2) == [
        "heat slowed the processor down; cool it better, or measure with pauses or at a lower clock rate",
        "the container used up its quota of processor time (cgroup cpu.max); give it whole cores instead",
        "the frequency governor changed from powersave to performance; stop what sets it (a power profile, a charger)",
    ]
