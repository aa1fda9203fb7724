"""The lease of one case: what it holds, which device it chooses, and what a record keeps of it."""

from __future__ import annotations

import contextlib
import sys
from dataclasses import dataclass, field

import pytest

from pytest_mlbench import case_lease, lease
from pytest_mlbench.case_lease import leased, wanted
from pytest_mlbench.devices.api import Remote
from pytest_mlbench.devices.choice import Choice
from pytest_mlbench.devices.cpu import Cpu
from pytest_mlbench.errors import BoardFailed, StageError

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there are no shared locks")


@pytest.fixture(autouse=True)
def state(tmp_path, monkeypatch):
    monkeypatch.setenv("MLBENCH_STATE", str(tmp_path / "state"))


@dataclass(frozen=True)
class Board(Cpu):
    name: str = "board"
    resources: tuple[str, ...] = ("board",)
    why: str = ""

    def probe(self):
        return self.why


@dataclass(frozen=True)
class Far(Board):
    """A board on a machine of its own, of which only the lock there matters here."""

    trouble: list = field(default_factory=list)  # raised by the next tries to take it, in turn
    events: list = field(default_factory=list)

    @contextlib.contextmanager
    def held(self, timeout_s, waiting, case):
        self.events.append(("take", timeout_s, case))
        if self.trouble:
            raise self.trouble.pop(0)
        yield
        self.events.append("released")

    def _unused(self, *arguments):
        raise AssertionError("no agent is started here")

    start = began = ended = explain = note = transcript = state = machine = place_tree = scratch = fetch = _unused


def held(device, **options):
    return leased(device, "s/b[x]", timeout_s=options.pop("timeout_s", 1.0), waiting=lambda line: None, **options)


def is_free(*resources, shares=()):
    try:
        with lease.hold(resources, shares=shares, timeout_s=0):
            return True
    except StageError:
        return False


def test_a_far_board_is_what_the_protocol_says():
    assert isinstance(Far(), Remote)
    assert not isinstance(Board(), Remote)


# --- what is held -----------------------------------------------------------------------------------------------


def test_this_machines_processor_is_held_alone():
    found = wanted(Cpu(), "s/b[x]")
    assert found.in_order() == [("cpu", False)]
    with held(Cpu()):
        assert not is_free(shares=("cpu",))


def test_every_other_device_shares_the_processor():
    assert wanted(Board(), "c").in_order() == [("board", False), ("cpu", True)]
    assert wanted(Board(shares=("bus", "cpu")), "c").in_order() == [("board", False), ("bus", True), ("cpu", True)]
    with held(Board()):
        assert is_free("other", shares=("cpu",))
        assert not is_free("cpu")


def test_a_device_of_a_conftest_need_not_say_what_it_shares():
    class Plain:
        name = "plain"
        resources = ("plain",)

    assert wanted(Plain(), "c").in_order() == [("cpu", True), ("plain", False)]


def test_what_a_record_keeps():
    with held(Board(resources=("board", "meter"))) as found:
        assert found.end_ns == 0
        assert "case s/b[x]" in lease.holder("board")
    told = found.to_json()
    assert set(told) == {"device", "resources", "shares", "since", "waited_s", "begin_ns", "end_ns"}
    assert (told["device"], told["resources"], told["shares"]) == ("board", ["board", "meter"], ["cpu"])
    assert told["begin_ns"] < told["end_ns"]
    assert told["since"].startswith("20")
    assert told["since"].endswith("+00:00")
    assert 0 <= told["waited_s"] < 1


def test_the_end_is_noted_and_all_is_given_back_when_the_work_raises():
    with pytest.raises(ZeroDivisionError), held(Board()) as found:
        raise ZeroDivisionError
    assert found.end_ns > found.begin_ns
    assert is_free("board", "cpu")


# --- a machine of its own -----------------------------------------------------------------------------------------


def test_a_far_board_is_locked_there_too_within_what_is_left_of_the_time():
    far = Far(name="far", resources=("far",))
    with held(far, timeout_s=5.0):
        assert not is_free("far")
        ((word, timeout_s, _),) = far.events
        assert word == "take"
        assert 0 < timeout_s <= 5.0
    assert far.events[-1] == "released"


def test_a_far_board_that_is_busy_there_is_given_back_here():
    far = Far(resources=("far",), trouble=[StageError("lease", "device 'far' is busy: on the board held by 7")])
    with pytest.raises(StageError, match="on the board held by 7"), held(far):
        pass
    assert is_free("far", "cpu")


def test_the_case_is_told_to_who_waits_there():
    far = Far(resources=("far",))
    with held(far):
        assert far.events[0][2] == "s/b[x]"


def test_one_that_was_given_up_is_refused_before_anything_is_waited_for():
    def quarantined(name):
        raise BoardFailed("quarantine", f"device {name} was given up in s/b[y]")

    far = Far(resources=("far",))
    with lease.hold(("far",), timeout_s=0), pytest.raises(BoardFailed, match="device board was given up"):
        with held(far, quarantined=quarantined):
            pass
    assert far.events == []


def test_one_that_another_worker_gave_up_meanwhile_is_not_connected_to():
    told = iter(["", "device board was given up in s/b[y]"])

    def quarantined(name):
        why = next(told)
        if why:
            raise BoardFailed("quarantine", why)

    far = Far(resources=("far",))
    with pytest.raises(BoardFailed, match="device board was given up"), held(far, quarantined=quarantined):
        pass
    assert far.events == []
    assert is_free("far", "cpu")


# --- one of several -------------------------------------------------------------------------------------------------


def choice(*devices):
    return Choice("any.x", devices)


def test_the_first_that_can_be_used_is_chosen():
    with held(choice(Board("a", ("a",), why="no such port"), Board("b", ("b",)), Board("c", ("c",)))) as found:
        assert found.device.name == "b"
        assert found.to_json()["resources"] == ["b"]
        assert is_free("a", "c")


def test_one_that_another_session_holds_is_passed_over():
    with held(Board("a", ("a",))), held(choice(Board("a", ("a",)), Board("b", ("b",)))) as found:
        assert found.device.name == "b"


def test_one_that_was_given_up_in_this_session_is_passed_over():
    def quarantined(name):
        if name == "a":
            raise BoardFailed("quarantine", "device a was given up in s/b[y]")

    boards = choice(Board("a", ("a",)), Board("b", ("b",)))
    with held(boards, quarantined=quarantined) as found:
        assert found.device.name == "b"
    with pytest.raises(StageError) as caught, held(choice(boards.devices[0]), quarantined=quarantined):
        pass
    assert "none of 1 devices can be used: a: quarantine: device a was given up in s/b[y]" in str(caught.value)


def test_one_that_is_busy_on_its_own_machine_is_tried_again_and_one_that_is_down_is_not():
    busy = Far(name="a", resources=("a",), trouble=[StageError("lease", "device 'a' is busy: there")] * 2)
    down = Far(name="b", resources=("b",), trouble=[StageError("start", "device 'b': connection refused")])
    with held(choice(busy, down)) as found:
        assert found.device.name == "a"
        assert not is_free("a")
    assert [event for event in busy.events if event != "released"] == [("take", 0.0, "s/b[x]")] * 3
    assert len(down.events) == 1
    assert busy.events[-1] == "released"
    assert is_free("a", "b", "cpu")


def test_the_host_is_the_device_that_computes_references():
    assert Cpu().name == case_lease.HOST
