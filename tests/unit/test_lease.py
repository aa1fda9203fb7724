"""Exclusive use of a device across processes: real ones, real locks."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time

import pytest

from pytest_mlbench import lease
from pytest_mlbench.errors import RunFileError, StageError

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="kills processes and uses flock")

# Prints "waiting: ..." lines, "held" once it has the resources, and lets go when its input closes or says so.
HOLDER = """
import sys
from pytest_mlbench import lease
lease.HEARTBEAT_S = 0.1
def say(line): print(line, flush=True)
with lease.hold(tuple(sys.argv[2].split(",")), timeout_s=float(sys.argv[1]), waiting=say):
    print("held", flush=True)
    sys.stdin.readline()
print("released", flush=True)
"""
AGENT = """
import fcntl, sys
with open(sys.argv[1], "rb") as stream:
    fcntl.flock(stream, fcntl.LOCK_SH)
    print("held", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture(autouse=True)
def state(tmp_path, monkeypatch):
    monkeypatch.setenv("MLBENCH_STATE", str(tmp_path / "state"))
    monkeypatch.delenv("MLBENCH_JOB_URL", raising=False)
    return tmp_path / "state"


@pytest.fixture
def spawn():
    """Start processes with pipes; those left are killed."""
    started = []

    def start(code, *arguments):
        process = subprocess.Popen(
            [sys.executable, "-c", code, *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        process.communicate()


def holder(spawn, *resources, timeout_s=20):
    process = spawn(HOLDER, timeout_s, ",".join(resources))
    assert process.stdout.readline() == "held\n", process.stderr.read()
    return process


def is_free(resource):
    try:
        with lease.hold((resource,), timeout_s=0):
            return True
    except StageError:
        return False


def test_a_free_device_is_had_at_once():
    begin = time.perf_counter()
    for _ in range(20):
        with lease.hold(("cpu",), timeout_s=0):
            pass
    assert (time.perf_counter() - begin) / 20 < 0.02


def test_another_process_is_kept_out_until_the_holder_lets_go(spawn):
    process = holder(spawn, "cpu")
    assert not is_free("cpu")
    assert is_free("board")
    process.stdin.write("\n")
    process.stdin.flush()
    assert process.stdout.readline() == "released\n"
    assert is_free("cpu")


def test_a_waiting_process_gets_the_device_when_it_becomes_free(spawn):
    first = holder(spawn, "cpu")
    second = spawn(HOLDER, 20, "cpu")
    assert "waiting for device 'cpu'" in second.stdout.readline()
    first.stdin.write("\n")
    first.stdin.flush()
    while (line := second.stdout.readline()).startswith("waiting"):
        pass
    assert line == "held\n"


def test_a_killed_holder_frees_its_device_at_once(spawn):
    process = holder(spawn, "cpu", "board")
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert is_free("cpu")
    assert is_free("board")


def test_a_device_is_freed_when_the_work_raises():
    with pytest.raises(ZeroDivisionError), lease.hold(("cpu", "board"), timeout_s=1):
        raise ZeroDivisionError
    assert is_free("cpu")
    assert is_free("board")


def test_an_agent_that_outlives_its_holder_keeps_the_device_busy(spawn):
    """The agent's own lock (shared with other agents) says that something still runs there."""
    agents = [spawn(AGENT, lease.agent_lock_file("cpu")) for _ in range(2)]
    assert [agent.stdout.readline() for agent in agents] == ["held\n"] * 2
    with pytest.raises(StageError) as caught, lease.hold(("cpu",), timeout_s=0.05):
        pass
    assert caught.value.stage == "lease"
    assert "device 'cpu' is still used by an agent of an ended run" in str(caught.value)
    assert f"`fuser {lease.agent_lock_file('cpu')}` names it" in str(caught.value)
    for agent in agents:
        assert not is_free("cpu")
        agent.kill()
        agent.wait()
    assert is_free("cpu")


def test_while_an_agent_lives_on_a_heartbeat_says_so(spawn, monkeypatch):
    monkeypatch.setattr(lease, "HEARTBEAT_S", 0.1)
    agent = spawn(AGENT, lease.agent_lock_file("cpu"))
    agent.stdout.readline()
    lines = []
    with pytest.raises(StageError), lease.hold(("cpu",), timeout_s=0.35, waiting=lines.append):
        pass
    assert 2 <= len(lines) <= 3
    assert all("waiting for device 'cpu': an agent of an ended run still uses it" in line for line in lines)


def test_a_heartbeat_names_the_holder(spawn, monkeypatch):
    monkeypatch.setenv("MLBENCH_JOB_URL", "https://ci.example.org/job/7")
    process = holder(spawn, "cpu")
    monkeypatch.setattr(lease, "HEARTBEAT_S", 0.1)
    lines = []
    with pytest.raises(StageError) as caught, lease.hold(("cpu",), timeout_s=0.35, waiting=lines.append):
        pass
    assert 2 <= len(lines) <= 4
    told = f"held by process {process.pid} since 20"
    assert all(line.startswith(f"waiting for device 'cpu': {told}") for line in lines)
    assert all(line.endswith(", job https://ci.example.org/job/7") for line in lines)
    assert f"device 'cpu' is busy: {told}" in str(caught.value)
    assert "--mlbench-lease-timeout" in str(caught.value)


def test_the_deadline_is_for_all_resources_together(spawn):
    process = holder(spawn, "b")
    begin = time.monotonic()
    with pytest.raises(StageError, match="device 'b' is busy"), lease.hold(("a", "b", "c"), timeout_s=0.3):
        pass
    assert 0.3 <= time.monotonic() - begin < 2
    process.kill()
    process.wait()
    assert is_free("a")  # what was had already is given back


def test_opposite_orders_do_not_wait_for_each_other(spawn):
    """Taken in sorted order, two resources cannot be held by one each."""
    code = """
import sys
from pytest_mlbench import lease
for _ in range(25):
    with lease.hold(tuple(sys.argv[1].split(",")), timeout_s=20):
        pass
print("done")
"""
    processes = [spawn(code, "a,b"), spawn(code, "b,a")]
    for process in processes:
        out, error = process.communicate(timeout=30)
        assert out == "done\n", error


def test_only_one_of_many_is_inside_at_a_time(spawn, tmp_path):
    code = """
import os, sys, time
from pytest_mlbench import lease
for _ in range(10):
    with lease.hold(("cpu",), timeout_s=20):
        os.close(os.open(sys.argv[1], os.O_CREAT | os.O_EXCL))  # fails when another is inside
        time.sleep(0.001)
        os.unlink(sys.argv[1])
print("done")
"""
    processes = [spawn(code, tmp_path / "inside") for _ in range(3)]
    for process in processes:
        out, error = process.communicate(timeout=30)
        assert out == "done\n", error


@pytest.mark.parametrize("content", [None, "", "not json", "[]", "{}", '{"pid": 1}'])
def test_a_holder_that_wrote_nothing_readable_is_another_process(state, content):
    lease.state_dir()
    if content is not None:
        (state / "cpu.holder").write_text(content, encoding="utf-8")
    assert lease.holder("cpu") == "held by another process"


def test_the_holder_writes_itself_down():
    with lease.hold(("cpu",), timeout_s=0):
        facts = json.loads((lease.state_dir() / "cpu.holder").read_text(encoding="utf-8"))
        assert facts["pid"] == os.getpid()
        assert lease.holder("cpu").startswith(f"held by process {os.getpid()} since ")


def test_the_files_are_for_every_user_of_the_machine(state):
    mask = os.umask(0o077)
    try:
        with lease.hold(("cpu",), timeout_s=0):
            pass
    finally:
        os.umask(mask)
    assert state.stat().st_mode & 0o7777 == 0o1777
    for file in ("cpu.lock", "cpu.agent", "cpu.holder"):
        assert (state / file).stat().st_mode & 0o666 == 0o666, file


def test_without_a_setting_the_state_is_shared_by_all_users(monkeypatch, tmp_path):
    import tempfile

    monkeypatch.delenv("MLBENCH_STATE")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert lease.state_dir() == tmp_path / "mlbench-state"


WRITER = """
import sys
from pathlib import Path
from pytest_mlbench import lease

with lease.sole_writer(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_one_run_file_has_one_writer_at_a_time(tmp_path):
    path = tmp_path / "run.jsonl"
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(RunFileError) as caught, lease.sole_writer(path):
            pass
        assert str(caught.value) == (
            f"another run is writing {path}; wait for it, or name another file with --mlbench-output"
        )
        with lease.sole_writer(tmp_path / "another.jsonl"):
            pass
        other.kill()
    with lease.sole_writer(path):  # the kernel gave a killed writer's lock back
        assert list(lease.state_dir().glob("run-*.lock"))
    assert not list(lease.state_dir().glob("run-*.lock"))
