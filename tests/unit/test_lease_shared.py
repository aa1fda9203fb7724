"""Sharing a resource beside others, choosing among several, and what is told of holders: real processes and locks."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pytest_mlbench import lease
from pytest_mlbench.agent import locks
from pytest_mlbench.errors import StageError
from pytest_mlbench.lease import Wanted

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there are no shared locks")

# Arguments: timeout, resources held alone, resources shared, case. Prints as test_lease.HOLDER does.
HOLDER = """
import sys
from pytest_mlbench import lease
lease.HEARTBEAT_S = 0.1
def say(line): print(line, flush=True)
alone, shared = (tuple(filter(None, text.split(","))) for text in sys.argv[2:4])
with lease.hold(alone, shares=shared, timeout_s=float(sys.argv[1]), waiting=say, case=sys.argv[4]):
    print("held", flush=True)
    sys.stdin.readline()
print("released", flush=True)
"""


@pytest.fixture(autouse=True)
def state(tmp_path, monkeypatch):
    monkeypatch.setenv("MLBENCH_STATE", str(tmp_path / "state"))
    for name in ("MLBENCH_JOB_URL", "CI_JOB_URL", "BUILD_URL", "GITHUB_SERVER_URL"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "state"


@pytest.fixture
def spawn():
    """Start processes that hold something; those left are killed."""
    started = []

    def start(alone="", shared="", timeout_s=20, case="", code=HOLDER):
        process = subprocess.Popen(
            [sys.executable, "-c", code, str(timeout_s), alone, shared, case],
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


def held(process):
    """Read what a process says while it waits, until it holds what it asked for."""
    lines = []
    while (line := process.stdout.readline()) not in ("held\n", ""):
        lines.append(line)
    assert line == "held\n", process.stderr.read()
    return lines


def let_go(process):
    process.stdin.write("\n")
    process.stdin.flush()
    assert process.stdout.readline() == "released\n"


def is_free(alone=(), shared=()):
    try:
        with lease.hold(alone, shares=shared, timeout_s=0):
            return True
    except StageError:
        return False


# --- beside others --------------------------------------------------------------------------------------------


def test_sharers_are_inside_together_and_keep_out_who_wants_it_alone(spawn):
    first, second = spawn("a", "cpu"), spawn("b", "cpu")
    held(first)
    held(second)
    assert is_free(shared=("cpu",))
    assert not is_free(("cpu",))
    let_go(first)
    assert not is_free(("cpu",))
    let_go(second)
    assert is_free(("cpu",))


def test_who_holds_it_alone_keeps_out_sharers(spawn):
    process = spawn("cpu")
    held(process)
    assert not is_free(shared=("cpu",))
    let_go(process)
    assert is_free(shared=("cpu",))


def test_a_name_that_is_wanted_alone_and_shared_is_held_alone():
    assert Wanted(("cpu",), ("cpu", "bus")).in_order() == [("bus", True), ("cpu", False)]
    with lease.hold(("cpu",), shares=("cpu",), timeout_s=1):
        assert not is_free(shared=("cpu",))
    assert is_free(("cpu",))


def test_a_stream_of_sharers_cannot_keep_out_who_wants_it_alone(spawn):
    """Sharers that overlap without end: who wants it alone gets it as soon as those inside have left."""
    first = spawn("", "cpu")
    held(first)
    alone = spawn("cpu")
    assert "waiting for device 'cpu': shared by process" in alone.stdout.readline()
    late = spawn("", "cpu")
    assert "waiting for device 'cpu': held by process" in late.stdout.readline()  # it may not pass the one who waits
    let_go(first)
    held(alone)
    let_go(alone)
    held(late)
    let_go(late)


def test_a_killed_sharer_leaves_at_once(spawn):
    process = spawn("", "cpu")
    held(process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert is_free(("cpu",))
    assert locks.sharers("cpu") == "shared by another process"
    assert not list(locks.state_dir().glob("cpu.share[0-9]*")), "what it noted is removed by who reads it"


def test_sharers_are_named_to_who_waits_and_in_the_error(spawn, monkeypatch):
    monkeypatch.setenv("MLBENCH_JOB_URL", "https://ci.example.org/7")
    one, other = spawn("a", "cpu", case="digits/one[x]"), spawn("b", "cpu", case="digits/other[y]")
    held(one)
    held(other)
    monkeypatch.setattr(lease, "HEARTBEAT_S", 0.1)
    lines = []
    with pytest.raises(StageError) as caught, lease.hold(("cpu",), timeout_s=0.3, waiting=lines.append):
        pass
    assert lines
    for told in (*lines, str(caught.value)):
        assert f"shared by process {one.pid} since 20" in told
        assert f"shared by process {other.pid} since 20" in told
        assert "case digits/one[x], job https://ci.example.org/7" in told
        assert "case digits/other[y]" in told
    assert "device 'cpu' is busy: " in str(caught.value)
    assert "--mlbench-lease-timeout" in str(caught.value)


def test_an_agent_that_outlives_its_sharer_keeps_out_who_wants_it_alone():
    files = lease.agent_lock_files(("board", "meter"), ("cpu",))
    folder = locks.state_dir()
    assert files == [str(folder / name) for name in ("board.agent", "meter.agent", "cpu.share")]
    with Path(files[2]).open("rb") as stream:  # as the agent does, see agent/worker.py
        assert locks.share(stream)
        assert is_free(shared=("cpu",))
        assert not is_free(("cpu",))
    assert is_free(("cpu",))


def test_sets_of_shared_and_lone_resources_do_not_wait_for_each_other(spawn):
    code = """
import sys
from pytest_mlbench import lease
alone, shared = (tuple(filter(None, text.split(","))) for text in sys.argv[2:4])
for _ in range(15):
    with lease.hold(alone, shares=shared, timeout_s=30):
        pass
print("done")
"""
    processes = [
        spawn("a,b", "cpu", code=code),
        spawn("b,a", "cpu", code=code),
        spawn("cpu", "a", code=code),
        spawn("cpu,b", code=code),
    ]
    for process in processes:
        out, error = process.communicate(timeout=60)
        assert out == "done\n", error


def test_a_deadline_holds_while_sharers_stay_and_gives_all_back(spawn):
    process = spawn("", "cpu")
    held(process)
    begin = time.monotonic()
    with pytest.raises(StageError), lease.hold(("a", "cpu"), timeout_s=0.2):
        pass
    assert time.monotonic() - begin >= 0.2
    assert is_free(("a",), ("cpu",))


# --- one of several -------------------------------------------------------------------------------------------

BOARDS = [Wanted(("a",), ("cpu",)), Wanted(("b",), ("cpu",)), Wanted(("c",), ("cpu",))]


def test_the_first_free_one_is_held_and_the_others_are_not(spawn):
    process = spawn("a")
    held(process)
    with lease.hold_first(BOARDS, timeout_s=1) as index:
        assert index == 1
        assert not is_free(("b",))
        assert is_free(("c",))
    assert is_free(("b",))


def test_two_of_several_are_never_the_same(spawn):
    code = """
import os, sys, time
from pytest_mlbench import lease
from pytest_mlbench.lease import Wanted
boards = [Wanted((name,)) for name in "ab"]
for _ in range(10):
    with lease.hold_first(boards, timeout_s=30) as index:
        path = os.path.join(os.environ["MLBENCH_STATE"], f"inside{index}")
        os.close(os.open(path, os.O_CREAT | os.O_EXCL))  # fails when another is inside
        time.sleep(0.001)
        os.unlink(path)
print("done")
"""
    processes = [spawn(code=code) for _ in range(4)]
    for process in processes:
        out, error = process.communicate(timeout=60)
        assert out == "done\n", error


def test_one_that_cannot_be_used_is_passed_over_and_given_back():
    def enter(index, stack):
        return "" if index == 2 else "no such port"

    with lease.hold_first(BOARDS, timeout_s=1, enter=enter) as index:
        assert index == 2
        assert is_free(("a", "b"))


def test_when_none_can_be_used_it_says_so_at_once():
    begin = time.monotonic()
    with (
        pytest.raises(StageError) as caught,
        lease.hold_first(BOARDS, timeout_s=60, enter=lambda index, stack: f"no port {index}"),
    ):
        pass
    assert time.monotonic() - begin < 30
    assert caught.value.stage == "lease"
    assert caught.value.message == "none of 3 devices can be used: a: no port 0; b: no port 1; c: no port 2"


def test_when_all_are_busy_the_error_names_every_holder(spawn, monkeypatch):
    processes = [spawn(name) for name in "abc"]
    for process in processes:
        held(process)
    monkeypatch.setattr(lease, "HEARTBEAT_S", 0.1)
    lines = []
    with pytest.raises(StageError) as caught, lease.hold_first(BOARDS, timeout_s=0.3, waiting=lines.append):
        pass
    assert lines
    assert lines[0].startswith("waiting for one of 3 devices: device 'a' is busy: held by process")
    for process in processes:
        assert f"held by process {process.pid} since" in str(caught.value)
    assert "every device that would do is busy" in str(caught.value)
    assert "--mlbench-lease-timeout" in str(caught.value)


def test_one_that_is_busy_elsewhere_is_tried_again():
    tries = []

    def enter(index, stack):
        tries.append(index)
        if len(tries) < 3:
            raise StageError("lease", "device 'a' is busy there; wait")
        return ""

    with lease.hold_first(BOARDS[:1], timeout_s=5, enter=enter) as index:
        assert index == 0
    assert len(tries) == 3


def test_one_that_fails_to_answer_is_not_tried_again():
    def enter(index, stack):
        if index == 0:
            raise StageError("start", "device 'a': ssh: connection refused; is it on?")
        return ""

    with lease.hold_first(BOARDS[:2], timeout_s=5, enter=enter) as index:
        assert index == 1


# --- who holds it ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("environment", "url"),
    [
        ({}, ""),
        ({"MLBENCH_JOB_URL": "https://a", "CI_JOB_URL": "https://b"}, "https://a"),
        ({"CI_JOB_URL": "https://gitlab.example/j/1"}, "https://gitlab.example/j/1"),
        ({"BUILD_URL": "https://jenkins.example/1"}, "https://jenkins.example/1"),
        (
            {"GITHUB_SERVER_URL": "https://github.com", "GITHUB_REPOSITORY": "a/b", "GITHUB_RUN_ID": "7"},
            "https://github.com/a/b/actions/runs/7",
        ),
        ({"GITHUB_SERVER_URL": "https://github.com", "GITHUB_REPOSITORY": "a/b"}, ""),
    ],
)
def test_the_job_is_found_in_what_ci_systems_set(environment, url):
    assert locks.job_url(environment) == url


def test_a_holder_is_told_with_user_and_case():
    with lease.hold(("cpu",), timeout_s=0, case="digits/classify[x]"):
        facts = json.loads((locks.state_dir() / "cpu.holder").read_text(encoding="utf-8"))
        assert set(facts) == {"pid", "user", "since", "job", "case"}
        told = lease.holder("cpu")
    assert told.startswith(f"held by process {os.getpid()} since {facts['since']}")
    assert told.endswith(f" by user {facts['user']}, case digits/classify[x]")


def test_users_tells_what_goes_on_now(spawn):
    assert locks.users("cpu") == ""
    with lease.hold(("cpu",), timeout_s=0):
        assert locks.users("cpu").startswith(f"held by process {os.getpid()} ")
    assert locks.users("cpu") == "", "the note of an earlier holder says nothing"
    process = spawn("", "cpu")
    held(process)
    assert locks.users("cpu").startswith(f"shared by process {process.pid} ")
    let_go(process)
    with locks.made("cpu", "agent").open("rb") as stream:
        assert locks.share(stream)
        assert locks.users("cpu") == "used by an agent of an ended run"


@pytest.mark.parametrize("name", ["cuda:0", "a/b", "..", "x y", "ä"])
def test_any_name_of_a_resource_is_one_file_in_the_folder(name):
    path = locks.file_of(name, "lock")
    assert path.parent == locks.state_dir()
    assert path.name.isascii()
    with lease.hold((name,), timeout_s=0):
        assert not is_free((name,))
    assert path.exists()


def test_two_names_never_share_a_file():
    names = ["cuda:0", "cuda%3a0", "cuda/0", "cuda%3A0", "a b", "a_b"]
    assert len({locks.file_of(name, "lock") for name in names}) == len(names)
