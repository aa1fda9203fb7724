"""One contract for everything that speaks MLPerf Tiny's protocol: golden exchanges, held by the fake and by firmware.

The exchanges are written from the protocol's description (mlcommons/tiny, benchmark/api), byte by byte. What varies,
a time or a result, is a pattern.
"""

from __future__ import annotations

import importlib
import os
import re
import time
from pathlib import Path

import pytest

from pytest_mlbench.agent.board import Transport

if not hasattr(os, "openpty"):
    pytest.skip("boards are reached over pseudo-terminals and sockets here", allow_module_level=True)

FIRMWARE = Path(__file__).parents[2] / "suites" / "digits" / "models" / "firmware"
MACHINES = {"qemu_m4": "mps2-an386", "qemu_m7": "mps2-an500", "qemu_m55": "mps3-an547"}
LAP = r"m-lap-us-\d{1,10}\r\n"
RESULTS = r"m-results-\[-?\d+\.\d{3}(,-?\d+\.\d{3})*\]\r\n"
READY = r"m-ready\r\n"
BANNER = rf"m-timestamp-mode-performance\r\n{LAP}m-init-done\r\n{READY}"


class Talk:
    """A board on a transport, spoken to in bytes."""

    def __init__(self, transport: Transport) -> None:
        self.transport = transport

    def ask(self, command: str) -> str:
        """Send a command and return what comes until `m-ready`."""
        self.transport.write(f"{command}%".encode())
        return self.until_ready()

    def until_ready(self, times: int = 1) -> str:
        found, end = b"", time.monotonic() + 20
        while found.count(b"m-ready\r\n") < times:
            assert time.monotonic() < end, f"no m-ready in {found!r}"
            found += self.transport.read(0.5)
        return found.decode("ascii")

    def holds(self, command: str, pattern: str) -> re.Match[str]:
        answer = self.ask(command)
        match = re.fullmatch(pattern, answer)
        assert match, f"{command!r} was answered with {answer!r}, expected {pattern!r}"
        return match


@pytest.fixture(params=["fake", *MACHINES])
def board(request, require):
    """Give a board that has just got power, its banner not yet read; its input has 64 bytes."""
    if request.param == "fake":
        require("serial")
        from pytest_mlbench.agent.serial_transport import open_transport
        from pytest_mlbench.testing.fake_board import FakeBoard

        with FakeBoard(infer=lambda data: [value / 8 for value in data[:10]], quiet=True) as fake:
            transport = open_transport({"port": fake.port})  # which drops what a port held before
            fake.quiet = False
            fake.reset("power_cycle")
            yield Talk(transport)
            transport.close()
        return
    require("qemu-system-arm")
    require("pytest_mlbench_qemu")
    qemu = importlib.import_module("pytest_mlbench_qemu.qemu_transport")
    machine = MACHINES[request.param]
    transport = qemu.open_transport({"program": "qemu-system-arm", "machine": machine, "icount_shift": 5})
    transport.flash(str(FIRMWARE / f"digits_int8-{machine}.elf"))
    yield Talk(transport)
    transport.close()


def test_the_boot_banner(board):
    assert re.fullmatch(BANNER, board.until_ready())


def test_who_it_is(board):
    board.until_ready()
    board.holds("name", rf"m-name-dut-\[[^\]]+\]\r\n{READY}")
    board.holds("profile", rf"m-profile-\[ULPMark for tinyML Firmware V0\.0\.1\]\r\nm-model-\[\w+\]\r\n{READY}")


def test_timestamps_grow(board):
    board.until_ready()
    laps = [int(re.search(r"\d+", board.holds("timestamp", LAP + READY)[0])[0]) for _ in range(3)]
    assert laps == sorted(laps)


@pytest.mark.parametrize("command", ["", "zzz", "Name", "infers 1"])
def test_an_unknown_command_is_an_error_that_ends_like_every_answer(board, command):
    board.until_ready()
    board.holds(command, rf"e-\[Unknown command: {command.split(' ')[0]}.*\]\r\n{READY}")
    board.holds("name", rf"m-name-.*\r\n{READY}")


def test_an_input_is_loaded_in_pieces(board):
    board.until_ready()
    board.holds("db load 64", rf"m-\[Expecting 64 bytes\]\r\n{READY}")
    board.holds("db " + "00" * 31, READY)
    board.holds("db " + "7F" * 31, READY)
    board.holds("db 0aFf", rf"m-load-done\r\n{READY}")


@pytest.mark.parametrize(
    ("command", "answer"),
    [
        ("db load", r"e-\[.*db load.*\]\r\n"),
        ("db load 0", r"e-\[.*db load.*\]\r\n"),
        ("db load 99999", r"Supplied buffer size.*\r?\n"),  # the reference ends this line without \r
        ("db 123", r"e-\[Insufficent number of hex digits\]\r\n"),
        ("db 1x", r"e-\[Invalid hex digit '1x'\]\r\n"),
        ("infer 0", r"e-\[Inference iterations must be >0\]\r\n"),
        ("infer -3", r"e-\[Inference iterations must be >0\]\r\n"),
    ],
)
def test_what_cannot_be_is_refused_in_these_words(board, command, answer):
    board.until_ready()
    board.holds("db load 64", rf"m-\[Expecting 64 bytes\]\r\n{READY}")
    board.holds(command, answer + READY)


def inferred(calls, warm_up):
    lines = rf"m-warmup-start-{warm_up}\r\nm-warmup-done\r\nm-infer-start-{calls}\r\n"
    return rf"{lines}(?P<first>{LAP})(?P<last>{LAP})m-infer-done\r\n{RESULTS}{READY}"


@pytest.mark.parametrize(
    ("command", "calls", "warm_up"), [("infer 1 0", 1, 0), ("infer 3 2", 3, 2), ("infer 2", 2, 10)]
)
def test_an_inference_is_timed_and_its_results_follow(board, command, calls, warm_up):
    board.until_ready()
    load(board, range(64))
    match = board.holds(command, inferred(calls, warm_up))
    first, last = (int(re.search(r"\d+", match[name])[0]) for name in ("first", "last"))
    assert 0 < (last - first) % 2**32 < 60e6
    assert board.ask("results") == re.search(RESULTS, match[0])[0] + "m-ready\r\n"


def load(board, data):
    data = bytes(data)
    board.ask(f"db load {len(data)}")
    for start in range(0, len(data), 31):
        answer = board.ask(f"db {data[start : start + 31].hex()}")
    assert answer == "m-load-done\r\nm-ready\r\n"


def test_results_depend_on_the_input_and_on_nothing_else(board):
    board.until_ready()
    found = []
    for data in (range(64), [0] * 64, range(64)):
        load(board, data)
        found.append(re.search(RESULTS, board.ask("infer 1 0"))[0])
    assert found[0] == found[2] != found[1]
