"""Boards at the end of a serial line that speak MLPerf Tiny's protocol: the lab file's `type = "serial"`."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_mlbench.agent import flash_command
from pytest_mlbench.agent.board import BoardError
from pytest_mlbench.agent.serial_transport import SerialTransport, find_port
from pytest_mlbench.devices.api import Setting
from pytest_mlbench.devices.cpu import DEVICE as CPU

if TYPE_CHECKING:
    from pytest_mlbench.lab import LabDevice

_PORT = r"(/dev/|(socket|rfc2217)://)[A-Za-z0-9_.:/\[\]?=&-]+|COM[0-9]+"
_WORD = r"[A-Za-z0-9_][A-Za-z0-9_.-]*"
_TEXT = r"[A-Za-z0-9_{/.][^\x00-\x1f]*|-[^\x00-\x1f]*"  # a word of a command that no shell reads
SETTINGS: Mapping[str, Setting] = {
    "port": Setting(str, "A device file, socket://HOST:PORT or rfc2217://HOST:PORT.", pattern=_PORT, unique=True),
    "usb_serial": Setting(str, "The USB serial number of the board's port.", pattern=_WORD, unique=True),
    "location": Setting(str, "The USB location of the port.", pattern=r"[0-9]+-[0-9.]+(:[0-9.]+)?", unique=True),
    "candidates": Setting(list[str], "Ports that are asked which board they have; needs `name`.", pattern=_PORT),
    "name": Setting(str, "What the board must answer to `name`: its vendor.", default="", pattern=_WORD),
    "baud": Setting(int, "Bits per second.", default=115200, minimum=1),
    "mode": Setting(
        str, "For what the image is built: timestamps as lines or as edges.", default="performance",
        choices=("performance", "energy"),
    ),
    "io_manager": Setting(bool, "Whether an interface board stands between (`dut COMMAND`).", default=False),
    "reset": Setting(str, "The line of the port that resets the board.", default="", choices=("", "dtr", "rts")),
    "soft_reset": Setting(str, "`break`, or a command of the firmware that resets it.", default="", pattern=r"[a-z_]*"),
    "flash": Setting(list[str], "The words of a command that flashes, with {image} and {port}.", pattern=_TEXT),
    "flash_with": Setting(str, "A known tool instead of `flash`.", default="", choices=("", *flash_command.PRESETS)),
    "flash_target": Setting(
        str, "For that tool: the target, chip, or openocd's configuration file.", default="",
        pattern=r"[A-Za-z0-9_][A-Za-z0-9_./-]*",
    ),
    "flash_timeout_s": Setting(float, "How long flashing may take.", default=90.0, minimum=0.001),
    "boot_timeout_s": Setting(float, "From opening or a reset to the first answer.", default=5.0, minimum=0.001),
    "reply_timeout_s": Setting(float, "For an answer, beyond what its bytes take.", default=2.0, minimum=0.001),
    "infer_timeout_s": Setting(float, "For the first inference; later ones go by it.", default=10.0, minimum=0.001),
}  # fmt: skip
_OF_THE_LINE = (
    *("port", "usb_serial", "location", "candidates", "name", "baud", "mode", "io_manager", "reset", "soft_reset"),
    *("flash_timeout_s", "boot_timeout_s", "reply_timeout_s", "infer_timeout_s"),
)
_WHERE = ("port", "usb_serial", "location", "candidates")


@dataclass(frozen=True)
class SerialDevice:
    """One board on a serial line. Its agent runs on this machine."""

    name: str
    line: Mapping[str, Any]  # what serial_transport.open_transport takes
    board: str = ""
    resources: tuple[str, ...] = ()
    shares: tuple[str, ...] = ()
    verified: str = "own simulator"
    is_host: bool = True
    frameworks: tuple[str, ...] = ("firmware",)
    emulated: bool = False
    shipped: tuple[str, ...] = field(default=())

    def gateway(self, python: Path | None) -> str:
        """Return what starts an agent here."""
        return CPU.gateway(python)

    def connection(self) -> Mapping[str, Any]:
        """Return how the line is opened, spoken on and reset."""
        return {"transport": "", **self.line}

    def place(self, file: Path) -> str:
        """Return the path as it is: flashing tools run here."""
        return str(file)

    def facts(self) -> Mapping[str, Any]:
        """Return the board's type, and its serial number where the lab file tells it."""
        told = {"board": self.board, "usb_serial": self.line.get("usb_serial") or ""}
        return {name: value for name, value in told.items() if value}

    def probe(self) -> str:
        """Say why the port cannot be opened; nothing is sent to the board."""
        if importlib.util.find_spec("serial") is None:
            return "pyserial is not installed: pip install 'pytest-mlbench[serial]'"
        if self.line.get("candidates"):  # asking them takes a lease
            return ""
        try:
            SerialTransport(self.line, find_port(self.line)).close()
        except BoardError as error:
            return str(error)
        return ""


@dataclass(frozen=True)
class SerialType:
    """Makes serial devices of a lab file."""

    settings: Mapping[str, Setting] = field(default_factory=lambda: SETTINGS)
    verified: str = "own simulator"

    def make(self, entry: LabDevice) -> SerialDevice:
        """Return the device; SuiteError for settings that do not go together."""
        given = entry.settings
        where = [key for key in _WHERE if given.get(key)]
        if len(where) != 1:
            has = f"it has {' and '.join(where)}" if where else "it has none"
            raise entry.error(where[-1] if where else "port", f"needs one of {', '.join(_WHERE)}; {has}")
        if where == ["candidates"] and not given.get("name"):
            raise entry.error("candidates", "needs `name` too: what the board answers, by which it is found")
        line = {key: given[key] for key in _OF_THE_LINE if given.get(key) not in (None, "")}
        return SerialDevice(
            name=entry.name,
            line={**line, "flash": _flash(entry), "switch": dict(entry.switch)},
            board=entry.board,
            resources=entry.resources,
        )


def _flash(entry: LabDevice) -> list[str]:
    given = entry.settings
    words, tool, target = list(given.get("flash") or ()), given.get("flash_with"), given.get("flash_target")
    if words and tool:
        raise entry.error("flash_with", "`flash` says how to flash already; keep one of them")
    if tool and not target:
        raise entry.error("flash_target", f"{tool} must be told the target; write for example flash_target = ...")
    if target and not tool:
        raise entry.error("flash_target", "is for `flash_with`, which is not set")
    if tool:
        return flash_command.preset(tool, str(target))
    if words and not any("{image}" in word for word in words):
        raise entry.error("flash", "no word holds {image}, so no image would be flashed")
    return words


TYPE = SerialType()
