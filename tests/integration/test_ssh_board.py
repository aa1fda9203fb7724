"""Whole sessions on a board over a real sshd: what works, and each fault with its message and nothing left behind."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc and sends POSIX signals")

DEVICE = 'device = ["pi5"]'
SUITES = Path(__file__).parents[2] / "suites"


@pytest.fixture
def board(ssh_server, bed):
    """A bed whose suites run on an sshd; what runs there carries the bed's mark and writes its log."""
    passed = ("MLBENCH_TEST_TAG", "MLBENCH_FAULTY_LOG", "MLBENCH_FAULTY_HOLD")
    ssh_server.stop()
    ssh_server.env = {name: bed.env[name] for name in passed}
    ssh_server.start()
    bed.env["MLBENCH_LAB"] = str(ssh_server.lab())
    return bed


def faulty(**options):
    told = ", ".join(f"{key} = {value!r}".replace("'", '"') for key, value in options.items())
    return f'{{ name = "faulty", options = {{ {told} }} }}'


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def gone(pid, within_s=10.0):
    end = time.monotonic() + within_s
    while alive(pid) and time.monotonic() < end:
        time.sleep(0.02)
    return not alive(pid)


# --- what works ---------------------------------------------------------------------------------------------


def test_a_session_on_a_board(board, ssh_server):
    board.suite(benchmark=DEVICE)
    result = board.run()
    assert result.code == 0, result.out
    record = result.records["faulty"]
    assert record.outcome == "pass"
    assert record.case.endswith("[net-faulty-fp32-pi5]")
    assert record.target["device"] == "pi5"
    assert record.target["interpreter"] == sys.executable
    assert record.target["memory_bytes"] > 0
    assert set(record.environment["before"]) == {"load", "governor", "frequency_khz", "no_turbo", "temperature_mc"}
    assert ssh_server.sessions() == [], "a connection was left"
    placed = list((ssh_server.folder / "cache").glob("*/model.json"))
    assert len(placed) == 1
    assert not list((ssh_server.folder / "cache").glob(".part-*"))


def test_the_suite_of_digits(board, require):
    require("onnxruntime")
    shutil.copytree(SUITES / "digits", board.project / "suites" / "digits")
    suite = board.project / "suites" / "digits" / "bench_digits.toml"
    suite.write_text(suite.read_text(encoding="utf-8").replace('"cpu"', '"pi5"'), encoding="utf-8")
    result = board.start("-k", "onnxruntime-fp32").wait(150)
    passed = [record for record in result.run.records if record.outcome == "pass"]
    assert result.code == 0, result.out
    assert passed
    assert all(record.target["device"] == "pi5" for record in passed)
    metrics = {metric.name: metric.value for metric in passed[0].metrics}
    assert metrics["latency.p50"] > 0
    assert metrics["accuracy.top1"] > 0.9
    assert metrics["memory.peak"] > 0


def test_a_compiled_model_is_made_on_the_board_and_kept_here(board):
    suite = board.suite('{ name = "faulty_compiled" }', benchmark=DEVICE)
    first, second = board.run(), board.run(output=board.project / "second.jsonl")
    assert (first.code, second.code) == (0, 0), first.out + second.out
    assert board.count("prepare") == 1, "compiled once, then taken from the cache of this machine"
    assert list((board.root / "cache").rglob("compiled.json"))
    assert "compile" in first.records["faulty_compiled"].stages_ns
    assert suite.exists()


def test_the_suites_own_functions_travel(board):
    board.suite(benchmark=f'{DEVICE}\npostprocess = "after:double"')
    folder = board.project / "suites" / "faults"
    (folder / "factor.py").write_text("FACTOR = 2\n", encoding="utf-8")
    text = "from factor import FACTOR\n\ndef double(outputs):\n    return {k: v * FACTOR for k, v in outputs.items()}\n"
    (folder / "after.py").write_text(text, encoding="utf-8")
    result = board.run()
    assert result.code == 0, result.out
    assert result.records["faulty"].hashes["code.postprocess"]


def test_two_revisions_are_compared_on_the_board(ssh_server, repository):
    passed = ("MLBENCH_TEST_TAG", "MLBENCH_FAULTY_LOG")
    ssh_server.stop()
    ssh_server.env = {name: repository.env[name] for name in passed}
    ssh_server.start()
    repository.env["MLBENCH_LAB"] = str(ssh_server.lab())
    suite = repository.suite(faulty(spin_us=300), benchmark=f'{DEVICE}\npostprocess = "after:same"')
    (suite.parent / "after.py").write_text("def same(outputs):\n    return outputs\n", encoding="utf-8")
    repository.commit()
    (suite.parent / "after.py").write_text("def same(outputs):\n    return dict(outputs)\n", encoding="utf-8")
    result = repository.compare()
    record = result.records["faulty"]
    assert record.outcome == "pass", result.out
    (comparison,) = [one for one in record.comparisons if one.metric == "latency.p50"]
    assert comparison.verdict in ("pass", "improved"), comparison
    assert comparison.n >= 6
    assert record.base["rounds"][0]["state"]["foreign_cores"] is not None
    assert "burn_in_spread" not in record.base["control"], "a loop on this machine says nothing of the board"
    assert record.base["identical"] is False, "each side ran its own function"


# --- faults -------------------------------------------------------------------------------------------------


def failure(board, *args, **more):
    result = board.start(*args).wait(90)
    (record,) = result.run.records
    assert record.outcome == "error", result.out
    return result, record


def test_an_interpreter_of_this_machine_is_none_of_the_board(board):
    board.suite(f'{{ name = "faulty", python = "{sys.executable}" }}', benchmark=DEVICE)
    _, record = failure(board)
    assert "`python` names an interpreter of this machine, and pi5 is another machine" in record.reason
    assert "with `python` of the device in the lab file" in record.reason


def test_an_unknown_host_key_is_refused_and_not_added(board, ssh_server):
    ssh_server.know(None)
    board.suite(benchmark=DEVICE)
    result, record = failure(board)
    assert record.stage == "start"
    assert "device 'pi5': its host key is not known here, and no key is ever added unasked" in record.reason
    assert "Host key verification failed." in record.reason
    assert f"connect once by hand with `ssh -F {ssh_server.client_config} board`" in record.reason
    assert (ssh_server.folder / "known_hosts").read_text() == ""
    assert result.code == 12


def test_a_changed_host_key_is_refused(board, ssh_server):
    ssh_server.know(ssh_server.folder / "user_key.pub")
    board.suite(benchmark=DEVICE)
    _, record = failure(board)
    assert "device 'pi5': its host key changed" in record.reason
    assert "remove its old key with `ssh-keygen -R`" in record.reason


def test_a_refused_key(board, ssh_server):
    (ssh_server.folder / "authorized_keys").write_text("")
    board.suite(benchmark=DEVICE)
    _, record = failure(board)
    assert "device 'pi5': it refused our key" in record.reason
    assert "Permission denied (publickey)" in record.reason
    assert "ssh-copy-id" in record.reason


def test_an_sshd_that_is_down(board, ssh_server):
    ssh_server.stop()
    board.suite(benchmark=DEVICE)
    _, record = failure(board)
    assert "device 'pi5': no sshd listens there" in record.reason
    assert "Connection refused" in record.reason


def test_a_host_that_is_not_known(board, ssh_server):
    board.env["MLBENCH_LAB"] = str(ssh_server.lab(host="no-such-host.invalid"))
    board.suite(benchmark=DEVICE)
    _, record = failure(board)
    assert "device 'pi5': the host name is not known" in record.reason
    assert "correct `host` in the lab file" in record.reason


def test_no_python_there(board, ssh_server):
    board.env["MLBENCH_LAB"] = str(ssh_server.lab(python="/no/such/python3"))
    board.suite(benchmark=DEVICE)
    _, record = failure(board)
    assert "device 'pi5': '/no/such/python3' cannot be run there" in record.reason
    assert "name an interpreter with `python` in the lab file" in record.reason


def test_an_old_python_there(board, ssh_server):
    old = ssh_server.folder / "old-python"
    # An interpreter that says it is 3.7, as far as a program can: the check is run by the real one.
    text = f'#!/bin/sh\nexec {sys.executable} "$1" "$2" "import sys;sys.version_info=(3,7,3);$3"\n'
    old.write_text(text)
    old.chmod(0o755)
    board.env["MLBENCH_LAB"] = str(ssh_server.lab(python=str(old)))
    board.suite(benchmark=DEVICE)
    _, record = failure(board)
    assert "device 'pi5': its Python is too old (mlbench: this is Python 3.7, and 3.9 or newer is needed)" in (
        record.reason
    )


def test_numpy_is_missing_there(board, ssh_server):
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", ssh_server.folder / "bare"], check=True, timeout=60)
    python = ssh_server.folder / "bare" / "bin" / "python"
    board.env["MLBENCH_LAB"] = str(ssh_server.lab(python=str(python)))
    board.suite(benchmark=DEVICE)
    _, record = failure(board)
    assert f"device 'pi5': numpy is not installed for {python} there" in record.reason
    assert f"on the board: {python} -m pip install numpy" in record.reason


def test_a_framework_that_is_missing_there_is_a_skip_that_says_where(board):
    board.suite('"faulty_absent"', benchmark=DEVICE)
    result = board.run()
    (record,) = result.run.records
    assert record.outcome == "skip", result.out
    assert "mlbench_faulty_engine" in record.reason
    assert f"on the device 'pi5': {sys.executable} -m pip install" in record.reason


def test_an_sshd_that_is_killed_while_a_case_runs(board, ssh_server):
    board.held.touch()
    board.suite(faulty(fault="hold", stage="measure"), benchmark=DEVICE)
    running = board.start()
    board.wait_for_event("hold")
    agent = next(event["pid"] for event in board.events() if event["event"] == "hold")
    for pid in ssh_server.sessions():
        os.kill(pid, signal.SIGKILL)
    result = running.wait(60)
    (record,) = result.run.records
    assert (record.outcome, record.stage) == ("error", "measure"), result.out
    assert "device 'pi5': the connection was cut" in record.reason
    assert gone(agent), "the agent outlived its connection"
    assert "mlbench: requests to pi5" in result.out
    assert "-> block" in result.out


def test_the_next_case_goes_on_after_a_lost_connection(board, ssh_server):
    board.suite(faulty(fault="kill", stage="measure", spare=0), benchmark=DEVICE)
    board.suite(benchmark=DEVICE, name="others")
    result = board.start().wait(60)
    outcomes = {record.case.partition("/")[0]: record.outcome for record in result.run.records}
    assert outcomes == {"faults": "error", "others": "pass"}, result.out


@pytest.mark.parametrize("fault", ["hang_gil", "hang_python"])
def test_an_agent_that_hangs_is_ended_on_the_board(board, fault):
    board.suite(faulty(fault=fault, stage="measure"), benchmark=f"{DEVICE}\ntimeout_s = 2")
    result, record = failure(board)
    assert "no answer within 2 s" in record.reason
    agent = next(event["pid"] for event in board.events() if event["event"] == "load")
    assert not alive(agent)
    assert "Timeout (" in result.out, "what the board printed is shown"


@pytest.mark.parametrize("fault", ["hang_gil", "hang_python"])
def test_a_killed_session_leaves_nothing_on_the_board(board, ssh_server, fault):
    board.suite(faulty(fault=fault, stage="measure"), benchmark=DEVICE)
    running = board.start()
    board.wait_for_event("load")
    agent = next(event["pid"] for event in board.events() if event["event"] == "load")
    time.sleep(0.3)
    running.signal(signal.SIGKILL)
    assert gone(agent, 5.0)
    board.wait_for(lambda: ssh_server.sessions() == [], "sshd's sessions have ended", 5.0)


def test_a_board_that_another_session_uses(board):
    board.held.touch()
    board.suite(faulty(fault="hold", stage="measure"), benchmark=DEVICE)
    holder = board.start(output=board.project / "one.jsonl")
    board.wait_for_event("hold")
    board.suite(benchmark=DEVICE, name="others")
    other_host = str(board.root / "another-hosts-state")  # the lock that keeps it out is the board's own
    second = board.start(
        "suites/others", "--mlbench-lease-timeout=0.5", output=board.project / "two.jsonl", MLBENCH_STATE=other_host
    )
    second._process.wait(60)
    text = " ".join(second._output.read_text().split())
    assert "device 'pi5' is busy: on the board 'cpu' is held by process" in text
    assert "allow more time with --mlbench-lease-timeout" in text
    board.held.unlink()
    assert holder.wait().code == 0


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 1 MiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], capture_output=True, text=True)
    if made.returncode:
        may_not_skip(f"a small file system cannot be mounted: {made.stderr.strip()}")
    yield folder
    subprocess.run(["umount", folder], check=True)


def may_not_skip(reason):
    if os.environ.get("MLBENCH_REQUIRE_ALL") == "1" and os.geteuid() == 0:
        pytest.fail(f"{reason}; MLBENCH_REQUIRE_ALL=1 demands it of root", pytrace=False)
    pytest.skip(reason)


def test_a_full_disk_on_the_board(board, ssh_server, small_disk):
    board.env["MLBENCH_LAB"] = str(ssh_server.lab(cache=str(small_disk)))
    suite = board.suite(benchmark=DEVICE)
    model = suite.parent / "model.json"
    model.write_text(model.read_text() + " " * (2 << 20))
    _, record = failure(board)
    assert record.stage == "place"
    assert f"device 'pi5': the disk of the cache folder {small_disk} is full" in record.reason
    assert "name a folder on another disk with `cache`" in record.reason
    assert list(small_disk.iterdir()) == []
