"""What the host must know of a device. What runs beside the framework is the agent's half."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    from pytest_mlbench.agent.recovery import Rung
    from pytest_mlbench.lab import LabDevice
    from pytest_mlbench.machine import Machine

VERIFIED = ("hardware", "third-party driver or simulator", "own simulator")  # best first


class Device(Protocol):
    """One thing that computes. Vendors register an instance (or a DeviceType) under `mlbench.devices`."""

    @property
    def name(self) -> str:
        """The word in the suite's `device` list and in the case id."""

    @property
    def resources(self) -> tuple[str, ...]:
        """Names of the exclusive resources that a case holds while it uses this device; its own name first."""

    @property
    def shares(self) -> tuple[str, ...]:
        """Names of the resources it burdens beside others: an emulated board shares the `cpu` it emulates on."""

    @property
    def verified(self) -> str:
        """How far its driver was verified, one of VERIFIED."""

    @property
    def is_host(self) -> bool:
        """Tell whether the agent runs on this machine, as a child process of pytest."""

    @property
    def frameworks(self) -> tuple[str, ...]:
        """The frameworks it takes: `("firmware",)` for a board with built-in kernels; () for any Python framework."""

    @property
    def emulated(self) -> bool:
        """Tell whether its time is counted in instructions: such a time is never shown as latency of hardware."""

    @property
    def shipped(self) -> tuple[str, ...]:
        """Importable modules whose source travels with the agent, under `mlbench_adapters.`, to reach this device."""

    def gateway(self, python: Path | None) -> str:
        """Return execnet's specification of the agent's process; `python` is its interpreter."""

    def connection(self) -> Mapping[str, Any]:
        """Return what an agent needs to reach a board without Python: plain values, no part of the fingerprint.

        Given to the adapter of the framework `firmware` as the option `connection`; {} where there is none.
        """

    def place(self, file: Path) -> str:
        """Make a file available on the target and return its path there."""

    def facts(self) -> Mapping[str, Any]:
        """Return what identifies the target beyond what its agent says; merged into the record."""

    def probe(self) -> str:
        """Say why the device cannot be used now, "" when it can; takes no lease and at most a few seconds."""


@dataclass(frozen=True)
class Ended:
    """What the end of a connection means, in words; `is_unreachable`: nobody refused, the machine fell silent."""

    told: str
    is_unreachable: bool = False


@runtime_checkable
class Remote(Protocol):
    """What a device on a machine of its own can do besides; its agents, locks, files and state are there.

    Every call raises StageError when the machine cannot be reached, with the device, the reason and the remedy.
    """

    def held(self, timeout_s: float, waiting: Callable[[str], None], case: str) -> AbstractContextManager[None]:
        """Hold its resources (`cpu`) there, for the time of a lease; `waiting` is told every 10 s who holds them.

        Who waits there for this session is told the `case`.
        """

    def start(self) -> Mapping[str, Any]:
        """Return what an agent there is started with besides: `env`, environment variables."""

    def began(self, pid: int) -> None:
        """Take note of an agent there: it is ended when this machine falls silent."""

    def ended(self, pid: int) -> None:
        """Make sure that an agent there has gone."""

    def explain(self, status: int | None, printed: str) -> Ended:
        """Say what the end of a connection means, from the carrying program's exit status and what it printed."""

    def note(self, line: str) -> None:
        """Add a line to the transcript of the case."""

    def transcript(self) -> str:
        """Return what was sent and received since the case began."""

    def state(self) -> Mapping[str, Any]:
        """Return what changes from minute to minute there, as environment.state() does for the host."""

    def machine(self) -> tuple[Machine, tuple[int, ...]]:
        """Return what its kernel tells just now, and the processes there that are ours."""

    def place_tree(self, folder: Path) -> str:
        """Make the Python sources under a folder available there and return their path there."""

    def scratch(self) -> str:
        """Return an empty folder there, for files that are made there; the next call empties it."""

    def fetch(self, path: str, folder: Path) -> Path:
        """Copy a file that was made in scratch() into a folder here and return its path here."""


@runtime_checkable
class Recoverable(Protocol):
    """What a Remote can do besides that may be brought back when it does not answer."""

    def note(self, line: str, /) -> None:
        """Add a line to the transcript of the case, as of every Remote."""

    def reach(self) -> None:
        """Make a connection of its own and end it.

        Raises Unreachable when nobody answers, another StageError when the machine refuses, which no reset helps.
        """

    def rungs(self) -> tuple[Rung, ...]:
        """Return the steps that may bring it back, in rising order; a case takes each of LEVELS at most once.

        Each returns within a deadline of its own, or raises BoardError. After each the machine is asked by reach().
        """


@runtime_checkable
class Accelerator(Protocol):
    """What a device is besides that computes beside this machine's processor: a GPU. Agents run on this machine."""

    @property
    def places(self) -> tuple[str, ...]:
        """Where a node may say it ran (agent/api.py, Node.where) to have run on this device."""

    def absent(self) -> str:
        """Say why this machine has no such device and what would give it one, "" when it has.

        Without it, its cases are skipped with that reason.
        """

    def adapter_options(self) -> Mapping[str, Any]:
        """Return options that every adapter is given besides the suite's, such as `device`; plain values."""

    def reading(self) -> Mapping[str, Any]:
        """Return its state just now (clocks, heat, limits) as plain values; kept around a case and around a round."""

    def unfit(self, before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
        """Return one sentence, with its remedy, for each thing that spoilt the time between two readings."""

    def process_bytes(self, pid: int) -> int | None:
        """Return the device's memory that a process holds; None where nobody tells."""


@runtime_checkable
class Numbered(Protocol):
    """A DeviceType whose devices this machine counts by itself: suites write `NAME.0`, `NAME.1` without a lab file."""

    def numbered(self, name: str, index: int) -> Device:
        """Return the device at a place; that it is there is seen when a case wants it."""

    def present(self) -> int:
        """Return how many there are."""


def numbered_word(word: str, types: Collection[str]) -> tuple[str, int] | None:
    """Return the type and the place of a word such as `cuda.1`; None for a word that is of none of `types`."""
    kind, _, place = word.rpartition(".")
    return (kind, int(place)) if kind in types and re.fullmatch(r"0|[1-9][0-9]?", place) else None


@dataclass(frozen=True)
class Setting:
    """One key that a lab file may set for devices of a type."""

    type: type[int] | type[float] | type[str] | type[bool] | type[list[str]]
    help: str
    required: bool = False
    default: Any = None
    choices: tuple[str, ...] = ()
    pattern: str = ""  # a regular expression that a string must match whole: what reaches a command line has one
    unique: bool = False  # one thing that two devices of a lab cannot share: a port, a serial number
    secret: bool = False  # a password or token: only `{ env = "NAME" }`, and `make` gets a lab.Secret
    minimum: float | None = None  # of a number


class DeviceType(Protocol):
    """A kind of device that a lab file describes: `type = "ssh"`. Registered under `mlbench.devices` as well."""

    @property
    def settings(self) -> Mapping[str, Setting]:
        """The keys of a lab file's device table that belong to this type."""

    @property
    def verified(self) -> str:
        """How far it was verified, one of VERIFIED."""

    def make(self, entry: LabDevice) -> Device:
        """Return the device that a lab file describes; its settings have been checked.

        The device's `resources` begin with `entry.resources`: its name, then what is wired to it. Raises SuiteError
        (by `entry.error(key, message)`) for settings that do not go together. Touches nothing: the lab may
        be elsewhere.
        """
