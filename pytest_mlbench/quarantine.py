"""Boards that nothing brought back: the next case on one fails at once, and says what happened.

One file a device, beside the journals of the run, so that xdist workers know of each other's.
"""

from __future__ import annotations

import contextlib
import hashlib
from pathlib import Path

from pytest_mlbench.errors import BoardFailed

STAGE = "quarantine"


class Quarantine:
    """The devices that are out of use for the rest of a session."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._told: dict[str, str] = {}  # here too: the folder may be full or gone

    def add(self, device: str, case: str, why: str) -> None:
        """Put a device out of use; `case` is the one that lost it."""
        told = f"device {device} was given up in {case}: {why}"
        self._told[device] = told
        with contextlib.suppress(OSError):
            self._file(device).write_text(told, encoding="utf-8")

    def check(self, device: str) -> None:
        """Raise BoardFailed (stage "quarantine") for a device that is out of use."""
        told = self._told.get(device, "")
        with contextlib.suppress(OSError):
            told = told or self._file(device).read_text(encoding="utf-8")
        if told:
            remedy = "look at the board (power, cable, image), then start the session again"
            raise BoardFailed(STAGE, f"{told.strip()}\nIt is not used again in this session; {remedy}")

    def _file(self, device: str) -> Path:
        return self._folder / f"quarantine-{hashlib.sha256(device.encode()).hexdigest()[:16]}.txt"
