"""What went over the line to a device during one case, for the report of a failure. Bounded."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping
from typing import Any

LINES = 400  # the last ones are kept
_LONGEST = 160  # characters of one line


class Transcript:
    """Lines with the seconds since the case began; the oldest go when there are too many."""

    def __init__(self, lines: int = LINES) -> None:
        self._lines: deque[str] = deque(maxlen=lines)
        self._begin = time.monotonic()
        self._dropped = 0

    def clear(self) -> None:
        """Begin a new case."""
        self._lines.clear()
        self._begin, self._dropped = time.monotonic(), 0

    def add(self, line: str) -> None:
        """Add a line; its first characters are kept."""
        self._dropped += len(self._lines) == self._lines.maxlen
        text = f"{time.monotonic() - self._begin:9.3f} s  {line}".replace("\n", " | ")
        self._lines.append(text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "...")

    def text(self) -> str:
        """Return all that is kept, and how many lines are not."""
        left_out = [f"({self._dropped} earlier lines left out)"] if self._dropped else []
        return "\n".join([*left_out, *self._lines])


def shown(arguments: Mapping[str, Any]) -> str:
    """Return a verb's arguments in short: the size of data, not the data."""
    return " ".join(f"{name}={_value(value)}" for name, value in arguments.items())


def _value(value: object) -> str:
    if isinstance(value, bytes):
        return f"<{len(value)} bytes>"
    if isinstance(value, (dict, list)):
        return f"<{len(value)} items>" if value else str(value)
    return str(value)
