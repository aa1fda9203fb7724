"""Ctrl-C and kills of pytest itself: finished records are kept, and no agent outlives the run."""

from __future__ import annotations

import signal

import pytest

from pytest_mlbench.stores import runfile

QUICK = '{ name = "faulty", id = "quick" }'
HELD = '{ name = "faulty", id = "held", options = { fault = "hold", stage = "measure" } }'
STUCK = '{ name = "faulty", id = "held", options = { fault = "hang_gil", stage = "measure" } }'
LOADING = '{ name = "faulty", id = "held", options = { fault = "hold", stage = "load" } }'
AFTER = '{ name = "faulty", id = "after" }'


def started(bed, case):
    """Start a run and return it once its second case has come to the stage where it stays."""
    bed.held.touch()
    bed.suite(QUICK, case, AFTER)
    running = bed.start()
    if case == STUCK:
        bed.wait_for_event("measure", 2)
    else:
        bed.wait_for_event("hold")
    return running


def started_with_workers(bed):
    """Start a run on two workers, one of which stays in its second case while the other waits for the device."""
    bed.held.touch()
    bed.suite(QUICK, HELD, AFTER)
    bed.suite(*[f'{{ name = "faulty", id = "other{number}" }}' for number in range(9)], name="others")
    running = bed.start("-n", "2", "--dist", "loadfile")
    bed.wait_for_event("hold")
    return running


@pytest.mark.parametrize("case", [HELD, STUCK, LOADING], ids=["python", "native", "load"])
def test_ctrl_c_keeps_finished_records_and_ends_the_agent(bed, case):
    running = started(bed, case)
    running.signal(signal.SIGINT, group=True)
    result = running.wait(10)
    assert result.code == pytest.ExitCode.INTERRUPTED
    assert {key: record.outcome for key, record in result.records.items()} == {"quick": "pass"}
    assert result.run.footer["exitstatus"] == 2
    assert not runfile.parts_dir(bed.run_file).exists()
    assert "1 case: 1 pass. Run file: " in result.out
    assert "KeyboardInterrupt" in result.out


def test_ctrl_c_with_workers_keeps_finished_records_and_ends_the_agents(bed):
    running = started_with_workers(bed)
    running.signal(signal.SIGINT, group=True)
    result = running.wait(15)
    assert result.code == pytest.ExitCode.INTERRUPTED
    assert result.records["quick"].outcome == "pass"
    assert "held" not in result.records
    assert result.run.footer["exitstatus"] == 2


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=lambda number: number.name)
@pytest.mark.parametrize("case", [HELD, STUCK], ids=["python", "native"])
def test_a_killed_pytest_leaves_its_records_and_no_agent(bed, case, number):
    running = started(bed, case)
    assert any("sys.stdin.readline" in command for command in bed.processes().values()), "an agent is there to be left"
    running.signal(number)
    result = running.wait(5)  # checks that the agent is gone within a second
    assert result.code == -number
    assert {key: record.outcome for key, record in result.records.items()} == {"quick": "pass"}
    assert result.run.footer == {}
    assert not bed.run_file.exists()
    assert runfile.parts_dir(bed.run_file).is_dir()


def test_a_killed_pytest_takes_its_workers_and_their_agents_along(bed):
    running = started_with_workers(bed)
    assert len(bed.processes()) >= 4  # pytest, two workers, an agent
    running.signal(signal.SIGKILL)
    result = running.wait(5)
    assert result.code == -signal.SIGKILL
    assert result.records["quick"].outcome == "pass"


def test_with_workers_a_crash_is_an_error_of_its_case(bed):
    crash = '{ name = "faulty", id = "crash", options = { fault = "segfault", stage = "measure" } }'
    bed.suite(QUICK, crash, AFTER, '{ name = "faulty", id = "last" }')
    result = bed.run("-n", "2")
    outcomes = {key: record.outcome for key, record in result.records.items()}
    assert outcomes == {"quick": "pass", "crash": "error", "after": "pass", "last": "pass"}
    assert result.records["crash"].reason == "measure: the agent ended: killed by SIGSEGV"
    assert list(outcomes) == ["quick", "crash", "after", "last"], "in the order of the suite"
    assert result.code == 12
