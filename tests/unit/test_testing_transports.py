"""The contract of transports finds what is wrong, and says what would be right."""

from __future__ import annotations

import os
from typing import Any

import pytest

pytest.importorskip("serial")
if not hasattr(os, "openpty"):
    pytest.skip("the fake board is a pseudo-terminal", allow_module_level=True)

from pytest_mlbench.agent.board import LineLost
from pytest_mlbench.agent.serial_transport import SerialTransport
from pytest_mlbench.agent.tiny_protocol import LineSettings, TinyLine
from pytest_mlbench.agent.transcript import Transcript
from pytest_mlbench.testing import FakeBoard, TransportContract
from pytest_mlbench.testing import transports as testing_transports

CONTRACT = TransportContract()
SETTINGS = LineSettings(boot_timeout_s=0.5, reply_timeout_s=0.2, infer_timeout_s=0.5)
SAMPLE = bytes(range(64))


def speak(transport: Any) -> TinyLine:
    return TinyLine(transport, SETTINGS, Transcript())


@pytest.fixture
def board():
    with FakeBoard(infer=lambda data: [float(sum(data))]) as made:
        yield made


@pytest.fixture
def opened(board):
    """Return what gives a contract its `opened` for a class of transports; closes those of the call before."""
    made: list[SerialTransport] = []

    def maker(kind: type[SerialTransport] = SerialTransport, **wired: Any) -> Any:
        for earlier in made:
            SerialTransport.close(earlier)

        def make() -> SerialTransport:
            made.append(kind({"port": board.port, "soft_reset": "reset", **wired}, board.port))
            return made[-1]

        return make

    yield maker
    for transport in made:
        SerialTransport.close(transport)


def test_a_board_without_a_name(board, opened):
    board.vendor = ""
    with pytest.raises(AssertionError, match="the board's name is empty"):
        CONTRACT.test_the_board_says_who_it_is(opened(), speak)
    board.vendor, board.model_id = "acme", ""
    with pytest.raises(AssertionError, match="the board does not name its model"):
        CONTRACT.test_the_board_says_who_it_is(opened(), speak)


def test_a_board_that_computes_something_else_each_time(board, opened):
    board.infer = lambda data: [float(len(board.commands))]
    with pytest.raises(AssertionError, match="the same input gives other results the second time"):
        CONTRACT.test_an_input_gives_the_same_results_twice(opened(), speak, SAMPLE)
    board.infer = lambda data: []
    with pytest.raises(AssertionError, match="the board gives no results"):
        CONTRACT.test_an_input_gives_the_same_results_twice(opened(), speak, SAMPLE)


def test_a_line_that_is_never_silent(opened):
    class Noisy(SerialTransport):
        def read(self, timeout_s: float) -> bytes:
            return super().read(timeout_s) or (b"?" if timeout_s in (0.0, testing_transports.QUIET_S) else b"")

    with pytest.raises(AssertionError, match="the board says what nobody asked for"):
        CONTRACT.test_reading_a_silent_board_returns_nothing(opened(Noisy), speak)


def test_a_write_that_loses_bytes(opened, monkeypatch):
    class Short(SerialTransport):
        def write(self, data: bytes) -> None:
            super().write(data[:100])

    monkeypatch.setattr(testing_transports, "LOST_S", 0.5)
    with pytest.raises(AssertionError, match=r"of 40 commands in one write\(\) 20 were answered"):
        CONTRACT.test_many_bytes_at_once_all_arrive(opened(Short), speak)


@pytest.mark.parametrize(
    ("levels", "message"),
    [
        (["soft_reset"], "levels is a list, expected a tuple"),
        (("hard_reset", "soft_reset"), r"levels are \('hard_reset', 'soft_reset'\), expected some of"),
        (("kick",), r"levels are \('kick',\)"),
    ],
)
def test_levels_that_are_none_or_out_of_order(opened, levels, message):
    class Levels(SerialTransport):
        @property
        def levels(self) -> Any:
            return levels

    with pytest.raises(AssertionError, match=message):
        CONTRACT.test_its_levels_are_steps_of_the_ladder_in_rising_order(opened(Levels))


def test_a_reset_after_which_the_board_is_another(board, opened):
    class Changes(SerialTransport):
        def recover(self, level: str) -> None:
            super().recover(level)
            board.model_id = "kws01"

    with pytest.raises(AssertionError, match="after soft_reset the board answers differently"):
        CONTRACT.test_the_board_works_after_a_reset("soft_reset", opened(Changes), speak, SAMPLE)
    with pytest.raises(pytest.skip.Exception, match="power_cycle is none of its levels"):
        CONTRACT.test_the_board_works_after_a_reset("power_cycle", opened(), speak, SAMPLE)


def test_a_missing_image_that_nobody_notices(opened):
    class Careless(SerialTransport):
        def flash(self, image: str) -> None:
            pass

    with pytest.raises(pytest.fail.Exception, match="DID NOT RAISE FlashError"):
        CONTRACT.test_an_image_that_is_not_there_is_told(opened(Careless))


def test_a_record_that_changes_or_is_not_plain(opened):
    class Changes(SerialTransport):
        def describe(self) -> dict[str, Any]:
            return {"port": self.port, "object": id(self)}

    class NotPlain(SerialTransport):
        def describe(self) -> dict[str, Any]:
            return {"port": self.port.encode()}

    with pytest.raises(AssertionError, match=r"changes when the line is opened anew: \['object'\]"):
        CONTRACT.test_what_it_tells_is_plain_and_stays(opened(Changes))
    with pytest.raises(AssertionError, match=r"describe\(\)\['port'\] is a bytes"):
        CONTRACT.test_what_it_tells_is_plain_and_stays(opened(NotPlain))


def test_a_closed_line_that_reads_on(opened):
    class Quiet(SerialTransport):
        def read(self, timeout_s: float) -> bytes:
            return b"" if self._serial is None else super().read(timeout_s)

    with pytest.raises(AssertionError, match=r"read\(\) on a closed line does not raise LineLost"):
        CONTRACT.test_closing_twice_is_safe_and_a_closed_line_is_lost(opened(Quiet))


def test_a_line_that_is_not_given_back(opened):
    class Keeps(SerialTransport):
        kept: Any = None

        def close(self) -> None:
            self.kept, self._serial = self._serial or self.kept, None

    make = opened(Keeps)
    with pytest.raises(LineLost, match="cannot open"):
        CONTRACT.test_closing_twice_is_safe_and_a_closed_line_is_lost(make)


def test_a_lost_line_that_nobody_notices(board, opened, monkeypatch):
    class Deaf(SerialTransport):
        def read(self, timeout_s: float) -> bytes:
            try:
                return super().read(timeout_s)
            except LineLost:
                return b""

    monkeypatch.setattr(testing_transports, "LOST_S", 0.3)
    with pytest.raises(AssertionError, match=r"read\(\) did not raise LineLost within 0.3 s after the line was gone"):
        CONTRACT.test_a_line_that_is_gone_is_told(opened(Deaf), speak, lambda transport: board.unplug())


def test_a_lost_line_that_is_told_without_words(board, opened):
    class Terse(SerialTransport):
        def read(self, timeout_s: float) -> bytes:
            try:
                return super().read(timeout_s)
            except LineLost:
                raise LineLost("gone") from None

    with pytest.raises(AssertionError, match="LineLost says 'gone': say which line"):
        CONTRACT.test_a_line_that_is_gone_is_told(opened(Terse), speak, lambda transport: board.unplug())


def test_a_contract_without_its_fixtures_says_what_to_write(pytester):
    pytester.makepyfile(
        "from pytest_mlbench.testing import TransportContract\n\n\nclass TestLine(TransportContract):\n    pass\n"
    )
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider", "-k", "rising_order")
    assert result.ret == 1
    result.stdout.fnmatch_lines(["*TestLine has no fixture `make_transport`: write one that returns a function*"])
