"""What core expects of a board's transport, as tests that the vendor's package runs on its own, on its simulator:

class TestTransport(TransportContract):
    @pytest.fixture
    def make_transport(self, board):
        return lambda: open_transport({"port": board.port})

    @pytest.fixture
    def lose_line(self, board):
        return lambda transport: board.unplug()
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

from pytest_mlbench.agent.board import LEVELS, FlashError, LineLost, Transport
from pytest_mlbench.agent.tiny_protocol import Identity, LineSettings, TinyLine
from pytest_mlbench.agent.transcript import Transcript
from pytest_mlbench.testing.plain import not_given, not_plain

LOST_S = 20.0  # after which a line that is gone must have been noticed
QUIET_S = 0.05
GARBAGE = b"\xff\x00 half a command \x81 db 0"


class TransportContract:
    """Hold a transport to agent/board.py.

    A subclass gives `make_transport`, which opens the line to a board that runs an image and speaks MLPerf Tiny's
    protocol, and `lose_line`, which takes it away for good. The other fixtures have values that may do.
    """

    @pytest.fixture
    def make_transport(self) -> Callable[[], Transport]:
        """Return a function that opens the line to the same board, ready to be spoken to."""
        found: Callable[[], Transport] = not_given(self, "make_transport", "a function that opens the line")
        return found

    @pytest.fixture
    def lose_line(self) -> Callable[[Any], object]:
        """Return a function of a transport that takes its line away, as an unplugged cable does."""
        found: Callable[[Any], object] = not_given(self, "lose_line", "a function that takes a transport's line away")
        return found

    @pytest.fixture
    def input_bytes(self) -> bytes:
        """Return the bytes of one input of the board's model."""
        return bytes(range(64))

    @pytest.fixture
    def flash_image(self) -> str:
        """Return the path of an image that the board can be flashed with; "" when it cannot be."""
        return ""

    @pytest.fixture
    def line_settings(self) -> Mapping[str, Any]:
        """Return what the device's connection() tells the protocol: time-outs, `baud`, `mode`."""
        return {}

    @pytest.fixture
    def opened(self, make_transport: Callable[[], Transport]) -> Iterator[Callable[[], Transport]]:
        """Return make_transport; what it opened is closed at the end."""
        made: list[Transport] = []

        def make() -> Transport:
            made.append(make_transport())
            return made[-1]

        yield make
        for transport in made:
            transport.close()

    @pytest.fixture
    def speak(self, line_settings: Mapping[str, Any]) -> Callable[[Transport], TinyLine]:
        """Return what speaks the protocol over a transport."""
        return lambda transport: TinyLine(transport, LineSettings.of(line_settings), Transcript())

    # --- bytes -----------------------------------------------------------------------------------------

    def test_the_board_says_who_it_is(
        self, opened: Callable[[], Transport], speak: Callable[[Transport], TinyLine]
    ) -> None:
        """Twice on one line, and the same."""
        line = speak(opened())
        first = line.open()
        assert first.vendor, "the board's name is empty"
        assert first.model, "the board does not name its model"
        assert line.open() == first, "the board says another thing when it is asked again"

    def test_an_input_gives_the_same_results_twice(
        self, opened: Callable[[], Transport], speak: Callable[[Transport], TinyLine], input_bytes: bytes
    ) -> None:
        """Also when it is loaded again, and from a line that was opened anew."""
        transport = opened()
        _, first = _worked(speak(transport), input_bytes)
        assert first, "the board gives no results"
        assert _worked(speak(transport), input_bytes)[1] == first, "the same input gives other results the second time"
        transport.close()
        assert _worked(speak(opened()), input_bytes)[1] == first, "the same input gives other results on a new line"

    def test_reading_a_silent_board_returns_nothing(
        self, opened: Callable[[], Transport], speak: Callable[[Transport], TinyLine]
    ) -> None:
        """In the time that is given, not never."""
        transport = opened()
        speak(transport).open()
        assert transport.read(QUIET_S) == b"", "the board says what nobody asked for"
        assert transport.read(0.0) == b"", "a read that may not wait returned bytes that never came"

    def test_garbage_on_the_line_is_got_over(
        self, opened: Callable[[], Transport], speak: Callable[[Transport], TinyLine], input_bytes: bytes
    ) -> None:
        """What another program left there, or a cable caught, spoils one answer at most."""
        transport = opened()
        before = _worked(speak(transport), input_bytes)
        transport.write(GARBAGE)
        assert _worked(speak(transport), input_bytes) == before, "after garbage the board answers differently"

    def test_many_bytes_at_once_all_arrive(
        self, opened: Callable[[], Transport], speak: Callable[[Transport], TinyLine]
    ) -> None:
        """write() takes all of them, also when the line is slower."""
        transport = opened()
        line = speak(transport)
        wanted = line.open()
        transport.write(b"name%" * 40)
        heard, end = b"", time.monotonic() + LOST_S
        while heard.count(b"m-ready") < 40 and time.monotonic() < end:
            heard += transport.read(0.5)
        answers = heard.count(f"m-name-{wanted.name}".encode())
        assert answers == 40, f"of 40 commands in one write() {answers} were answered"

    # --- resets ----------------------------------------------------------------------------------------

    def test_its_levels_are_steps_of_the_ladder_in_rising_order(self, opened: Callable[[], Transport]) -> None:
        """Each loses more than the one before, so the cheap ones are tried first."""
        levels = opened().levels
        assert isinstance(levels, tuple), f"levels is a {type(levels).__name__}, expected a tuple"
        wanted = tuple(level for level in LEVELS if level in levels)
        assert levels == wanted, f"levels are {levels}, expected some of {LEVELS} in that order"

    @pytest.mark.parametrize("level", LEVELS)
    def test_the_board_works_after_a_reset(
        self, level: str, opened: Callable[[], Transport], speak: Callable[[Transport], TinyLine], input_bytes: bytes
    ) -> None:
        """The same board with the same model, and the same results, after each step that it has; twice in a row."""
        transport = opened()
        if level not in transport.levels:
            pytest.skip(f"{level} is none of its levels")
        before = _worked(speak(transport), input_bytes)
        for _ in range(2):
            transport.recover(level)
            assert _worked(speak(transport), input_bytes) == before, f"after {level} the board answers differently"

    # --- images ----------------------------------------------------------------------------------------

    def test_an_image_can_be_put_on_it(
        self, opened: Callable[[], Transport], speak: Callable[[Transport], TinyLine], flash_image: str
    ) -> None:
        """The line carries bytes again when flash() returns."""
        if not flash_image:
            pytest.skip("no fixture `flash_image` gives an image to flash")
        transport = opened()
        transport.flash(flash_image)
        assert speak(transport).open().model, "after flashing the board does not name its model"

    def test_an_image_that_is_not_there_is_told(self, opened: Callable[[], Transport]) -> None:
        """As it is when the board cannot be flashed at all."""
        with pytest.raises(FlashError) as caught:
            opened().flash("no-such-folder/no-such-image.bin")
        assert len(str(caught.value).split()) >= 4, f"FlashError says {str(caught.value)!r}: say what to do about it"

    # --- the record ------------------------------------------------------------------------------------

    def test_what_it_tells_is_plain_and_stays(self, opened: Callable[[], Transport]) -> None:
        """It is kept in records, and two records are compared only when it is equal."""
        transport = opened()
        first = transport.describe()
        transport.close()
        wrong = not_plain(first, "describe()")
        assert not wrong, "; ".join(wrong)
        second = opened().describe()
        changed = sorted(key for key in {*first, *second} if first.get(key) != second.get(key))
        assert changed == [], f"describe() changes when the line is opened anew: {changed}"

    # --- ends ------------------------------------------------------------------------------------------

    def test_closing_twice_is_safe_and_a_closed_line_is_lost(self, opened: Callable[[], Transport]) -> None:
        """Closing frees the line: it can be opened again."""
        transport = opened()
        transport.close()
        transport.close()
        for name, call in (("read", lambda: transport.read(0.0)), ("write", lambda: transport.write(b"%"))):
            told = _lost(call)
            assert told, f"{name}() on a closed line does not raise LineLost"
        opened()

    def test_a_line_that_is_gone_is_told(
        self,
        opened: Callable[[], Transport],
        speak: Callable[[Transport], TinyLine],
        lose_line: Callable[[Any], object],
    ) -> None:
        """By LineLost, with words, from reading and from writing; closing is safe all the same."""
        transport = opened()
        speak(transport).open()
        lose_line(transport)
        told, end = "", time.monotonic() + LOST_S
        while not told and time.monotonic() < end:
            told = _lost(lambda: transport.read(QUIET_S))
        assert told, f"read() did not raise LineLost within {LOST_S:g} s after the line was gone"
        assert len(told.split()) >= 4, f"LineLost says {told!r}: say which line, and what may have happened"
        assert _lost(lambda: transport.write(b"name%")), "write() on a line that is gone does not raise LineLost"
        transport.close()


def _worked(line: TinyLine, input_bytes: bytes) -> tuple[Identity, tuple[float, ...]]:
    """Return who the board is and its results for an input."""
    identity = line.open()
    line.load(input_bytes)
    return identity, line.infer(1).results


def _lost(call: Callable[[], object]) -> str:
    """Return what LineLost says, "" when the call does not raise it."""
    try:
        call()
    except LineLost as error:
        return str(error)
    return ""
