"""The kernel locks of a machine's devices: their files, who holds them, and what an agent holds while it lives.

One folder of files, shared by all users of a machine. For each resource:

  NAME.lock    exclusive: the session that uses it; for a moment also who joins its sharers (a turnstile)
  NAME.share   shared: each session that burdens it beside others
  NAME.agent   shared: the agents that touch it, so that it counts as busy until the last one has gone
  NAME.holder  who holds NAME.lock, in words, for those who wait; NAME.shareN the same of process N, which shares
"""

from __future__ import annotations

import contextlib
import getpass
import glob
import json
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import IO, Any

if sys.platform != "win32":
    import fcntl

_NOTE_BYTES = 512
_PLAIN = re.compile(r"[^A-Za-z0-9_.-]")


def state_dir() -> Path:
    """Return the folder of the locks: `MLBENCH_STATE`, else one for all users of this machine."""
    chosen = os.environ.get("MLBENCH_STATE")
    path = Path(chosen) if chosen else Path(tempfile.gettempdir()) / "mlbench-state"
    if not path.exists():
        path.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(OSError):
            path.chmod(0o1777)  # like /tmp: several users of one lab machine share the locks
    return path


def file_of(resource: str, kind: str) -> Path:
    """Return a resource's file of one kind; what cannot stand in a file's name is written as its number."""
    plain = _PLAIN.sub(lambda found: f"%{ord(found[0]):x}", resource)
    return state_dir() / f"{plain}.{kind}"


def made(resource: str, kind: str) -> Path:
    """Return that file, made if need be so that every user may write it. Whoever opens it does so without O_CREAT.

    Linux refuses O_CREAT on another user's file in a sticky folder, whatever its mode (fs.protected_regular).
    """
    path = file_of(resource, kind)
    if not path.exists():
        path.touch()
        with contextlib.suppress(OSError):
            path.chmod(0o666)
    return path


# --- who holds it -------------------------------------------------------------------------------------------


def holder_facts(case: str = "") -> dict[str, Any]:
    """Return who this process is, for those who wait: process, user, machine, since when, CI job, case."""
    return {
        "pid": os.getpid(),
        "user": _user(),
        "since": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "job": job_url(os.environ),
        "case": case,
    }


def job_url(environment: Any) -> str:
    """Return the address of the CI job this process runs in, "" when it is none or not told."""
    told = environment.get("MLBENCH_JOB_URL") or environment.get("CI_JOB_URL") or environment.get("BUILD_URL")
    if told:
        return str(told)
    parts = [environment.get(name) for name in ("GITHUB_SERVER_URL", "GITHUB_REPOSITORY", "GITHUB_RUN_ID")]
    return "{}/{}/actions/runs/{}".format(*parts) if all(parts) else ""


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container's user id without a name
        return str(os.getuid()) if hasattr(os, "getuid") else ""


def write_holder(resource: str, facts: dict[str, Any]) -> None:
    """Note who holds a resource; the lock says so whether or not this can be written."""
    data = json.dumps(facts).encode()
    data = data.ljust(-(-len(data) // _NOTE_BYTES) * _NOTE_BYTES)
    with contextlib.suppress(OSError), made(resource, "holder").open("r+b", buffering=0) as stream:
        # Of one size nearly always: shortening a file costs more than all the locks together.
        if os.fstat(stream.fileno()).st_size > len(data):
            stream.truncate(len(data))
        stream.write(data)


def read_holder(resource: str) -> dict[str, Any]:
    """Return what the last holder wrote; {} when it cannot be read or is something else."""
    try:
        facts = json.loads(file_of(resource, "holder").read_text(encoding="utf-8"))
    except (OSError, ValueError):  # half written, or another's
        return {}
    return _believed(facts)


def _believed(facts: Any) -> dict[str, Any]:
    return facts if isinstance(facts, dict) and "pid" in facts and "since" in facts else {}


def in_words(facts: dict[str, Any]) -> str:
    """Return `held by process 7 since TIME by user ann, case digits/classify[...], job URL`."""
    if not facts:
        return "held by another process"
    text = f"held by process {facts['pid']} since {facts['since']}"
    text += f" by user {facts['user']}" if facts.get("user") else ""
    text += f", case {facts['case']}" if facts.get("case") else ""
    return text + (f", job {facts['job']}" if facts.get("job") else "")


# --- locks ----------------------------------------------------------------------------------------------------


def is_free(path: Path) -> bool:
    """Tell whether nobody holds a lock file, shared or alone, just now."""
    if sys.platform == "win32":
        return True
    with path.open("rb") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


def users(resource: str, alone: bool = False) -> str:
    """Say in words who uses a resource just now, "" when nobody does; with `alone`, only who holds it alone.

    Takes the locks for a moment only.
    """
    if _is_busy(resource, "lock"):
        return in_words(read_holder(resource))
    if not alone and _is_busy(resource, "share"):
        return sharers(resource)
    return "used by an agent of an ended run" if not alone and _is_busy(resource, "agent") else ""


def _is_busy(resource: str, kind: str) -> bool:
    path = file_of(resource, kind)
    try:
        return not is_free(path)
    except OSError:  # nobody ever held it, or it is another user's private file
        return False


@contextlib.contextmanager
def noted_sharer(resource: str, facts: dict[str, Any]) -> Iterator[None]:
    """Note that this process shares a resource, for those who wait, in a file that it locks meanwhile."""
    path = file_of(resource, f"share{os.getpid()}")
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):
            stream = stack.enter_context(path.open("w", encoding="utf-8"))
            stack.callback(_remove, path)
            fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
            stream.write(json.dumps(facts))
            stream.flush()
        yield


def sharers(resource: str) -> str:
    """Say in words which processes share a resource; what killed ones left is removed."""
    found = []
    for path in sorted(state_dir().glob(glob.escape(file_of(resource, "share").name) + "[0-9]*")):
        with contextlib.suppress(OSError, ValueError):
            if is_free(path):
                _remove(path)
                continue
            found.append(in_words(_believed(json.loads(path.read_text(encoding="utf-8")))))
    return "; ".join(found).replace("held by", "shared by") or "shared by another process"


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink()


def share(stream: IO[bytes]) -> bool:
    """Lock an open file beside others; False when somebody holds it alone just now."""
    if sys.platform == "win32":
        return False
    try:
        fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
