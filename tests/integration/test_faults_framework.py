"""A framework that raises, hangs, crashes or is killed is an error of its one case; the run goes on.

One run holds all of these cases, so that each proves the next ones ran.
"""

from __future__ import annotations

import re

import pytest

HANGS = ("hang_python", "hang_gil", "stop")

# id of the framework -> fault, stage, outcome, what the reason says, what the terminal shows besides
FAULTS = {
    "raise_load": ("raise", "load", "error", r"load: RuntimeError: injected fault", "mlbench_faulty_adapter.py"),
    "raise_first": ("raise", "first", "error", r"first: RuntimeError: injected fault", "in invoke"),
    "raise_warm_up": ("raise", "warm-up", "error", r"warm-up: RuntimeError: injected fault", "in invoke"),
    "raise_measure": ("raise", "measure", "error", r"measure: RuntimeError: injected fault", "in invoke"),
    "raise_accuracy": ("raise", "accuracy", "error", r"accuracy: RuntimeError: injected fault", "in invoke"),
    "raise_placement": ("raise", "placement", "error", r"placement: RuntimeError: injected fault", "in placement"),
    "sys_exit_load": ("sys_exit", "load", "error", r"load: SystemExit: the framework gave up", "in happen"),
    "segfault_load": ("segfault", "load", "error", r"load: the agent ended: killed by SIGSEGV", "Segmentation fault"),
    "segfault_measure": (
        "segfault",
        "measure",
        "error",
        r"measure: the agent ended: killed by SIGSEGV",
        "Segmentation fault",
    ),
    "exit_first": ("exit", "first", "error", r"first: the agent ended: exit status 3", ""),
    "kill_measure": (
        "kill",
        "measure",
        "error",
        r"measure: the agent ended: killed by SIGKILL; it may have run out of memory",
        "",
    ),
    "kill_accuracy": ("kill", "accuracy", "error", r"accuracy: the agent ended: killed by SIGKILL", ""),
    "hang_python_load": (
        "hang_python",
        "load",
        "error",
        r"load: no answer within 1 s \(deadline `timeout_s`\); the agent was ended",
        'mlbench_faulty_adapter.py", line',
    ),
    "hang_python_measure": ("hang_python", "measure", "error", r"measure: no answer within 1 s", "in happen"),
    "hang_gil_first": ("hang_gil", "first", "error", r"first: no answer within 1 s", "in happen"),
    "hang_gil_measure": ("hang_gil", "measure", "error", r"measure: no answer within 1 s", "in happen"),
    "stop_measure": ("stop", "measure", "error", r"measure: no answer within 1 s", ""),
    "close_pipes_measure": (
        "close_pipes",
        "measure",
        "error",
        r"measure: the agent ended: its connection closed while its process lived on",
        "",
    ),
    "nan_accuracy": (
        "nan",
        "accuracy",
        "fail",
        r"outputs\.nan: output 'y' has NaN for 12 of 12 samples, first for sample 0: look at the model's inputs",
        "",
    ),
}


@pytest.fixture(scope="module")
def faults(make_bed):
    """Return the run of all faulty cases, one after another, with a sound case before and after them."""
    bed = make_bed()
    frameworks = [
        f'{{ name = "faulty", id = "{key}", options = {{ fault = "{fault}", stage = "{stage}" }} }}'
        for key, (fault, stage, *_) in FAULTS.items()
    ]
    hangs = ", ".join(f'"{key}"' for key, (fault, *_) in FAULTS.items() if fault in HANGS)
    bed.suite(
        '{ name = "faulty", id = "sound" }',
        *frameworks,
        '{ name = "faulty", id = "still_sound" }',
        benchmark=f"override = [{{ when = {{ framework = [{hangs}] }}, set = {{ timeout_s = 1 }} }}]",
    )
    return bed.run()


@pytest.mark.parametrize("key", FAULTS)
def test_a_fault_is_an_error_of_its_case_that_names_the_stage(faults, key):
    _, stage, outcome, reason, shown = FAULTS[key]
    record = faults.records[key]
    assert (record.outcome, record.stage) == (outcome, stage if outcome == "error" else "")
    assert re.search(reason, record.reason), record.reason
    heading = f"error({stage}): {record.case}: " if outcome == "error" else f"fail: {record.case}:"
    begin = faults.out.index(heading)
    part = faults.out[begin : faults.out.find("\n____", begin)]
    assert shown in part
    assert "pytest_mlbench/bench.py" not in part, "a message for people, and no traceback of ours"


def test_the_rest_of_the_run_goes_on(faults):
    assert list(faults.records) == ["sound", *FAULTS, "still_sound"]
    assert faults.records["sound"].outcome == faults.records["still_sound"].outcome == "pass"
    assert faults.records["still_sound"].metric("latency.p50").value > 0
    assert f"{len(FAULTS)} failed, 2 passed" in faults.out
    assert faults.code == 1  # an output of NaN is a failure, the others alone would be 12
