"""The lab: which devices this site has, of which board, how they are reached. Private to a site.

Values only; labfile.py reads them, registry.py makes devices of them.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pytest_mlbench.errors import MlbenchError, SuiteError
from pytest_mlbench.near import unknown

ANY = "any."  # before a tag, in a suite's device list: whichever board with that tag is free


@dataclass(frozen=True)
class Secret:
    """A password or token, by the environment variable that holds it. Its value is in no file and no record."""

    env: str
    where: str  # file and key path, for messages

    def reveal(self) -> str:
        """Return the value; MlbenchError when the variable is not set or empty."""
        value = os.environ.get(self.env, "")
        if not value:
            raise MlbenchError(f"{self.where}: the environment variable {self.env} is not set; export it first")
        return value


@dataclass(frozen=True)
class LabDevice:
    """One device of a lab file: `[device.NAME]`."""

    name: str  # the word suites use
    type: str  # the DeviceType: "ssh", "serial", or a vendor's
    file: Path  # the lab file, for messages
    board: str = ""  # the name of a public board description in hardware/boards, "" when there is none
    tags: tuple[str, ...] = ()
    switch: Mapping[str, Any] = field(default_factory=dict)  # checked, as switches.py takes it; {} when there is none
    meter: str = ""  # the resource name of the power meter wired to it
    settings: Mapping[str, Any] = field(default_factory=dict)  # the type's own keys, checked, defaults filled in

    @property
    def resources(self) -> tuple[str, ...]:
        """Return what a case holds as one set: the device, its meter and its switch."""
        wired = (self.meter, str(self.switch.get("resource", "")))
        return (self.name, *(name for name in dict.fromkeys(wired) if name))

    def error(self, key: str, message: str) -> SuiteError:
        """Return (not raise) a SuiteError of one key of this device's table."""
        return SuiteError(message, file=self.file, key=f"device.{quoted(self.name)}.{key}")


@dataclass(frozen=True)
class Lab:
    """The devices of one lab file; without a file, none."""

    file: Path | None = None
    devices: Mapping[str, LabDevice] = field(default_factory=dict)

    def tags(self) -> dict[str, tuple[str, ...]]:
        """Return the names of the devices that carry each tag, in the file's order."""
        found: dict[str, list[str]] = {}
        for device in self.devices.values():
            for tag in device.tags:
                found.setdefault(tag, []).append(device.name)
        return {tag: tuple(names) for tag, names in found.items()}

    def words(self) -> Iterator[str]:
        """Yield what a suite may write in `device`: each name, then `any.TAG` for each tag."""
        yield from self.devices
        for tag in self.tags():
            yield ANY + tag


def quoted(name: str) -> str:
    """Return a name as one step of a TOML key path."""
    return name if name.replace("_", "").replace("-", "").isalnum() else f'"{name}"'


def unknown_device(name: str, known: Collection[str], types: Collection[str], lab: Lab) -> str:
    """Say why a suite cannot name a device, and what would make it known."""
    if name in types:
        return (
            f'"{name}" is a type of device: describe one in a lab file ([device.NAME] with type = "{name}") '
            "and give that with --mlbench-lab or MLBENCH_LAB"
        )
    if lab.file is None:
        told = "; a site's own devices are known with its lab file: --mlbench-lab FILE, or MLBENCH_LAB"
        return unknown("device", name, known) + told
    if name.startswith(ANY):
        tags = ", ".join(lab.tags()) or "none"
        return f'no device of {lab.file} has the tag "{name[len(ANY) :]}"; tags there: {tags}'
    return f"{unknown('device', name, known)} (with the lab file {lab.file})"
