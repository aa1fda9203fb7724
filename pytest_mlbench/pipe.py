"""The program that carries an agent's connection to another machine (`ssh`), as a process of this machine."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import threading
import time
from collections.abc import Iterator
from typing import BinaryIO

_EXIT_S = 2.0  # how long it may take to end once its connection has closed
_FIRST_BYTES = 32


class Pipe:
    """A process that writes its number as the first line of a file, and then all that it and the far side print.

    A device's gateway() gets the file as the word `{log}`. A program that does not write its number cannot be ended.
    """

    def __init__(self, log: BinaryIO) -> None:
        self._log = log

    @property
    def pid(self) -> int | None:
        """Return the number of the process; None when it has not written it (yet)."""
        with contextlib.suppress(OSError, ValueError):
            found = re.match(rb"(\d{1,9})\n", os.pread(self._log.fileno(), _FIRST_BYTES, 0))
            return int(found[1]) if found else None
        return None

    def end(self) -> None:
        """Kill the process, unless it has ended."""
        pid = self.pid
        if pid is not None and self._found(pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def status(self) -> int | None:
        """Return the exit status, waiting for it for a moment; None when it lives on or is not known.

        The status is left for execnet's own wait.
        """
        pid, end = self.pid, time.monotonic() + _EXIT_S
        while pid is not None and time.monotonic() < end:
            found = self._found(pid, os.WEXITED | os.WNOWAIT | os.WNOHANG)
            if found is not None:
                return found.si_status if found.si_code == os.CLD_EXITED else None
            time.sleep(0.005)
        return None

    @contextlib.contextmanager
    def deadline(self, seconds: float) -> Iterator[list[float]]:
        """End the process when the block takes longer: execnet waits for the far side without end.

        Yields a list that then holds the seconds.
        """
        passed: list[float] = []

        def end() -> None:
            passed.append(seconds)
            self.end()

        timer = threading.Timer(seconds, end)
        timer.daemon = True
        timer.start()
        try:
            yield passed
        finally:
            timer.cancel()

    @staticmethod
    def _found(pid: int, options: int) -> os.waitid_result | None:
        try:
            return os.waitid(os.P_PID, pid, options)
        except ChildProcessError:  # its status was taken: it has ended, and the number may be another's
            return os.waitid_result((pid, 0, signal.SIGCHLD, -1, os.CLD_KILLED))


def without_number(printed: str) -> str:
    """Return what was printed, without the first line that holds the process's number."""
    return re.sub(r"\A\d{1,9}\n", "", printed)
