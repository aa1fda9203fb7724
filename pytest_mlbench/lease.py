"""Hold a device exclusively, across processes: kernel locks, never a scheduler's promise.

Two files a resource, in one shared state directory: `NAME.lock` is held by the pytest process that uses
the device, `NAME.agent` (shared among the agents of one holder) by the agents themselves, so that the
device counts as busy until the last process that touches it has gone, even when its pytest was killed.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from pathlib import Path

from filelock import FileLock, Timeout

from pytest_mlbench.errors import RunFileError, StageError

HEARTBEAT_S = 10.0
_POLL_S = 0.02


def state_dir() -> Path:
    """Return the directory of the locks: `MLBENCH_STATE`, else one for all users of this machine."""
    chosen = os.environ.get("MLBENCH_STATE")
    path = Path(chosen) if chosen else Path(tempfile.gettempdir()) / "mlbench-state"
    if not path.exists():
        path.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(OSError):
            path.chmod(0o1777)  # like /tmp: several users of one lab machine share the locks
    return path


def agent_lock_file(resource: str) -> Path:
    """Return the file an agent locks (shared) for as long as it lives; made if need be."""
    path = state_dir() / f"{resource}.agent"
    _make(path)
    return path


def _make(path: Path) -> None:
    """Make a file that every user may write. Whoever opens it later does so without O_CREAT.

    Linux refuses O_CREAT on another user's file in a sticky folder, whatever its mode (fs.protected_regular).
    """
    if not path.exists():
        path.touch()
        with contextlib.suppress(OSError):
            path.chmod(0o666)


@contextlib.contextmanager
def hold(
    resources: tuple[str, ...], *, timeout_s: float, waiting: Callable[[str], None] = lambda line: None
) -> Iterator[None]:
    """Hold all `resources`, taken in sorted order so that two holders cannot wait for each other.

    `waiting` is told every 10 s who holds what is waited for. Raises StageError (stage "lease") at the
    deadline.
    """
    deadline = time.monotonic() + timeout_s
    with contextlib.ExitStack() as stack:
        for resource in sorted(resources):
            lock = FileLock(state_dir() / f"{resource}.lock", mode=0o666)
            _acquire(lock, resource, deadline, waiting)
            stack.callback(lock.release)
            _write_holder(resource)
            _wait_for_agents(resource, deadline, waiting)
        yield


def _acquire(lock: FileLock, resource: str, deadline: float, waiting: Callable[[str], None]) -> None:
    while True:
        left = deadline - time.monotonic()
        try:
            lock.acquire(timeout=max(0.0, min(HEARTBEAT_S, left)), poll_interval=_POLL_S)
        except Timeout:
            if time.monotonic() >= deadline:
                raise StageError(
                    "lease",
                    f"device {resource!r} is busy: {holder(resource)}; wait for it, end it, "
                    "or allow more time with --mlbench-lease-timeout",
                ) from None
            waiting(f"waiting for device {resource!r}: {holder(resource)}")
        else:
            return


def _wait_for_agents(resource: str, deadline: float, waiting: Callable[[str], None]) -> None:
    """Wait until no agent of an earlier holder lives (they hold a shared lock of their own)."""
    if sys.platform == "win32":
        return
    import fcntl

    path = agent_lock_file(resource)
    told = time.monotonic()
    with path.open("rb") as stream:
        while True:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                now = time.monotonic()
                if now >= deadline:
                    message = f"device {resource!r} is still used by an agent of an ended run (it holds {path}); "
                    raise StageError("lease", message + f"end that process: `fuser {path}` names it") from None
                if now - told >= HEARTBEAT_S:
                    told = now
                    waiting(f"waiting for device {resource!r}: an agent of an ended run still uses it ({path})")
                time.sleep(_POLL_S)
            else:
                return


@contextlib.contextmanager
def sole_writer(path: Path) -> Iterator[None]:
    """Hold a file that one run writes; RunFileError at once when another run that lives does."""
    name = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:16]
    try:
        lock = FileLock(state_dir() / f"run-{name}.lock", mode=0o666)
        lock.acquire(timeout=0)
    except Timeout:
        message = f"another run is writing {path}; wait for it, or name another file with --mlbench-output"
        raise RunFileError(message) from None
    except OSError:  # the cases, which need locks more, tell of it with its remedy
        yield
        return
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            Path(lock.lock_file).unlink()
        lock.release()


def _write_holder(resource: str) -> None:
    facts = {
        "pid": os.getpid(),
        "since": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "job": os.environ.get("MLBENCH_JOB_URL", ""),
    }
    path = state_dir() / f"{resource}.holder"
    with contextlib.suppress(OSError):
        _make(path)
        with path.open("r+", encoding="utf-8") as stream:
            stream.truncate()
            stream.write(json.dumps(facts))


def holder(resource: str) -> str:
    """Say in words who holds a resource, as far as the holder wrote it down."""
    try:
        facts = json.loads((state_dir() / f"{resource}.holder").read_text(encoding="utf-8"))
        job = f", job {facts['job']}" if facts.get("job") else ""
        return f"held by process {facts['pid']} since {facts['since']}{job}"
    except (OSError, ValueError, KeyError, TypeError, AttributeError):  # half written, or another's
        return "held by another process"
