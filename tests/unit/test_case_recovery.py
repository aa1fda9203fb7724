"""A machine of its own that a case holds: when it is brought back, when the work is done again, when it is lost."""

from __future__ import annotations

import contextlib
from contextlib import ExitStack

import pytest

from pytest_mlbench.agent.board import BoardError
from pytest_mlbench.agent.recovery import Rung
from pytest_mlbench.case_recovery import CaseRecovery
from pytest_mlbench.devices.api import Recoverable, Remote
from pytest_mlbench.devices.cpu import Cpu
from pytest_mlbench.errors import AgentLost, BoardFailed, StageError, Unreachable

DOWN = Unreachable("start", "device 'far': no answer")
REFUSED = StageError("start", "device 'far': its host key changed")


class Far(Cpu):
    """A machine that answers or not; `mended_by` is the step after which it does."""

    name = "far"

    def __init__(self, mended_by="", steps=("reopen", "power_cycle"), problem=None):
        self.steps, self.mended_by, self.problem = steps, mended_by, problem
        self.done, self.lines = [], []

    @contextlib.contextmanager
    def held(self, timeout_s, waiting, case):
        self.done.append(f"hold {case} {timeout_s:g}")
        self.reach()
        yield
        self.done.append("release")

    def reach(self):
        self.done.append("reach")
        if self.problem is not None:
            raise self.problem

    def rungs(self):
        return tuple(Rung(name, lambda name=name: self.take(name)) for name in self.steps)

    def take(self, name):
        self.done.append(name)
        if name == self.mended_by:
            self.problem = None
        elif self.mended_by == f"not {name}":
            raise BoardError(f"{name} cannot")
        elif self.mended_by == f"{name} refuses":
            self.problem = REFUSED

    def note(self, line):
        self.lines.append(line)

    def _unused(self, *arguments):
        raise AssertionError("no agent is started here")

    start = began = ended = explain = transcript = state = machine = place_tree = scratch = fetch = _unused


class Plain(Far):
    """A maker's machine without means of recovery."""

    reach = None
    rungs = None

    @contextlib.contextmanager
    def held(self, timeout_s, waiting, case):
        if self.problem is not None:
            raise self.problem
        yield


class Work:
    """A case's work, which comes out as told, in turn; the machine is lost with it when it is `Unreachable`."""

    def __init__(self, device, *outcomes):
        self.device, self.outcomes, self.count = device, list(outcomes), 0

    def __call__(self):
        self.count += 1
        found = self.outcomes.pop(0)
        if isinstance(found, Exception):
            if isinstance(found, Unreachable):
                self.device.problem = DOWN
            raise found
        return found


@pytest.fixture
def stack():
    with ExitStack() as found:
        yield found


@pytest.fixture
def recovery(stack):
    told = []

    def make(device):
        found = CaseRecovery(device, "s/b[x]", stack, told.append)
        found.told = told
        return found

    return make


def steps(found):
    return [(step["step"], step["helped"]) for step in found]


def test_the_fakes_are_what_the_protocols_say():
    assert isinstance(Far(), Remote)
    assert isinstance(Far(), Recoverable)
    assert not isinstance(Cpu(), Recoverable)


# --- before the work ----------------------------------------------------------------------------------------


def test_a_machine_that_answers_is_held_and_nothing_else_is_done(recovery, stack):
    far = Far()
    found = recovery(far)
    found.hold(5.0)
    assert far.done == ["hold s/b[x] 5", "reach"]
    assert (found.happened, found.told) == ([], [])
    stack.close()
    assert far.done[-1] == "release"


def test_a_device_of_this_machine_has_nothing_to_hold(recovery):
    found = recovery(Cpu())
    found.hold(5.0)
    assert found.run(lambda: 42, 5.0) == 42


@pytest.mark.parametrize(
    ("mended_by", "taken"),
    [("reopen", [("reopen", True)]), ("power_cycle", [("reopen", False), ("power_cycle", True)])],
)
def test_a_machine_that_does_not_answer_is_brought_back_and_held(recovery, mended_by, taken):
    far = Far(mended_by, problem=DOWN)
    found = recovery(far)
    found.hold(5.0)
    asked = [word for step, _ in taken for word in (step, "reach")]
    assert far.done == ["hold s/b[x] 5", "reach", *asked, "hold s/b[x] 5", "reach"]
    assert steps(found.happened) == taken
    assert {(step["what"], step["because"]) for step in found.happened} == {("connect", "device 'far': no answer")}
    assert found.told == ["device 'far' does not answer; to bring it back: reopen, power_cycle"]
    assert far.lines[0] == "recovery: reopen, because device 'far': no answer"


def test_a_machine_that_nothing_brings_back_is_lost(recovery):
    found = recovery(Far("not power_cycle", problem=DOWN))
    with pytest.raises(BoardFailed) as caught:
        found.hold(5.0)
    assert caught.value.is_lost
    assert caught.value.stage == "start"
    assert caught.value.message == (
        "connect: device 'far': no answer. Nothing brought the board back. reopen: device 'far': no answer; "
        "power_cycle: power_cycle cannot"
    )
    assert steps(caught.value.happened) == [("reopen", False), ("power_cycle", False)]


def test_a_machine_that_refuses_is_not_brought_back(recovery):
    far = Far("power_cycle", problem=REFUSED)
    found = recovery(far)
    with pytest.raises(StageError) as caught:
        found.hold(5.0)
    assert caught.value is REFUSED
    assert "power_cycle" not in far.done


def test_a_machine_that_refuses_after_a_step_is_told_with_the_steps_and_not_lost(recovery):
    found = recovery(Far("power_cycle refuses", problem=DOWN))
    with pytest.raises(BoardFailed, match="its host key changed") as caught:
        found.hold(5.0)
    assert not caught.value.is_lost
    assert steps(caught.value.happened) == [("reopen", False), ("power_cycle", False)]


def test_a_machine_without_means_of_recovery_is_an_error_as_it_is(recovery):
    with pytest.raises(Unreachable) as caught:
        recovery(Plain(problem=DOWN)).hold(5.0)
    assert caught.value is DOWN


# --- during the work ----------------------------------------------------------------------------------------

CRASHED = AgentLost("measure", "device 'far': the agent there ended with status 139")
CUT = Unreachable("measure", "device 'far': the connection was cut")


def test_work_whose_machine_was_reset_is_done_again_under_a_new_hold(recovery):
    far = Far("power_cycle")
    work, found = Work(far, CUT, 42), recovery(far)
    assert found.run(work, 7.0) == 42
    assert far.done == ["reach", "reopen", "reach", "power_cycle", "reach", "hold s/b[x] 7", "reach"]
    assert steps(found.happened) == [("reopen", False), ("power_cycle", True)]
    assert {step["what"] for step in found.happened} == {"measure"}
    assert found.happened[0]["because"] == "device 'far': the connection was cut"


def test_work_is_not_done_again_when_the_machine_answers(recovery):
    far = Far("power_cycle")
    work, found = Work(far, CRASHED), recovery(far)
    with pytest.raises(AgentLost) as caught:
        found.run(work, 7.0)
    assert caught.value is CRASHED
    assert (work.count, far.done, found.happened) == (1, ["reach"], [])


def test_work_is_not_done_again_when_one_more_try_was_enough(recovery):
    far = Far("reopen")
    work, found = Work(far, CUT), recovery(far)
    with pytest.raises(Unreachable) as caught:
        found.run(work, 7.0)
    assert caught.value is CUT
    assert steps(found.happened) == [("reopen", True)], "the record tells that the network is not what it should be"


def test_the_error_of_the_work_stands_when_the_machine_refuses(recovery):
    far = Far(problem=REFUSED)
    with pytest.raises(AgentLost) as caught:
        recovery(far).run(Work(far, CRASHED), 7.0)
    assert caught.value is CRASHED


def test_other_errors_of_the_work_are_none_of_the_machine(recovery):
    far = Far("power_cycle", problem=DOWN)
    with pytest.raises(StageError, match="no such layer"):
        recovery(far).run(Work(far, StageError("load", "no such layer")), 7.0)
    assert far.done == []


def test_a_machine_is_reset_once_a_case_and_then_lost(recovery):
    far = Far("power_cycle")
    work, found = Work(far, CUT, CUT, 42), recovery(far)
    with pytest.raises(BoardFailed, match=r"^measure: device 'far': the connection was cut\. Nothing") as caught:
        found.run(work, 7.0)
    assert caught.value.is_lost
    assert work.count == 2
    assert far.done.count("power_cycle") == 1
    assert steps(caught.value.happened) == [("reopen", False), ("power_cycle", True), ("reopen", False)]
    assert found.told[-1] == "device 'far' does not answer; to bring it back: reopen"


def test_the_steps_before_and_during_the_work_are_kept_together(recovery):
    far = Far("power_cycle", problem=DOWN)
    found = recovery(far)
    found.hold(5.0)
    with pytest.raises(BoardFailed) as caught:
        found.run(Work(far, CUT), 5.0)
    assert [step["what"] for step in caught.value.happened] == ["connect", "connect", "measure"]


def test_a_machine_without_means_of_recovery_loses_its_case(recovery):
    far = Plain()
    with pytest.raises(Unreachable) as caught:
        recovery(far).run(Work(far, CUT), 5.0)
    assert caught.value is CUT
