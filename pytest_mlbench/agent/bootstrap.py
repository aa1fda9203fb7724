# Runs on the target as the first thing after execnet's own start (`remote_exec` of this file's text).
# It is executed, not imported: execnet gives it the name `channel` and nothing else of ours exists yet.
# Python >= 3.9, standard library only.
from __future__ import annotations

import ctypes
import faulthandler
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import linecache
import os
import signal
import sys
from types import ModuleType
from typing import Any


class Sources(importlib.abc.MetaPathFinder, importlib.abc.InspectLoader):
    """Import modules from the sources the host sent: nothing is installed or written on the target."""

    def __init__(self, sources: dict[str, str]) -> None:
        self.sources = sources

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        """Find the modules that travelled, and no others."""
        if fullname not in self.sources:
            return None
        return importlib.util.spec_from_loader(fullname, self, is_package=self.is_package(fullname))

    def is_package(self, fullname: str) -> bool:
        """Tell whether another module that travelled lies inside."""
        return any(name.startswith(fullname + ".") for name in self.sources)

    def get_source(self, fullname: str) -> str:
        """Return the text."""
        return self.sources[fullname]

    def exec_module(self, module: ModuleType) -> None:
        """Run the text, and keep its lines for tracebacks: there is no file to look them up in."""
        name = module.__name__
        text = self.sources[name]
        file = "<mlbench-agent>/" + name.replace(".", "/") + ".py"
        linecache.cache[file] = (len(text), None, text.splitlines(True), file)
        exec(compile(text, file, "exec", dont_inherit=True), module.__dict__)


def die_with(host_pid: int) -> None:
    """Ask the kernel to end this process with its parent: in native code it would not notice a closed pipe."""
    if not sys.platform.startswith("linux"):
        return
    pr_set_pdeathsig = 1
    ctypes.CDLL(None, use_errno=True).prctl(pr_set_pdeathsig, signal.SIGKILL)
    if host_pid and os.getppid() != host_pid:  # it died before the request reached the kernel
        os._exit(1)


def capture_output(path: str) -> None:
    """Send what native code and faulthandler print to a file of this agent's own."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)


if __name__ == "__channelexec__":
    channel: Any = globals()["channel"]
    start = channel.receive()
    die_with(start["host_pid"])
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole process group; pytest decides
    if start["log"]:
        capture_output(start["log"])
    else:
        os.dup2(2, 1)  # the connection carries what is printed; execnet sent it to /dev/null
    faulthandler.enable(file=2)
    sys.path[:] = [entry for entry in sys.path if entry]  # the working directory must not shadow a framework
    sys.meta_path.insert(0, Sources(start["sources"]))
    os.environ.update(start.get("env", {}))
    importlib.import_module(start.get("serve", "mlbench_agent.serve")).serve(channel, start)
