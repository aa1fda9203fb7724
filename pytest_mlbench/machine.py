"""Read what the kernel tells of this machine. A file that is missing, forbidden or garbled is None, never an error."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

# proc(5): times are counted in these ticks, 100 a second on every common Linux.
_TICKS_PER_S = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100
_CPU = "sys/devices/system/cpu"


@dataclass(frozen=True)
class Process:
    """One process as the kernel counts it: processor time of its own, and of children that it has waited for."""

    pid: int
    parent: int
    name: str
    own_ns: int
    children_ns: int


@dataclass(frozen=True)
class Busy:
    """A process and how many cores it kept busy."""

    pid: int
    name: str
    cores: float

    def text(self) -> str:
        """Return the process for people: `ffmpeg (process 812, 0.98 cores)`."""
        return f"{self.name} (process {self.pid}, {self.cores:.2f} cores)"


@dataclass(frozen=True)
class Machine:
    """The files under `root`, which is another folder than / only in tests."""

    root: Path = Path("/")
    ticks_per_s: int = _TICKS_PER_S

    def text(self, path: str) -> str | None:
        """Return a file's text without white space around it; `path` is relative to the root."""
        try:
            return (self.root / path).read_text(encoding="utf-8", errors="replace").strip()
        except (OSError, ValueError):
            return None

    def number(self, path: str) -> int | None:
        """Return a file's whole number; `max`, as cgroups write for no limit, is none."""
        return whole(self.text(path) or "")

    def paths(self, pattern: str) -> list[str]:
        """Return the paths that match, relative to the root, cpu2 before cpu10."""
        try:
            found = [path.relative_to(self.root).as_posix() for path in self.root.glob(pattern)]
        except OSError:
            return []
        return sorted(found, key=lambda path: re.sub(r"\d+", lambda digits: digits[0].zfill(20), path))

    def texts(self, pattern: str) -> list[str]:
        """Return the texts of all files that match and are not empty."""
        return [text for path in self.paths(pattern) if (text := self.text(path))]

    def numbers(self, pattern: str) -> list[int]:
        """Return the whole numbers of all files that match."""
        return [number for path in self.paths(pattern) if (number := self.number(path)) is not None]

    def cores(self) -> frozenset[int] | None:
        """Return the cores that this process may run on; None where /proc does not tell."""
        found = re.search(r"^Cpus_allowed_list:\s*(\S+)", self.text("proc/self/status") or "", re.MULTILINE)
        allowed = cores_of(found[1]) if found else None
        online = cores_of(self.text(f"{_CPU}/online") or "")
        # The kernel also allows cores that are not there (yet).
        return allowed & online if allowed and online else allowed or None

    def per_core(self, file: str) -> dict[int, str]:
        """Return the text of a file below cpuN/ of each core N that this process may run on."""
        allowed, found = self.cores(), {}
        for path in self.paths(f"{_CPU}/cpu[0-9]*/{file}"):
            core = re.match(rf"{_CPU}/cpu(\d+)/", path)
            if core and (allowed is None or int(core[1]) in allowed) and (text := self.text(path)):
                found[int(core[1])] = text
        return found

    def per_core_numbers(self, file: str) -> dict[int, int]:
        """Return the whole number above 0 in a file below cpuN/ of each core N that this process may run on."""
        return {core: number for core, text in self.per_core(file).items() if (number := whole(text) or 0) > 0}

    def processor(self) -> str | None:
        """Return the model of the processor, all models where cores differ; None where it is not told."""
        found = re.findall(
            r"^(?:model name|Model|CPU part)\s*:\s*(.+?)\s*$", self.text("proc/cpuinfo") or "", re.MULTILINE
        )
        return ", ".join(sorted(set(found))) or None

    def is_virtual(self) -> bool | None:
        """Return whether this is a virtual machine; None where the processor does not tell (other than x86)."""
        flags = re.search(r"^flags\s*:(.*)$", self.text("proc/cpuinfo") or "", re.MULTILINE)
        if flags:
            return "hypervisor" in flags[1].split()
        told = self.text("sys/hypervisor/type") or self.text("proc/device-tree/hypervisor/compatible")
        return True if told or "QEMU" in (self.text("sys/class/dmi/id/sys_vendor") or "") else None

    def cgroups(self) -> list[str]:
        """Return the folders of the cgroups that limit this process's processor time, its own before their parents.

        Version 2 or, on older systems, version 1's controller `cpu`. In a container, the names in
        /proc/self/cgroup may be those of the host, which are not there; the root of what is mounted counts then.
        """
        found: list[str] = []
        for line in (self.text("proc/self/cgroup") or "").splitlines():
            number, _, rest = line.partition(":")
            controllers, _, path = rest.partition(":")
            if number == "0" and not controllers:
                mounts = ["sys/fs/cgroup", "sys/fs/cgroup/unified"]
            elif "cpu" in controllers.split(","):
                mounts = [f"sys/fs/cgroup/{controllers}", "sys/fs/cgroup/cpu"]
            else:
                continue
            parts = [part for part in path.split("/") if part not in ("", "..")]
            for mount in mounts:
                folders = ["/".join([mount, *parts[:depth]]) for depth in range(len(parts), -1, -1)]
                found += [one for one in folders if self.text(f"{one}/cpu.stat") is not None and one not in found]
        return found

    def fields(self, path: str) -> dict[str, int]:
        """Return a file of lines `name number` or `name: number kB` by name."""
        found: dict[str, int] = {}
        for line in (self.text(path) or "").splitlines():
            words = line.replace(":", " ").split()
            if len(words) >= 2 and (number := whole(words[1])) is not None:
                found[words[0]] = number
        return found

    def processes(self) -> dict[int, Process]:
        """Return all processes that can be seen, by number."""
        found = {}
        for path in self.paths("proc/[0-9]*/stat"):
            process = self._process(path)
            if process is not None:
                found[process.pid] = process
        return found

    def _process(self, path: str) -> Process | None:
        # proc(5): `pid (name) state ppid ...`; a name may hold spaces and brackets.
        head, bracket, tail = (self.text(path) or "").rpartition(")")
        pid, _, name = head.partition(" (")
        words = tail.split()
        if not bracket or len(words) < 15:
            return None
        number, parent, *ticks = map(whole, (pid, words[1], *words[11:15]))
        if number is None or parent is None or None in ticks:
            return None
        times = [tick * 1_000_000_000 // self.ticks_per_s for tick in ticks if tick is not None]
        return Process(number, parent, name, times[0] + times[1], times[2] + times[3])


def whole(text: str) -> int | None:
    """Return the whole number that a text is; None for any other text, and for more than 19 digits."""
    return int(text) if re.fullmatch(r"-?[0-9]{1,19}", text) else None


def cores_of(text: str) -> frozenset[int]:
    """Return the cores of a list as the kernel writes it: `0-3,8`; empty for what is no such list."""
    found: set[int] = set()
    for part in text.split(","):
        match = re.fullmatch(r"(\d{1,5})(?:-(\d{1,5}))?", part.strip())
        if match:
            found.update(range(int(match[1]), int(match[2] or match[1]) + 1))
    return frozenset(found)


def tree(processes: Mapping[int, Process], roots: Iterable[int]) -> frozenset[int]:
    """Return the numbers of `roots` and of all their descendants that live."""
    children: dict[int, list[int]] = {}
    for process in processes.values():
        children.setdefault(process.parent, []).append(process.pid)
    found: set[int] = set()
    waiting = list(roots)
    while waiting:
        pid = waiting.pop()
        if pid not in found:
            found.add(pid)
            waiting += children.get(pid, [])
    return frozenset(found)


def busiest(
    before: Mapping[int, Process], after: Mapping[int, Process], elapsed_ns: int, own: Iterable[int], count: int = 3
) -> tuple[Busy, ...]:
    """Return up to `count` processes outside the trees of `own` that used at least 2 % of a core, busiest first."""
    ours = tree(after, own)
    found = []
    for pid, process in after.items():
        earlier = before.get(pid)
        cores = (process.own_ns - (earlier.own_ns if earlier else 0)) / elapsed_ns
        if pid not in ours and cores >= 0.02:
            # The name only: command lines hold passwords, and this is printed in public logs.
            found.append(Busy(pid, process.name, cores))
    return tuple(sorted(found, key=lambda one: (-one.cores, one.pid))[:count])


def watch(machine: Machine, seconds: float, own: Iterable[int] | None = None) -> tuple[Busy, ...]:
    """Look for `seconds` which processes other than `own` (this one by default) and their children are busy."""
    begin, before = time.monotonic_ns(), machine.processes()
    time.sleep(seconds)
    after, end = machine.processes(), time.monotonic_ns()
    return busiest(before, after, end - begin, (os.getpid(),) if own is None else own)
