"""A real sshd on this machine for the length of a test: own keys, folder and port; nothing of it outlives the test.

It stands for a board: agents over it are processes of this machine, in a state and cache folder of their own.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pytest_mlbench.devices.ssh import TYPE, Ssh
from pytest_mlbench.lab import LabDevice

ALIAS = "board"
_START_S, _STOP_S = 20.0, 5.0
_RUN = Path("/run/sshd")  # sshd, as root, demands this folder


def program() -> str | None:
    """Return the server's path; it is not on every user's search path."""
    return shutil.which("sshd") or next((path for path in ("/usr/sbin/sshd",) if os.access(path, os.X_OK)), None)


def missing() -> str | None:
    """Say why no server can be started here, and what would help; None when one can."""
    if program() is None or shutil.which("ssh") is None or shutil.which("ssh-keygen") is None:
        return "OpenSSH (ssh, sshd, ssh-keygen) is not installed: apt-get install openssh-client openssh-server"
    return None


@dataclass
class Server:
    """One sshd and a client configuration in which it is known as `board`."""

    folder: Path
    address: str = "127.0.0.1"
    prefix: tuple[str, ...] = ()  # before sshd's command line: a network namespace
    port: int = 0
    process: subprocess.Popen[bytes] | None = None
    env: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        for name in ("host_key", "user_key"):
            command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(self.folder / name)]
            subprocess.run(command, check=True, timeout=_START_S, stdin=subprocess.DEVNULL)
        shutil.copy(self.folder / "user_key.pub", self.folder / "authorized_keys")
        if not self.port:
            with socket.create_server((self.address if not self.prefix else "127.0.0.1", 0)) as free:
                self.port = free.getsockname()[1]
        self.know(self.folder / "host_key.pub")
        self.write_client()

    @property
    def client_config(self) -> Path:
        return self.folder / "ssh_config"

    @property
    def log(self) -> str:
        path = self.folder / "sshd.log"
        return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""

    def know(self, public_key: Path | None) -> None:
        """Let the client know this host key and no other; None: no key."""
        known = ""
        if public_key is not None:
            known = f"[{self.address}]:{self.port} {public_key.read_text(encoding='utf-8')}"
        (self.folder / "known_hosts").write_text(known, encoding="utf-8")

    def write_client(self, **more: str) -> None:
        """Write the client's configuration; `more` replaces or adds options."""
        options = {
            "HostName": self.address,
            "Port": str(self.port),
            "IdentityFile": str(self.folder / "user_key"),
            "IdentitiesOnly": "yes",
            "IdentityAgent": "none",
            "UserKnownHostsFile": str(self.folder / "known_hosts"),
            "GlobalKnownHostsFile": "/dev/null",
            **more,
        }
        lines = [f"Host {ALIAS}", *(f"  {name} {value}" for name, value in options.items())]
        self.client_config.write_text("\n".join(lines) + "\n", encoding="utf-8")

    def start(self, host_key: str = "host_key") -> None:
        """Start sshd and wait until it listens. RuntimeError with its log when it does not."""
        sshd = program()
        assert sshd is not None, missing()
        if os.geteuid() == 0:
            _RUN.mkdir(mode=0o755, exist_ok=True)
        settings = {
            "ListenAddress": f"{self.address}:{self.port}",
            "HostKey": str(self.folder / host_key),
            "AuthorizedKeysFile": str(self.folder / "authorized_keys"),
            "PidFile": "none",
            "UsePAM": "no",
            "StrictModes": "no",
            "PasswordAuthentication": "no",
            "KbdInteractiveAuthentication": "no",
            "UseDNS": "no",
            "PermitRootLogin": "prohibit-password",
            "MaxStartups": "100:30:200",
            "PrintMotd": "no",
            "SetEnv": " ".join(f"{name}={value}" for name, value in self.env.items()) or "MLBENCH_TEST_BOARD=1",
        }
        config = self.folder / "sshd_config"
        config.write_text("".join(f"{name} {value}\n" for name, value in settings.items()), encoding="utf-8")
        with (self.folder / "sshd.log").open("ab") as log:
            self.process = subprocess.Popen(
                [*self.prefix, sshd, "-D", "-e", "-f", str(config)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=_die_with_parent,
            )
        end = time.monotonic() + _START_S
        while "Server listening on" not in self.log.rpartition("\0")[2]:
            if self.process.poll() is not None or time.monotonic() > end:
                self.stop()
                raise RuntimeError(f"sshd did not start: {self.log}")
            time.sleep(0.02)

    def sessions(self) -> list[int]:
        """Return the processes of sshd that serve a connection."""
        return [] if self.process is None else children(self.process.pid)

    def stop(self) -> None:
        """End sshd and the connections it serves."""
        if self.process is None:
            return
        pids = [self.process.pid, *descendants(self.process.pid)]
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait(_STOP_S)
        self.process = None
        (self.folder / "sshd.log").unlink(missing_ok=True)

    # --- as a device -----------------------------------------------------------------------------------

    def settings(self, **more: Any) -> dict[str, Any]:
        """Return the settings of a lab file that reach this server with Python of this environment."""
        return {
            "host": ALIAS,
            "config_file": str(self.client_config),
            "python": sys.executable,
            "cache": str(self.folder / "cache"),
            "state_dir": str(self.folder / "state"),
            "heartbeat_s": 6.0,
            "connect_timeout_s": 5,
            **more,
        }

    def device(self, name: str = "pi5", **more: Any) -> Ssh:
        """Return a device as a lab file would describe it."""
        defaults = {key: setting.default for key, setting in TYPE.settings.items()}
        entry = LabDevice(name, "ssh", self.folder / "lab.toml", settings={**defaults, **self.settings(**more)})
        return TYPE.make(entry)

    def lab(self, name: str = "pi5", switch: Mapping[str, Any] | None = None, **more: Any) -> Path:
        """Write a lab file with the board in it, and with the table `switch` of its power."""
        lines = ["mlbench = 1", f"[device.{name}]", 'type = "ssh"', 'tags = ["arm"]']
        for key, value in self.settings(**more).items():
            lines.append(f"{key} = {value!r}" if not isinstance(value, str) else f'{key} = "{value}"')
        lines += [f"[device.{name}.switch]"] if switch else []
        lines += [f"{key} = {json.dumps(value)}" for key, value in (switch or {}).items()]
        path = self.folder / "lab.toml"
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return path


@contextlib.contextmanager
def server(folder: Path, **more: Any) -> Iterator[Server]:
    """Run a server and yield it; everything it started is ended."""
    found = Server(folder, **more)
    found.start()
    try:
        yield found
    finally:
        found.stop()


def children(pid: int) -> list[int]:
    """Return the processes that a process started and that live."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            words = stat.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
            if int(words[1]) == pid and words[0] != "Z":
                found.append(int(stat.parent.name))
    return sorted(found)


def descendants(pid: int) -> list[int]:
    """Return the processes that a process started, and those that they started."""
    own = children(pid)
    return [*own, *(one for child in own for one in descendants(child))]


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)
