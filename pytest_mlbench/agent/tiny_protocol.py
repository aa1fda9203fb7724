"""The line protocol of MLPerf Tiny (mlcommons/tiny, benchmark/api), from the side that sends commands.

A command is text that ends in `%`. The board answers lines, and every answer, also to a wrong command, ends with
`m-ready`. There is no number, echo or checksum in it. So on opening the line is emptied and the board must say who it
is, and each answer must consist of the lines that its command has: one that came late, lost its end or belongs to
another command is an error that says what was expected.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Any

from .board import BoardError, Transport, WrongBoard
from .transcript import Transcript, escaped

READY = "m-ready"
BYTES_DIRECT, BYTES_BRIDGED = 31, 26  # of a payload in one command: the firmware's buffer holds 80 characters
LAP_MODULUS = 1 << 32  # a timestamp is an unsigned 32-bit number
LAP_UNITS_NS = {"us": 1000, "ms": 1_000_000, "ns": 1}
BITS_PER_BYTE = 10  # on the line: start, 8 data, stop
_LONGEST_LINE = 65_536
_RESTARTED_COUNTER = 1000  # a counter that begins anew with each command may well show the same twice
_BANNER = re.compile(r"m-timestamp-mode-\w+|m-init-done")
_PREFIX = "[dut]: "  # of the board's lines behind the interface board
_MORE_THAN_FITS = re.compile(r"Supplied buffer size.*")  # the one failure that has no `e-`


class ReplyError(BoardError):
    """Report an answer that is missing, cut, garbled, or another command's: the line may be brought back."""


class Restarted(ReplyError):
    """Report a board that started anew while it worked on a command."""


class Refused(ReplyError):
    """Report a command that the board answered with an error of its own."""


@dataclass(frozen=True)
class LineSettings:
    """How a board is spoken to, and how long it may take; keys of a device's `connection`."""

    baud: int = 115200  # of the slowest part of the line: deadlines count with it
    mode: str = "performance"  # or "energy": timestamps are edges on a pin, not lines
    io_manager: bool = False  # an interface board stands in between, which is told `dut COMMAND`
    name: str = ""  # the vendor that the board must name, "" for any
    reply_timeout_s: float = 2.0  # beyond what bytes and inferences take
    boot_timeout_s: float = 5.0  # from opening or a reset to the first answer
    infer_timeout_s: float = 10.0  # of the first inference, before its time is known

    @classmethod
    def of(cls, connection: Mapping[str, Any]) -> LineSettings:
        """Return the settings among a connection's keys."""
        return cls(**{key: connection[key] for key in cls.__dataclass_fields__ if connection.get(key) is not None})


@dataclass(frozen=True)
class Identity:
    """What a board says of itself."""

    name: str  # "dut-[acme]"
    vendor: str  # "acme"
    profile: str  # "ULPMark for tinyML Firmware V0.0.1"
    model: str  # "ic01"


@dataclass(frozen=True)
class Inferred:
    """The answer to `infer`: `lap_ns` is None in energy mode."""

    lap_ns: int | None
    tick_ns: int
    results: tuple[float, ...]


@dataclass(frozen=True)
class Line:
    """One line that an answer must have."""

    shown: str
    pattern: str


_NAME = Line("m-name-dut-[VENDOR]", r"m-name-(?P<device>[\w.-]+)-\[(?P<vendor>.*)\]")
_PROFILE = Line("m-profile-[...]", r"m-profile-\[(?P<profile>.*)\]")
_MODEL = Line("m-model-[ID]", r"m-model-\[(?P<model>.*)\]")
_LAP = Line("m-lap-us-N", r"m-lap-(?P<unit>us|ms|ns)-(?P<lap>\d{1,10})")
_RESULTS = Line("m-results-[...]", r"m-results-\[(?P<results>[^\]]*)\]")


def exactly(text: str) -> Line:
    """Return the expectation of a line that has no variable part."""
    return Line(text, re.escape(text))


class TinyLine:
    """One board at the end of a line. Methods raise LineLost, ReplyError and WrongBoard, and nothing waits for ever."""

    def __init__(
        self,
        transport: Transport,
        settings: LineSettings,
        transcript: Transcript,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self.settings = settings
        self.transcript = transcript
        self._transport = transport
        self._clock = clock
        self._buffer = bytearray()
        self._has_timestamps = False  # as seen: then one that is missing was lost
        self._laps = ("", "")  # of the last answer
        self._inference_s = 0.0  # of the slowest inference so far, its share of the exchange included

    def use(self, transport: Transport) -> None:
        """Go on with a line that was opened anew."""
        self._transport = transport

    # --- opening ---------------------------------------------------------------------------------------

    def open(self) -> Identity:
        """Empty the line, and return who answers: at once, or within `boot_timeout_s` when the board is starting.

        Safe at any time: what a board still had to say, its banner or the end of an earlier answer, is dropped.
        """
        end = self._clock() + self.settings.boot_timeout_s
        try:
            return self._opened()
        except ReplyError as error:
            problem = error
        with self.transcript.repeating():
            while self._clock() < end:
                try:
                    return self._opened()
                except ReplyError as error:
                    problem = error
        raise ReplyError(
            f"no board that speaks the protocol answered within {self.settings.boot_timeout_s:g} s ({problem}); "
            f"look at the baud rate ({self.settings.baud}), and whether an image runs that answers `name`"
        )

    def _opened(self) -> Identity:
        self._resync()
        return self._identify()

    def _resync(self) -> None:
        """End a half command with `%`, and drop what comes until the line is quiet."""
        quiet_s = (0.2 if self.settings.io_manager else 0.05) + self._wire_s(30)
        self._buffer.clear()
        self.transcript.sent("%")
        self._transport.write(b"%")
        end = self._clock() + self.settings.reply_timeout_s + quiet_s
        dropped = bytearray()
        while True:
            data = self._transport.read(quiet_s)
            if not data:
                break
            dropped += data
            if self._clock() >= end:
                sample = escaped(bytes(dropped[-60:]))
                raise ReplyError(f"the line does not become quiet: {len(dropped)} bytes came, the last are '{sample}'")
        if dropped:
            self.transcript.received(bytes(dropped))

    def _identify(self) -> Identity:
        found = self.command("name", _NAME)
        vendor, name = found["vendor"], f"{found['device']}-[{found['vendor']}]"
        wanted = self.settings.name
        if wanted and wanted not in (vendor, name):
            raise WrongBoard(
                f"the board answers `name` with '{name}', expected '{wanted}': another board is on this port; "
                "correct the port, or `name` of the device"
            )
        found = self.command("profile", _PROFILE, _MODEL)
        return Identity(name, vendor, found["profile"], found["model"])

    # --- commands --------------------------------------------------------------------------------------

    def load(self, data: bytes) -> None:
        """Give the board the next input."""
        size = BYTES_BRIDGED if self.settings.io_manager else BYTES_DIRECT
        self.command(f"db load {len(data)}", exactly(f"m-[Expecting {len(data)} bytes]"))
        with self.transcript.repeating():
            for start in range(0, len(data), size):
                last = start + size >= len(data)
                self.command("db " + data[start : start + size].hex(), *([exactly("m-load-done")] if last else []))

    def infer(self, calls: int, warm_up: int = 0) -> Inferred:
        """Compute the loaded input `calls` times in a row, between two readings of the board's own clock."""
        energy = self.settings.mode == "energy"
        laps = () if energy else (_LAP, _LAP)
        lines = (
            exactly(f"m-warmup-start-{warm_up}"),
            exactly("m-warmup-done"),
            exactly(f"m-infer-start-{calls}"),
            *laps,
            exactly("m-infer-done"),
            _RESULTS,
        )
        known = self._inference_s * (calls + warm_up) * 3
        wait_s = known if self._inference_s else self.settings.infer_timeout_s * (calls + warm_up)
        text = f"infer {calls} {warm_up}"
        begin = self._clock()
        answer = self._exchange(text, lines, wait_s=wait_s, reply_bytes=8192)
        # By our clock: an emulated board's runs at another speed.
        self._inference_s = max(self._inference_s, (self._clock() - begin) / (calls + warm_up))
        results = _numbers(text, answer[-1]["results"])
        if energy:
            return Inferred(None, 0, results)
        first, last = answer[3], answer[4]
        tick_ns = LAP_UNITS_NS[first["unit"]]
        laps_of = (first["lap"], last["lap"])
        if laps_of == self._laps and int(first["lap"]) > _RESTARTED_COUNTER:
            raise ReplyError(
                f"`{text}` was answered with the timestamps of the answer before, {laps_of[0]} and {laps_of[1]}: it is "
                "that answer again"
            )
        self._laps = laps_of
        lap_ns = (int(last["lap"]) - int(first["lap"])) % LAP_MODULUS * tick_ns
        return Inferred(lap_ns, tick_ns, results)

    def tick_ns(self) -> int:
        """Return the resolution of the board's clock, by the unit that its timestamps name; performance mode only."""
        return LAP_UNITS_NS[self.command("timestamp", _LAP)["unit"]]

    def results(self) -> tuple[float, ...]:
        """Return the outputs of the last inference again."""
        return _numbers("results", self.command("results", _RESULTS)["results"])

    def command(self, text: str, *lines: Line) -> dict[str, str]:
        """Send a command and return the variable parts of its answer, which must have exactly these lines."""
        found: dict[str, str] = {}
        for match in self._exchange(text, lines):
            found.update(match.groupdict())
        return found

    # --- one exchange ----------------------------------------------------------------------------------

    def _exchange(
        self, text: str, lines: Sequence[Line], *, wait_s: float = 0.0, reply_bytes: int = 256
    ) -> list[re.Match[str]]:
        sent = f"dut {text}" if self.settings.io_manager else text
        allowed_s = self.settings.reply_timeout_s + self._wire_s(len(sent) + 1 + reply_bytes) + wait_s
        end = self._clock() + allowed_s
        self.transcript.sent(sent + "%")
        self._transport.write((sent + "%").encode("ascii"))
        if self.settings.io_manager:
            self._answer(text, [exactly(f"m-dut-passthrough({text})")], end, allowed_s, "")
            return self._answer(text, lines, end, allowed_s, _PREFIX)
        return self._answer(text, lines, end, allowed_s, "")

    def _answer(
        self, text: str, lines: Sequence[Line], end: float, allowed_s: float, prefix: str
    ) -> list[re.Match[str]]:
        found: list[re.Match[str]] = []
        problem = ""
        while True:
            expected = lines[len(found)].shown if len(found) < len(lines) else READY
            line = self._line(text, expected, end, allowed_s)
            if prefix:
                if not line.startswith(prefix):
                    raise ReplyError(f"`{text}`: the interface board sent '{line}', expected '{prefix}{expected}'")
                line = line[len(prefix) :]
            if line == READY:
                if problem:
                    raise Refused(f"the board refused `{text}`: {problem}")
                if len(found) < len(lines):
                    if lines[len(found)] is _LAP and not self._has_timestamps:
                        raise _without_timestamp(text)
                    raise ReplyError(f"the answer to `{text}` ended early: '{READY}', expected '{expected}'")
                return found
            if line.startswith("e-[") or _MORE_THAN_FITS.fullmatch(line):
                problem = problem or line
            elif line.startswith("m-") and not problem:
                found.append(_match(text, line, lines, len(found), self._has_timestamps))
                self._has_timestamps = self._has_timestamps or lines[len(found) - 1] is _LAP

    def _line(self, text: str, expected: str, end: float, allowed_s: float) -> str:
        """Return the next line; what is no text is an error, since every byte of this protocol is."""
        while b"\n" not in self._buffer:
            left = end - self._clock()
            if left <= 0:
                half = f", after half a line, '{escaped(bytes(self._buffer[-60:]))}'" if self._buffer else ""
                if self._buffer:
                    self.transcript.received(bytes(self._buffer))
                raise ReplyError(f"no answer to `{text}` within {allowed_s:.3g} s: expected '{expected}'{half}")
            self._buffer += self._transport.read(min(left, 0.25))
            if len(self._buffer) > _LONGEST_LINE:
                raise ReplyError(f"{len(self._buffer)} bytes without the end of a line came in answer to `{text}`")
        raw, _, rest = bytes(self._buffer).partition(b"\n")
        self._buffer = bytearray(rest)
        raw = raw.rstrip(b"\r")
        self.transcript.received(raw)
        if any(byte < 0x20 or byte > 0x7E for byte in raw.replace(b"\t", b" ")):
            raise ReplyError(
                f"garbage in answer to `{text}`: '{escaped(raw[:60])}', expected '{expected}'; "
                f"is the baud rate right ({self.settings.baud}), and the line undisturbed?"
            )
        return raw.decode("ascii")

    def _wire_s(self, count: int) -> float:
        """Return how long so many bytes take, on both parts of the line when there is an interface board."""
        return count * BITS_PER_BYTE / self.settings.baud * (2 if self.settings.io_manager else 1)


def _match(text: str, line: str, lines: Sequence[Line], index: int, has_timestamps: bool) -> re.Match[str]:
    expected = lines[index] if index < len(lines) else Line(READY, re.escape(READY))
    found = re.fullmatch(expected.pattern, line) if index < len(lines) else None
    if found is not None:
        return found
    if _BANNER.fullmatch(line):
        raise Restarted(f"the board restarted while it worked on `{text}`: '{line}', expected '{expected.shown}'")
    if line.startswith("m-lap-") and not any(each is _LAP for each in lines):
        raise WrongBoard(
            f"`{text}` was answered with a timestamp, '{line}': the image is built for performance mode; "
            'build it for energy mode, or set mode = "performance"'
        )
    if expected is _LAP and line == "m-infer-done" and not has_timestamps:
        raise _without_timestamp(text)
    raise ReplyError(
        f"`{text}` was answered with '{line}', expected '{expected.shown}': it is the answer to an earlier command, "
        "or lines were lost"
    )


def _without_timestamp(text: str) -> WrongBoard:
    return WrongBoard(
        f"`{text}` was answered without a timestamp: the image is built for energy mode; build it for "
        'performance mode, or set mode = "energy"'
    )


def _numbers(text: str, results: str) -> tuple[float, ...]:
    try:
        return tuple(float(word) for word in results.split(",")) if results.strip() else ()
    except ValueError:
        message = f"the answer to `{text}` holds what is no number: 'm-results-[{results[:80]}]'"
        raise ReplyError(message) from None
