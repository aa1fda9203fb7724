"""One live line with the stage and the time left while a case runs on a terminal; nothing in a log."""

from __future__ import annotations

import os
import time
from typing import Any, Protocol

import pytest

SHOWN_AFTER_S = 1.0


class Progress(Protocol):
    """What the running case tells."""

    def update(self, case: str, stage: str, share: float) -> None: ...
    def say(self, line: str) -> None: ...
    def clear(self) -> None: ...


class Silent:
    """Show nothing but what a person must know (who holds the device that is waited for)."""

    def __init__(self, writer: Any) -> None:
        self._writer = writer

    def update(self, case: str, stage: str, share: float) -> None:
        """Show nothing."""

    def say(self, line: str) -> None:
        """Write a line of its own."""
        if self._writer is not None:
            self._writer.line()
            self._writer.line(line)

    def clear(self) -> None:
        """There is nothing to clear."""


class Live:
    """Rewrite one line in place."""

    def __init__(self, writer: Any) -> None:
        self._writer = writer
        self._case = ""
        self._since = 0.0
        self._stage = ""
        self._stage_since = 0.0
        self._shown = False

    def update(self, case: str, stage: str, share: float) -> None:
        """Show the case, its stage and, inside a stage whose share is known, the time left."""
        now = time.monotonic()
        if case != self._case:
            self._case, self._since = case, now
        if stage != self._stage:
            self._stage, self._stage_since = stage, now
        if now - self._since < SHOWN_AFTER_S:
            return
        left = ""
        if 0.05 < share < 1:
            left = f", {(now - self._stage_since) * (1 - share) / share:.0f} s left"
        text = f"{case}: {stage}{f' {share:.0%}' if share else ''}{left}"
        self._put(text[: self._writer.fullwidth - 1])

    def say(self, line: str) -> None:
        """Show a line in place of the progress."""
        self._put(line[: self._writer.fullwidth - 1])

    def clear(self) -> None:
        """Remove the line; what pytest prints next starts where it would have."""
        if self._shown:
            self._put("")
            self._writer.write("\r")
            self._shown = False

    def _put(self, text: str) -> None:
        self._shown = True
        self._writer.write("\r" + text.ljust(self._writer.fullwidth - 1), flush=True)


def make(config: pytest.Config, *, quiet: bool) -> Progress:
    """Return the live line on a terminal, silence elsewhere: in CI logs, files, workers and under -q."""
    if quiet:
        return Silent(None)
    writer = config.get_terminal_writer()
    live = writer.hasmarkup and "CI" not in os.environ and config.get_verbosity() >= 0
    return Live(writer) if live else Silent(writer)
