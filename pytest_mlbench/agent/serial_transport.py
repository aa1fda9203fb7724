"""A board at the end of a serial line: any port or URL that pyserial opens (a tty, socket://, rfc2217://).

Keys of the connection, beside those of the protocol:

    port            a device file or URL                            one of port, usb_serial, location, candidates
    usb_serial      the USB serial number of the board's port
    location        the USB location of the port, such as "1-1.4:1.0"
    candidates      ports that are asked, one after the other, which board they have; needs `name`
    baud            bits per second
    reset           "dtr" or "rts": the line that holds the board in reset while it is active, "" for none
    soft_reset      "break", or a command that the firmware takes, "" for none
    flash           words of the command that flashes, see flash_command.py; [] when the board cannot be flashed
    flash_timeout_s
    switch          what switches the board's power, see power_switch.py; {} when nothing does
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Iterable, Mapping
from typing import Any

from . import flash_command, power_switch
from .board import BoardError, FlashError, LineLost, Transport, WrongBoard
from .tiny_protocol import LineSettings, ReplyError, TinyLine
from .transcript import Transcript

RESET_S = 0.1  # how long the reset line is held
BREAK_S = 0.25
REOPEN_S = 5.0  # a USB port that was reset needs a moment to come back
_POLL_S = 0.02
_WRITE_SLACK_S = 2.0


def open_transport(connection: Mapping[str, Any]) -> Transport:
    """Open the port that a connection tells; WrongBoard says what is missing and which ports are there."""
    return SerialTransport(connection, find_port(connection))


class SerialTransport:
    """One open port; see board.Transport."""

    def __init__(self, connection: Mapping[str, Any], port: str) -> None:
        self.port = port
        self._connection = connection
        self._serial: Any = None
        self._lost: tuple[type[BaseException], ...] = (OSError, ValueError, *_termios_error())
        self._open()

    @property
    def levels(self) -> tuple[str, ...]:
        """What the settings give means for."""
        means = {"soft_reset": "soft_reset", "hard_reset": "reset", "power_cycle": "switch"}
        return tuple(level for level, key in means.items() if self._connection.get(key))

    def read(self, timeout_s: float) -> bytes:
        """Return what has arrived, or b""."""
        end = time.monotonic() + timeout_s
        while True:
            try:
                # The port's own time-out stays fixed: over rfc2217, changing it is a conversation of its own.
                port = self._port()
                data: bytes = port.read(max(1, port.in_waiting))
            except self._lost as error:
                raise self._gone(error) from None
            if data or time.monotonic() >= end:
                return data

    def write(self, data: bytes) -> None:
        """Send all of `data`."""
        try:
            self._port().write(data)
        except self._lost as error:
            raise self._gone(error) from None

    def recover(self, level: str) -> None:
        """Reset as the settings say."""
        if level == "power_cycle":
            self.close()
            power_switch.make(self._connection["switch"]).cycle()
            self._reopen()
            return
        port = self._port()
        try:
            if level == "hard_reset":
                line = self._connection["reset"]
                setattr(port, line, True)
                time.sleep(RESET_S)
                setattr(port, line, False)
            elif self._connection["soft_reset"] == "break":
                port.send_break(BREAK_S)
            else:
                port.write(f"{self._connection['soft_reset']}%".encode("ascii"))
        except self._lost as error:
            raise BoardError(f"{level} by {self._means(level)} on {self.port} failed: {error}") from None

    def flash(self, image: str) -> None:
        """Run the command that flashes. The port is free meanwhile: some tools flash through it."""
        command = self._connection.get("flash") or []
        if not command:
            raise FlashError(
                "the device has no way to flash an image: give it `flash` (the words of a command with {image}), or "
                "`flash_with` and `flash_target`; or leave the model's `firmware` file out to measure what is on it"
            )
        self.close()
        words = flash_command.filled(command, image=image, port=self.port)
        flash_command.run(words, float(self._connection.get("flash_timeout_s") or 90.0))
        self._reopen()

    def describe(self) -> dict[str, Any]:
        """Return the port, and what USB tells of it."""
        found = next((port for port in _ports() if port.device == self.port), None)
        facts = {"port": self.port, "transport": "serial", "baud": int(self._connection.get("baud") or 115200)}
        if found is not None and found.serial_number:
            facts["usb_serial"] = found.serial_number
        return facts

    def close(self) -> None:
        """Close the port."""
        if self._serial is not None:
            try:
                self._serial.close()
            except self._lost:
                pass
            self._serial = None

    def _open(self) -> None:
        serial = _pyserial()
        baud = int(self._connection.get("baud") or 115200)
        try:
            port = serial.serial_for_url(self.port, do_not_open=True)
            port.baudrate, port.timeout, port.write_timeout = baud, _POLL_S, _WRITE_SLACK_S + 80 * 10 / baud
            if self._connection.get("reset"):
                # Opening a port makes these lines active, which would hold the board in reset.
                setattr(port, self._connection["reset"], False)
            if "://" not in self.port:
                port.exclusive = True
            port.open()
        except self._lost as error:
            raise LineLost(f"cannot open {self.port}: {error}; is the board plugged in, and the port free?") from None
        self._serial = port

    def _port(self) -> Any:
        if self._serial is None:
            raise LineLost(f"the line {self.port} is closed")
        return self._serial

    def _reopen(self) -> None:
        """Open the port again, which may take until USB has it back."""
        end = time.monotonic() + REOPEN_S
        while True:
            try:
                self.port = find_port(self._connection)
                self._open()
                return
            except (LineLost, WrongBoard):
                if time.monotonic() >= end:
                    raise
                time.sleep(0.1)

    def _gone(self, error: BaseException) -> LineLost:
        self.close()
        return LineLost(f"the line {self.port} is gone ({error}): unplugged, reset, or its other end closed")

    def _means(self, level: str) -> str:
        return str(self._connection["reset" if level == "hard_reset" else "soft_reset"])


# --- which port ---------------------------------------------------------------------------------------------


def find_port(connection: Mapping[str, Any], ports: Iterable[Any] | None = None) -> str:
    """Return the port of a connection; WrongBoard names what is there when the one asked for is not.

    `ports` are pyserial's ListPortInfo, by default those of this machine.
    """
    if connection.get("port"):
        return str(connection["port"])
    for key, attribute in (("usb_serial", "serial_number"), ("location", "location")):
        if connection.get(key):
            return _by_usb(str(connection[key]), key, attribute, list(_ports() if ports is None else ports))
    if connection.get("candidates"):
        return _by_name(connection)
    raise WrongBoard("the device says no port: give it one of port, usb_serial, location or candidates")


def _by_usb(wanted: str, key: str, attribute: str, ports: list[Any]) -> str:
    found = [port for port in ports if getattr(port, attribute) == wanted]
    if len(found) == 1:
        return str(found[0].device)
    if found:
        both = ", ".join(sorted(str(port.device) for port in found))
        raise WrongBoard(f"{len(found)} ports have {key} '{wanted}' ({both}); tell them apart by `location`")
    here = ", ".join(f"{port.device} ({key} {getattr(port, attribute) or 'unknown'})" for port in ports) or "none"
    raise WrongBoard(f"no serial port has {key} '{wanted}'; ports here: {here}. Is the board plugged in and powered?")


def _by_name(connection: Mapping[str, Any]) -> str:
    """Ask each candidate for its name; boards that share a probe's USB numbers are told apart so."""
    told = []
    for port in connection["candidates"]:
        try:
            transport = SerialTransport(connection, str(port))
        except LineLost as error:
            told.append(f"{port}: {error}")
            continue
        try:
            TinyLine(transport, LineSettings.of(connection), Transcript()).open()
            return str(port)
        except (WrongBoard, ReplyError, LineLost) as error:
            told.append(f"{port}: {error}")
        finally:
            transport.close()
    raise WrongBoard(f"no candidate has the board '{connection.get('name')}'. " + "; ".join(told))


def _ports() -> list[Any]:
    _pyserial()
    return list(importlib.import_module("serial.tools.list_ports").comports())


def _pyserial() -> Any:
    return importlib.import_module("serial")


def _termios_error() -> tuple[type[BaseException], ...]:
    """Return termios' exception, which is no OSError; there is none on Windows."""
    try:
        import termios
    except ImportError:
        return ()
    return (termios.error,)
