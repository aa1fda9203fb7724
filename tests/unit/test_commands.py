"""Programs run to their end: what they print, how they end, and that a deadline ends all of them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pytest_mlbench import commands

needs_proc = pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="looks processes up in /proc")
PYTHON = (sys.executable, "-I", "-c")


def gone(pid):
    """Wait until a process has ended; a zombie has."""
    for _ in range(500):
        try:
            if Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0] == "Z":
                return True
        except OSError:
            return True
        time.sleep(0.01)
    return False


def test_status_and_output_come_back():
    code = "import sys; print('out'); print('err', file=sys.stderr); sys.exit(3)"
    assert commands.run([*PYTHON, code], deadline_s=30) == commands.Done(3, "out\n", "err\n")


def test_output_may_go_to_a_log(tmp_path):
    with (tmp_path / "log").open("wb") as stream:
        code = "import sys; print('out', flush=True); print('err', file=sys.stderr)"
        assert commands.run([*PYTHON, code], deadline_s=30, log=stream) == commands.Done(0)
    assert (tmp_path / "log").read_text(encoding="ascii") == "out\nerr\n"


def test_a_path_of_any_bytes_survives():
    done = commands.run([*PYTHON, r"import sys; sys.stdout.buffer.write(b'/\xff\xc3\xa9')"], deadline_s=30)
    assert os.fsencode(done.out) == b"/\xff\xc3\xa9"


def test_what_is_no_text_is_shown_all_the_same():
    done = commands.run([*PYTHON, r"import sys; sys.stderr.buffer.write(b'bad \xff byte')"], deadline_s=30)
    assert done.err == "bad \N{REPLACEMENT CHARACTER} byte"


def test_folder_and_environment(tmp_path):
    code = "import os; print(os.getcwd(), os.environ['WORD'], 'HOME' in os.environ)"
    done = commands.run([*PYTHON, code], deadline_s=30, folder=tmp_path, environment={"WORD": "yes"})
    assert done.out.split() == [str(tmp_path.resolve()), "yes", "False"]


def test_nothing_can_be_asked():
    code = "import sys; print(repr(sys.stdin.read()))\ntry: open('/dev/tty')\nexcept OSError: print('no terminal')"
    assert commands.run([*PYTHON, code], deadline_s=30).out.splitlines() == ["''", "no terminal"]


def test_a_program_that_is_not_there():
    with pytest.raises(FileNotFoundError):
        commands.run(["no-program-of-this-name"], deadline_s=30)


# Starts a process that holds the same pipes, tells its number and sleeps.
FAMILY = """
import os, sys, subprocess, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
with open(sys.argv[1] + ".part", "w") as stream: stream.write(f"{os.getpid()} {child.pid}")
os.rename(sys.argv[1] + ".part", sys.argv[1])
time.sleep(600)
"""


@needs_proc
def test_a_deadline_ends_the_program_and_what_it_started(tmp_path):
    with pytest.raises(subprocess.TimeoutExpired):
        commands.run([*PYTHON, FAMILY, str(tmp_path / "pids")], deadline_s=3)
    pids = (tmp_path / "pids").read_text(encoding="ascii").split()
    assert len(pids) == 2
    assert all(gone(pid) for pid in pids)


@needs_proc
def test_an_interrupt_ends_them_too(tmp_path):
    code = "import sys; from pytest_mlbench import commands\n"
    code += "commands.run([sys.executable, '-c', sys.argv[2], sys.argv[1]], deadline_s=600)"
    outer = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "pids"), FAMILY], stderr=subprocess.PIPE)
    with outer:
        for _ in range(3000):
            if (tmp_path / "pids").exists():
                break
            time.sleep(0.01)
        outer.send_signal(signal.SIGINT)
        assert b"KeyboardInterrupt" in outer.communicate(timeout=30)[1]
    pids = (tmp_path / "pids").read_text(encoding="ascii").split()
    assert all(gone(pid) for pid in pids)


def test_the_last_lines():
    assert commands.last_lines("one\n\n two  \n\nthree\n \n", 2) == "   two\n  three"
    assert commands.last_lines("", 5) == ""
