"""Take a board's power away and give it back: by commands of the site, or by a USB hub that switches its ports.

What switches is told by plain values, so that they can travel to the machine that the board is wired to. They are those
of the table `switch` in a lab file (switches.py):

    kind         "command" or "uhubctl"
    cycle        of "command": the words of a program that does it all; else
    off, on      the words of two programs
    hub, port    of "uhubctl": the location of the hub, and the number of the port
    off_s        seconds without power, OFF_S by default
    deadline_s   seconds after which a program is ended, DEADLINE_S by default

Verified against own simulators only: programs that print what the real ones are documented to print.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from .board import BoardError

OFF_S = 2.0  # long enough for a board's capacitors
DEADLINE_S = 30.0
_LINES = 5  # of what a program printed, the last ones are shown


class Switch(Protocol):
    """The power of one board."""

    def cycle(self) -> None:
        """Take the power away for a moment and give it back; BoardError when that fails, or passes its deadline."""


@dataclass(frozen=True)
class CommandSwitch:
    """Run the site's own programs: each is the words of one, that no shell reads."""

    commands: tuple[tuple[str, ...], ...]
    off_s: float = OFF_S
    deadline_s: float = DEADLINE_S

    def cycle(self) -> None:
        """Run the programs one after the other, with a pause between them."""
        for number, command in enumerate(self.commands):
            if number:
                time.sleep(self.off_s)
            run(command, self.deadline_s)


@dataclass(frozen=True)
class UhubctlSwitch:
    """Switch one port of a USB hub by uhubctl, and look in its answer whether the hub obeyed."""

    hub: str
    port: int
    off_s: float = OFF_S
    deadline_s: float = DEADLINE_S

    def cycle(self) -> None:
        """Take the port's power away for `off_s`, and give it back."""
        self._switch("off")
        time.sleep(self.off_s)
        self._switch("on")

    def _switch(self, wanted: str) -> None:
        printed = run(("uhubctl", "-l", self.hub, "-p", str(self.port), "-a", wanted), self.deadline_s)
        # The last status line of the port tells what it became: `  Port 3: 0000 off`, `  Port 3: 0100 power`.
        found = re.findall(rf"^\s*Port {self.port}: \w{{4}} (.*)$", printed, re.MULTILINE)
        state = ("off" if re.match(r"off\b", found[-1]) else "on") if found else "unknown"
        if state != wanted:
            raise BoardError(
                f"power switch: port {self.port} of hub {self.hub} was switched {wanted} and is {state}; does this hub "
                "switch power per port? `uhubctl` lists those that do"
            )


def make(switch: Mapping[str, Any]) -> Switch:
    """Return what switches the power, from the plain values above."""
    off_s, deadline_s = float(switch.get("off_s", OFF_S)), float(switch.get("deadline_s", DEADLINE_S))
    if switch["kind"] == "uhubctl":
        return UhubctlSwitch(switch["hub"], switch["port"], off_s, deadline_s)
    whole = switch.get("cycle")
    commands = [whole] if whole else [switch["off"], switch["on"]]
    return CommandSwitch(tuple(tuple(command) for command in commands), off_s, deadline_s)


def run(command: Sequence[str], deadline_s: float) -> str:
    """Run a program to its end and return what it printed.

    Raises BoardError when it is missing, fails or takes longer; it and all that it started are ended then.
    """
    shown = " ".join(command)
    try:
        done = _run(command, deadline_s)
    except subprocess.TimeoutExpired:
        message = f"power switch: `{shown}` did not end within {deadline_s:g} s (deadline_s) and was ended"
        raise BoardError(message) from None
    except OSError as error:
        remedy = "apt-get install uhubctl" if command[0] == "uhubctl" else "or correct the device's `switch`"
        why = error.strerror or str(error)
        raise BoardError(f"power switch: {command[0]} cannot be run: {why}; install it, {remedy}") from None
    if done.returncode:
        lines = [line.strip() for line in (done.stdout + done.stderr).splitlines() if line.strip()]
        said = f": {' / '.join(lines[-_LINES:])}" if lines else "; it printed nothing"
        raise BoardError(f"power switch: `{shown}` failed with exit status {done.returncode}{said}")
    return done.stdout


def _run(command: Sequence[str], deadline_s: float) -> subprocess.CompletedProcess[str]:
    """Run a program in a session of its own, which has no terminal that it could ask on."""
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        errors="replace",
        start_new_session=True,
    ) as process:
        try:
            out, err = process.communicate(timeout=deadline_s)
        except BaseException:
            _end(process)
            raise
    return subprocess.CompletedProcess(list(command), process.returncode, out, err)


def _end(process: subprocess.Popen[str]) -> None:
    """End a program and what it started, which would live on and hold its pipes."""
    if sys.platform == "win32":
        process.kill()
        return
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
