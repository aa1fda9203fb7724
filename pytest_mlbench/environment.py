"""What a measurement depends on besides the code: the machine, its state, the source's revision."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

_CPU = Path("/sys/devices/system/cpu")


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None


@lru_cache(maxsize=1)
def processor() -> Mapping[str, Any]:
    """Return the local processor: model, flags, cores online, and the cores this process may use."""
    info = _read(Path("/proc/cpuinfo")) or ""
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
        "smt": _read(_CPU / "smt/active"),
        "cgroup_cpu_max": _read(Path("/sys/fs/cgroup/cpu.max")),
    }


def state() -> dict[str, Any]:
    """Return what changes from minute to minute: governor, frequency, turbo, load, temperature."""
    return {
        "load": list(os.getloadavg()) if hasattr(os, "getloadavg") else None,
        "governor": _read(_CPU / "cpu0/cpufreq/scaling_governor"),
        "frequency_khz": _read(_CPU / "cpu0/cpufreq/scaling_cur_freq"),
        "no_turbo": _read(_CPU / "intel_pstate/no_turbo"),
        "temperature_mc": _read(Path("/sys/class/thermal/thermal_zone0/temp")),
    }


def host() -> dict[str, Any]:
    """Return the machine that drives the measurement."""
    return {
        "node": platform.node(),
        "system": platform.system(),
        "release": platform.release(),
        "python": platform.python_version(),
        "executable": sys.executable,
        **processor(),
    }


def revision(folder: Path) -> dict[str, Any]:
    """Return the git commit of `folder` and whether it has uncommitted changes; empty outside a repository."""

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", "-C", str(folder), *arguments],
                capture_output=True,
                text=True,
                timeout=10,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    commit = git("rev-parse", "HEAD")
    if commit is None:
        return {}
    changes = git("status", "--porcelain", "--untracked-files=no")
    return {"commit": commit, "dirty": bool(changes), "branch": git("rev-parse", "--abbrev-ref", "HEAD")}


def sources_sha256(folder: Path) -> str:
    """Return the SHA-256 of a package's Python sources: names and contents, in order of name."""
    total = hashlib.sha256()
    for file in sorted(folder.rglob("*.py")):
        total.update(file.relative_to(folder).as_posix().encode() + b"\0" + file.read_bytes() + b"\0")
    return total.hexdigest()


def fingerprint(facts: Mapping[str, Any]) -> str:
    """Return a short hash of the facts that must match before two records may be compared."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()[:16]
