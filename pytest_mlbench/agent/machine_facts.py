"""What the operating system tells of the machine that computes: its processor, its memory, its state just now."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

CPU = Path("/sys/devices/system/cpu")


def read(path: Path) -> str | None:
    """Return a file's text without white space around it; None when it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None


def processor(cpu: Path = CPU) -> Mapping[str, Any]:
    """Return the processor: model, flags, cores online, and the cores this process may use."""
    info = read(Path("/proc/cpuinfo")) or ""
    fields: dict[str, str] = {}
    for line in info.splitlines():
        name, _, value = line.partition(":")
        fields.setdefault(name.strip(), value.strip())
    flags = (fields.get("flags") or fields.get("Features") or "").split()
    return {
        "processor": fields.get("model name") or fields.get("Model") or platform.processor() or platform.machine(),
        "machine": platform.machine(),
        "flags": sorted(flags),
        "cores": os.cpu_count(),
        "cores_allowed": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "smt": read(cpu / "smt/active"),
        "cgroup_cpu_max": read(Path("/sys/fs/cgroup/cpu.max")),
    }


def state(cpu: Path = CPU) -> dict[str, Any]:
    """Return what changes from minute to minute: governor, frequency, turbo, load, temperature."""
    return {
        "load": list(os.getloadavg()) if hasattr(os, "getloadavg") else None,
        "governor": read(cpu / "cpu0/cpufreq/scaling_governor"),
        "frequency_khz": read(cpu / "cpu0/cpufreq/scaling_cur_freq"),
        "no_turbo": read(cpu / "intel_pstate/no_turbo"),
        "temperature_mc": read(Path("/sys/class/thermal/thermal_zone0/temp")),
    }


def memory_bytes() -> int | None:
    """Return the machine's memory; None where the system does not tell."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None


def system_name() -> str:
    """Return the system's own name for itself: `Debian GNU/Linux 12 (bookworm)`."""
    for line in (read(Path("/etc/os-release")) or "").splitlines():
        if line.startswith("PRETTY_NAME="):
            return line.partition("=")[2].strip().strip('"')
    return f"{platform.system()} {platform.release()}"
