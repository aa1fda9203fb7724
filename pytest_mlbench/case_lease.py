"""The lease of one case: which device it uses, what is held for it here and on the target, and from when to when."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from pytest_mlbench import lease
from pytest_mlbench.case_recovery import CaseRecovery
from pytest_mlbench.devices.api import Device, Remote
from pytest_mlbench.devices.choice import Choice
from pytest_mlbench.errors import MlbenchError
from pytest_mlbench.lease import Wanted

HOST = "cpu"  # this machine's processor, which every case burdens: models are made and outputs compared on it


@dataclass
class Held:
    """A lease that is held, and afterwards what a record keeps of it."""

    device: Device  # the chosen one
    wanted: Wanted
    waited_s: float
    since: str
    begin_ns: int  # of this machine's monotonic clock, which all of its processes share
    recovery: CaseRecovery
    end_ns: int = 0

    def to_json(self) -> dict[str, Any]:
        """Return the lease as JSON values. It ended after `end_ns` and began before `begin_ns`."""
        order = self.wanted.in_order()
        return {
            "device": self.device.name,
            "resources": [name for name, shared in order if not shared],
            "shares": [name for name, shared in order if shared],
            "since": self.since,
            "waited_s": self.waited_s,
            "begin_ns": self.begin_ns,
            "end_ns": self.end_ns,
        }


def wanted(device: Device, case: str) -> Wanted:
    """Return what a case holds while it uses `device`.

    A device other than this machine's processor shares that one: while another case is timed there, nobody may
    compute a reference or the accuracy of a board beside it.
    """
    shares = getattr(device, "shares", ())  # a device of a conftest.py may not have any
    return Wanted(device.resources, tuple(dict.fromkeys((*shares, HOST))), case)


@contextlib.contextmanager
def leased(
    device: Device,
    case: str,
    *,
    timeout_s: float,
    waiting: Callable[[str], None],
    quarantined: Callable[[str], None] = lambda name: None,
) -> Iterator[Held]:
    """Hold `device`, or of a Choice whichever is free first and can be used.

    `quarantined` raises MlbenchError for the name of a device that is out of use. Raises StageError (stage "lease")
    at the deadline, BoardFailed for a board that does not answer and that nothing brought back.
    """
    begin = time.monotonic()
    with ExitStack() as stack:
        if isinstance(device, Choice):
            choices = device.devices
            wants = [wanted(one, case) for one in choices]

            def enter(index: int, inner: ExitStack) -> str:
                return _usable(choices[index], case, inner, waiting, quarantined)

            index = stack.enter_context(lease.hold_first(wants, timeout_s=timeout_s, waiting=waiting, enter=enter))
            chosen, held = choices[index], wants[index]
            recovery = CaseRecovery(chosen, case, stack, waiting)
        else:
            chosen, held = device, wanted(device, case)
            quarantined(chosen.name)
            stack.enter_context(
                lease.hold(held.resources, shares=held.shares, timeout_s=timeout_s, waiting=waiting, case=case)
            )
            quarantined(chosen.name)  # by another worker, while this one waited
            recovery = CaseRecovery(chosen, case, stack, waiting)
            recovery.hold(max(0.0, timeout_s - (time.monotonic() - begin)))
        since = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
        found = Held(chosen, held, time.monotonic() - begin, since, time.monotonic_ns(), recovery)
        try:
            yield found
        finally:
            found.end_ns = time.monotonic_ns()


def _usable(
    device: Device,
    case: str,
    stack: ExitStack,
    waiting: Callable[[str], None],
    quarantined: Callable[[str], None],
) -> str:
    """Take what is locked on the target too, and say why the device cannot be used, "" when it can."""
    try:
        quarantined(device.name)
    except MlbenchError as error:
        return str(error)
    reason = device.probe()
    if not reason and isinstance(device, Remote):
        stack.enter_context(device.held(0.0, waiting, case))
    return reason
