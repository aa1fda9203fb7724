"""A board's locks, taken from a distance: the same ones that a session on the board takes."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import pytest

pytest.importorskip("fcntl")

from pytest_mlbench import lease
from pytest_mlbench.agent import locks
from pytest_mlbench.agent.board_lease import BoardLease
from pytest_mlbench.errors import StageError

FACTS = {"pid": 7, "user": "ann@desk", "since": "2026-01-02T03:04:05+00:00", "job": "", "case": ""}


@pytest.fixture(autouse=True)
def state(tmp_path, monkeypatch):
    monkeypatch.setenv("MLBENCH_STATE", str(tmp_path / "state"))


def test_one_at_a_time():
    one, other = BoardLease(), BoardLease()
    assert one.take(["cpu"], FACTS) == ""
    assert one.take(["cpu"], FACTS) == "", "it has it already"
    assert other.take(["cpu"], FACTS) == "'cpu' is held by process 7 since 2026-01-02T03:04:05+00:00 by user ann@desk"
    one.release()
    assert other.take(["cpu"], FACTS) == ""
    other.release()


def test_a_session_on_the_board_waits_for_one_from_afar_and_the_other_way_round():
    far = BoardLease()
    assert far.take(["cpu"], FACTS) == ""
    with pytest.raises(StageError, match=r"device 'cpu' is busy: held by process 7 since .* by user ann@desk"):
        lease.hold(("cpu",), timeout_s=0.05).__enter__()
    far.release()
    with lease.hold(("cpu",), timeout_s=1):
        assert far.take(["cpu"], FACTS).startswith("'cpu' is held by process ")


def test_several_are_all_had_or_none():
    one, other = BoardLease(), BoardLease()
    assert one.take(["npu"], FACTS) == ""
    assert "'npu' is held" in other.take(["npu", "cpu"], FACTS)
    assert one.take(["cpu"], FACTS) == "", "the other kept nothing"
    one.release()


def test_an_agent_that_lives_on_keeps_it_busy():
    with locks.made("cpu", "agent").open("rb") as stream:
        import fcntl

        fcntl.flock(stream, fcntl.LOCK_SH)
        found = BoardLease().take(["cpu"], FACTS)
    assert found.startswith("'cpu' is still used by an agent of an ended run (`fuser ")
    mine = BoardLease()
    assert mine.take(["cpu"], FACTS) == ""
    mine.release()


def test_it_is_free_when_its_holder_is_killed():
    code = "from pytest_mlbench.agent.board_lease import BoardLease\n"
    code += f"lease = BoardLease(); print(repr(lease.take(['cpu'], {FACTS!r})), flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout.readline() == b"''\n"
        mine = BoardLease()
        assert mine.take(["cpu"], FACTS)
        holder.send_signal(signal.SIGKILL)
        end = time.monotonic() + 5
        while mine.take(["cpu"], FACTS):
            assert time.monotonic() < end
            time.sleep(0.005)
    mine.release()
