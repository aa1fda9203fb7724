"""What a board's keeper does by itself: its heartbeat, the agents in its charge, what the kernel tells."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

pytest.importorskip("fcntl")

from pytest_mlbench import deploy, fitness
from pytest_mlbench.agent.keeper import Keeper
from pytest_mlbench.devices import ssh_keeper
from pytest_mlbench.devices.ssh_state import Snapshot
from pytest_mlbench.machine import Machine

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
SLEEP = [sys.executable, "-c", "import time; time.sleep(60)"]


@pytest.fixture
def keeper(tmp_path):
    return Keeper(str(tmp_path / "cache"), 1000)


@pytest.fixture
def process():
    with subprocess.Popen(SLEEP) as found:
        yield found
        found.kill()


def test_it_travels_without_numpy():
    code = f"""
import sys
sys.modules["numpy"] = None  # importing it fails
sources = {{name: text for name, text in {deploy.agent_sources()!r}.items() if name in {ssh_keeper.SOURCES!r}}}
exec({(deploy._AGENT_FOLDER / "bootstrap.py").read_text()!r}, found := {{"__name__": "bootstrap"}})
sys.meta_path.insert(0, found["Sources"](sources))
import mlbench_agent.keeper
print(mlbench_agent.keeper.Keeper("", 1).hello()["numpy"])
"""
    done = subprocess.run([sys.executable, "-"], input=code, capture_output=True, text=True, timeout=30, check=False)
    assert done.stdout in ("False\n", "True\n"), done.stderr


@linux
def test_an_agent_is_ended_and_gone(keeper, process):
    keeper.watch(process.pid)
    assert keeper.end(process.pid) == ""
    assert process.wait(5) == -9
    assert keeper.end(process.pid) == "", "it has gone already"


@linux
def test_a_process_it_was_not_told_of_is_left_alone(keeper, process):
    assert keeper.end(process.pid) == ""
    keeper.abandon()
    assert process.poll() is None


@linux
def test_a_number_that_is_used_again_is_another_process(keeper, process):
    keeper.watch(process.pid)
    keeper._agents[process.pid] = "1"  # when an earlier process of that number began
    assert keeper.end(process.pid) == ""
    assert process.poll() is None


@linux
def test_all_agents_end_with_it(keeper, process):
    keeper.watch(process.pid)
    keeper.abandon()
    assert process.wait(5) == -9


class Beats:
    """A channel that a test speaks for."""

    def setcallback(self, callback, endmarker):
        self.callback = callback


@pytest.mark.parametrize("close", [True, False], ids=["closed", "silent"])
def test_it_ends_when_the_connection_closes_or_falls_silent(close):
    code = f"""
import sys, time
from pytest_mlbench.agent import keeper
class Beats:
    def setcallback(self, callback, endmarker):
        self.callback = callback
beats = Beats()
keeper.heartbeat(beats, 30.0 if {close} else 0.3, lambda: print("abandoned", flush=True))
for _ in range(4):
    beats.callback(1)
    time.sleep(0.15)
print("alive", flush=True)
if {close}:
    beats.callback(None)
time.sleep(20)
print("too late", flush=True)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == "alive\nabandoned\n", done.stderr
    assert done.returncode == 0


@linux
def test_the_kernel_told_from_afar_is_what_is_read_here(keeper):
    found = keeper.snapshot(list(ssh_keeper.SNAPSHOT))
    there = Snapshot.of(found["files"], found["ticks_per_s"])
    assert there.cores() == Machine().cores()
    assert os.getpid() in there.processes()
    before = fitness.probe(there, (os.getpid(),))
    time.sleep(0.05)
    again = keeper.snapshot(list(ssh_keeper.SNAPSHOT))
    after = fitness.probe(Snapshot.of(again["files"], again["ticks_per_s"]), (os.getpid(),))
    assert before.busy_ns is not None
    assert before.own_ns > 0
    assert before.processor == Machine().processor()
    assert fitness.between(before, after).elapsed_ns > 0
    here = fitness.probe()
    assert (before.governor, before.cooling, before.quota_count is None) == (
        here.governor,
        here.cooling,
        here.quota_count is None,
    )


def test_a_snapshot_has_no_other_files():
    there = Snapshot.of(
        {"proc/stat": "cpu", "sys/devices/system/cpu/cpu2/a": "2", "sys/devices/system/cpu/cpu10/a": "10"}, 100
    )
    assert there.text("proc/loadavg") is None
    assert there.paths("sys/devices/system/cpu/cpu[0-9]*/a") == [
        "sys/devices/system/cpu/cpu2/a",
        "sys/devices/system/cpu/cpu10/a",
    ]
    assert there.paths("sys/devices/*/a") == [], "a star is one step of a path"


def test_hello_tells_the_board(keeper):
    found = keeper.hello()
    assert found["pid"] == os.getpid()
    assert found["executable"] == sys.executable
    assert found["numpy"] is True
    assert found["facts"]["memory_bytes"] > 1 << 20
    assert found["facts"]["os"]
    assert set(keeper.state()) == {"load", "governor", "frequency_khz", "no_turbo", "temperature_mc"}
