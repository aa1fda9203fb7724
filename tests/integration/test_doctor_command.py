"""The real `mlbench doctor` on this machine: left alone, held to one core, and disturbed on purpose."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

needs_affinity = pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="holds processes to one core")


def doctor(*arguments: str, core: int | None = None) -> subprocess.CompletedProcess[str]:
    """Run the command, on one core only if one is given."""
    code = "import os, sys\n"
    code += f"os.sched_setaffinity(0, {{{core}}})\n" if core is not None else ""
    code += f"from pytest_mlbench.cli import main\nsys.exit(main(['doctor', *{list(arguments)!r}]))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.stderr == ""
    return done


def findings(done: subprocess.CompletedProcess[str]) -> dict[str, dict[str, str]]:
    return {finding["name"]: finding for finding in json.loads(done.stdout)["findings"]}


@contextlib.contextmanager
def busy(core: int) -> Iterator[None]:
    """Keep a core busy with a process that is none of the doctor's."""
    code = f"import os, time\nos.sched_setaffinity(0, {{{core}}})\nprint(flush=True)\nend = time.monotonic() + 60\n"
    code += "while time.monotonic() < end: pass"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()
            yield
        finally:
            process.kill()


def test_it_judges_this_machine():
    done = doctor("--format", "json")
    found = findings(done)
    verdicts = {finding["verdict"] for finding in found.values()}
    assert verdicts <= {"good", "could be better", "bad", "unknown"}
    assert done.returncode == int("bad" in verdicts)
    for name, finding in found.items():
        assert finding["found"], name
        assert finding["remedy"] or finding["verdict"] in ("good", "unknown"), name
        assert not (finding["remedy"] and finding["verdict"] == "good"), name
    assert found["timer"]["verdict"] != "unknown"
    if sys.platform.startswith("linux"):
        assert found["memory"]["verdict"] != "unknown"
        assert " busy with other processes" in found["other load"]["found"]
        virtual = "hypervisor" in Path("/proc/cpuinfo").read_text().split()
        assert found["virtual machine"]["found"].startswith("yes") or not virtual


def test_the_table_has_the_same_checks():
    done = doctor()
    rows = done.stdout.split("\n\n")[0].splitlines()[2:]
    columns = [[cell.strip() for cell in row.split("  ") if cell] for row in rows]
    assert [name for name, *_ in columns] == list(findings(doctor("--format", "json")))
    assert done.returncode == int(any(verdict == "bad" for _, verdict, *_ in columns))


@needs_affinity
def test_it_sees_that_it_may_use_one_core_only():
    found = findings(doctor("--format", "json", core=min(os.sched_getaffinity(0))))
    assert found["cores"]["found"].startswith("1 of ")
    assert found["cores"]["verdict"] == "could be better"


@needs_affinity
def test_a_core_shared_with_a_busy_process_is_unfit():
    core = min(os.sched_getaffinity(0))
    with busy(core):
        done = doctor("--format", "json", core=core)
    found = findings(done)
    assert done.returncode == 1
    for name in ("burn-in", "other load"):
        assert found[name]["verdict"] == "bad", found[name]
        assert found[name]["remedy"].startswith("end what else runs here: ")
