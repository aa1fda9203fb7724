"""Hold a device across processes: kernel locks, never a scheduler's promise.

The files of a resource are described in agent/locks.py. `NAME.lock` is held by the pytest process that uses the
device, `NAME.share` (shared) by those that burden it beside others, `NAME.agent` (shared) by the agents themselves,
so that the device counts as busy until the last process that touches it has gone, even when its pytest was killed.

Who shares passes through `NAME.lock`; who wants it alone holds `NAME.lock` and waits until those who share have left.
So no stream of sharers can keep it waiting for ever.
"""

from __future__ import annotations

import contextlib
import hashlib
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from filelock import FileLock, Timeout

from pytest_mlbench.agent import locks
from pytest_mlbench.agent.locks import state_dir
from pytest_mlbench.errors import RunFileError, StageError

__all__ = ["HEARTBEAT_S", "Wanted", "agent_lock_file", "hold", "hold_first", "holder", "sole_writer", "state_dir"]

HEARTBEAT_S = 10.0
_POLL_S = 0.02
Kind = Literal["agent", "share"]


@dataclass(frozen=True)
class Wanted:
    """What is held together: some resources alone, others beside those who share them too."""

    resources: tuple[str, ...]
    shares: tuple[str, ...] = ()
    case: str = ""  # shown to those who wait

    def in_order(self) -> list[tuple[str, bool]]:
        """Return each name and whether it is shared, in the one order in which everybody takes them.

        Windows has no shared locks: there everything is held alone.
        """
        alone = {*self.resources, *(self.shares if sys.platform == "win32" else ())}
        return [(name, name not in alone) for name in sorted({*self.resources, *self.shares})]


@dataclass
class _Wait:
    """One wait: until when, and who is told of it."""

    deadline: float
    waiting: Callable[[str], None]
    told: float = field(default_factory=time.monotonic)

    def over(self) -> bool:
        return time.monotonic() >= self.deadline

    def heartbeat(self, line: str) -> None:
        """Say who is waited for, every 10 s."""
        now = time.monotonic()
        if now - self.told >= HEARTBEAT_S:
            self.told = now
            self.waiting(line)


def agent_lock_file(resource: str) -> Path:
    """Return the file an agent locks (shared) for as long as it lives; made if need be."""
    return locks.made(resource, "agent")


def agent_lock_files(resources: Sequence[str], shares: Sequence[str]) -> list[str | None]:
    """Return the files an agent locks (shared) to say that it uses these resources; [None] where that is not done."""
    if sys.platform == "win32":
        return [None]
    made = [locks.made(name, "agent") for name in resources] + [locks.made(name, "share") for name in shares]
    return [str(path) for path in made]


@contextlib.contextmanager
def hold(
    resources: tuple[str, ...],
    *,
    shares: tuple[str, ...] = (),
    timeout_s: float,
    waiting: Callable[[str], None] = lambda line: None,
    case: str = "",
) -> Iterator[None]:
    """Hold all `resources` alone and all `shares` beside others who share them.

    They are taken in sorted order, so that two holders cannot wait for each other. `waiting` is told every 10 s who
    holds what is waited for. Raises StageError (stage "lease") at the deadline.
    """
    with ExitStack() as stack:
        _take(Wanted(resources, shares, case), stack, _Wait(time.monotonic() + timeout_s, waiting))
        yield


@contextlib.contextmanager
def hold_first(
    choices: Sequence[Wanted],
    *,
    timeout_s: float,
    waiting: Callable[[str], None] = lambda line: None,
    enter: Callable[[int, ExitStack], str] = lambda index, stack: "",
) -> Iterator[int]:
    """Hold whichever of `choices` is free first, and yield its index.

    `enter` takes what else belongs to the choice that was just taken, onto the stack, and returns why it cannot be
    used, "" when it can. Such a one is given back and not tried again; when `enter` raises StageError of the stage
    "lease", it is busy and tried again. Raises StageError at the deadline, and at once when none can be used.
    """
    wait = _Wait(time.monotonic() + timeout_s, waiting)
    reasons: dict[int, str] = {}
    while True:
        busy: list[str] = []
        for index, wanted in enumerate(choices):
            if index in reasons:
                continue
            with ExitStack() as stack:
                try:
                    _take(wanted, stack, _Wait(0.0, waiting))
                    why = enter(index, stack)
                except StageError as error:
                    why = error.message.partition(";")[0]
                    if error.stage == "lease":
                        busy.append(why)
                        continue
                if not why:
                    yield index
                    return
                reasons[index] = why
        found = [f"{choices[index].resources[0]}: {why}" for index, why in reasons.items()]
        if not busy:
            raise StageError("lease", f"none of {len(choices)} devices can be used: {'; '.join(found)}")
        if wait.over():
            raise StageError(
                "lease",
                f"every device that would do is busy: {'; '.join([*busy, *found])}; wait for one, "
                "or allow more time with --mlbench-lease-timeout",
            )
        wait.heartbeat(f"waiting for one of {len(busy)} devices: {'; '.join(busy)}")
        time.sleep(_POLL_S)


def _take(wanted: Wanted, stack: ExitStack, wait: _Wait) -> None:
    """Take everything, or raise; what was had already is the stack's to give back."""
    for resource, shared in wanted.in_order():
        lock = FileLock(locks.file_of(resource, "lock"), mode=0o666)
        _acquire(lock, resource, wait)
        if shared:
            try:
                _wait_for(resource, "agent", wait)
                _share(resource, wanted.case, stack, wait)
            finally:
                lock.release()  # a turnstile: whoever wants it alone may now hold it, and waits for us to leave
        else:
            stack.callback(lock.release)
            locks.write_holder(resource, locks.holder_facts(wanted.case))
            _wait_for(resource, "agent", wait)
            _wait_for(resource, "share", wait)


def _share(resource: str, case: str, stack: ExitStack, wait: _Wait) -> None:
    stream = stack.enter_context(locks.made(resource, "share").open("rb"))
    while not locks.share(stream):  # for a moment at most: who wants it alone holds NAME.lock, as we do now
        if wait.over():
            raise StageError("lease", f"device {resource!r} is busy: {holder(resource)}")
        time.sleep(_POLL_S)
    stack.enter_context(locks.noted_sharer(resource, locks.holder_facts(case)))


def _acquire(lock: FileLock, resource: str, wait: _Wait) -> None:
    while True:
        left = max(0.0, min(HEARTBEAT_S, wait.deadline - time.monotonic()))
        try:
            lock.acquire(timeout=left, poll_interval=_POLL_S)
        except Timeout:
            if wait.over():
                raise StageError(
                    "lease",
                    f"device {resource!r} is busy: {holder(resource)}; wait for it, end it, "
                    "or allow more time with --mlbench-lease-timeout",
                ) from None
            wait.heartbeat(f"waiting for device {resource!r}: {holder(resource)}")
        else:
            return


def _wait_for(resource: str, kind: Kind, wait: _Wait) -> None:
    """Wait until nobody holds a resource's shared lock: agents of an ended run, or those who share it.

    NAME.lock is held meanwhile, so nobody new comes.
    """
    if sys.platform == "win32":
        return
    path = locks.made(resource, kind)
    while not locks.is_free(path):
        if wait.over():
            raise StageError("lease", _still(resource, kind, path))
        told = f"an agent of an ended run still uses it ({path})" if kind == "agent" else locks.sharers(resource)
        wait.heartbeat(f"waiting for device {resource!r}: {told}")
        time.sleep(_POLL_S)


def _still(resource: str, kind: Kind, path: Path) -> str:
    if kind == "agent":
        message = f"device {resource!r} is still used by an agent of an ended run (it holds {path}); "
        return message + f"end that process: `fuser {path}` names it"
    return (
        f"device {resource!r} is busy: {locks.sharers(resource)}; wait for them, end them, "
        "or allow more time with --mlbench-lease-timeout"
    )


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


def holder(resource: str) -> str:
    """Say in words who holds a resource, as far as the holder wrote it down."""
    return locks.in_words(locks.read_holder(resource))
