"""Boards over a real sshd that do not answer: what brings them back, what is given up. The test gives the power."""

from __future__ import annotations

import json
import sys

import jsonschema
import pytest

from pytest_mlbench.schemas import load_schema

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc and sends POSIX signals")

DEVICE = 'device = ["pi5"]'
HOLD = '{ name = "faulty", options = { fault = "hold", stage = "measure" } }'
STEPS = ["reopen", "power_cycle"]


class Mains:
    """A power strip: the program that a lab file names writes a line for each cycle, and the test gives the power."""

    def __init__(self, board, server):
        self.log = board.root / "power.log"
        self.script = board.root / "strip"
        self.board, self.server = board, server
        self.write("exit 0")

    def write(self, then):
        self.script.write_text(f'#!/bin/sh\necho "$@" >> "{self.log}"\n{then}\n', encoding="utf-8")
        self.script.chmod(0o755)

    def wire(self, **settings):
        switch = {"kind": "command", "cycle": [str(self.script), "cycle", "3"], "deadline_s": 20.0}
        settings = {"boot_timeout_s": 30.0, "connect_timeout_s": 2, **settings}
        self.board.env["MLBENCH_LAB"] = str(self.server.lab(switch=switch, **settings))

    @property
    def cycles(self):
        return self.log.read_text(encoding="utf-8").splitlines() if self.log.exists() else []

    def start_board_when_switched(self):
        """Start sshd as the board's boot would, once the strip was asked."""
        self.board.wait_for(lambda: self.cycles, "the strip was asked")
        self.server.start()


@pytest.fixture
def board(ssh_server, bed):
    """A bed whose suites run on an sshd; what runs there carries the bed's mark and writes its log."""
    passed = ("MLBENCH_TEST_TAG", "MLBENCH_FAULTY_LOG", "MLBENCH_FAULTY_HOLD")
    ssh_server.stop()
    ssh_server.env = {name: bed.env[name] for name in passed}
    ssh_server.start()
    bed.env["MLBENCH_LAB"] = str(ssh_server.lab(connect_timeout_s=2))
    return bed


@pytest.fixture
def mains(board, ssh_server):
    found = Mains(board, ssh_server)
    found.wire()
    return found


def finished(running):
    """Return a run's result; all that it wrote holds the published schema."""
    result = running.wait(90)
    schema = load_schema()
    for line in running._run_file.read_text(encoding="utf-8").splitlines():
        values = json.loads(line)
        own = {**schema["$defs"][values["kind"]], "$defs": schema["$defs"]}
        assert not list(jsonschema.Draft202012Validator(own).iter_errors(values)), values
    return result


def told(record):
    return [(step["step"], step["helped"]) for step in record.target["recovered"]]


# --- what is brought back -----------------------------------------------------------------------------------


def test_a_board_that_is_off_is_switched_on_and_the_record_tells_how(board, ssh_server, mains):
    ssh_server.stop()
    board.suite(benchmark=DEVICE)
    running = board.start()
    mains.start_board_when_switched()
    result = finished(running)
    assert result.code == 0, result.out
    record = result.records["faulty"]
    assert record.outcome == "pass"
    assert told(record) == [("reopen", False), ("power_cycle", True)]
    first = record.target["recovered"][0]
    assert first["what"] == "connect"
    assert "device 'pi5': no sshd listens there" in first["because"]
    assert all(step["duration_ns"] > 0 for step in record.target["recovered"])
    assert mains.cycles == ["cycle 3"]
    assert record.target["interpreter"] == sys.executable, "the rest of the target is there too"
    assert ssh_server.sessions() == [], "a connection was left"


def test_a_board_that_is_lost_in_a_case_is_switched_on_and_the_case_done_again(board, ssh_server, mains):
    board.held.touch()
    board.suite(HOLD, benchmark=DEVICE)
    running = board.start()
    board.wait_for_event("hold")
    ssh_server.stop()
    board.held.unlink()
    mains.start_board_when_switched()
    result = finished(running)
    assert result.code == 0, result.out
    record = result.records["faulty"]
    assert told(record) == [("reopen", False), ("power_cycle", True)]
    assert record.target["recovered"][0]["what"] == "measure"
    assert "device 'pi5': the connection was cut" in record.target["recovered"][0]["because"]
    assert board.count("load") == 2
    assert mains.cycles == ["cycle 3"]
    assert "device 'pi5' does not answer; to bring it back: reopen, power_cycle" in result.out


def test_the_next_case_finds_a_board_that_was_brought_back(board, ssh_server, mains):
    ssh_server.stop()
    board.suite(benchmark=DEVICE)
    board.suite(benchmark=DEVICE, name="others")
    running = board.start()
    mains.start_board_when_switched()
    result = finished(running)
    assert result.code == 0, result.out
    first, second = result.run.records
    assert told(first) == [("reopen", False), ("power_cycle", True)]
    assert "recovered" not in second.target
    assert mains.cycles == ["cycle 3"]


# --- what is given up ---------------------------------------------------------------------------------------


def two_cases(board):
    board.suite(benchmark=DEVICE)
    board.suite(benchmark=DEVICE, name="others")
    result = finished(board.start())
    assert result.code == 12, result.out
    first, second = result.run.records
    assert (first.outcome, second.outcome) == ("error", "error")
    return result, first, second


def given_up(first, second):
    """Assert that the second case failed at once, by what became of the first."""
    assert second.stage == "quarantine"
    assert second.reason.startswith(f"quarantine: device pi5 was given up in {first.case}: {first.stage}: connect: ")
    assert "It is not used again in this session; look at the board (power, cable, image)" in second.reason
    assert second.target == {"device": "pi5", "recovered": []}


def test_a_power_cycle_that_does_not_help_is_the_last_try_of_the_session(board, ssh_server, mains):
    mains.wire(boot_timeout_s=0.5)
    ssh_server.stop()
    result, first, second = two_cases(board)
    assert first.stage == "start"
    assert first.reason.startswith("start: connect: device 'pi5': no sshd listens there")
    assert "Nothing brought the board back. reopen: device 'pi5': no sshd listens there" in first.reason
    assert (
        "power_cycle: no answer within 0.5 s (boot_timeout_s) after its power was switched; the last try: device"
        in (first.reason)
    )
    assert told(first) == [("reopen", False), ("power_cycle", False)]
    assert set(first.target) == {"device", "recovered"}
    given_up(first, second)
    assert mains.cycles == ["cycle 3"]
    assert "recovery: power_cycle, because" in result.out, "the traffic is shown"


@pytest.mark.parametrize(
    ("then", "message"),
    [
        ("echo 'outlet 3 is locked' >&2; exit 3", "` failed with exit status 3: outlet 3 is locked"),
        ("sleep 60", "` did not end within 0.5 s (deadline_s) and was ended"),
    ],
)
def test_a_switch_that_fails_is_told(board, ssh_server, mains, then, message):
    mains.write(then)
    switch = {"kind": "command", "cycle": [str(mains.script)], "deadline_s": 0.5}
    board.env["MLBENCH_LAB"] = str(ssh_server.lab(switch=switch))
    ssh_server.stop()
    _, first, second = two_cases(board)
    assert f"power_cycle: power switch: `{mains.script}{message}" in first.reason
    given_up(first, second)


def test_without_a_switch_a_board_that_does_not_answer_is_given_up_too(board, ssh_server):
    ssh_server.stop()
    _, first, second = two_cases(board)
    assert "Nothing brought the board back. reopen: device 'pi5': no sshd listens there" in first.reason
    assert told(first) == [("reopen", False)]
    given_up(first, second)


def test_a_board_that_is_lost_again_after_its_power_was_switched_is_given_up(board, ssh_server, mains):
    board.held.touch()
    board.suite(HOLD, benchmark=DEVICE)
    running = board.start()
    board.wait_for_event("hold")
    ssh_server.stop()
    mains.start_board_when_switched()
    board.wait_for_event("hold", 2)
    ssh_server.stop()
    result = finished(running)
    (record,) = result.run.records
    assert (record.outcome, record.stage) == ("error", "measure"), result.out
    assert "Nothing brought the board back. reopen: device 'pi5': no sshd listens there" in record.reason
    assert told(record) == [("reopen", False), ("power_cycle", True), ("reopen", False)]
    assert mains.cycles == ["cycle 3"], "once a case"


# --- what no reset helps ------------------------------------------------------------------------------------


@pytest.mark.parametrize("refusal", ["changed", "unknown", "login"])
def test_a_board_that_refuses_is_not_switched_and_not_given_up(board, ssh_server, mains, refusal):
    if refusal == "login":
        (ssh_server.folder / "authorized_keys").write_text("")
    else:
        ssh_server.know(ssh_server.folder / "user_key.pub" if refusal == "changed" else None)
    message = {"changed": "its host key changed", "unknown": "its host key is not known", "login": "it refused our key"}
    _, first, second = two_cases(board)
    for record in (first, second):
        assert record.reason.startswith(f"start: device 'pi5': {message[refusal]}")
        assert record.target == {}
    assert mains.cycles == []


def test_another_host_key_after_the_power_cycle_is_told_as_such(board, ssh_server, mains):
    ssh_server.stop()
    board.suite(benchmark=DEVICE)
    running = board.start()
    board.wait_for(lambda: mains.cycles, "the strip was asked")
    ssh_server.start(host_key="user_key")
    result = finished(running)
    (record,) = result.run.records
    assert record.reason.startswith("start: device 'pi5': its host key changed"), result.out
    assert told(record) == [("reopen", False), ("power_cycle", False)]


def test_a_board_that_answers_is_not_switched_when_an_agent_is_lost(board, ssh_server, mains):
    board.suite('{ name = "faulty", options = { fault = "kill", stage = "measure", spare = 0 } }', benchmark=DEVICE)
    board.suite(benchmark=DEVICE, name="others")
    result = finished(board.start())
    outcomes = {record.case.partition("/")[0]: record.outcome for record in result.run.records}
    assert outcomes == {"faults": "error", "others": "pass"}, result.out
    assert board.count("load") == 2, "the case that failed was not done again"
    assert mains.cycles == []
    assert all("recovered" not in record.target for record in result.run.records)


def test_who_waits_for_the_board_is_told_which_case_holds_it(board):
    board.held.touch()
    board.suite(HOLD, benchmark=DEVICE)
    holder = board.start(output=board.project / "one.jsonl")
    board.wait_for_event("hold")
    board.suite(benchmark=DEVICE, name="others")
    other_host = str(board.root / "another-hosts-state")  # the lock that keeps it out is the board's own
    second = board.start(
        "suites/others", "--mlbench-lease-timeout=0.5", output=board.project / "two.jsonl", MLBENCH_STATE=other_host
    )
    second._process.wait(60)
    text = " ".join(second._output.read_text().split())
    assert "on the board 'cpu' is held by process" in text
    assert ", case faults/run[net-faulty-fp32-pi5]" in text
    board.held.unlink()
    assert holder.wait().code == 0
