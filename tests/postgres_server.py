"""A PostgreSQL server for the length of a test session or a benchmark: a folder of its own, no port, no password.

It listens on a Unix socket in that folder alone. Standard library and psycopg only, so that benchmarks use it too.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

USER = "mlbench"
_START_S, _STOP_S = 60.0, 30.0
_PR_SET_PDEATHSIG = 1


def program(name: str) -> Path | None:
    """Return a program of the server: on the path, or where Debian puts it, the newest version first."""
    found = shutil.which(name)
    if found is not None:
        return Path(found)
    debian = Path("/usr/lib/postgresql").glob(f"*/bin/{name}")
    return max(debian, key=lambda path: float(path.parts[-3]), default=None)


def missing() -> str | None:
    """Say why no server can be started here, and what would help; None when one can."""
    absent = [name for name in ("initdb", "postgres") if program(name) is None]
    if absent:
        return f"PostgreSQL's server ({', '.join(absent)}) is not installed: apt-get install postgresql"
    if hasattr(os, "geteuid") and os.geteuid() == 0 and _account() is None:
        return "PostgreSQL's server refuses to run as root, and there is no user postgres or nobody"
    return None


@contextlib.contextmanager
def server(*settings: str) -> Iterator[str]:
    """Run a server and yield the URL of its first database; `settings` are of the kind `name=value`.

    RuntimeError with the server's own log when it does not start.
    """
    initdb, postgres = program("initdb"), program("postgres")
    assert initdb is not None, missing()
    assert postgres is not None, missing()
    account = _account()
    who = {} if account is None else {"user": account, "group": account_group(account), "extra_groups": []}
    folder = Path(tempfile.mkdtemp(prefix="mlbench-pg-"))  # short: the path of a socket holds 107 characters
    try:
        if account is not None:
            shutil.chown(folder, account, account_group(account))
        data = folder / "data"
        command = [initdb, "-D", data, "-U", USER, "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"]
        done = subprocess.run(command, **who, cwd=folder, capture_output=True, text=True, timeout=_START_S, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"initdb failed: {done.stdout}{done.stderr}")
        log = folder / "log"
        options = ["listen_addresses=", f"unix_socket_directories={folder}", "fsync=off", "max_connections=50"]
        command = [postgres, "-D", data, *(word for one in (*options, *settings) for word in ("-c", one))]
        with log.open("wb") as stream:
            process = subprocess.Popen(
                command, **who, cwd=folder, stdout=stream, stderr=subprocess.STDOUT, preexec_fn=_end_with_parent
            )
        try:
            url = f"postgresql://{USER}@/postgres?host={folder}"
            _wait(process, url, log)
            yield url
        finally:
            _stop(process)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _account() -> str | None:
    """Return whom to run as: None for oneself, and for root someone else, as the server demands."""
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        return None
    import pwd

    known = {entry.pw_name for entry in pwd.getpwall()}
    return next((name for name in ("postgres", "nobody") if name in known), None)


def account_group(account: str) -> int:
    """Return the id of the account's group."""
    import pwd

    return pwd.getpwnam(account).pw_gid


def _end_with_parent() -> None:
    """Have the kernel stop the server when a test session is killed (Linux)."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGINT)


def _wait(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    import psycopg

    deadline = time.monotonic() + _START_S
    while True:
        try:
            psycopg.connect(url, connect_timeout=5).close()
            return
        except psycopg.OperationalError as error:
            if process.poll() is not None or time.monotonic() > deadline:
                text = log.read_text(encoding="utf-8", errors="replace")
                raise RuntimeError(f"PostgreSQL did not start: {error}\n{text}") from None
        time.sleep(0.1)


def _stop(process: subprocess.Popen[bytes]) -> None:
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL):
        if process.poll() is None:
            process.send_signal(number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_STOP_S)
