"""Bring a machine of its own back that a case has the lease of, and do the case's work again; by the board's ladder.

The steps are the device's (devices.api.Recoverable), their order and what is written down of them agent/recovery.py's:
the same as of a board at the end of a line.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, TypeVar

from pytest_mlbench.agent.board import LEVELS, BoardError, BoardLost
from pytest_mlbench.agent.recovery import Recovery
from pytest_mlbench.devices.api import Device, Recoverable, Remote
from pytest_mlbench.errors import AgentLost, BoardFailed, StageError, Unreachable

T = TypeVar("T")
CONNECT = "connect"


@dataclass
class CaseRecovery:
    """What is held on a device's own machine for one case, and what it took to keep that machine going."""

    device: Device
    case: str
    stack: ExitStack  # lets go of what is held there
    waiting: Callable[[str], None]
    happened: list[dict[str, Any]] = field(default_factory=list)

    def hold(self, timeout_s: float) -> None:
        """Take the locks on the device's own machine, if it has one; brought back and tried again once.

        Raises BoardFailed, of a lost board, when nothing brought the machine back.
        """
        try:
            self._hold(timeout_s)
        except AgentLost as error:
            if not isinstance(self.device, Recoverable):
                raise
            self._recover(self.device, CONNECT, error)
            self._hold(timeout_s)

    def run(self, work: Callable[[], T], timeout_s: float) -> T:
        """Do the case's work, and again when its machine was lost and reset meanwhile.

        An agent that was lost on a machine that answers is the case's own error: a framework that crashes, a connection
        that was cut. Each step that resets the machine is taken once a case, so that this ends.
        """
        while True:
            try:
                return work()
            except AgentLost as error:
                if not self._is_reset(error):
                    raise
            self._hold(timeout_s)

    def _hold(self, timeout_s: float) -> None:
        if isinstance(self.device, Remote):
            self.stack.enter_context(self.device.held(timeout_s, self.waiting, self.case))

    def _is_reset(self, error: AgentLost) -> bool:
        """Tell whether the machine was lost with the agent, and a step that resets it brought it back."""
        if not isinstance(self.device, Recoverable):
            return False
        try:
            self.device.reach()
        except Unreachable:
            return self._recover(self.device, error.stage, error) in LEVELS
        except StageError:  # it refuses, which is another matter than the one to tell of
            return False
        return False

    def _recover(self, device: Recoverable, what: str, error: AgentLost) -> str:
        """Return the step that brought the machine back; BoardFailed when none did, or when it refuses afterwards."""
        taken = {step["step"] for step in self.happened} & set(LEVELS)
        rungs = [rung for rung in device.rungs() if rung.name not in taken]
        steps = ", ".join(rung.name for rung in rungs)
        self.waiting(f"device {self.device.name!r} does not answer; to bring it back: {steps}")
        known = [BoardError(error.message)]

        def reach() -> None:
            if known:
                raise known.pop()
            try:
                device.reach()
            except Unreachable as problem:
                raise BoardError(problem.message) from None

        recovery = Recovery(rungs, lambda: None, device)
        try:
            recovery.run(what, reach)
        except BoardLost as lost:
            message = str(lost).removeprefix(f"{error.stage}: ")  # told before every message of a stage
            raise self._failed(recovery, error.stage, message, error.detail, is_lost=True) from None
        except StageError as refused:
            raise self._failed(recovery, refused.stage, refused.message, refused.detail) from None
        self.happened += recovery.happened
        return str(recovery.happened[-1]["step"])

    def _failed(
        self, recovery: Recovery, stage: str, message: str, detail: str, *, is_lost: bool = False
    ) -> BoardFailed:
        self.happened += recovery.happened
        return BoardFailed(stage, message, detail, tuple(self.happened), is_lost=is_lost)
