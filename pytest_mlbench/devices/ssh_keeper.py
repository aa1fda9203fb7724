"""The host's side of a board's keeper (agent/keeper.py): one connection per session and board, and its heartbeat."""

from __future__ import annotations

import contextlib
import platform
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import execnet

from pytest_mlbench import deploy, lease
from pytest_mlbench.agent import locks
from pytest_mlbench.devices.api import Device
from pytest_mlbench.errors import AgentLost, StageError, SuiteError
from pytest_mlbench.transcript import Transcript

VERB_S = 20.0
WRITE_S = 120.0  # of one chunk, on a slow line and a slow card
_POLL_S = 0.1
SOURCES = (
    "mlbench_agent",
    *(
        f"mlbench_agent.{name}"
        for name in ("answer", "board", "board_cache", "board_lease", "keeper", "locks", "machine_facts")
    ),
)
# What fitness.probe() reads, and where the cgroups' files may be.
SNAPSHOT = (
    *("proc/stat", "proc/cpuinfo", "proc/loadavg", "proc/self/status", "proc/self/cgroup", "proc/[0-9]*/stat"),
    *(f"sys/devices/system/cpu/{name}" for name in ("online", "cpu[0-9]*/cpufreq/scaling_governor")),
    "sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_cur_freq",
    "sys/devices/system/cpu/cpu[0-9]*/thermal_throttle/core_throttle_count",
    *(f"sys/class/thermal/cooling_device*/{name}" for name in ("type", "cur_state")),
    *(f"sys/fs/cgroup{depth}/cpu.stat" for depth in ("", "/*", "/*/*", "/*/*/*", "/*/*/*/*")),
)


class KeeperAgent(deploy.Agent):
    """The keeper's process."""

    _word: ClassVar[str] = "keeper"

    def __init__(self, device: Device, settings: Mapping[str, Any]) -> None:
        every = deploy.agent_sources()
        super().__init__(device, None, {name: every[name] for name in SOURCES})
        self._settings = settings
        self._beats: Any = None

    def _facts_there(self) -> dict[str, Any]:
        return {"host_pid": 0, "log": None, "serve": "mlbench_agent.keeper", **self._settings}

    def _channels(self, gateway: execnet.Gateway) -> dict[str, Any]:
        self._beats = gateway.newchannel()
        return {"beats": self._beats}

    def _begun(self) -> None:
        """Do nothing: nobody watches the keeper but its own heartbeat."""

    def beat(self) -> None:
        """Tell the keeper that this session lives. OSError when the connection has closed."""
        self._beats.send(1)


class Keeper:
    """A board as a session knows it. Started when first asked for; a lost one is started anew at the next lease."""

    def __init__(self, device: Device, resources: tuple[str, ...], settings: Mapping[str, Any]) -> None:
        """Keep `device`, of whose machine a lease takes `resources`; the keeper is started with `settings`."""
        self._device = device
        self._resources = resources
        self._settings = settings
        self._agent: KeeperAgent | None = None
        self._stop = threading.Event()
        self._pids: set[int] = set()
        self._places: dict[str, str] = {}  # cache key -> folder there, while the keeper that told it lives
        self._case = ""
        self.transcript = Transcript()

    # --- connection ------------------------------------------------------------------------------------

    @property
    def hello(self) -> Mapping[str, Any]:
        """Return what the keeper said of itself and the board."""
        return self._connected().hello

    def call(self, verb: str, deadline_s: float = VERB_S, **arguments: Any) -> Any:
        """Ask for a verb. StageError when the board refuses, or cannot be reached any more."""
        agent = self._connected()
        try:
            return agent.call("board", verb, deadline_s, **arguments)
        except SuiteError as error:  # what the keeper refuses is of the board, not of the suite
            raise StageError("place", f"device {self._device.name!r}: {error}") from None
        except AgentLost:
            self.close()
            raise

    def _connected(self) -> KeeperAgent:
        if self._agent is None:
            agent = KeeperAgent(self._device, self._settings)
            agent.__enter__()
            try:
                self._check(agent.hello)
            except StageError:
                agent.__exit__(None, None, None)
                raise
            self._agent, self._stop = agent, threading.Event()
            threading.Thread(target=self._keep_beating, args=(agent, self._stop), daemon=True).start()
        return self._agent

    def _check(self, hello: Mapping[str, Any]) -> None:
        if not hello["numpy"]:
            message = f"device {self._device.name!r}: numpy is not installed for {hello['executable']} there; "
            raise StageError("start", message + f"on the board: {hello['executable']} -m pip install numpy")

    def _keep_beating(self, agent: KeeperAgent, stop: threading.Event) -> None:
        with contextlib.suppress(OSError):
            while not stop.wait(self._settings["silence_s"] / 3):
                agent.beat()

    def reach(self) -> None:
        """Start another keeper and end it: what holds the board's lock is left alone. StageError says why not."""
        with KeeperAgent(self._device, self._settings):
            pass

    def close(self) -> None:
        """End the keeper; it ends the agents that are left and frees the board."""
        agent, self._agent = self._agent, None
        self._stop.set()
        self._places.clear()
        self._pids.clear()
        if agent is not None:
            agent.__exit__(StageError, None, None)  # without a farewell: its connection may be lost

    # --- lease -----------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def held(self, timeout_s: float, waiting: Callable[[str], None], case: str) -> Iterator[None]:
        """Hold the board's own locks; who waits for them is told the case."""
        if case != self._case:  # else the same one goes on, after the board was brought back
            self.transcript.clear()
            self._case = case
        self._take(time.monotonic() + timeout_s, waiting)
        try:
            yield
        finally:
            self._places.clear()
            if self._agent is not None:
                with contextlib.suppress(StageError):
                    self.call("release")

    def _take(self, deadline: float, waiting: Callable[[str], None]) -> None:
        if self._agent is not None and not self._alive():
            self.close()
        name, told = self._device.name, time.monotonic()
        facts = locks.holder_facts(self._case)
        facts["user"] = f"{facts['user']}@{platform.node()}"
        while busy := self.call("take", resources=list(self._resources), holder=facts):
            now = time.monotonic()
            if now >= deadline:
                remedy = "wait for it, end it, or allow more time with --mlbench-lease-timeout"
                raise StageError("lease", f"device {name!r} is busy: on the board {busy}; {remedy}")
            if now - told >= lease.HEARTBEAT_S:
                told = now
                waiting(f"waiting for device {name!r}: on the board {busy}")
            time.sleep(_POLL_S)

    def _alive(self) -> bool:
        """Tell whether the keeper of an earlier case still answers."""
        try:
            self.call("ping")
        except StageError:
            return False
        return True

    # --- agents ----------------------------------------------------------------------------------------

    def began(self, pid: int) -> None:
        """Put an agent in the keeper's charge."""
        self.call("watch", pid=pid)
        self._pids.add(pid)

    def ended(self, pid: int) -> None:
        """Make sure that an agent has gone. A lost keeper has seen to it itself."""
        if pid in self._pids and self._agent is not None:
            self._pids.discard(pid)
            left = self.call("end", pid=pid)
            if left:
                raise StageError("board", f"device {self._device.name!r}: {left}")

    @property
    def pids(self) -> tuple[int, ...]:
        """Return the processes on the board that are ours."""
        return (int(self.hello["pid"]), *sorted(self._pids))

    # --- files -----------------------------------------------------------------------------------------

    def send(self, key: str, files: Mapping[str, Path], hashes: Mapping[str, str]) -> str:
        """Make an entry of the board's cache of these files (name there -> file here); returns its folder there."""
        if key not in self._places:
            found = self.call("find", key=key)
            self._places[key] = found or self._sent(key, files, hashes)
        return self._places[key]

    def _sent(self, key: str, files: Mapping[str, Path], hashes: Mapping[str, str]) -> str:
        self.call("begin", size=sum(file.stat().st_size for file in files.values()))
        for name, file in files.items():
            with file.open("rb") as stream:
                self.call("write", WRITE_S, name=name, data=stream.read(deploy.CHUNK_BYTES))
                while chunk := stream.read(deploy.CHUNK_BYTES):
                    self.call("write", WRITE_S, name=name, data=chunk)
        return str(self.call("finish", WRITE_S, key=key, hashes=dict(hashes)))

    def fetch(self, path: str, folder: Path) -> Path:
        """Copy a file from the board's scratch folder into a folder here, whole or not at all."""
        size, offset = self.call("size", path=path), 0
        here = folder / path.rpartition("/")[2]
        part = here.with_name(here.name + ".part")
        with part.open("wb") as stream:
            while offset < size:
                chunk = self.call("read", WRITE_S, path=path, offset=offset)
                if not chunk:
                    break
                offset += stream.write(chunk)
        part.replace(here)
        return here
