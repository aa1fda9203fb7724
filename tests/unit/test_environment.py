"""The machine, its state and the source's revision, as far as this machine tells them."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pytest_mlbench import environment

needs_git = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")


def test_the_processor_is_what_the_system_says():
    found = environment.processor()
    assert found["machine"] == platform.machine()
    assert found["cores"] == os.cpu_count()
    assert found["processor"]
    if sys.platform == "linux":
        assert found["cores_allowed"] == len(os.sched_getaffinity(0))
        assert set(found["flags"]) <= set(Path("/proc/cpuinfo").read_text().split())
        assert found["flags"] == sorted(found["flags"]) != []


def test_the_facts_are_json():
    for facts in (environment.host(), environment.state(), environment.revision(Path.cwd())):
        assert json.loads(json.dumps(facts)) == facts


def test_a_fact_that_the_machine_lacks_is_null(monkeypatch, tmp_path):
    monkeypatch.setattr(environment, "_CPU", tmp_path)
    assert environment.state()["governor"] is None
    (tmp_path / "cpu0" / "cpufreq").mkdir(parents=True)
    (tmp_path / "cpu0" / "cpufreq" / "scaling_governor").write_text("performance\n")
    assert environment.state()["governor"] == "performance"


def test_the_load_is_the_systems():
    assert environment.state()["load"] == pytest.approx(os.getloadavg(), abs=1.0)


# --- fingerprint --------------------------------------------------------------------------------------------

FACTS = {"target": {"node": "a", "cores": 4}, "versions": {"onnxruntime": "1.31"}, "options": {"threads": 1}}


def test_the_fingerprint_is_stable_in_any_order_and_process():
    turned = {"options": {"threads": 1}, "versions": {"onnxruntime": "1.31"}, "target": {"cores": 4, "node": "a"}}
    assert environment.fingerprint(FACTS) == environment.fingerprint(turned)
    code = f"from pytest_mlbench import environment; print(environment.fingerprint({turned!r}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout.strip() == environment.fingerprint(FACTS)
    assert environment.fingerprint(FACTS) == "343e8d73533b8605"  # kept in run files: must not change


@pytest.mark.parametrize(
    "other",
    [
        {**FACTS, "target": {"node": "b", "cores": 4}},
        {**FACTS, "target": {"node": "a", "cores": "4"}},
        {**FACTS, "options": {"threads": None}},
        {**FACTS, "options": {}},
        {**FACTS, "more": 1},
    ],
)
def test_the_fingerprint_changes_with_each_fact(other):
    assert environment.fingerprint(other) != environment.fingerprint(FACTS)


# --- sources ------------------------------------------------------------------------------------------------


def test_the_hash_of_sources_is_of_names_and_contents(tmp_path):
    def made(**files):
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        for name, text in files.items():
            path = folder / f"{name.replace('__', '/')}.py"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        return environment.sources_sha256(folder)

    first = made(a="1", b__c="2")
    assert made(b__c="2", a="1") == first
    others = [made(a="1"), made(a="12", b__c=""), made(a="1", b="2"), made(a="2", b__c="1"), made(a="1", b__d="2")]
    assert len({first, *others}) == 6


def test_what_is_no_source_does_not_count(tmp_path):
    (tmp_path / "a.py").write_text("1", encoding="utf-8")
    before = environment.sources_sha256(tmp_path)
    (tmp_path / "__pycache__").mkdir()
    (tmp_path / "__pycache__" / "a.cpython-311.pyc").write_bytes(b"x")
    assert environment.sources_sha256(tmp_path) == before


# --- revision -----------------------------------------------------------------------------------------------


@pytest.fixture
def repository(tmp_path, monkeypatch):
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    folder = tmp_path / "repository"
    folder.mkdir()

    def git(*arguments):
        identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
        command = ["git", "-C", str(folder), *identity, *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    git("init", "-q", "-b", "main")
    (folder / "sub").mkdir()
    (folder / "sub" / "file").write_text("one", encoding="utf-8")
    return folder, git


@needs_git
def test_the_revision_of_a_repository(repository):
    folder, git = repository
    assert environment.revision(folder) == {}  # nothing is committed yet
    git("add", ".")
    git("commit", "-qm", "first")
    clean = {"commit": git("rev-parse", "HEAD"), "dirty": False, "branch": "main"}
    assert environment.revision(folder) == clean
    assert environment.revision(folder / "sub") == clean
    (folder / "untracked").write_text("", encoding="utf-8")
    assert environment.revision(folder) == clean
    (folder / "sub" / "file").write_text("two", encoding="utf-8")
    assert environment.revision(folder) == {**clean, "dirty": True}
    git("add", ".")
    assert environment.revision(folder)["dirty"]
    git("checkout", "-q", "--detach")
    assert environment.revision(folder)["branch"] == "HEAD"


@needs_git
def test_outside_a_repository_there_is_no_revision(repository, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    assert environment.revision(outside) == {}
    assert environment.revision(outside / "missing") == {}


def test_without_git_there_is_no_revision(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert environment.revision(tmp_path) == {}
