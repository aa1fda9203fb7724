"""A vendor's type of device, laid out as pip would install it: "boards" that are this machine under other names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pytest_mlbench.devices.api import Setting
from pytest_mlbench.devices.cpu import Cpu
from pytest_mlbench.lab import LabDevice


@dataclass(frozen=True)
class Board(Cpu):
    """One board of the rack: a resource of its own."""

    slot: int = 0
    plugged: bool = True

    def facts(self) -> Mapping[str, Any]:
        """Return the processor, and the slot."""
        return {**super().facts(), "slot": self.slot}

    def probe(self) -> str:
        """Say whether there is a board in the slot."""
        return "" if self.plugged else f"there is no board in slot {self.slot}; plug one in"


@dataclass(frozen=True)
class Rack:
    """The type."""

    verified: str = "own simulator"

    @property
    def settings(self) -> Mapping[str, Setting]:
        """Return the keys of a lab file."""
        return {
            "slot": Setting(int, "Where it is plugged in.", required=True, unique=True, minimum=1),
            "plugged": Setting(bool, "Whether it is.", default=True),
        }

    def make(self, entry: LabDevice) -> Board:
        """Return the board."""
        return Board(name=entry.name, resources=entry.resources, verified=self.verified, **entry.settings)


TYPE = Rack()
