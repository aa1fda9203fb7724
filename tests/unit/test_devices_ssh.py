"""Boards over ssh without a server: the command line, what a lab file cannot inject, the words of each failure."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pytest_mlbench import registry
from pytest_mlbench.devices import ssh, ssh_pipe, ssh_words
from pytest_mlbench.devices.api import VERIFIED, Remote
from pytest_mlbench.errors import SuiteError
from pytest_mlbench.lab import LabDevice
from pytest_mlbench.pipe import Pipe, without_number
from pytest_mlbench.transcript import Transcript, shown

posix = pytest.mark.skipif(sys.platform == "win32", reason="POSIX processes")
EXECNET = ["-u", "-c", "import sys;exec(eval(sys.stdin.readline()))"]


def made(tmp_path=Path("/lab"), **settings):
    defaults = {key: setting.default for key, setting in ssh.TYPE.settings.items()}
    return ssh.TYPE.make(
        LabDevice("pi5", "ssh", tmp_path / "lab.toml", settings={**defaults, "host": "pi", **settings})
    )


def words(device):
    """Return the command line as execnet splits it."""
    spec = device.gateway(None)
    assert spec.startswith("popen//python=")
    return shlex.split(spec.split("//")[1].removeprefix("python="))


# --- the device ---------------------------------------------------------------------------------------------


def test_it_is_a_type_of_device_and_no_device():
    assert registry.load("devices", "ssh") is ssh.TYPE
    assert ssh.TYPE.verified in VERIFIED
    device = made()
    assert isinstance(device, Remote)
    assert not device.is_host
    assert device.resources == ("pi5",)
    assert device.board_resources == ("cpu",), "the board's own processor, under the name that its sessions lock"
    assert hash(device) == hash(made())


def test_the_command_line():
    found = words(made())
    script, log, python, *arguments = found[3:]
    assert found[:3] == [sys.executable, "-I", "-S"]
    assert Path(script) == Path(ssh_pipe.__file__).resolve()
    assert (log, python) == ("{log}", "python3")
    assert arguments[-2:] == ["--", "pi"], "nothing after the dashes is taken for an option"
    for option in ("BatchMode=yes", "UpdateHostKeys=no", "ServerAliveInterval=5", "ServerAliveCountMax=3"):
        assert f"-o{option}" in arguments
    for option in ("ConnectTimeout=10", "ClearAllForwardings=yes", "PermitLocalCommand=no", "RemoteCommand=none"):
        assert f"-o{option}" in arguments


def test_no_option_adds_a_host_key_or_overrides_the_users_checks():
    assert not [word for word in words(made()) if "HostKeyChecking" in word or "KnownHosts" in word]


def test_settings_reach_the_command_line(tmp_path):
    found = words(made(tmp_path, port=2222, config_file="my config", heartbeat_s=30.0, connect_timeout_s=3))
    assert found[-6:] == ["-F", str(tmp_path / "my config"), "-p", "2222", "--", "pi"]
    assert "-oServerAliveInterval=10" in found
    assert "-oConnectTimeout=3" in found


def test_a_path_with_two_slashes_does_not_end_execnets_specification():
    assert words(made(config_file="/etc//ssh//config"))[-4:] == ["-F", "/etc/ssh/config", "--", "pi"]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("host", "-oProxyCommand=touch /tmp/x"),
        ("host", "pi -oProxyCommand=x"),
        ("host", "pi;reboot"),
        ("host", "$(reboot)"),
        ("host", "-l@pi"),
        ("host", "user@-pi"),
        ("host", "a@b@c"),
        ("host", "pi\n"),
        ("host", "ssh://pi//x"),
        ("host", ""),
        ("python", "-c"),
        ("python", "python3;reboot"),
        ("python", "python3 -c x"),
        ("python", "`id`"),
        ("python", "$HOME/python"),
        ("config_file", "-v"),
        ("config_file", "x;y"),
        ("cache", "a\nb"),
        ("state_dir", "relative"),
        ("state_dir", "/x y"),
    ],
)
def test_what_would_be_an_option_or_a_command_does_not_match(key, value):
    assert re.fullmatch(ssh.TYPE.settings[key].pattern, value) is None


@pytest.mark.parametrize("host", ["pi", "pi5.lab.example", "ann@10.0.0.7", "fe80::1", "root@fe80::1", "_gateway"])
def test_hosts_that_match(host):
    assert re.fullmatch(ssh.HOST, host)
    assert words(made(host=host))[-1] == host


def test_a_port_that_is_none():
    with pytest.raises(SuiteError, match=r"lab\.toml: device\.pi5\.port: 70000 is no port; write 1 to 65535"):
        made(port=70000)


def test_sources_that_are_too_many(tmp_path, monkeypatch):
    monkeypatch.setattr(ssh, "_TREE_BYTES", 10)
    (tmp_path / "a.py").write_text("x = 1234567")
    with pytest.raises(SuiteError, match="of Python sources, too much to send to device 'pi5'"):
        made().place_tree(tmp_path)


# --- the script that becomes ssh ----------------------------------------------------------------------------


def run_command(python, prefix=""):
    command = ssh_pipe.command(python, EXECNET)
    return subprocess.run(
        ["sh", "-c", prefix + command],
        input="'print(6 * 7)'\n",
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


@posix
def test_the_boards_shell_is_replaced_by_the_interpreter():
    assert ssh_pipe.command("python3", EXECNET).startswith("exec python3 -u -c '")
    done = run_command(sys.executable)
    assert (done.stdout, done.stderr) == ("42\n", "")


@posix
def test_an_old_interpreter_says_so(monkeypatch):
    monkeypatch.setattr(ssh_pipe, "OLDEST", (9, 1))
    done = run_command(sys.executable)
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    assert done.returncode == 1
    assert done.stderr == f"mlbench: this is Python {version}, and 9.1 or newer is needed\n"


@posix
def test_quotes_survive_the_boards_shell():
    text = 'it\'s "a" $HOME `id` \\ !'
    done = subprocess.run(
        ["sh", "-c", f"printf %s {ssh_pipe.quoted(text)}"], capture_output=True, text=True, timeout=10, check=True
    )
    assert done.stdout == text


@posix
def test_the_script_becomes_ssh_and_tells_its_number(tmp_path):
    fake = tmp_path / "bin" / "ssh"
    fake.parent.mkdir()
    fake.write_text('#!/bin/sh\necho "$$" >&2\necho "ssh: words" >&2\nfor a in "$@"; do echo "<$a>"; done\nexit 255\n')
    fake.chmod(0o755)
    log = tmp_path / "log"
    script = [sys.executable, "-I", "-S", ssh_pipe.__file__, str(log), "python3", "-T", "--", "pi", *EXECNET]
    done = subprocess.run(
        script,
        env={"PATH": f"{fake.parent}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 255
    lines = done.stdout.splitlines()
    assert lines[:3] == ["<-T>", "<-->", "<pi>"]
    assert lines[3:] == [f"<{ssh_pipe.command('python3', EXECNET)}>"]
    number, same, said = log.read_text().splitlines()
    assert number == same, "the script's process is ssh's"
    assert said == "ssh: words"


@posix
def test_no_ssh_here(tmp_path):
    log = tmp_path / "log"
    script = [sys.executable, "-I", "-S", ssh_pipe.__file__, str(log), "python3", "pi", *EXECNET]
    done = subprocess.run(script, env={"PATH": str(tmp_path)}, capture_output=True, timeout=30, check=False)
    assert done.returncode == 127
    told = ssh_words.explain("pi5", "ssh pi", "python3", 127, without_number(log.read_text())).told
    assert "ssh cannot be started: No such file or directory" in told
    assert "install OpenSSH's client" in told


# --- its process --------------------------------------------------------------------------------------------


@pytest.fixture
def piped(tmp_path):
    """Start a program as ssh_pipe would, with its number in a file; it is ended with the test."""
    started = []

    def start(*command):
        process = subprocess.Popen(command)
        started.append(process)
        log = tmp_path / f"log-{process.pid}"
        log.write_text(f"{process.pid}\nwords\n")
        return Pipe(streams.enter_context(log.open("rb"))), process

    with contextlib.ExitStack() as streams:
        yield start
    for process in started:
        process.kill()
        process.wait(5)


@posix
def test_the_status_is_left_for_its_parent(piped):
    pipe, process = piped("sh", "-c", "exit 255")
    assert pipe.status() == 255
    assert process.wait(5) == 255
    assert pipe.status() is None, "it was taken, and the number may be another's"
    pipe.end()


@posix
def test_it_is_ended_at_a_deadline(piped):
    pipe, process = piped("sleep", "60")
    begin = time.monotonic()
    with pipe.deadline(0.05) as passed:
        assert process.wait(20) == -9
    assert passed == [0.05]
    assert time.monotonic() - begin < 20


@posix
def test_it_lives_on_when_the_block_ends_in_time(piped):
    pipe, process = piped("sleep", "60")
    with pipe.deadline(0.2) as passed:
        pass
    time.sleep(0.3)
    assert (passed, process.poll()) == ([], None)


@posix
@pytest.mark.parametrize("text", ["", "ssh: no number\n", "12"])
def test_a_process_that_told_no_number_is_none(tmp_path, text):
    log = tmp_path / "log"
    log.write_text(text)
    with log.open("rb") as stream:
        pipe = Pipe(stream)
        assert pipe.pid is None
        assert pipe.status() is None
        pipe.end()


def test_what_was_printed_is_shown_without_the_number():
    assert without_number("123\nssh: words\n4\n") == "ssh: words\n4\n"


# --- words --------------------------------------------------------------------------------------------------


CHANGED = """@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@
@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @
@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@
Host key for pi has changed and you have requested strict checking.
Host key verification failed.
"""


@pytest.mark.parametrize(
    ("printed", "status", "meaning", "remedy"),
    [
        (CHANGED, 255, "its host key changed", "ssh-keygen -R"),
        ("Host key verification failed.", 255, "its host key is not known here", "connect once by hand with `ssh pi`"),
        ("ann@pi: Permission denied (publickey).", 255, "it refused our key", "ssh-copy-id"),
        ("ssh: Could not resolve hostname pi: Name or service not known", 255, "the host name is not known", "alias"),
        ("ssh: connect to host pi port 22: Connection refused", 255, "no sshd listens there", "start sshd"),
        ("ssh: connect to host pi port 22: No route to host", 255, "the board does not answer", "power and a network"),
        ("ssh: connect to host pi port 22: Connection timed out", 255, "the board does not answer", "power"),
        ("Timeout, server pi not responding.", 255, "the connection fell silent", "`heartbeat_s`"),
        ("Connection to pi closed by remote host.", 255, "the connection was cut", "journalctl -u ssh"),
        ("client_loop: send disconnect: Broken pipe", 255, "the connection was cut", "run again"),
        ("bash: line 1: exec: python3: not found", 127, "'python3' cannot be run there", "with `python` in the lab"),
        ("bash: line 1: python3: Permission denied", 126, "'python3' cannot be run there", "with `python` in the lab"),
        ("zsh:1: command not found: python3", 127, "'python3' cannot be run there", "with `python` in the lab"),
        ("bash: line 1: python3: No such file or directory", None, "'python3' cannot be run there", "`python`"),
        ("mlbench: this is Python 3.7, and 3.9 or newer is needed", 1, "its Python is too old", "name a newer one"),
        ("Can't open user config file x: No such file or directory", 255, "ssh cannot use its config", "`config_file`"),
        ("ssh: words of tomorrow", 255, "the connection was cut, or the agent there was killed", "try `ssh pi`"),
        ("", None, "its connection closed", "try `ssh pi`"),
        ("Segmentation fault", 139, "the agent there ended with status 139 (Segmentation fault)", ""),
    ],
)
def test_each_failure_in_words(printed, status, meaning, remedy):
    ended = ssh_words.explain("pi5", "ssh pi", "python3", status, printed)
    told = ended.told
    assert told.startswith("device 'pi5': ")
    assert meaning in told
    assert remedy in told
    assert "@@" not in told
    assert ssh_words.told(printed) in told
    silent = ("no sshd listens there", "the board does not answer", "the connection fell silent")
    assert ended.is_unreachable == (meaning in (*silent, "the connection was cut")), "only what a reset may help"


def test_the_last_words_are_shown():
    assert ssh_words.told("a\n\nb\nWarning: Permanently added x\nc\nd\n") == "b / c / d"


# --- transcript ---------------------------------------------------------------------------------------------


def test_a_transcript_is_bounded():
    transcript = Transcript(lines=3)
    for number in range(5):
        transcript.add(f"line {number}\n" + "x" * 500)
    lines = transcript.text().splitlines()
    assert lines[0] == "(2 earlier lines left out)"
    assert [line.split("  ")[-1][:6] for line in lines[1:]] == ["line 2", "line 3", "line 4"]
    assert all(len(line) <= 160 for line in lines)
    transcript.clear()
    assert transcript.text() == ""


def test_data_is_told_by_its_size():
    assert (
        shown({"name": "x", "data": b"abc", "shape": [1, 2], "none": []})
        == "name=x data=<3 bytes> shape=<2 items> none=[]"
    )
