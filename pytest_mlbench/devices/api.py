"""What the host must know of a device that runs Python (the agent does the rest)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol


class Device(Protocol):
    """One thing that computes. Vendors register an instance under `mlbench.devices`."""

    @property
    def name(self) -> str:
        """The word in the suite's `device` list and in the case id."""

    @property
    def resources(self) -> tuple[str, ...]:
        """Names of the exclusive resources that a case holds while it uses this device."""

    @property
    def is_host(self) -> bool:
        """Tell whether the agent runs on this machine, as a child process of pytest."""

    def gateway(self, python: Path | None) -> str:
        """Return execnet's specification of the agent's process; `python` is its interpreter."""

    def place(self, file: Path) -> str:
        """Make a file available on the target and return its path there."""

    def facts(self) -> Mapping[str, Any]:
        """Return what identifies the target beyond what its agent says; merged into the record."""
