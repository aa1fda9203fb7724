"""Boards that run Python, reached over OpenSSH: its configuration, keys, jump hosts and host-key checks hold.

Nothing is installed on the board but Python, numpy and the framework. Every agent is a process of its own over a
connection of its own; one more, the keeper, holds the board's lock and its files for the session.
"""

from __future__ import annotations

import atexit
import re
import shlex
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pytest_mlbench import assets
from pytest_mlbench.agent import power_switch
from pytest_mlbench.agent.board import BoardError
from pytest_mlbench.agent.recovery import Rung
from pytest_mlbench.devices import ssh_pipe, ssh_words
from pytest_mlbench.devices.api import Ended, Setting
from pytest_mlbench.devices.ssh_keeper import SNAPSHOT, Keeper
from pytest_mlbench.devices.ssh_state import Snapshot
from pytest_mlbench.errors import StageError, SuiteError, Unreachable
from pytest_mlbench.lab import LabDevice

# Neither may begin with "-", which ssh would take for an option, nor hold what a shell or ssh itself expands.
HOST = r"([A-Za-z0-9_][A-Za-z0-9_.-]*@)?[A-Za-z0-9_][A-Za-z0-9_.:-]*"
PYTHON = r"[A-Za-z0-9_/.][A-Za-z0-9_/.+-]*"
FILE = r"[A-Za-z0-9_/.~][A-Za-z0-9_/.+@, ~-]*"
ABSOLUTE = r"/[A-Za-z0-9_/.+@,-]*"
_TREE_BYTES = 64 << 20
_BOOT_POLL_S = 0.5
_keepers: dict[Ssh, Keeper] = {}


@dataclass(frozen=True)
class Ssh:
    """A board on the network. What a lab file may set is told by SshType.settings."""

    name: str
    host: str
    resources: tuple[str, ...]
    board: str = ""
    port: int = 0
    config_file: str = ""
    python: str = "python3"
    cache: str = ""
    cache_mb: int = 1024
    state_dir: str = ""
    heartbeat_s: float = 15.0
    connect_timeout_s: int = 10
    boot_timeout_s: float = 60.0
    switch: Mapping[str, Any] = field(default_factory=dict, compare=False)  # as switches.py reads it; {}: none
    shares: tuple[str, ...] = ()
    board_resources: tuple[str, ...] = ("cpu",)
    is_host: bool = False
    frameworks: tuple[str, ...] = ()
    emulated: bool = False
    shipped: tuple[str, ...] = ()
    verified: str = "third-party driver or simulator"

    # --- connection ------------------------------------------------------------------------------------

    def gateway(self, python: Path | None) -> str:
        """Return a popen specification of a script that becomes `ssh`; `{log}` is where it and the board print.

        The interpreter is the lab file's: a suite's `python` is a path of the host.
        """
        words = [sys.executable, "-I", "-S", str(Path(ssh_pipe.__file__).resolve()), "{log}", self.python]
        command = " ".join(word if word == "{log}" else shlex.quote(word) for word in [*words, *self._arguments()])
        return f"popen//python={_single_slashes(command)}//execmodel=main_thread_only"

    def _arguments(self) -> list[str]:
        """Return ssh's arguments up to the host. What the user's configuration decides is left to it."""
        beat = max(1, round(self.heartbeat_s / 3))
        options = {
            "BatchMode": "yes",  # no question; an unknown host key is refused, as is one that changed
            "UpdateHostKeys": "no",
            "ConnectTimeout": self.connect_timeout_s,
            "ServerAliveInterval": beat,
            "ServerAliveCountMax": 3,
            "ControlMaster": "no",  # a master that is there is used; we never become one
            "ClearAllForwardings": "yes",
            "ForwardAgent": "no",
            "ForwardX11": "no",
            "PermitLocalCommand": "no",
            "RemoteCommand": "none",
            "LogLevel": "INFO",  # the words that explain a failure
        }
        words = ["-T", *(f"-o{name}={value}" for name, value in options.items())]
        if self.config_file:
            words += ["-F", self.config_file]
        if self.port:
            words += ["-p", str(self.port)]
        return [*words, "--", self.host]

    @property
    def _by_hand(self) -> str:
        """Return the command that a person would try."""
        config = ["-F", self.config_file] if self.config_file else []
        port = ["-p", str(self.port)] if self.port else []
        return shlex.join(["ssh", *config, *port, self.host])

    def explain(self, status: int | None, printed: str) -> Ended:
        """Say what the end of a connection means."""
        return ssh_words.explain(self.name, self._by_hand, self.python, status, printed)

    @property
    def _keeper(self) -> Keeper:
        if self not in _keepers:
            settings = {
                "cache": self.cache,
                "cache_bytes": self.cache_mb << 20,
                "silence_s": float(self.heartbeat_s),
                "env": self._environment,
            }
            _keepers[self] = Keeper(self, self.board_resources, settings)
        return _keepers[self]

    @property
    def _environment(self) -> dict[str, str]:
        return {"MLBENCH_STATE": self.state_dir} if self.state_dir else {}

    def close(self) -> None:
        """End this session's connection to the board."""
        if self in _keepers:
            _keepers.pop(self).close()

    # --- recovery --------------------------------------------------------------------------------------

    def reach(self) -> None:
        """Make one more connection and end it."""
        self._keeper.reach()

    def rungs(self) -> tuple[Rung, ...]:
        """Return one more try, and a power cycle where there is a switch."""
        again = Rung("reopen", lambda: None)  # a server that was restarted, or had too many callers
        return (again, Rung("power_cycle", self._power_cycle)) if self.switch else (again,)

    def _power_cycle(self) -> None:
        """Switch the board's power and wait until it answers.

        BoardError when the switch fails, or at the deadline; StageError at once for what waiting does not help.
        """
        self._keeper.close()
        power_switch.make(self.switch).cycle()
        end = time.monotonic() + self.boot_timeout_s
        while True:
            try:
                return self.reach()
            except Unreachable as error:
                if time.monotonic() >= end:
                    what = f"no answer within {self.boot_timeout_s:g} s (boot_timeout_s) after its power was switched"
                    raise BoardError(f"{what}; the last try: {error.message}") from None
            time.sleep(_BOOT_POLL_S)

    # --- device ----------------------------------------------------------------------------------------

    def connection(self) -> Mapping[str, Any]:
        """Return nothing: the agent is on the board."""
        return {}

    def facts(self) -> Mapping[str, Any]:
        """Return what identifies the board: its processor, memory and system as it tells them, and its type."""
        hello = self._keeper.hello
        return {"board": self.board, **hello["facts"], "interpreter": hello["executable"]}

    def probe(self) -> str:
        """Say why the board cannot be used now; one connection, and no lease."""
        in_use = self in _keepers
        try:
            _ = self._keeper.hello
        except StageError as error:
            self.close()
            return error.message
        if not in_use:
            self.close()
        return ""

    def place(self, file: Path) -> str:
        """Copy a file, and what a model keeps beside it, into the board's cache unless it is there."""
        files = {file.name: file}
        if file.suffix == ".onnx":
            others = assets.external_data(file, suite=file, root=file.parent)
            files |= {other.relative_to(file.parent.resolve()).as_posix(): other for other in others}
        hashes = {name: assets.sha256_of(path) for name, path in files.items()}
        key = assets.key_of("board", sorted(hashes.items()))
        return f"{self._keeper.send(key, files, hashes)}/{file.name}"

    # --- a machine of its own --------------------------------------------------------------------------

    def held(self, timeout_s: float, waiting: Callable[[str], None], case: str) -> AbstractContextManager[None]:
        """Hold the locks of the board, on the board."""
        return self._keeper.held(timeout_s, waiting, case)

    def start(self) -> Mapping[str, Any]:
        """Return the lock that an agent there shares, and its environment."""
        lock_file = self._keeper.call("agent_file", resource=self.board_resources[0])
        return {"lock_file": lock_file, "env": self._environment}

    def began(self, pid: int) -> None:
        """Let the keeper end an agent that its session has left."""
        self._keeper.began(pid)

    def ended(self, pid: int) -> None:
        """Make sure that an agent has gone."""
        if self in _keepers:
            self._keeper.ended(pid)

    def note(self, line: str) -> None:
        """Add a line to the transcript."""
        if self in _keepers:
            self._keeper.transcript.add(line)

    def transcript(self) -> str:
        """Return what was asked and answered over ssh since the case began."""
        return self._keeper.transcript.text() if self in _keepers else ""

    def state(self) -> Mapping[str, Any]:
        """Return governor, clock, load and temperature of the board."""
        found: Mapping[str, Any] = self._keeper.call("state")
        return found

    def machine(self) -> tuple[Snapshot, tuple[int, ...]]:
        """Return what the board's kernel tells just now, and our processes there."""
        found = self._keeper.call("snapshot", patterns=list(SNAPSHOT))
        return Snapshot.of(found["files"], found["ticks_per_s"]), self._keeper.pids

    def place_tree(self, folder: Path) -> str:
        """Copy the Python sources under a folder into the board's cache; hidden folders stay here.

        SuiteError when they are more than a suite's own code would be.
        """
        files = {
            file.relative_to(folder).as_posix(): file
            for file in sorted(folder.rglob("*.py"))
            if not any(part.startswith((".", "__pycache__")) for part in file.relative_to(folder).parts)
        }
        size = sum(file.stat().st_size for file in files.values())
        if size > _TREE_BYTES:
            raise SuiteError(
                f"{folder} holds {size >> 20} MB of Python sources, too much to send to device {self.name!r} "
                f"(at most {_TREE_BYTES >> 20} MB); keep the suite's functions in a folder of their own"
            )
        hashes = {name: assets.sha256_of(path) for name, path in files.items()}
        return self._keeper.send(assets.key_of("tree", sorted(hashes.items())), files, hashes)

    def scratch(self) -> str:
        """Return an empty folder on the board."""
        return str(self._keeper.call("scratch"))

    def fetch(self, path: str, folder: Path) -> Path:
        """Copy a file from scratch() into a folder here."""
        return self._keeper.fetch(path, folder)


def _single_slashes(command: str) -> str:
    """Return a command line without "//", which separates the parts of execnet's specification."""
    return re.sub("/{2,}", "/", command)


@dataclass(frozen=True)
class SshType:
    """The type `ssh` of a lab file."""

    verified: str = "third-party driver or simulator"

    @property
    def settings(self) -> Mapping[str, Setting]:
        """Return what a lab file may set."""
        return {
            "host": Setting(
                str, "an alias of ssh's configuration, a host name or user@host.", required=True, pattern=HOST
            ),
            "port": Setting(int, "sshd's port, when ssh's configuration does not tell it.", default=0, minimum=1),
            "config_file": Setting(str, "an ssh_config to use in place of the user's.", default="", pattern=FILE),
            "python": Setting(str, "the interpreter on the board.", default="python3", pattern=PYTHON),
            "cache": Setting(str, "the folder of its cache of files, on the board.", default="", pattern=FILE),
            "cache_mb": Setting(int, "MiB that the cache may take.", default=1024, minimum=1),
            "state_dir": Setting(str, "the folder of its locks, on the board.", default="", pattern=ABSOLUTE),
            "heartbeat_s": Setting(float, "seconds of silence that end a connection.", default=15.0, minimum=3),
            "connect_timeout_s": Setting(int, "seconds that connecting may take.", default=10, minimum=1),
            "boot_timeout_s": Setting(
                float, "seconds from power to an answer, after its power was switched.", default=60.0, minimum=0.001
            ),
        }

    def make(self, entry: LabDevice) -> Ssh:
        """Return the board that a lab file describes."""
        settings = dict(entry.settings)
        if settings["port"] > 65535:
            raise entry.error("port", f"{settings['port']} is no port; write 1 to 65535")
        if settings["config_file"]:
            # ssh takes a relative one from the working directory; a lab file means its own folder.
            path = entry.file.parent.resolve() / Path(settings["config_file"]).expanduser()
            settings["config_file"] = str(path)
        return Ssh(name=entry.name, resources=entry.resources, board=entry.board, switch=dict(entry.switch), **settings)


TYPE = SshType()


@atexit.register
def _close_all() -> None:
    for device in list(_keepers):
        device.close()
