"""A board without Python, seen from the machine it is wired to: how bytes reach it and how it is reset and flashed.

A module that reaches a kind of board has

    def open_transport(connection: Mapping[str, Any]) -> Transport      # may raise LineLost, WrongBoard

Its name stands in `connection["transport"]`; "" is the built-in serial transport (serial_transport.py). A vendor's
module travels as `mlbench_adapters.NAME` (the device lists it in `shipped`); it has the standard library, numpy,
what is installed beside the agent, and this module as `mlbench_agent.board`.

What speaks over the line is no part of a transport: that is tiny_protocol.py. What `connection` holds beside
`transport` is between a device and its transport; keys that the protocol reads are listed in firmware_adapter.py.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any, Protocol

# The steps of recovery that touch the board, in rising order: each loses more than the one before.
LEVELS = ("soft_reset", "hard_reset", "power_cycle")


class BoardError(Exception):
    """Report what a board, its line or its tools did wrong; the message names the port and the remedy."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.transcript = ""  # what went over the line, set by whoever kept it
        self.happened: list[dict[str, Any]] = []  # the steps of recovery that were tried, see recovery.py


class LineLost(BoardError):
    """Report a line that is gone: unplugged, closed, or its other end killed. Only a new open can help."""


class WrongBoard(BoardError):
    """Report a board that answers as another than the one asked for, or a port that is not there: no reset helps."""


class BoardLost(BoardError):
    """Report a board that no step of recovery brought back."""


class FlashError(BoardError):
    """Report an image that could not be put on the board, with the end of what the tool printed."""


class Transport(Protocol):
    """An open line to one board. Methods are called from one thread, and each returns within a time it can tell."""

    @property
    def levels(self) -> tuple[str, ...]:
        """The steps of LEVELS it can do, in rising order; () when it can only carry bytes."""

    def read(self, timeout_s: float) -> bytes:
        """Return what has arrived, waiting at most `timeout_s` for the first byte; b"" when nothing came.

        Raises LineLost when the line is gone.
        """

    def write(self, data: bytes) -> None:
        """Send all of `data`, waiting no longer than the line's speed asks for. Raises LineLost."""

    def recover(self, level: str) -> None:
        """Do one step of `levels`, and return when the line carries bytes again; the board may still be starting.

        `soft_reset` asks the board (a break, a reset character), `hard_reset` pulls its reset line (DTR/RTS, QMP),
        `power_cycle` takes its power away and gives it back. Bytes on the way may be lost. Raises LineLost.
        """

    def flash(self, image: str) -> None:
        """Make the board run the image at this path, and return when the line carries bytes again.

        Raises FlashError, also when this board cannot be flashed, and LineLost.
        """

    def describe(self) -> dict[str, Any]:
        """Return what identifies the board's line for the record: port, USB serial number, a program's version.

        Plain values. What changes from run to run (a path with a process number) has no place here.
        """

    def close(self) -> None:
        """Let go of the line; safe to call twice and after LineLost."""


def open_transport(connection: Mapping[str, Any]) -> Transport:
    """Open the line to a board by the module that `connection["transport"]` names."""
    name = str(connection.get("transport") or "")
    # Relative on purpose: the package is `pytest_mlbench.agent` on the host and `mlbench_agent` on the target.
    module = importlib.import_module(name) if name else importlib.import_module(".serial_transport", __package__)
    transport: Transport = module.open_transport(connection)
    return transport
