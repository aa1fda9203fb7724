"""The table `switch` of a lab file: what it may say, its defaults, and each mistake with its key."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_mlbench import switches
from pytest_mlbench.agent import power_switch
from pytest_mlbench.errors import SuiteError
from pytest_mlbench.tables import Place


def read(**table):
    return switches.read(table, Place(Path("lab.toml"), "device.pi5.switch"))


def test_what_is_not_set_has_its_default():
    found = read(kind="uhubctl", hub="1", port=1)
    expected = {"kind": "uhubctl", "off_s": 2.0, "deadline_s": 30.0, "resource": "", "hub": "1", "port": 1}
    assert found == expected


def test_what_is_read_is_what_switches():
    hub = power_switch.make(read(kind="uhubctl", hub="1-1.4", port=3, off_s=1.5, deadline_s=9.0))
    assert hub == power_switch.UhubctlSwitch("1-1.4", 3, 1.5, 9.0)
    two = power_switch.make(read(kind="command", on=["pdu", "on"], off=["pdu", "off"], off_s=3.0))
    assert two == power_switch.CommandSwitch((("pdu", "off"), ("pdu", "on")), 3.0)
    all_three = power_switch.make(read(kind="command", on=["on"], off=["off"], cycle=["pdu", "cycle"]))
    assert all_three == power_switch.CommandSwitch((("pdu", "cycle"),))


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({}, 'switch: the key "kind" is missing; write for example: kind = "command"'),
        ({"kind": "pdu"}, 'switch.kind: unknown kind of switch "pdu". Known kinds: command, uhubctl'),
        ({"kind": "command"}, 'switch: needs "cycle", or "on" and "off"; write for example: cycle = '),
        ({"kind": "command", "on": ["a"]}, 'switch: needs "cycle", or "on" and "off"'),
        ({"kind": "command", "cycle": "pdu cycle"}, "switch.cycle: expected a list of words, found"),
        ({"kind": "command", "cycle": ["-x"]}, 'switch.cycle[0]: "-x" is an option, not a program'),
        ({"kind": "command", "cycle": ["a", 3]}, "switch.cycle[1]: expected a string, found 3"),
        ({"kind": "command", "cycle": ["a", "b\nc"]}, "switch.cycle[1]: holds a control character"),
        ({"kind": "command", "cycle": ["a", "b\x00"]}, "switch.cycle[1]: holds a control character"),
        ({"kind": "command", "cycle": ["a"], "hub": "1"}, "switch.hub: unknown key; Keys here: kind, off_s,"),
        ({"kind": "command", "cycle": ["a"], "deadline_s": 0}, "switch.deadline_s: must be above 0, found 0"),
        ({"kind": "command", "cycle": ["a"], "off_s": -1}, "switch.off_s: must be at least 0, found -1"),
        ({"kind": "command", "cycle": ["a"], "resource": "a/b"}, 'switch.resource: "a/b" may hold only letters'),
        ({"kind": "uhubctl", "port": 1}, 'switch: the key "hub" is missing'),
        ({"kind": "uhubctl", "hub": "1-1"}, 'switch: the key "port" is missing'),
        ({"kind": "uhubctl", "hub": "1-1", "port": 0}, "switch.port: must be at least 1, found 0"),
        (
            {"kind": "uhubctl", "hub": "-a on", "port": 1},
            "switch.hub: '-a on' is no location of a hub; expected one as",
        ),
        ({"kind": "uhubctl", "hub": "1-1; id", "port": 1}, "switch.hub: '1-1; id' is no location of a hub"),
        ({"kind": "uhubctl", "hub": "../1", "port": 1}, "switch.hub: '../1' is no location of a hub"),
    ],
)
def test_a_wrong_switch_is_told_with_its_key(table, message):
    with pytest.raises(SuiteError) as caught:
        read(**table)
    assert f"lab.toml: device.pi5.{message}" in str(caught.value)


@pytest.mark.parametrize(
    "word", ["--password=hunter2", "token=hunter2", "--api-key", "-secret", "http://ann:hunter2@pdu.example/"]
)
def test_a_secret_in_a_command_is_refused_and_not_shown(word):
    with pytest.raises(SuiteError) as caught:
        read(kind="command", cycle=["pdu", word])
    assert "switch.cycle[1]: looks like a secret, which may not stand in a file" in str(caught.value)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("word", ["--password-file=/run/pdu", "tokens", "http://pdu.example/?port=3", "--on"])
def test_words_that_only_look_a_little_like_one_are_taken(word):
    assert read(kind="command", cycle=["pdu", word])["cycle"] == ["pdu", word]
