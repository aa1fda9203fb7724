"""Keep a board for one session: its lock, its files, its facts, and no agent that outlives the session.

One process per session and board, started over its own connection and idle while an agent measures. It needs the
standard library only, so that it can also say what is missing on the board.

The host's heartbeat comes here and not to the agents: nothing may be sent to an agent while a verb runs. When the
beat stops (the host was lost without a word) or the connection closes, this process ends the agents it was told of,
gives the lock back and ends.
"""

from __future__ import annotations

import contextlib
import ctypes
import glob
import importlib.util
import os
import platform
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

from . import machine_facts
from .answer import answer
from .board_cache import Cache, NotKept
from .board_lease import BoardLease
from .locks import made

_READ_BYTES = 4 << 20
_END_S = 2.0  # how long a killed process may take to go
_SNAPSHOT_BYTES = 1 << 16  # of one file that the kernel makes up


def serve(channel: Any, start: dict[str, Any]) -> None:
    """Answer the host's requests, and end when its heartbeat stops."""
    if sys.platform.startswith("linux"):
        # The agents must be ended first, so the end of our own connection is noticed by the heartbeat's channel.
        ctypes.CDLL(None).prctl(1, 0)
    keeper = Keeper(start["cache"], start["cache_bytes"])
    heartbeat(start["beats"], start["silence_s"], keeper.abandon)
    answer(channel, keeper, NotKept)


def heartbeat(beats: Any, silence_s: float, at_end: Any) -> None:
    """Call `at_end` and end this process when nothing came for `silence_s`, or when the connection closed."""
    heard, closed = threading.Event(), threading.Event()

    def hear(beat: object) -> None:
        if beat is None:
            closed.set()
        heard.set()

    def listen() -> None:
        while heard.wait(silence_s) and not closed.is_set():
            heard.clear()
        at_end()
        os._exit(0)

    beats.setcallback(hear, endmarker=None)
    threading.Thread(target=listen, name="heartbeat", daemon=True).start()


class Keeper:
    """What the host may ask of a board: each public method is a verb."""

    def __init__(self, cache: str, cache_bytes: int) -> None:
        self._cache_folder, self._cache_bytes = cache, cache_bytes
        self._cache: Cache | None = None
        self._lease = BoardLease()
        self._agents: dict[int, str] = {}  # process -> when it began, since numbers are used again

    def hello(self) -> dict[str, Any]:
        """Say who and where this is."""
        return {
            "pid": os.getpid(),
            "python": platform.python_version(),
            "executable": sys.executable,
            "numpy": importlib.util.find_spec("numpy") is not None,
            "node": platform.node(),
            "facts": {
                **machine_facts.processor(),
                "os": machine_facts.system_name(),
                "kernel": platform.release(),
                "memory_bytes": machine_facts.memory_bytes(),
            },
        }

    def ping(self) -> None:
        """Do nothing: how long this takes is the connection's own time."""

    # --- agents ----------------------------------------------------------------------------------------

    def watch(self, pid: int) -> None:
        """Take charge of an agent: it ends with this process at the latest."""
        self._agents[pid] = _began(pid)

    def end(self, pid: int) -> str:
        """Make sure that an agent has gone: kill it if need be; returns "" when it has."""
        began = self._agents.pop(pid, "")
        end = time.monotonic() + _END_S
        while began and _began(pid) == began:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            if time.monotonic() > end:
                self._agents[pid] = began
                return f"process {pid} on the board cannot be ended; restart the board"
            time.sleep(0.005)
        return ""

    def abandon(self) -> None:
        """End all agents and remove what is half written; the locks go with this process."""
        for pid, began in list(self._agents.items()):
            if began and _began(pid) == began:
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGKILL)
        if self._cache is not None:
            self._cache.abandon()

    def close(self) -> None:
        """End what is left; the process ends after this."""
        self.abandon()

    # --- lock ------------------------------------------------------------------------------------------

    def take(self, resources: list[str], holder: dict[str, Any]) -> str:
        """Take resources of this board if they are free; returns "", else who holds them."""
        return self._lease.take(resources, holder)

    def release(self) -> None:
        """Give the resources back, and let go of the files that the case used."""
        self._lease.release()
        if self._cache is not None:
            self._cache.close()

    def agent_file(self, resource: str) -> str:
        """Return the file that an agent locks for as long as it lives."""
        return str(made(resource, "agent"))

    # --- files -----------------------------------------------------------------------------------------

    def find(self, key: str) -> str:
        """Return the folder of a cache entry, "" when it is not there."""
        return self._files.find(key)

    def begin(self, size: int) -> None:
        """Begin a cache entry."""
        self._files.begin(size)

    def write(self, name: str, data: bytes) -> int:
        """Add a chunk to a file of the entry that was begun."""
        return self._files.write(name, data)

    def finish(self, key: str, hashes: dict[str, str]) -> str:
        """Keep the entry; returns its folder."""
        return self._files.finish(key, hashes)

    def scratch(self) -> str:
        """Return an empty folder for files that are made here."""
        return self._files.scratch()

    def size(self, path: str) -> int:
        """Return the bytes of a file."""
        return Path(path).stat().st_size

    def read(self, path: str, offset: int) -> bytes:
        """Return a chunk of a file that was made in scratch()."""
        return self._files.read(path, offset, _READ_BYTES)

    @property
    def _files(self) -> Cache:
        if self._cache is None:  # made late: a read-only disk is no reason not to say hello
            self._cache = Cache(self._cache_folder, self._cache_bytes)
        return self._cache

    # --- state -----------------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """Return what changes from minute to minute."""
        return machine_facts.state()

    def snapshot(self, patterns: list[str]) -> dict[str, Any]:
        """Return the texts of the kernel's files that match, by path without its first slash; and when it was."""
        found: dict[str, str] = {}
        for pattern in patterns:
            for path in glob.glob("/" + pattern):  # noqa: PTH207 - and a quarter of its time
                with contextlib.suppress(OSError), open(path, "rb") as stream:  # noqa: PTH123
                    found[path[1:]] = stream.read(_SNAPSHOT_BYTES).decode(errors="replace").strip()
        return {"files": found, "ticks_per_s": os.sysconf("SC_CLK_TCK"), "monotonic_ns": time.monotonic_ns()}


def _began(pid: int) -> str:
    """Return when a process began, as the kernel counts it; "" when there is none, or only its exit status is left."""
    text = machine_facts.read(Path(f"/proc/{pid}/stat")) or ""
    words = text.rpartition(")")[2].split()
    return words[19] if len(words) > 19 and words[0] not in ("Z", "X") else ""
