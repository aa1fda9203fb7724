"""`mlbench devices`: which devices suites may name here, whether each can be used, and who holds it."""

from __future__ import annotations

import argparse
import json
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_mlbench.devices.api import Device
    from pytest_mlbench.registry import Registry

PROBE_S = 15.0  # for all devices together, which are asked at the same time


@dataclass(frozen=True)
class Row:
    """One device as the table shows it."""

    name: str
    type: str  # "registered", or the type that a lab file names
    board: str = ""
    title: str = ""  # of the board
    tags: tuple[str, ...] = ()
    verified: str = ""  # how far its driver was
    reason: str = ""  # why it cannot be used now; "" when it can
    held: Mapping[str, str] = field(default_factory=dict)  # resource -> by whom, of those that are held now


def add_devices(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register `devices`; the parsed arguments hold `run`, a function of them that returns the exit code."""
    parser = subparsers.add_parser(
        "devices",
        help="list devices: whether each can be used, and who holds it",
        description="List what a suite may write in `device`: what is registered, and the devices of the lab file. "
        "Asks each whether it can be used. Takes no lease and changes nothing.",
    )
    parser.add_argument(
        "--lab", metavar="FILE", help="the lab file (default: the environment variable MLBENCH_LAB, else none)"
    )
    parser.add_argument("--format", choices=("table", "json"), default="table", help="for people, or for scripts")
    parser.set_defaults(run=run_devices)


def run_devices(arguments: argparse.Namespace) -> int:
    """Print the devices; MlbenchError for a lab file that is wrong."""
    from pytest_mlbench.errors import MlbenchError
    from pytest_mlbench.options import lab_file
    from pytest_mlbench.registry import Registry

    lab, named_by = lab_file(arguments.lab, Path.cwd())
    registry = Registry(lab, Path.cwd())
    try:
        found = rows(registry)
    except MlbenchError as error:
        raise MlbenchError(f"{named_by.replace('--mlbench-lab', '--lab')}: {error}") from None
    types = {name: one.verified for name, one in registry.device_types.items()}
    if arguments.format == "json":
        document = {"lab": str(lab or ""), "devices": [asdict(row) for row in found], "types": types}
        sys.stdout.write(json.dumps(document) + "\n")
    else:
        print("\n".join(lines(found, types)))
    return 0


def rows(registry: Registry) -> list[Row]:
    """Return the registered devices, then those of the lab; raises SuiteError for a wrong lab file."""
    from pytest_mlbench.errors import MlbenchError

    lab = registry.lab
    made: dict[str, Device] = {}
    found: list[Row] = []
    words = set(lab.words())
    for name in (*sorted({*registry.devices, *registry.counted()} - words), *lab.devices):
        entry = lab.devices.get(name)
        row = Row(name, "registered")
        if entry is not None:
            verified = registry.device_types[entry.type].verified
            title = registry.boards[entry.board].title if entry.board else ""
            row = Row(name, entry.type, entry.board, title, entry.tags, verified)
        try:
            made[name] = registry.device(name)
        except MlbenchError as error:
            row = replace(row, reason=str(error))
        found.append(row)
    reasons = probed(made)
    return [_told(row, made[row.name], reasons[row.name]) if row.name in made else row for row in found]


def _told(row: Row, device: Device, reason: str) -> Row:
    from pytest_mlbench.agent import locks

    shares = getattr(device, "shares", ())
    users = [(name, locks.users(name)) for name in device.resources]
    users += [(name, locks.users(name, alone=True)) for name in shares if name not in device.resources]
    verified = row.verified or str(getattr(device, "verified", "not told"))
    return replace(row, verified=verified, reason=reason, held={name: who for name, who in users if who})


def probed(devices: Mapping[str, Device], deadline_s: float = PROBE_S) -> dict[str, str]:
    """Ask all devices at once whether they can be used; returns why not, by name, "" when they can."""
    found: dict[str, str] = {}

    def ask(name: str, device: Device) -> None:
        try:
            found[name] = device.probe()
        except Exception as error:  # a vendor's own code
            found[name] = f"asking it failed: {type(error).__name__}: {error}"

    # Daemons, so that one that hangs does not keep the command from ending.
    threads = [threading.Thread(target=ask, args=item, daemon=True) for item in devices.items()]
    for thread in threads:
        thread.start()
    end = time.monotonic() + deadline_s
    for thread in threads:
        thread.join(max(0.0, end - time.monotonic()))
    return {name: found.get(name, f"it did not say within {deadline_s:g} s whether it can be used") for name in devices}


def lines(found: Sequence[Row], types: Mapping[str, str]) -> list[str]:
    """Return the table, then why some cannot be used, who holds them, and the types a lab file may name."""
    from pytest_mlbench.checks.facts import plural
    from pytest_mlbench.reporters.table import Table

    table = Table(("device", "type", "board", "tags", "verified", "usable", "held"))
    for row in found:
        usable, held = "no" if row.reason else "yes", "yes" if row.held else "no"
        table.add(row.name, row.type, row.board or "-", " ".join(row.tags) or "-", row.verified or "-", usable, held)
    bad = [f"  {row.name}: {' '.join(row.reason.split())}" for row in found if row.reason]
    busy = [f"  {_of(row.name, name)}: {who}" for row in found for name, who in row.held.items()]
    told = [*table.lines(), "", f"{plural(len(found), 'device')}: {len(found) - len(bad)} usable"]
    told += ["", "Why not usable:", *bad] if bad else []
    told += ["", "Held now:", *busy] if busy else []
    known = ", ".join(f"{name} ({verified})" for name, verified in types.items())
    return [*told, "", f"Types that a lab file may name: {known}"] if types else told


def _of(device: str, resource: str) -> str:
    return device if device == resource else f"{device} ({resource})"
