"""Agents as processes: what travels, arrays there and back, how each kind of death is told, what is left."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pytest_mlbench import deploy, lease, loading
from pytest_mlbench.deploy import Agent, agent_sources, target_module
from pytest_mlbench.devices.cpu import Cpu
from pytest_mlbench.errors import AgentLost, StageError, SuiteError
from pytest_mlbench.frameworks import litert, onnxruntime, openvino, tvm
from pytest_mlbench.frameworks.api import Framework

VENDOR = Path(__file__).parents[1] / "vendor"
FAULTY = Framework("faulty", "faulty", "mlbench_faulty_adapter", "json", install="pip install mlbench-faulty")
OPTIONS = {"fault": "none", "stage": "load", "call_ms": 0, "reports": "fp32"}
posix = pytest.mark.skipif(sys.platform == "win32", reason="POSIX processes")


@pytest.fixture(autouse=True)
def machine(tmp_path, monkeypatch):
    monkeypatch.setenv("MLBENCH_STATE", str(tmp_path / "state"))
    monkeypatch.syspath_prepend(str(VENDOR))
    (tmp_path / "model.json").write_text('{"weights": [[1, 2], [3, 4]]}', encoding="utf-8")


@pytest.fixture
def start():
    """Start agents; those a test did not end are ended."""
    with contextlib.ExitStack() as stack:
        yield lambda framework=FAULTY: stack.enter_context(Agent(Cpu(), None, agent_sources(framework)))


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """One agent for tests that change nothing in it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLBENCH_STATE", str(tmp_path_factory.mktemp("state")))
        with Agent(Cpu(), None, agent_sources()) as agent:
            yield agent


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def gone(pid, within_s=2.0):
    end = time.monotonic() + within_s
    while alive(pid) and time.monotonic() < end:
        time.sleep(0.01)
    return not alive(pid)


def load(agent, tmp_path, framework=FAULTY, **options):
    return loading.load(agent, framework, str(tmp_path / "model.json"), {**OPTIONS, **options}, 20.0)


# --- what travels -------------------------------------------------------------------------------------------


def test_the_agent_travels_without_its_bootstrap():
    sources = agent_sources()
    assert {"mlbench_agent", "mlbench_agent.api", "mlbench_agent.serve", "mlbench_agent.worker"} <= set(sources)
    assert {"mlbench_agent.adapters", "mlbench_agent.adapters.binding"} <= set(sources)
    assert not [name for name in sources if name.endswith(("bootstrap", "__init__"))]
    assert all("from pytest_mlbench" not in text and "import pytest_mlbench" not in text for text in sources.values())


@pytest.mark.parametrize(
    "description",
    [litert.FRAMEWORK, litert.TFLITE_RUNTIME, onnxruntime.FRAMEWORK, openvino.FRAMEWORK, tvm.FRAMEWORK],
    ids=lambda one: one.name,
)
def test_the_adapters_of_the_built_in_frameworks_travel_in_the_agents_package(description):
    assert target_module(description.adapter) in agent_sources()
    assert set(agent_sources(description)) == set(agent_sources())


def test_a_vendors_adapter_travels_under_a_package_of_its_own():
    shipped = replace(FAULTY, shipped=("mlbench_faulty",))
    sources = agent_sources(shipped)
    text = (VENDOR / "mlbench_faulty_adapter.py").read_text(encoding="utf-8")
    assert sources["mlbench_adapters.mlbench_faulty_adapter"] == text
    assert "mlbench_adapters.mlbench_faulty" in sources
    assert sources["mlbench_adapters"] == ""


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("pytest_mlbench.agent.adapters.tvm_adapter", "mlbench_agent.adapters.tvm_adapter"),
        ("pytest_mlbench.agent.onnx_precision", "mlbench_agent.onnx_precision"),
        ("vendor.deep.npu_adapter", "mlbench_adapters.npu_adapter"),
        ("npu_adapter", "mlbench_adapters.npu_adapter"),
    ],
)
def test_the_name_of_a_module_on_the_target(module, name):
    assert target_module(module) == name


def test_an_adapter_that_cannot_be_found_is_named():
    for module in ("no_such_adapter", "no_such_package.adapter"):
        with pytest.raises(SuiteError, match=f"adapter module '{module}' cannot be found; reinstall"):
            agent_sources(replace(FAULTY, adapter=module))


# --- life ---------------------------------------------------------------------------------------------------


@posix
def test_leaving_the_agent_leaves_no_process_and_no_file(tmp_path, monkeypatch):
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    with Agent(Cpu(), None, agent_sources()) as agent:
        pid = agent.hello["pid"]
        assert alive(pid)
        assert pid != os.getpid()
        assert list(folder.iterdir()) == []  # open, and without a name
    assert gone(pid)
    assert list(folder.iterdir()) == []


@posix
def test_leaving_by_an_exception_does_not_wait_for_an_agent_that_hangs(tmp_path):
    with pytest.raises(KeyboardInterrupt), Agent(Cpu(), None, agent_sources(FAULTY)) as agent:
        pid = agent.hello["pid"]
        arguments = {"adapter": "mlbench_adapters.mlbench_faulty_adapter", "framework": "json"}
        arguments |= {"path": str(tmp_path / "model.json"), "options": {**OPTIONS, "fault": "hang_gil"}}
        agent._channel.send(("load", arguments, 60.0))
        time.sleep(0.2)
        begin = time.monotonic()
        raise KeyboardInterrupt
    assert time.monotonic() - begin < 0.9  # execnet alone waits for a second before it ends a process
    assert gone(pid)


def test_the_working_directory_does_not_shadow_what_the_agent_imports(tmp_path, monkeypatch, start):
    (tmp_path / "colorsys.py").write_text("raise RuntimeError('shadowed')\n", encoding="utf-8")
    (tmp_path / "own.py").write_text("import colorsys, sys\ndef f(b): return b\npath = sys.path\n", encoding="utf-8")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "own.py").rename(tmp_path / "elsewhere" / "own.py")
    monkeypatch.chdir(tmp_path)
    agent = start()
    found = agent.call("inputs", "functions", 10.0, pre="own:f", post=None, paths=[str(tmp_path / "elsewhere")])
    assert found["preprocess"]["file"] == str(tmp_path / "elsewhere" / "own.py")


def test_an_interpreter_that_is_none(tmp_path):
    no_python = tmp_path / "python"
    with pytest.raises(StageError, match=r"start: cannot start an agent with python=.*/python") as caught:
        Agent(Cpu(), no_python, agent_sources()).__enter__()
    assert caught.value.stage == "start"


@posix
def test_an_interpreter_that_never_answers(tmp_path, monkeypatch):
    monkeypatch.setattr(deploy, "START_DEADLINE_S", 0.3)
    silent = tmp_path / "python"
    silent.write_text("#!/bin/sh\nexec sleep 60\n", encoding="utf-8")
    silent.chmod(0o755)
    with pytest.raises(StageError) as caught:
        Agent(Cpu(), silent, agent_sources()).__enter__()
    assert str(caught.value) == f"start: {silent} did not answer within 0.3 s; it must be a Python interpreter"


@posix
def test_an_interpreter_without_numpy_is_told_from_what_it_printed(tmp_path):
    wrapper = tmp_path / "python"
    wrapper.write_text(f'#!/bin/sh\nexec "{sys._base_executable}" -I -S "$@"\n', encoding="utf-8")
    wrapper.chmod(0o755)
    with pytest.raises(StageError) as caught:
        Agent(Cpu(), wrapper, agent_sources()).__enter__()
    assert "No module named 'numpy'" in str(caught.value) + caught.value.detail


@posix
def test_the_agent_keeps_the_device_busy_for_as_long_as_it_lives(start):
    agent = start()
    with pytest.raises(StageError, match="still used by an agent"), lease.hold(("cpu",), timeout_s=0.1):
        pass
    agent.__exit__(None, None, None)
    with lease.hold(("cpu",), timeout_s=1.0):
        pass


# --- arrays -------------------------------------------------------------------------------------------------


def test_a_large_array_arrives_whole_and_comes_back(start, tmp_path):
    """20 MB of it: several pieces there, and its sums (an output of the same size) back."""
    (tmp_path / "model.json").write_text('{"weights": [[1, 0], [0, 1]]}', encoding="utf-8")
    agent = start()
    rows = np.random.default_rng(0).standard_normal((2_600_000, 2)).astype(np.float32)
    assert rows.nbytes > 20_000_000
    agent.send_array("x", rows, 20.0)
    agent.call("inputs", "steps", 20.0, steps=[], mapping={})
    load(agent, tmp_path)
    fitted = agent.call("inputs", "fit", 20.0, batch=1_300_000, boundary="invoke", seed=0)
    assert fitted["samples"] == 2_600_000
    (found,) = agent.fetch_arrays(agent.call("accuracy", "run_outputs", 20.0), 20.0).values()
    assert (found.shape, found.dtype) == (rows.shape, rows.dtype)
    assert found.tobytes() == rows.tobytes()


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((0, 3), np.float32),
        np.arange(6, dtype=">i2").reshape(2, 3),
        np.asfortranarray(np.eye(3)),
        np.array([True]),
    ],
    ids=["empty", "big-endian", "by-columns", "bool"],
)
def test_any_plain_array_can_be_sent(shared, array):
    shared.send_array("x", array, 5.0)
    assert shared.call("inputs", "steps", 5.0, steps=[], mapping={}) is None


def test_an_empty_array_is_one_piece(shared, monkeypatch):
    asked = []
    monkeypatch.setattr(shared, "call", lambda *_, **given: asked.append((given["data"], given["done"])))
    shared.send_array("x", np.zeros((0, 3), np.float32), 5.0)
    assert asked == [(b"", True)]


def test_each_piece_is_acknowledged(shared, monkeypatch):
    monkeypatch.setattr(deploy, "CHUNK_BYTES", 1000)
    asked = []
    call = shared.call
    monkeypatch.setattr(shared, "call", lambda *a, **k: (asked.append(len(k["data"])), call(*a, **k))[1])
    shared.send_array("x", np.zeros(2500, np.uint8), 5.0)
    assert asked == [1000, 1000, 500]


# --- failures -----------------------------------------------------------------------------------------------


def test_what_a_verb_raises_is_told_with_its_stage_and_traceback(start, tmp_path):
    agent = start()
    with pytest.raises(StageError) as caught:
        load(agent, tmp_path, fault="raise")
    assert str(caught.value) == "load: RuntimeError: injected fault"
    assert "mlbench_adapters/mlbench_faulty_adapter.py" in caught.value.detail
    assert 'raise RuntimeError("injected fault")' in caught.value.detail  # its lines are kept, though no file is there
    assert load(agent, tmp_path).versions["faulty"] == "1.0"  # and the agent goes on


def test_what_the_agent_refuses_is_the_suites_error(shared):
    with pytest.raises(SuiteError, match="no model is loaded"):
        shared.call("inputs", "fit", 5.0, batch=1, boundary="invoke", seed=0)


def test_a_verb_that_is_none_is_told(shared):
    with pytest.raises(StageError, match="has no attribute 'no_such_verb'"):
        shared.call("measure", "no_such_verb", 5.0)


DEATHS = {
    "exit": r"load: the agent ended: exit status 3",
    "kill": r"load: the agent ended: killed by SIGKILL; it may have run out of memory",
    "segfault": r"load: the agent ended: killed by SIGSEGV",
    "hang_python": r"load: no answer within 0.3 s \(deadline `timeout_s`\); the agent was ended",
    "hang_gil": r"load: no answer within 0.3 s \(deadline `timeout_s`\); the agent was ended",
}
PRINTED = {"segfault": "Segmentation fault", "hang_python": "in hang_python", "hang_gil": "in hang_gil"}


@posix
@pytest.mark.parametrize("fault", DEATHS)
def test_how_an_agent_died(start, tmp_path, fault):
    agent = start()
    deadline = 0.3 if fault.startswith("hang") else 20.0
    with pytest.raises(AgentLost, match=DEATHS[fault]) as caught:
        loading.load(agent, FAULTY, str(tmp_path / "model.json"), {**OPTIONS, "fault": fault}, deadline)
    assert caught.value.stage == "load"
    assert PRINTED.get(fault, "") in caught.value.detail
    with pytest.raises(AgentLost):  # and so is each later call, at once
        agent.call("measure", "counters", 5.0)
    agent.__exit__(None, None, None)
    assert gone(agent.hello["pid"])


@posix
def test_an_agent_whose_own_watchdog_is_stopped_is_ended_from_outside(start, tmp_path, monkeypatch):
    monkeypatch.setattr(deploy, "GRACE_S", 0.2)
    agent = start()
    with pytest.raises(AgentLost, match=r"no answer within 0.1 s"):
        loading.load(agent, FAULTY, str(tmp_path / "model.json"), {**OPTIONS, "fault": "stop"}, 0.1)
    agent.__exit__(None, None, None)
    assert gone(agent.hello["pid"])


def test_a_deadline_is_each_verbs_own(start):
    agent = start()
    for _ in range(3):
        agent.call("measure", "counters", 0.4)
    time.sleep(0.5)  # between verbs no deadline runs
    assert agent.call("measure", "counters", 0.4)["used"]
