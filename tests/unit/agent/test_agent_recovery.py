"""The ladder: each step only after the one before failed, all of it written down, and an end."""

from __future__ import annotations

import pytest

from pytest_mlbench.agent.board import BoardError, BoardLost, FlashError, LineLost, WrongBoard
from pytest_mlbench.agent.recovery import MOST, Recovery, Rung
from pytest_mlbench.agent.transcript import Transcript


class Broken:
    """Work that fails until a step has been done."""

    def __init__(self, mended_by="", error=LineLost):
        self.done, self.mended_by, self.error = [], mended_by, error
        self.is_mended = not mended_by

    def rung(self, name, fails=False):
        def go():
            self.done.append(name)
            if fails:
                raise BoardError(f"{name} cannot")
            self.is_mended = self.is_mended or name == self.mended_by

        return Rung(name, go)

    def settle(self):
        self.done.append("settle")

    def work(self):
        self.done.append("work")
        if not self.is_mended:
            raise self.error("it fails")
        return 42

    def recovery(self, *rungs):
        return Recovery(rungs, self.settle, Transcript())


def test_work_that_succeeds_needs_no_step():
    broken = Broken()
    recovery = broken.recovery(broken.rung("resync"))
    assert recovery.run("infer", broken.work) == 42
    assert recovery.happened == []
    assert broken.done == ["work"]


def test_steps_are_tried_in_order_until_the_work_succeeds():
    broken = Broken("power_cycle")
    rungs = [broken.rung(name) for name in ("resync", "hard_reset", "power_cycle", "never")]
    recovery = broken.recovery(*rungs)
    assert recovery.run("infer", broken.work) == 42
    assert broken.done == ["work", *("resync settle work hard_reset settle work power_cycle settle work".split())]
    assert [(one["step"], one["helped"]) for one in recovery.happened] == [
        ("resync", False),
        ("hard_reset", False),
        ("power_cycle", True),
    ]
    assert {one["because"] for one in recovery.happened} == {"it fails"}
    assert {one["what"] for one in recovery.happened} == {"infer"}
    assert all(one["duration_ns"] >= 0 for one in recovery.happened)


def test_a_step_that_fails_itself_leads_to_the_next():
    broken = Broken("hard_reset")
    recovery = broken.recovery(broken.rung("resync", fails=True), broken.rung("hard_reset"))
    assert recovery.run("infer", broken.work) == 42
    assert recovery.happened[1]["because"] == "resync cannot"


def test_when_nothing_helps_the_board_is_lost_and_every_step_is_told():
    broken = Broken("nothing")
    recovery = broken.recovery(broken.rung("resync"), broken.rung("hard_reset", fails=True))
    with pytest.raises(BoardLost) as raised:
        recovery.run("infer", broken.work)
    assert str(raised.value) == (
        "infer: it fails. Nothing brought the board back. resync: it fails; hard_reset: hard_reset cannot"
    )


@pytest.mark.parametrize("error", [WrongBoard, FlashError])
def test_what_no_reset_mends_is_not_tried(error):
    broken = Broken("resync", error)
    recovery = broken.recovery(broken.rung("resync"))
    with pytest.raises(error, match="it fails"):
        recovery.run("infer", broken.work)
    assert broken.done == ["work"]


def test_another_board_after_a_reset_ends_the_ladder():
    broken = Broken("hard_reset")

    def another():
        raise WrongBoard("it says kws01")

    recovery = Recovery([broken.rung("resync"), broken.rung("hard_reset")], another, Transcript())
    with pytest.raises(WrongBoard, match="it says kws01"):
        recovery.run("infer", broken.work)
    assert broken.done == ["work", "resync"]


def test_a_board_that_fails_again_and_again_is_given_up():
    broken = Broken("resync")
    recovery = broken.recovery(broken.rung("resync"))
    for _ in range(MOST):
        broken.is_mended = False
        recovery.run("infer", broken.work)
    broken.is_mended = False
    with pytest.raises(BoardLost, match=f"^the board failed again after {MOST} recoveries in one case: it fails$"):
        recovery.run("infer", broken.work)


def test_an_error_of_our_own_is_none_of_the_boards():
    broken = Broken("resync", KeyError)
    with pytest.raises(KeyError):
        broken.recovery(broken.rung("resync")).run("infer", broken.work)


def test_the_transcript_tells_the_steps():
    broken, transcript = Broken("resync"), Transcript()
    Recovery([broken.rung("resync")], broken.settle, transcript).run("infer", broken.work)
    assert "* recovery: resync, because it fails" in transcript.text()
