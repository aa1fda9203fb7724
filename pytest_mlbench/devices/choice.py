"""Whichever board with a tag is free: what `device = ["any.m4"]` of a suite stands for until a lease chose one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from pytest_mlbench.devices.api import Device
from pytest_mlbench.errors import SuiteError


@dataclass(frozen=True)
class Choice:
    """Several devices of which a case uses one. It tells what they have in common; the rest is its choice's.

    One case, whose id holds the tag: so ids do not change when a lab gets another board. The record names the board.
    """

    name: str  # "any.m4"
    devices: tuple[Device, ...]  # in the lab file's order

    @property
    def resources(self) -> tuple[str, ...]:
        """Not told: a lease takes those of the chosen device."""
        self._refuse("resources")

    shares = resources

    @property
    def is_host(self) -> bool:
        """Tell whether they are this machine."""
        return self.devices[0].is_host

    @property
    def frameworks(self) -> tuple[str, ...]:
        """Return the frameworks all of them take."""
        return self.devices[0].frameworks

    @property
    def emulated(self) -> bool:
        """Tell whether they are emulated."""
        return self.devices[0].emulated

    @property
    def shipped(self) -> tuple[str, ...]:
        """Not told: it is the chosen device's."""
        self._refuse("shipped")

    @property
    def verified(self) -> str:
        """Not told: each has its own."""
        self._refuse("verified")

    def gateway(self, python: Path | None) -> str:
        """Not told: it is the chosen device's."""
        self._refuse("gateway")

    def connection(self) -> Mapping[str, Any]:
        """Not told: it is the chosen device's."""
        self._refuse("connection")

    def place(self, file: Path) -> str:
        """Not told: it is the chosen device's."""
        self._refuse("place")

    def facts(self) -> Mapping[str, Any]:
        """Not told: they are the chosen device's."""
        self._refuse("facts")

    def probe(self) -> str:
        """Say why none of them can be used, "" when one can."""
        reasons = {device.name: device.probe() for device in self.devices}
        return "" if "" in reasons.values() else "; ".join(f"{name}: {why}" for name, why in reasons.items())

    def _refuse(self, what: str) -> NoReturn:
        names = ", ".join(device.name for device in self.devices)
        raise SuiteError(f'"{self.name}" stands for one of {names}; its {what} is known once a lease chose one')


def choice(name: str, devices: tuple[Device, ...]) -> Choice:
    """Return the choice of `devices`; SuiteError when what a case depends on before it runs is not the same for all."""
    for what in ("frameworks", "emulated", "is_host"):
        values = {device.name: getattr(device, what) for device in devices}
        if len(set(values.values())) > 1:
            told = "; ".join(f"{device}: {_shown(value)}" for device, value in values.items())
            raise SuiteError(f'"{name}" stands for devices that differ in {what} ({told}); give them different tags')
    return Choice(name, devices)


def _shown(value: object) -> str:
    return (", ".join(map(str, value)) or "any") if isinstance(value, tuple) else str(value)
