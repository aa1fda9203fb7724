"""Reading /sys and /proc: trees made by hand, and this machine's own."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pytest_mlbench.machine import Busy, Machine, Process, busiest, cores_of, tree, watch

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
CPU = "sys/devices/system/cpu"


def made(folder, files):
    """Return a machine with these files."""
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return Machine(folder, ticks_per_s=100)


# --- files --------------------------------------------------------------------------------------------------


def test_a_file_is_read_without_white_space(tmp_path):
    machine = made(tmp_path, {"a/text": " performance \n", "a/number": "-12\n"})
    assert machine.text("a/text") == "performance"
    assert machine.number("a/number") == -12


def test_what_cannot_be_read_is_none(tmp_path):
    machine = made(tmp_path, {"word": "max", "bytes": b"\xff\x00", "empty": "", "folder/file": "1"})
    for path in ("missing", "folder", "a\0b"):
        assert machine.text(path) is None
        assert machine.number(path) is None
    assert [machine.number(path) for path in ("word", "bytes", "empty")] == [None] * 3
    assert machine.texts("*") == [machine.text("bytes"), "max"]
    assert machine.numbers("*") == []
    assert machine.paths("nothing/*/here") == []


def test_paths_are_in_order_of_their_numbers(tmp_path):
    machine = made(tmp_path, {f"cpu{core}/x": str(core) for core in (10, 2, 0, 33)})
    assert machine.paths("cpu*/x") == ["cpu0/x", "cpu2/x", "cpu10/x", "cpu33/x"]
    assert machine.numbers("cpu*/x") == [0, 2, 10, 33]


def test_fields_of_both_forms(tmp_path):
    machine = made(
        tmp_path, {"meminfo": "MemTotal:   100 kB\nHugePages_Total: 3\nodd\n", "stat": "nr_throttled 7\nx y\n"}
    )
    assert machine.fields("meminfo") == {"MemTotal": 100, "HugePages_Total": 3}
    assert machine.fields("stat") == {"nr_throttled": 7}
    assert machine.fields("missing") == {}


@pytest.mark.parametrize(
    ("text", "cores"),
    [
        ("0-3,8", {0, 1, 2, 3, 8}),
        ("5", {5}),
        ("0-1, 4-4\n", {0, 1, 4}),
        ("", set()),
        ("(null)", set()),
        ("3-1", set()),
        ("0-99999999999", set()),
    ],
)
def test_lists_of_cores(text, cores):
    assert cores_of(text) == cores


# --- cores --------------------------------------------------------------------------------------------------


def test_the_allowed_cores_are_those_online(tmp_path):
    files = {"proc/self/status": "Name:\tpython\nCpus_allowed:\tff\nCpus_allowed_list:\t0-7\n", f"{CPU}/online": "0-3"}
    assert made(tmp_path, files).cores() == {0, 1, 2, 3}
    (tmp_path / CPU / "online").unlink()
    assert Machine(tmp_path).cores() == set(range(8))
    (tmp_path / "proc/self/status").write_text("Name:\tpython\n")
    assert Machine(tmp_path).cores() is None


@linux
def test_the_allowed_cores_of_this_process():
    assert Machine().cores() == os.sched_getaffinity(0)


def test_files_of_the_allowed_cores_only(tmp_path):
    files = {f"{CPU}/cpu{core}/cpufreq/scaling_max_freq": f"{core}000\n" for core in range(4)}
    files |= {"proc/self/status": "Cpus_allowed_list: 0,2-3", f"{CPU}/cpuidle/cpufreq/scaling_max_freq": "5"}
    machine = made(tmp_path, files)
    assert machine.per_core("cpufreq/scaling_max_freq") == {0: "0000", 2: "2000", 3: "3000"}
    assert machine.per_core_numbers("cpufreq/scaling_max_freq") == {2: 2000, 3: 3000}, "0 is no frequency"
    assert machine.per_core("cpufreq/missing") == {}


@pytest.mark.parametrize(
    ("files", "virtual"),
    [
        ({"proc/cpuinfo": "processor: 0\nflags\t\t: fpu hypervisor sse\n"}, True),
        ({"proc/cpuinfo": "processor: 0\nflags\t\t: fpu nohypervisor\n"}, False),
        ({"proc/cpuinfo": "processor: 0\nFeatures\t: fp asimd\n"}, None),
        ({"proc/cpuinfo": "Features\t: fp", "proc/device-tree/hypervisor/compatible": "xen,xen\0"}, True),
        ({"sys/class/dmi/id/sys_vendor": "QEMU\n"}, True),
        ({"sys/class/dmi/id/sys_vendor": "LENOVO\n"}, None),
        ({}, None),
    ],
)
def test_a_virtual_machine_is_known_by_its_processor(tmp_path, files, virtual):
    assert made(tmp_path, files).is_virtual() is virtual


@pytest.mark.parametrize(
    ("text", "known"),
    [
        ("model name\t: Xeon @ 2.80GHz\n\nmodel name\t: Xeon @ 2.80GHz\n", "Xeon @ 2.80GHz"),
        ("CPU part\t: 0xd0b\n\nCPU part\t: 0xd05\n\nCPU part\t: 0xd0b\n", "0xd05, 0xd0b"),  # big and little cores
        ("flags\t: fpu\n", None),
        (None, None),
    ],
)
def test_the_model_of_the_processor(tmp_path, text, known):
    assert made(tmp_path, {"proc/cpuinfo": text} if text else {}).processor() == known


# --- cgroups ------------------------------------------------------------------------------------------------

V2 = "sys/fs/cgroup"


def test_cgroups_from_their_own_to_the_root(tmp_path):
    files = {"proc/self/cgroup": "0::/ci.slice/job 7/step\n", f"{V2}/cpu.stat": "", f"{V2}/ci.slice/cpu.stat": ""}
    machine = made(tmp_path, files | {f"{V2}/ci.slice/job 7/step/cpu.stat": "", f"{V2}/other/cpu.stat": ""})
    assert machine.cgroups() == [f"{V2}/ci.slice/job 7/step", f"{V2}/ci.slice", V2]


def test_cgroups_in_a_container_that_names_those_of_its_host(tmp_path):
    files = {"proc/self/cgroup": "4:memory:/docker/abc\n3:cpu,cpuacct:/docker/abc\n1:name=systemd:/docker/abc\n0::/\n"}
    machine = made(tmp_path, files | {f"{V2}/cpu,cpuacct/cpu.stat": "", f"{V2}/memory/cpu.stat": ""})
    assert machine.cgroups() == [f"{V2}/cpu,cpuacct"]


def test_cgroups_of_both_versions_side_by_side(tmp_path):
    files = {"proc/self/cgroup": "1:cpu:/a\n0::/../b\n", f"{V2}/cpu/a/cpu.stat": "", f"{V2}/unified/b/cpu.stat": ""}
    assert made(tmp_path, files).cgroups() == [f"{V2}/cpu/a", f"{V2}/unified/b"]


def test_without_cgroups_there_are_none(tmp_path):
    assert Machine(tmp_path).cgroups() == []
    assert made(tmp_path, {"proc/self/cgroup": "rubbish\n::\n0::/a"}).cgroups() == []


# --- processes ----------------------------------------------------------------------------------------------


def stat(pid, parent, name="python", user=0, system=0, child_user=0, child_system=0):
    return f"{pid} ({name}) S {parent} 1 1 0 -1 0 0 0 0 0 {user} {system} {child_user} {child_system} 20 0 1 0 55\n"


def test_processes_with_their_times(tmp_path):
    files = {
        "proc/7/stat": stat(7, 1, "a) S 9 (b", user=150, system=50, child_user=3, child_system=4),
        "proc/8/stat": "8 (gone",
        "proc/9/stat": stat(9, 7).replace(" 0 0 0 0 20", " x 0 0 0 20"),
        "proc/10/stat": "",
        "proc/self/stat": stat(7, 1),
    }
    found = made(tmp_path, files).processes()
    assert found == {7: Process(7, 1, "a) S 9 (b", 2_000_000_000, 70_000_000)}


@linux
def test_this_process_is_among_them():
    machine = Machine()
    mine = machine.processes()[os.getpid()]
    assert mine.parent == os.getppid()
    assert mine.name in Path(f"/proc/{os.getpid()}/comm").read_text()
    used = time.process_time_ns()
    assert 0 < machine.processes()[os.getpid()].own_ns < used + 10**9


def parents(**pairs):
    return {int(pid[1:]): Process(int(pid[1:]), parent, "x", 0, 0) for pid, parent in pairs.items()}


def test_a_tree_is_all_descendants():
    processes = parents(p1=0, p2=1, p3=2, p4=3, p5=1, p6=5)
    assert tree(processes, [2]) == {2, 3, 4}
    assert tree(processes, [3, 5]) == {3, 4, 5, 6}
    assert tree(processes, [99]) == {99}
    assert tree(parents(p1=2, p2=1), [1]) == {1, 2}, "a circle ends"


def process(pid, seconds, parent=1, name="x"):
    return Process(pid, parent, name, int(seconds * 1e9), 0)


def test_the_busiest_are_those_of_others():
    before = {one.pid: one for one in (process(2, 10), process(3, 5), process(4, 100), process(6, 1))}
    after = {
        one.pid: one
        for one in (
            process(2, 11),  # half a core
            process(3, 5.03),  # too little to name
            process(4, 102, parent=7),  # our child
            process(5, 0.2, name="new"),  # began meanwhile
            process(6, 0.5),  # another with the number of one that ended
            process(7, 50),  # ourselves
        )
    }
    found = busiest(before, after, 2_000_000_000, [7])
    assert found == (Busy(2, "x", 0.5), Busy(5, "new", 0.1))
    assert busiest(before, after, 2_000_000_000, [7], count=1) == (Busy(2, "x", 0.5),)
    assert found[0].text() == "x (process 2, 0.50 cores)"


@linux
def test_a_busy_process_is_seen_unless_it_is_ours():
    spin = "import time\nend = time.monotonic() + 60\nwhile time.monotonic() < end: pass"
    machine, seen = Machine(), []
    with subprocess.Popen([sys.executable, "-c", spin]) as child:
        try:
            begin, before = time.monotonic_ns(), machine.processes()
            while not seen and time.monotonic_ns() - begin < 20e9:
                ours = [one.pid for one in watch(machine, 0.1)]
                after, elapsed = machine.processes(), time.monotonic_ns() - begin
                seen = [one for one in busiest(before, after, elapsed, (), count=1000) if one.pid == child.pid]
        finally:
            child.kill()
    assert seen
    assert 0.02 <= seen[0].cores < 1.2
    assert child.pid not in ours
