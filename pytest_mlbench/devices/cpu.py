"""The local machine's processor: one exclusive resource, whatever its number of cores."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pytest_mlbench.environment import processor


@dataclass(frozen=True)
class Cpu:
    """Run agents as child processes on this machine."""

    name: str = "cpu"
    resources: tuple[str, ...] = ("cpu",)
    shares: tuple[str, ...] = ()
    verified: str = "hardware"
    is_host: bool = True
    frameworks: tuple[str, ...] = ()
    emulated: bool = False
    shipped: tuple[str, ...] = ()

    def gateway(self, python: Path | None) -> str:
        """Return a popen specification: verbs run in the agent's main thread, where signals can be set."""
        interpreter = shlex.quote(str(python or sys.executable))  # execnet splits it as a shell would
        return f"popen//python={interpreter}//execmodel=main_thread_only"

    def connection(self) -> Mapping[str, Any]:
        """Return nothing: the agent computes itself."""
        return {}

    def place(self, file: Path) -> str:
        """Return the path as it is: the target sees the host's files."""
        return str(file)

    def facts(self) -> Mapping[str, Any]:
        """Return what identifies this processor."""
        return processor()

    def probe(self) -> str:
        """Return "": this machine is there."""
        return ""


DEVICE = Cpu()
