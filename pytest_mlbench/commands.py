"""Run another program to its end: no shell, no terminal, a deadline, and nothing of it left behind."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO


@dataclass(frozen=True)
class Done:
    """How a program ended and what it printed; `out` may be a path of any bytes, and `err` is for people."""

    code: int
    out: str = ""
    err: str = ""


def run(
    command: Sequence[str | Path],
    *,
    deadline_s: float,
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
    log: IO[bytes] | None = None,
) -> Done:
    """Run `command` and return what it printed, or write that to `log`.

    It has no standard input and no terminal, so that it cannot ask. Raises OSError when it cannot be started and
    subprocess.TimeoutExpired at the deadline; it and every process it started are ended then, and at Ctrl-C.
    """
    with subprocess.Popen(
        command,
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=log or subprocess.PIPE,
        stderr=subprocess.STDOUT if log else subprocess.PIPE,
        start_new_session=True,
    ) as process:
        try:
            out, err = process.communicate(timeout=deadline_s)
        except BaseException:
            _end(process)
            raise
    return Done(process.returncode, os.fsdecode(out or b""), (err or b"").decode(errors="replace"))


def _end(process: subprocess.Popen[bytes]) -> None:
    if sys.platform == "win32":
        process.kill()
    else:  # the whole session: a filter of git or a build of pip would live on, and hold the pipes
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def last_lines(text: str, count: int) -> str:
    """Return the last lines that are not empty, each indented by two spaces."""
    lines = [line.rstrip() for line in text.splitlines() if line.strip()]
    return "\n".join(f"  {line}" for line in lines[-count:])
