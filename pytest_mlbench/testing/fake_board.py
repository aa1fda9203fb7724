"""A board on a pseudo-terminal that speaks MLPerf Tiny's line protocol, and fails as it is told to.

    with FakeBoard(model=MODEL) as board:
        ... SerialTransport({"port": board.port, ...})

It is a thread of this process and another program's work: it shares no code with what drives boards. Linux and macOS.
"""

from __future__ import annotations

import os
import re
import select
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

Infer = Callable[[bytes], Sequence[float]]
BUFFER = 80  # characters of a command that the firmware keeps; what comes beyond overwrites the last
MOST_INPUT_BYTES = 96 * 96 * 3
_HEX = re.compile(r"[0-9a-fA-F]{2}")


@dataclass(frozen=True)
class Fault:
    """One thing that goes wrong, when a command begins with `command` (the `after`th time, counted from 0).

    `kind` is one of KINDS; `times` is how often it happens. What a hang ends is the command `reset` (soft_reset), a
    call of reset(), or a word written into `control`.
    """

    kind: str
    command: str
    after: int = 0
    times: int = 1


KINDS = (
    "garbage",  # bytes that are no text stand before the answer
    "half",  # the answer stops in the middle of a line
    "previous",  # the answer is that of the command before
    "late",  # the answer comes after `late_s`
    "hang",  # no answer, now and until a reset
    "deaf",  # no answer this once
    "restart",  # the board starts anew in the middle
    "close",  # the line is closed
    "error",  # an `e-` line
    "lost_byte",  # one of the answer's lines is missing
    "counter",  # the clock's counter is reset in between
)


@dataclass
class FakeBoard:
    """One board. `infer` maps the bytes of an input to results; a call takes `call_us`."""

    infer: Infer = lambda data: [float(len(data))]
    vendor: str = "fake"
    model_id: str = "ic01"
    mode: str = "performance"
    call_us: int = 200
    first_lap_us: int = 0  # what the counter shows at the start
    boot_s: float = 0.0  # how long it is silent after a reset, before its banner
    quiet: bool = False  # it prints no banner
    baud_garbage: bool = False  # as when the line's speed is wrong: every byte comes out as another
    io_manager: bool = False
    chatty: bool = False  # it prints a line of its own in every answer
    late_s: float = 0.3
    faults: Sequence[Fault] = ()
    images: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # text of an image -> fields it sets
    flashed: list[str] = field(default_factory=list)  # texts, in order
    commands: list[str] = field(default_factory=list)  # what it was sent, in order
    resets: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._master, self._slave = os.openpty()
        _raw(self._slave)
        self.port = os.ttyname(self._slave)
        self._wake_read, self._wake_write = os.pipe()
        self._folder = tempfile.TemporaryDirectory(prefix="fake-board-")
        self.control = str(Path(self._folder.name) / "control")  # a pipe for "power_cycle" or "flash TEXT"
        os.mkfifo(self.control)
        self._control = os.open(self.control, os.O_RDWR)
        self._thread = threading.Thread(target=self._serve, name="fake-board", daemon=True)
        self._seen: dict[int, int] = {}  # fault -> how often its command came
        self._input = bytearray()
        self._expected = 0
        self._loaded = b""
        self._results: Sequence[float] = ()
        self._last: list[str] = []
        self._hung = False
        self._closed = False
        self._begin = time.monotonic()
        self._lock = threading.Lock()

    def __enter__(self) -> FakeBoard:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.unplug()
        self._thread.join(10)
        for descriptor in (self._wake_read, self._wake_write, self._control):
            os.close(descriptor)
        self._folder.cleanup()

    # --- what a test does to it ------------------------------------------------------------------------

    def unplug(self) -> None:
        """Close the line: the other end sees what an unplugged USB port shows."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        if threading.current_thread() is not self._thread and self._thread.is_alive():
            os.write(self._wake_write, b"x")  # while it waits for the line, the kernel keeps that open
            self._thread.join(10)
        os.close(self._master)
        os.close(self._slave)

    def reset(self, level: str) -> None:
        """Start anew, as a reset line, an emulator's reset or its power would make it."""
        self.resets.append(level)
        self._hung = False
        self._begin = time.monotonic()
        self._input.clear()
        self._expected, self._loaded = 0, b""
        time.sleep(self.boot_s)
        if not self.quiet:
            self._banner()

    # --- the firmware ----------------------------------------------------------------------------------

    def _serve(self) -> None:
        if self.boot_s:
            time.sleep(self.boot_s)
        if not self.quiet:
            self._banner()
        typed = ""
        while True:
            try:
                ready, _, _ = select.select([self._master, self._wake_read, self._control], [], [])
            except OSError:  # it was unplugged
                return
            if self._wake_read in ready:
                return
            if self._control in ready:
                self._control_word(os.read(self._control, 1000).decode().strip())
                typed = ""
                continue
            try:
                data = os.read(self._master, 4096)
            except OSError:  # it was unplugged
                return
            for character in data.decode("latin-1"):
                if character == "%":
                    self._take(typed)
                    typed = ""
                else:
                    typed = typed[: BUFFER - 1] + character

    def _control_word(self, word: str) -> None:
        """Take `flash IMAGE` (its text, a key of `images`) or the level of a reset."""
        if word.startswith("flash "):
            self.flashed.append(word[6:])
            for name, value in self.images.get(word[6:], {}).items():
                setattr(self, name, value)
            word = "by flashing"
        self.reset(word)

    def _banner(self) -> None:
        lap = [self._lap()] if self.mode == "performance" else []
        self._say([f"m-timestamp-mode-{self.mode}", *lap, "m-init-done", "m-ready"])

    def _take(self, command: str) -> None:
        self.commands.append(command)
        if self._hung:
            return
        fault = self._fault(command)
        if command == "reset":
            self.reset("soft_reset")
            return
        passed, prefix = [], ""
        if self.io_manager:
            if not command.startswith("dut "):
                self._say(
                    ["m-name-interface-[fake bridge]", "m-ready"] if command == "name" else self._unknown(command)
                )
                return
            command = command[4:]
            passed, prefix = [f"m-dut-passthrough({command})", "m-ready"], "[dut]: "
        before, answer = self._last, [prefix + line for line in [*self._answer(command, fault), "m-ready"]]
        self._last = answer
        if not fault:
            self._say([*passed, *answer])
        else:
            self._misbehave(fault, answer, before)

    def _fault(self, command: str) -> str:
        for index, fault in enumerate(self.faults):
            if command.startswith(fault.command):
                count = self._seen[index] = self._seen.get(index, -1) + 1
                if fault.after <= count < fault.after + fault.times:
                    return fault.kind
        return ""

    def _misbehave(self, fault: str, answer: list[str], before: list[str]) -> None:
        if fault == "garbage":
            self._write(b"\xff\x00\xfe~\x81\r\n")
            self._say(answer)
        elif fault == "half":
            text = "\r\n".join(answer)
            self._write(text[: len(text) // 2].encode())
        elif fault == "previous":
            self._say(before)
        elif fault == "late":
            time.sleep(self.late_s)
            self._say(answer)
        elif fault == "hang":
            self._hung = True
        elif fault == "restart":
            self._say(answer[:1])
            self.reset("by itself")
        elif fault == "close":
            self.unplug()
        elif fault == "error":
            self._say(["e-[Insufficent number of hex digits]", "m-ready"])
        elif fault == "lost_byte":
            self._say([line for index, line in enumerate(answer) if index != len(answer) // 2])
        elif fault == "counter":
            self._say(answer)
        elif fault != "deaf":
            raise ValueError(f"unknown fault {fault!r}; known: {', '.join(KINDS)}")

    def _answer(self, command: str, fault: str) -> list[str]:
        words = command.split(" ")
        chat = ["debug: a line of the board's own"] if self.chatty else []
        if command == "name":
            return [*chat, f"m-name-dut-[{self.vendor}]"]
        if command == "profile":
            return ["m-profile-[ULPMark for tinyML Firmware V0.0.1]", *chat, f"m-model-[{self.model_id}]"]
        if command == "timestamp":
            return [self._lap()] if self.mode == "performance" else []
        if words[0] == "db" and len(words) > 1:
            return [*chat, *self._db(words)]
        if words[0] == "infer":
            return [*chat, *self._infer(words, fault)]
        if command == "results":
            return [self._result_line()]
        return self._unknown(command)[:-1]

    def _unknown(self, command: str) -> list[str]:
        return [f"e-[Unknown command: {command}]", "m-ready"]

    def _db(self, words: list[str]) -> list[str]:
        if words[1] == "load":
            count = int(words[2]) if len(words) > 2 and words[2].isdigit() else 0
            if not count:
                return ["e-[Command 'db load' requires the number of bytes]"]
            if count > MOST_INPUT_BYTES:
                return [f"Supplied buffer size {count} exceeds maximum of {MOST_INPUT_BYTES}"]
            self._expected = count
            self._input.clear()
            return [f"m-[Expecting {count} bytes]"]
        digits = words[1]
        if len(digits) % 2:
            return ["e-[Insufficent number of hex digits]"]
        for start in range(0, len(digits), 2):
            if not _HEX.fullmatch(digits[start : start + 2]):
                return [f"e-[Invalid hex digit '{digits[start : start + 2]}']"]
            if len(self._input) < self._expected:
                self._input.append(int(digits[start : start + 2], 16))
                if len(self._input) == self._expected:
                    self._loaded = bytes(self._input)
                    return ["m-load-done"]
        return []

    def _infer(self, words: list[str], fault: str) -> list[str]:
        calls, warm_up = int(words[1]), int(words[2]) if len(words) > 2 else 10
        if calls <= 0:
            return ["e-[Inference iterations must be >0]"]
        lines = [f"m-warmup-start-{warm_up}", "m-warmup-done", f"m-infer-start-{calls}"]
        self._work(warm_up)
        first = self._lap()
        if fault == "counter":
            self._begin = time.monotonic() + 10  # it goes back, which modulo 2^32 looks like an hour
        self._work(calls)
        last = self._lap()
        self._results = self.infer(self._loaded)
        laps = [first, last] if self.mode == "performance" else []
        return [*lines, *laps, "m-infer-done", self._result_line()]

    def _work(self, calls: int) -> None:
        end = time.monotonic() + calls * self.call_us / 1e6
        time.sleep(max(0.0, calls * self.call_us / 1e6 - 2e-4))
        while time.monotonic() < end:
            pass

    def _result_line(self) -> str:
        return f"m-results-[{','.join(f'{value:.3f}' for value in self._results)}]"

    def _lap(self) -> str:
        return f"m-lap-us-{(self.first_lap_us + int((time.monotonic() - self._begin) * 1e6)) % (1 << 32)}"

    def _say(self, lines: Sequence[str]) -> None:
        self._write("".join(f"{line}\r\n" for line in lines).encode())

    def _write(self, data: bytes) -> None:
        if self.baud_garbage:
            data = bytes(byte ^ 0xE5 for byte in data)
        with self._lock:
            if not self._closed:
                os.write(self._master, data)


def _raw(descriptor: int) -> None:
    """Take away what a terminal does to bytes; termios is imported late, since Windows has none."""
    import tty

    tty.setraw(descriptor)


def identity(board: FakeBoard) -> dict[str, Any]:
    """Return what such a board answers, as a record holds it."""
    return {"name": f"dut-[{board.vendor}]", "vendor": board.vendor, "model": board.model_id}
