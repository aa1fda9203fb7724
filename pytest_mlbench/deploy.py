"""Start an agent on a device and talk to it: strict request and reply, each stage under a deadline."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shlex
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, ClassVar

import execnet
import numpy as np
import numpy.typing as npt

from pytest_mlbench import lease
from pytest_mlbench.devices.api import Device, Remote
from pytest_mlbench.errors import AgentLost, BoardFailed, StageError, SuiteError, Unavailable, Unreachable
from pytest_mlbench.frameworks.api import Framework
from pytest_mlbench.pipe import Pipe, without_number
from pytest_mlbench.transcript import shown

START_DEADLINE_S = 60.0
GRACE_S = 3.0  # how much longer than the agent's own deadline the host waits before it ends the agent
EXIT_S = 2.0  # how long a process may take to end (and to write a core file) after its connection closed
CHUNK_BYTES = 4 << 20
PRINTED_CHARACTERS = 8000  # of what a lost agent printed, the last ones are shown
_IMPORTING = ("load", "compile", "convert")  # the stages in which an agent imports what an extra installs
_AGENT_FOLDER = Path(__file__).parent / "agent"


def agent_sources(framework: Framework | None = None, device: Device | None = None) -> dict[str, str]:
    """Return what travels to the target: module name -> source text.

    A device's modules travel where a framework drives the board that it reaches.
    """
    found = {"mlbench_agent": (_AGENT_FOLDER / "__init__.py").read_text(encoding="utf-8")}
    for file in sorted(_AGENT_FOLDER.rglob("*.py")):
        parts = file.relative_to(_AGENT_FOLDER).with_suffix("").parts
        parts = parts[:-1] if parts[-1] == "__init__" else parts
        if parts and parts != ("bootstrap",):
            found[".".join(("mlbench_agent", *parts))] = file.read_text(encoding="utf-8")
    modules = (framework.adapter, *framework.shipped) if framework else ()
    if framework is not None and framework.on_board and device is not None:
        modules += device.shipped
    for module in modules:
        if target_module(module) not in found:
            found[target_module(module)] = _source_of(module)
            found.setdefault("mlbench_adapters", "")
    return found


def target_module(module: str) -> str:
    """Return the name a host's module has on the target: the agent's own package, or `mlbench_adapters.NAME`."""
    own = "pytest_mlbench.agent."
    if module.startswith(own):
        return "mlbench_agent." + module[len(own) :]
    return "mlbench_adapters." + module.rpartition(".")[2]


def _source_of(module: str) -> str:
    try:
        spec = importlib.util.find_spec(module)
    except ModuleNotFoundError:  # of a package that a dotted name begins with
        spec = None
    if spec is None or spec.origin is None:
        raise SuiteError(f"the framework's adapter module {module!r} cannot be found; reinstall its package")
    return Path(spec.origin).read_text(encoding="utf-8")


class Agent:
    """One fresh process on the target. Use as a context manager: leaving it ends the process."""

    def __init__(self, device: Device, python: Path | None, sources: Mapping[str, str]) -> None:
        self._device = device
        self._python = python
        self._sources = dict(sources)
        self._group = execnet.Group(execmodel="thread")
        self._channel: Any = None
        self._log: BinaryIO | None = None
        self._named_log: Path | None = None
        self._remote = device if isinstance(device, Remote) else None
        self._pipe: Pipe | None = None  # of a connection to another machine
        self.hello: dict[str, Any] = {}

    _word: ClassVar[str] = "agent"  # in the transcript

    def __enter__(self) -> Agent:
        try:
            self._start()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None and self._channel is not None:
            with contextlib.suppress(StageError):
                self.call("close", "close", 10.0)
        self._end()

    def _start(self) -> None:
        handle, log = tempfile.mkstemp(prefix="mlbench-agent-", suffix=".log")
        self._log = os.fdopen(handle, "rb")
        try:
            if self._device.is_host:
                self._connect(log, self._facts_here(log))
                self.hello = self._reply("start", START_DEADLINE_S)
            else:
                self._start_there(log)
        finally:
            self._forget(log)

    def _start_there(self, log: str) -> None:
        assert self._log is not None
        self._pipe = Pipe(self._log)
        with self._pipe.deadline(START_DEADLINE_S) as passed:
            try:
                self._connect(log, self._facts_there())
                self.hello = self._reply("start", START_DEADLINE_S)
            except StageError as error:
                if not passed:
                    raise
                what = f"device {self._device.name!r}: no agent answered within {START_DEADLINE_S:g} s"
                remedy = "see that the board is not overloaded; it may hang, and need its power switched"
                raise Unreachable("start", f"{what}; {remedy}", error.detail) from None
        self._begun()

    def _facts_here(self, log: str) -> dict[str, Any]:
        first, *others = lease.agent_lock_files(self._device.resources, getattr(self._device, "shares", ()))
        return {"host_pid": os.getpid(), "log": log, "lock_file": first, "further_locks": others}

    def _facts_there(self) -> dict[str, Any]:
        """Return what an agent on another machine is told; what it prints comes through the connection."""
        more = self._remote.start() if self._remote is not None else {}
        return {"host_pid": 0, "log": None, "lock_file": None, **more}

    def _begun(self) -> None:
        if self._remote is not None:
            self._remote.began(self.hello["pid"])

    def _connect(self, log: str, start: Mapping[str, Any]) -> None:
        if self._python is not None and self._device.is_host:
            _answers(self._python)
        spec = self._device.gateway(self._python).replace("{log}", shlex.quote(log))
        try:
            gateway = self._group.makegateway(spec)
            self._channel = gateway.remote_exec((_AGENT_FOLDER / "bootstrap.py").read_text(encoding="utf-8"))
            self._channel.send({**start, **self._channels(gateway), "sources": self._sources})
        except (OSError, EOFError, AssertionError, execnet.HostNotFound) as error:
            # AssertionError: execnet's, when what answers is no Python
            if self._remote is not None:
                ended = self._remote.explain(self._pipe_status(), self._printed())
                kind = Unreachable if ended.is_unreachable else StageError
                raise kind("start", ended.told) from None
            told = f": {error}" if str(error) else ""
            message = f"cannot start an agent with {spec.split('//')[1]}{told}; it must be a Python interpreter"
            raise StageError("start", message) from None

    def _channels(self, gateway: execnet.Gateway) -> dict[str, Any]:
        """Return further channels that the agent is given."""
        return {}

    def install_line(self, framework: Framework) -> str:
        """Return what installs a framework where this agent runs; a board takes nothing of ours with it."""
        if self._device.is_host:
            return framework.install
        packages = " ".join(framework.distributions or (framework.module,))
        return f"on the device {self._device.name!r}: {self.hello.get('executable')} -m pip install {packages}"

    def _forget(self, log: str) -> None:
        """Remove the log's name once both sides have it open: then nothing is left when this process is killed."""
        try:
            Path(log).unlink()
        except PermissionError:  # Windows: not while it is open
            self._named_log = Path(log)

    def call(self, stage: str, verb: str, deadline_s: float, **arguments: Any) -> Any:
        """Ask for a verb and wait for its answer.

        Raises StageError when the verb raised, SuiteError when the agent refused the data, Unavailable
        when the framework is not installed there, AgentLost when the agent ended or passed its deadline.
        """
        self._note(f"-> {verb} {shown(arguments)}")
        try:
            self._channel.send((verb, arguments, deadline_s))
        except OSError:
            raise self._lost(stage, deadline_s) from None
        return self._reply(stage, deadline_s)

    def _note(self, line: str) -> None:
        if self._remote is not None:
            self._remote.note(f"{self._word} {self.hello.get('pid', '')} {line}")

    def _reply(self, stage: str, deadline_s: float) -> Any:
        try:
            kind, value = self._channel.receive(deadline_s + GRACE_S)
        except self._channel.TimeoutError:
            self._kill()
            raise self._lost(stage, deadline_s, timed_out=True) from None
        except (EOFError, execnet.RemoteError) as error:
            raise self._lost(stage, deadline_s, cause=error) from None
        self._note(f"<- {kind}" + (f": {value['message']}" if kind != "ok" else ""))
        if kind == "ok":
            return value
        if kind == "refused":
            raise SuiteError(value["message"])
        if value.get("board"):
            raise _board_failed(stage, value["board"])
        if value["type"] in ("ModuleNotFoundError", "ImportError") and stage in _IMPORTING:
            raise Unavailable(value["message"])
        raise StageError(stage, value["message"], value["traceback"])

    def _lost(
        self, stage: str, deadline_s: float, *, timed_out: bool = False, cause: BaseException | None = None
    ) -> AgentLost:
        status = self._status()
        printed, kind = self._printed(), AgentLost
        if timed_out or "Timeout (" in printed:
            what = f"no answer within {deadline_s:g} s (deadline `timeout_s`); the agent was ended"
        elif isinstance(cause, execnet.RemoteError):
            what, printed = "the agent failed", printed + str(cause)
        elif self._remote is not None:
            ended = self._remote.explain(self._pipe_status(), printed)
            what, kind = ended.told, Unreachable if ended.is_unreachable else AgentLost
        else:
            what = f"the agent ended: {status}"
        self._note(f"lost: {what}")
        return kind(stage, what, printed)

    def _pipe_status(self) -> int | None:
        return self._pipe.status() if self._pipe is not None else None

    def _printed(self) -> str:
        if self._log is None:
            return ""
        with contextlib.suppress(OSError):
            self._log.seek(0)
            printed = self._log.read().decode(errors="replace")
            return (without_number(printed) if self._pipe is not None else printed)[-PRINTED_CHARACTERS:]
        return ""

    def _status(self) -> str:
        """Say how the agent's process ended, without taking the status from execnet's own wait.

        A framework may close the connection and stay alive, so this waits no longer than an exit takes.
        """
        pid = self.hello.get("pid")
        if pid is None or not self._device.is_host or not hasattr(os, "waitid"):
            return "its connection closed"
        end = time.monotonic() + EXIT_S
        try:
            while (found := os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT | os.WNOHANG)) is None:
                if time.monotonic() >= end:
                    return "its connection closed while its process lived on"
                time.sleep(0.01)
        except ChildProcessError:
            return "its connection closed"
        if found.si_code == os.CLD_EXITED:
            return f"exit status {found.si_status}"
        name = signal.Signals(found.si_status).name
        remedy = "; it may have run out of memory" if name == "SIGKILL" else ""
        return f"killed by {name}{remedy}"

    def _kill(self) -> None:
        pid = self.hello.get("pid")
        if pid is not None and self._device.is_host:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL if hasattr(signal, "SIGKILL") else signal.SIGTERM)
        elif self._pipe is not None:
            self._pipe.end()
            if pid is not None and self._remote is not None:
                with contextlib.suppress(StageError):  # then it is told of already
                    self._remote.ended(pid)

    def _end(self) -> None:
        """End the process and forget it; never blocks on a hung agent (a send to one would)."""
        self._kill()
        self._group.terminate(timeout=1.0)
        if self._log is not None:
            self._log.close()
            self._log = None
        if self._named_log is not None:
            self._named_log.unlink(missing_ok=True)

    # --- arrays ----------------------------------------------------------------------------------------

    def send_array(self, name: str, array: npt.NDArray[Any], deadline_s: float) -> None:
        """Send one array of a data set in acknowledged chunks of bytes."""
        data = memoryview(np.ascontiguousarray(array).tobytes())
        shape = [int(size) for size in array.shape]
        for offset in range(0, max(len(data), 1), CHUNK_BYTES):
            chunk = bytes(data[offset : offset + CHUNK_BYTES])
            done = offset + CHUNK_BYTES >= len(data)
            self.call(
                "inputs",
                "receive",
                deadline_s,
                name=name,
                dtype=array.dtype.str,
                shape=shape,
                data=chunk,
                done=done,
            )

    def fetch_arrays(self, described: Mapping[str, Any], deadline_s: float) -> dict[str, npt.NDArray[Any]]:
        """Fetch the outputs the agent keeps, in acknowledged chunks."""
        return {name: self._fetch(name, facts, deadline_s) for name, facts in described.items()}

    def _fetch(self, name: str, facts: Mapping[str, Any], deadline_s: float) -> npt.NDArray[Any]:
        dtype, shape = np.dtype(facts["dtype"]), tuple(facts["shape"])
        total = int(np.prod(shape)) * dtype.itemsize
        parts = [
            self.call("outputs", "fetch_outputs", deadline_s, name=name, offset=offset)
            for offset in range(0, total, CHUNK_BYTES)
        ]
        return np.frombuffer(b"".join(parts), dtype=dtype).reshape(shape)


@lru_cache
def _answers(python: Path) -> None:
    """Ask an interpreter for a sign of life, once a session: execnet would wait for one without end."""
    try:
        subprocess.run([python, "-c", ""], stdin=subprocess.DEVNULL, capture_output=True, timeout=START_DEADLINE_S)
    except subprocess.TimeoutExpired:
        message = f"{python} did not answer within {START_DEADLINE_S:g} s; it must be a Python interpreter"
        raise StageError("start", message) from None
    except OSError as error:
        message = f"cannot start an agent with python={python}: {error}; it must be a Python interpreter"
        raise StageError("start", message) from None


def _board_failed(stage: str, told: Mapping[str, Any]) -> BoardFailed:
    detail = f"Traffic on its line:\n{told['transcript']}" if told["transcript"] else ""
    return BoardFailed(stage, told["message"], detail, tuple(told["happened"]), is_lost=told["is_lost"])
