"""How an ssh device is reached and switched, with a program in ssh's place: each failure, each deadline, each try."""

from __future__ import annotations

import sys

import pytest

from pytest_mlbench import deploy
from pytest_mlbench.agent.board import BoardError
from pytest_mlbench.devices import ssh
from pytest_mlbench.devices.api import Recoverable
from pytest_mlbench.errors import StageError, Unreachable
from pytest_mlbench.lab import LabDevice

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the programs are shell scripts")

REFUSED = "echo 'ssh: connect to host pi port 22: Connection refused' >&2; exit 255"
# The far side's shell is this machine's: the last word is the command that ssh would have run there.
CONNECTED = 'for word in "$@"; do command=$word; done; exec sh -c "$command"'


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A place with an `ssh` and a `strip`, each a script that writes a line of its calls."""
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    monkeypatch.setattr(ssh, "_BOOT_POLL_S", 0.01)
    made = Site(tmp_path)
    yield made
    for device in made.devices:
        device.close()


class Site:
    def __init__(self, folder):
        self.folder, self.devices = folder, []
        (folder / "bin").mkdir()
        self.program("strip", "true")

    def program(self, name, text):
        path = self.folder / "bin" / name
        path.write_text(f'#!/bin/sh\necho {name} >> "{self.folder}/calls"\n{text}\n', encoding="utf-8")
        path.chmod(0o755)

    @property
    def calls(self):
        path = self.folder / "calls"
        return path.read_text(encoding="utf-8").split() if path.exists() else []

    def device(self, switch=("strip",), **settings):
        defaults = {key: setting.default for key, setting in ssh.TYPE.settings.items()}
        own = {"host": "pi", "python": sys.executable, "state_dir": str(self.folder / "state")}
        table = {"kind": "command", "cycle": list(switch), "deadline_s": 5.0} if switch else {}
        entry = LabDevice(
            "pi5", "ssh", self.folder / "lab.toml", switch=table, settings={**defaults, **own, **settings}
        )
        self.devices.append(ssh.TYPE.make(entry))
        return self.devices[-1]


def power_cycle(device):
    (rung,) = [rung for rung in device.rungs() if rung.name == "power_cycle"]
    rung.go()


# --- to reach it --------------------------------------------------------------------------------------------


def test_it_can_be_recovered(site):
    assert isinstance(site.device(), Recoverable)
    assert [rung.name for rung in site.device().rungs()] == ["reopen", "power_cycle"]
    assert [rung.name for rung in site.device(switch=()).rungs()] == ["reopen"]


def test_a_switch_is_no_part_of_what_a_device_is():
    defaults = {key: setting.default for key, setting in ssh.TYPE.settings.items()}
    entries = [
        LabDevice("pi5", "ssh", "lab.toml", switch=switch, settings={**defaults, "host": "pi"})
        for switch in ({}, {"kind": "command", "cycle": ["strip"]})
    ]
    one, other = map(ssh.TYPE.make, entries)
    assert hash(one) == hash(other)


def test_a_board_that_answers_is_reached_by_a_connection_of_its_own(site):
    site.program("ssh", CONNECTED)
    device = site.device()
    device.reach()
    device.reach()
    assert site.calls == ["ssh", "ssh"]
    assert device.transcript().count("-> close") == 2


def test_a_board_that_is_down_is_unreachable(site):
    site.program("ssh", REFUSED)
    with pytest.raises(Unreachable, match="device 'pi5': no sshd listens there") as caught:
        site.device().reach()
    assert caught.value.stage == "start"


@pytest.mark.parametrize(
    ("words", "meaning"),
    [
        ("Host key verification failed.", "its host key is not known here"),
        ("pi: Permission denied (publickey).", "it refused our key"),
        ("words of tomorrow", "words of tomorrow"),
    ],
)
def test_a_board_that_refuses_is_not_unreachable(site, words, meaning):
    site.program("ssh", f"echo '{words}' >&2; exit 255")
    with pytest.raises(StageError, match=meaning) as caught:
        site.device().reach()
    assert not isinstance(caught.value, Unreachable)


def test_a_board_that_lets_in_and_then_hangs_is_unreachable(site, monkeypatch):
    monkeypatch.setattr(deploy, "START_DEADLINE_S", 0.5)
    site.program("ssh", "exec sleep 60")
    with pytest.raises(Unreachable) as caught:
        site.device().reach()
    assert caught.value.message == (
        "device 'pi5': no agent answered within 0.5 s; see that the board is not overloaded; it may hang, and need its "
        "power switched"
    )


# --- to switch it -------------------------------------------------------------------------------------------


def test_after_its_power_was_switched_it_is_asked_until_it_answers(site):
    site.program("ssh", f'[ $(grep -c ssh "{site.folder}/calls") -gt 3 ] || {{ {REFUSED}; }}\n{CONNECTED}')
    power_cycle(site.device())
    assert site.calls == ["strip", "ssh", "ssh", "ssh", "ssh"]


def test_a_board_that_does_not_come_back_in_time(site):
    site.program("ssh", REFUSED)
    with pytest.raises(BoardError) as caught:
        power_cycle(site.device(boot_timeout_s=0.3))
    assert str(caught.value).startswith(
        "no answer within 0.3 s (boot_timeout_s) after its power was switched; the last try: device 'pi5': no sshd "
        "listens there"
    )
    assert site.calls.count("ssh") > 1


def test_a_switch_that_fails_is_told_and_nobody_waits(site):
    site.program("ssh", CONNECTED)
    site.program("strip", "echo jammed; exit 2")
    with pytest.raises(BoardError, match=r"^power switch: `strip` failed with exit status 2: jammed$"):
        power_cycle(site.device())
    assert site.calls == ["strip"]


def test_a_board_that_refuses_after_its_power_was_switched_is_not_waited_for(site):
    site.program("ssh", "echo 'Host key verification failed.' >&2; exit 255")
    with pytest.raises(StageError, match="its host key is not known here"):
        power_cycle(site.device())
    assert site.calls == ["strip", "ssh"]
