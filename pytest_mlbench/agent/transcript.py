"""What went over a board's line, with times: the evidence when something fails. Bounded in size."""

from __future__ import annotations

import re
import sys
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic

LIMIT = 12_000  # characters kept, the latest ones
_LAST = 4  # lines of a repetition
_SHOWN = 200  # characters of one line
_PAYLOAD = re.compile(r"^((?:dut )?db [0-9a-fA-F]{12})([0-9a-fA-F]+)")


class Transcript:
    """Lines of both directions in the order they were seen: `>` sent, `<` received, `*` what was done."""

    def __init__(self, limit: int = LIMIT, echo: bool = False, clock: Callable[[], float] = monotonic) -> None:
        self._lines: deque[str] = deque()
        self._kept = 0
        self._dropped = 0
        self._limit = limit
        self._echo = echo  # to the agent's log too, which outlives an agent that is ended at its deadline
        self._clock = clock
        self._begin = clock()
        self._held: deque[str] | None = None  # while repeats are held back: the last of them
        self._repeats = 0

    def sent(self, text: str) -> None:
        """Note a command; most of a payload's digits are left out."""
        found = _PAYLOAD.match(text)
        self._add(">", f"{found[1]}... ({len(text)} characters)" if found else text)

    def received(self, line: bytes) -> None:
        """Note a line, or a piece of one, as it came."""
        self._add("<", escaped(line))

    def note(self, text: str) -> None:
        """Note what was done, such as a reset."""
        self._add("*", text)

    def _add(self, mark: str, text: str) -> None:
        shown = text if len(text) <= _SHOWN else f"{text[:_SHOWN]}... ({len(text)} characters)"
        line = f"{self._clock() - self._begin:9.3f} {mark} {shown}"
        if self._held is not None:
            self._held.append(line)
            self._repeats += 1
        else:
            self._keep(line)

    @contextmanager
    def repeating(self) -> Iterator[None]:
        """Keep only the last lines of what is done inside, which repeats what was shown before."""
        if self._held is not None:
            yield
            return
        self._held, self._repeats = deque(maxlen=_LAST), 0
        try:
            yield
        finally:
            held, self._held = self._held, None
            if self._repeats > len(held):
                self._keep(f"{'':9} * ({self._repeats - len(held)} lines of the same kind)")
            for line in held:
                self._keep(line)

    def _keep(self, line: str) -> None:
        if self._echo:
            print(line, file=sys.stderr)
        self._lines.append(line)
        self._kept += len(line) + 1
        while self._kept > self._limit and len(self._lines) > 1:
            self._kept -= len(self._lines.popleft()) + 1
            self._dropped += 1

    def text(self) -> str:
        """Return the lines, with a first one that says how many earlier ones were left out."""
        first = [f"({self._dropped} earlier lines left out)"] if self._dropped else []
        return "\n".join([*first, *self._lines])


def escaped(data: bytes) -> str:
    """Return bytes as text, with an escape for each that is no printable ASCII."""
    return data.decode("ascii", "backslashreplace").encode("unicode_escape").decode().replace("\\\\x", "\\x")
