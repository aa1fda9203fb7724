"""A device is held by one process at a time, and freed when that process goes, however it goes."""

from __future__ import annotations

import itertools
import os
import signal
import sys
import tempfile
import traceback
from pathlib import Path

import pytest
from filelock import FileLock

from pytest_mlbench import lease
from pytest_mlbench.errors import StageError

HELD = '{ name = "faulty", id = "held", options = { fault = "hold", stage = "measure" } }'

fcntl = pytest.importorskip("fcntl")
pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="kernel locks as Linux has them")


def overlapping(sessions):
    return [(one, other) for one, other in itertools.pairwise(sessions) if other[0] < one[1]]


def test_two_runs_never_use_the_device_at_once(bed):
    bed.suite(*[f'{{ name = "faulty", id = "f{number}", options = {{ call_ms = 2 }} }}' for number in range(4)])
    one = bed.start(output=bed.project / "one.jsonl")
    other = bed.start(output=bed.project / "other.jsonl")
    results = [one.wait(), other.wait()]
    assert [result.code for result in results] == [0, 0], results
    sessions = bed.sessions()
    assert len(sessions) == 8
    assert overlapping(sessions) == []


def test_two_workers_never_use_the_device_at_once(bed):
    bed.suite(*[f'{{ name = "faulty", id = "f{number}", options = {{ call_ms = 2 }} }}' for number in range(6)])
    result = bed.run("-n", "2")
    assert result.code == 0, result.out
    assert len({record.target["pid"] for record in result.run.records}) == 6, "a fresh agent for each case"
    sessions = bed.sessions()
    assert len(sessions) == 6
    assert overlapping(sessions) == []


def test_a_second_run_waits_until_the_first_is_done(bed):
    bed.held.touch()
    bed.suite(HELD)
    first = bed.start(output=bed.project / "one.jsonl")
    bed.wait_for_event("hold")
    bed.suite(name="others")
    second = bed.start("suites/others", output=bed.project / "other.jsonl")
    with pytest.raises(AssertionError, match="load number 2: not within"):
        bed.wait_for(lambda: bed.count("load") > 1, "load number 2", timeout_s=1.0)
    bed.held.unlink()
    assert (first.wait().code, second.wait().code) == (0, 0)
    assert overlapping(bed.sessions()) == []


def test_a_lease_that_is_not_had_in_time_names_the_holder(bed):
    bed.held.touch()
    bed.suite(HELD)
    holder = bed.start(output=bed.project / "one.jsonl", MLBENCH_JOB_URL="https://ci.example/job/7")
    bed.wait_for_event("hold")
    bed.suite(name="others")
    result = bed.run("suites/others", "--mlbench-lease-timeout=0.3", output=bed.project / "other.jsonl")
    record = result.records["faulty"]
    assert (record.outcome, record.stage) == ("error", "lease")
    assert record.reason.startswith(f"lease: device 'cpu' is busy: held by process {holder.pid} since 20")
    assert ", job https://ci.example/job/7; " in record.reason
    assert "wait for it, end it, or allow more time with --mlbench-lease-timeout" in record.reason
    assert f"error(lease): {record.case}: device 'cpu' is busy: held by process {holder.pid}" in result.out
    assert result.code == 12
    bed.held.unlink()
    assert holder.wait().code == 0


def test_an_agent_holds_the_device_itself(bed, monkeypatch):
    monkeypatch.setenv("MLBENCH_STATE", bed.env["MLBENCH_STATE"])
    bed.held.touch()
    bed.suite(HELD)
    running = bed.start()
    bed.wait_for_event("hold")
    with lease.agent_lock_file("cpu").open("rb") as stream:
        with pytest.raises(BlockingIOError):
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        bed.held.unlink()
        assert running.wait().code == 0
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)


@pytest.mark.parametrize("fault", ["hold", "hang_gil"])
def test_a_killed_holder_frees_the_device(bed, fault):
    bed.held.touch()
    bed.suite(f'{{ name = "faulty", options = {{ fault = "{fault}", stage = "measure" }} }}')
    holder = bed.start(output=bed.project / "one.jsonl")
    bed.wait_for_event("measure")
    bed.suite(name="others")
    second = bed.start("suites/others", "--mlbench-lease-timeout=20", output=bed.project / "other.jsonl")
    holder.signal(signal.SIGKILL)
    result = second.wait()
    assert result.records["faulty"].outcome == "pass", result.out


@pytest.fixture
def state(tmp_path, monkeypatch):
    monkeypatch.setenv("MLBENCH_STATE", str(tmp_path / "state"))
    monkeypatch.setattr(lease, "HEARTBEAT_S", 0.1)
    return lease.state_dir()


def test_waiting_tells_for_whom(state):
    lines = []
    with FileLock(state / "cpu.lock"):
        with (
            pytest.raises(StageError, match=r"lease: device 'cpu' is busy: held by another process; wait for it"),
            lease.hold(("cpu",), timeout_s=0.35, waiting=lines.append),
        ):
            pytest.fail("the device was given to two")
    assert 2 <= len(lines) <= 4
    assert set(lines) == {"waiting for device 'cpu': held by another process"}
    with lease.hold(("cpu",), timeout_s=0.1):
        assert lease.holder("cpu").startswith(f"held by process {os.getpid()} since ")


def test_a_device_is_busy_while_an_agent_of_an_ended_run_lives(state):
    lines = []
    path = lease.agent_lock_file("cpu")
    with path.open("rb") as agent:
        fcntl.flock(agent, fcntl.LOCK_SH)
        wanted = rf"device 'cpu' is still used by an agent of an ended run \(it holds {path}\); end that process"
        with (
            pytest.raises(StageError, match=wanted),
            lease.hold(("cpu",), timeout_s=0.25, waiting=lines.append),
        ):
            pytest.fail("the device was given away under an agent")
    assert lines[0] == f"waiting for device 'cpu': an agent of an ended run still uses it ({path})"
    with lease.hold(("cpu",), timeout_s=0.1):
        pass


def test_a_set_that_is_not_had_whole_is_given_back(state):
    with FileLock(state / "meter.lock"), pytest.raises(StageError), lease.hold(("meter", "board"), timeout_s=0.1):
        pytest.fail("the set was given without the meter")
    with lease.hold(("board",), timeout_s=0.1):
        pass


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="becomes another user")
def test_another_user_can_hold_the_device(monkeypatch):
    # Not below pytest's own folders, which are closed to others.
    with tempfile.TemporaryDirectory(prefix="mlbench-test-") as folder:
        Path(folder).chmod(0o755)
        monkeypatch.setenv("MLBENCH_STATE", f"{folder}/state")
        with lease.hold(("cpu",), timeout_s=0.1):
            pass
        assert hold_as_another_user() == 0


def hold_as_another_user():
    """Hold the device in a process of the user `nobody`; returns its exit status, 0 when all went well."""
    child = os.fork()
    if child == 0:  # the other user
        code = 1
        try:
            os.setgid(65534)
            os.setuid(65534)
            with lease.hold(("cpu",), timeout_s=1.0):
                code = 0 if lease.holder("cpu").startswith(f"held by process {os.getpid()} ") else 2
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)
