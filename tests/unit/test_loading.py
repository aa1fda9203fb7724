"""What an agent is asked of a framework: a model loaded or made, versions, and what installs a missing one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pytest_mlbench import loading
from pytest_mlbench.deploy import Agent, agent_sources
from pytest_mlbench.deployment import _moved
from pytest_mlbench.devices.cpu import Cpu
from pytest_mlbench.errors import StageError, Unavailable
from pytest_mlbench.frameworks.api import Framework

VENDOR = Path(__file__).parents[1] / "vendor"
FAULTY = Framework("faulty", "faulty", "mlbench_faulty_adapter", "json", install="pip install mlbench-faulty")
OPTIONS = {"fault": "none", "stage": "load", "call_ms": 0, "reports": "fp32"}


@pytest.fixture(autouse=True)
def machine(tmp_path, monkeypatch):
    monkeypatch.setenv("MLBENCH_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("MLBENCH_FAULTY_LOG", str(tmp_path / "log"))
    monkeypatch.syspath_prepend(str(VENDOR))
    (tmp_path / "model.json").write_text('{"weights": [[1, 2], [3, 4]]}', encoding="utf-8")


@pytest.fixture
def agent(machine):
    with Agent(Cpu(), None, agent_sources(FAULTY)) as found:
        yield found


def load(agent, tmp_path, framework=FAULTY, **options):
    return loading.load(agent, framework, str(tmp_path / "model.json"), {**OPTIONS, **options}, 20.0)


def test_a_model_is_loaded_and_told(agent, tmp_path):
    loaded = load(agent, tmp_path)
    assert [spec["shape"] for spec in (*loaded.inputs, *loaded.outputs)] == [(-1, 2), (-1, 2)]
    assert loaded.versions["faulty"] == "1.0"
    assert loaded.load_ns > 0
    assert loaded.import_ns >= 0
    assert (loaded.clock, loaded.stages_ns) == ({}, {})


def test_a_module_that_is_missing_there_is_unavailable_with_the_install_line(agent, tmp_path):
    with pytest.raises(Unavailable, match="No module named 'mlbench_faulty_engine': pip install mlbench-faulty"):
        load(agent, tmp_path, fault="no_module")
    with pytest.raises(Unavailable, match="No module named 'no_such_framework': pip install mlbench-faulty"):
        load(agent, tmp_path, replace(FAULTY, module="no_such_framework"))


def test_a_model_is_made_in_the_folder_that_is_told(agent, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    source = str(tmp_path / "model.json")
    made = loading.prepare(agent, FAULTY, "compile", source, str(out), OPTIONS, 20.0)
    assert made == out / "compiled.json"
    assert made.read_text(encoding="utf-8") == (tmp_path / "model.json").read_text(encoding="utf-8")


def test_what_a_model_cannot_be_made_for_is_told_with_the_stage(agent, tmp_path):
    options = {**OPTIONS, "fault": "raise", "stage": "prepare"}
    with pytest.raises(StageError, match=r"^compile: RuntimeError: injected fault$"):
        loading.prepare(agent, FAULTY, "compile", str(tmp_path / "model.json"), str(tmp_path), options, 20.0)


def test_versions_of_another_machine_are_asked_for_once(tmp_path, monkeypatch):
    monkeypatch.setattr(loading, "_versions_there", {})
    there = Cpu()
    first = loading.versions_there(there, FAULTY, 20.0)
    assert first.startswith("[('faulty', '1.0')")
    monkeypatch.setattr(loading, "Agent", None)  # no other is started
    assert loading.versions_there(there, FAULTY, 20.0) == first


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        ("/cache/1/after.py", "/suites/a/after.py"),
        ("/cache/1/sub/after.py", "/suites/a/sub/after.py"),
        ("/cache/10/after.py", "/cache/10/after.py"),
        ("/usr/lib/x.py", "/usr/lib/x.py"),
    ],
)
def test_a_file_of_a_copied_tree_is_told_as_the_one_here(file, expected):
    assert _moved(file, "/cache/1", "/suites/a") == expected
