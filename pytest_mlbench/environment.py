"""What a measurement depends on besides the code: the machine, its state, the source's revision."""

from __future__ import annotations

import hashlib
import json
import platform
import subprocess
import sys
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from pytest_mlbench.agent import machine_facts

_CPU = machine_facts.CPU


@lru_cache(maxsize=1)
def processor() -> Mapping[str, Any]:
    """Return the local processor: model, flags, cores online, and the cores this process may use."""
    return machine_facts.processor(_CPU)


def state() -> dict[str, Any]:
    """Return what changes from minute to minute on this machine: governor, frequency, turbo, load, temperature."""
    return machine_facts.state(_CPU)


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
