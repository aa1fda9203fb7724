"""One live line with the stage and the time left while a case runs on a terminal; nothing in a log."""

from __future__ import annotations

import contextlib
import io
import os
import sys
import threading
import time
from typing import Protocol, TextIO

import pytest

SHOWN_AFTER_S = 1.0
REDRAWN_EVERY_S = 0.5

# The live line stands below the line pytest is writing, which must stay as it is. ESC D goes down one line,
# scrolling at the bottom, and ESC M up again, both in their column: after them there is a line below.
# ESC 7 and ESC 8 save and restore the cursor, CSI B goes down, CSI K clears to the end of the line.
_MAKE_ROOM = "\x1bD\x1bM"
_BELOW = "\x1b7\x1b[B\r"
_BACK = "\x1b[K\x1b8"


class Progress(Protocol):
    """What the running case tells."""

    def update(self, case: str, stage: str, share: float) -> None: ...
    def say(self, line: str) -> None: ...
    def clear(self) -> None: ...


class Silent:
    """Show nothing but what a person must know (who holds the device that is waited for)."""

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream

    def update(self, case: str, stage: str, share: float) -> None:
        """Show nothing."""

    def say(self, line: str) -> None:
        """Write a line of its own."""
        if self._stream is not None:
            _write(self._stream, f"\n{line}\n")

    def clear(self) -> None:
        """There is nothing to clear."""


class Live:
    """Rewrite one line in place, at each step of the case and twice a second in between."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._lock = threading.Lock()
        self._stop: threading.Event | None = None
        self._case = ""
        self._since = 0.0
        self._stage = ""
        self._stage_since = 0.0
        self._share = 0.0
        self._said = ""
        self._shown = False

    def update(self, case: str, stage: str, share: float) -> None:
        """Show the case, its stage and, inside a stage whose share is known, the time left."""
        now = time.monotonic()
        with self._lock:
            if self._stop is None:
                self._case, self._since, self._stage = case, now, ""
                self._stop = threading.Event()
                threading.Thread(target=self._redraw, args=(self._stop,), daemon=True).start()
            if stage != self._stage:
                self._stage, self._stage_since = stage, now
            self._share, self._said = share, ""
            self._draw(now)

    def say(self, line: str) -> None:
        """Show a line in place of the progress."""
        with self._lock:
            self._said = line
            self._put(line)

    def clear(self) -> None:
        """Remove the line; what pytest prints next starts where it would have."""
        with self._lock:
            if self._stop is not None:
                self._stop.set()
                self._stop = None
            if self._shown:
                _write(self._stream, _BELOW + _BACK)
                self._shown = False

    def _redraw(self, stop: threading.Event) -> None:
        while not stop.wait(REDRAWN_EVERY_S):
            with self._lock:
                if not stop.is_set():
                    self._draw(time.monotonic())

    def _draw(self, now: float) -> None:
        if now - self._since < SHOWN_AFTER_S or self._said:
            return
        spent_s = now - self._stage_since
        if 0.05 < self._share < 1:
            tail = f" {self._share:.0%}, {spent_s * (1 - self._share) / self._share:.0f} s left"
        else:
            tail = f", {spent_s:.0f} s"
        self._put(f"{self._case}: {self._stage}{tail}")

    def _put(self, text: str) -> None:
        room = "" if self._shown else _MAKE_ROOM
        self._shown = True
        _write(self._stream, f"{room}{_BELOW}{text[: _columns(self._stream) - 1]}{_BACK}")


def terminal() -> TextIO | None:
    """Return where a person sees what is written while pytest captures a test's output.

    Call it before capturing begins, in `pytest_configure`: it keeps a copy of the descriptor of stdout. None
    when stdout is no file (a test of pytest inside pytest).
    """
    try:
        copy = os.dup(sys.stdout.fileno())
    except (AttributeError, OSError, io.UnsupportedOperation):
        return None
    return os.fdopen(copy, "w", encoding=sys.stdout.encoding, errors="replace")


def make(config: pytest.Config, stream: TextIO | None) -> Progress:
    """Return the live line on a terminal, silence elsewhere: in CI logs, files, workers and under -q."""
    if stream is None or not config.pluginmanager.hasplugin("terminalreporter"):
        return Silent(None)
    dumb = os.environ.get("TERM", "dumb") == "dumb" and sys.platform != "win32"
    live = stream.isatty() and not dumb and "CI" not in os.environ and config.get_verbosity() >= 0
    return Live(stream) if live else Silent(stream)


def _columns(stream: TextIO) -> int:
    with contextlib.suppress(OSError):
        return os.get_terminal_size(stream.fileno()).columns or 80
    return 80


def _write(stream: TextIO, text: str) -> None:
    with contextlib.suppress(OSError, ValueError):  # a terminal that was closed is no reason to stop measuring
        stream.write(text)
        stream.flush()
