"""Hold a board's resources for a session that runs on another machine, by the locks of sessions on the board."""

from __future__ import annotations

import fcntl
from typing import Any

from .locks import file_of, in_words, is_free, made, read_holder, write_holder


class BoardLease:
    """What this process holds of its machine; free again when it ends, however it ends."""

    def __init__(self) -> None:
        self._held: dict[str, Any] = {}

    def take(self, resources: list[str], facts: dict[str, Any]) -> str:
        """Take `resources` as far as they are free; returns "" when all are held, else who holds one, in words.

        Nothing is kept unless all can be had: two that wait for one another's would wait for ever.
        """
        for name in sorted(set(resources)):
            busy = self._take(name, facts)
            if busy:
                self.release()
                return busy
        return ""

    def _take(self, name: str, facts: dict[str, Any]) -> str:
        if name in self._held:
            return ""
        stream = made(name, "lock").open("rb")
        if not _locked(stream):
            stream.close()
            return f"{name!r} is {in_words(read_holder(name))}"
        for kind, who in (("agent", "an agent of an ended run"), ("share", "another session that shares it")):
            if not is_free(made(name, kind)):
                stream.close()
                return f"{name!r} is still used by {who} (`fuser {file_of(name, kind)}` there names it)"
        self._held[name] = stream
        write_holder(name, facts)
        return ""

    def release(self) -> None:
        """Give all of it back."""
        while self._held:
            self._held.popitem()[1].close()


def _locked(stream: Any) -> bool:
    """Lock a file for as long as it is open; False when another process has it."""
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
