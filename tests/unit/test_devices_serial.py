"""What a lab file's `type = "serial"` makes: a device, or a message that names the key."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_mlbench import labfile
from pytest_mlbench.agent import flash_command
from pytest_mlbench.devices.serial import SETTINGS, TYPE, SerialDevice
from pytest_mlbench.errors import SuiteError

LAB = Path("lab.toml")
HUB = {"kind": "uhubctl", "hub": "1-1.4", "port": 3, "off_s": 1.5, "deadline_s": 9.0}


def device(switch=None, **settings) -> SerialDevice:
    table = {"type": "serial", "board": "nucleo", **settings, **({"switch": switch} if switch else {})}
    known = labfile.LabKnown({"serial": TYPE}, ("cpu",), ("nucleo",))
    lab = labfile.lab_from_tables({"mlbench": 1, "device": {"m4": table}}, LAB, known)
    return TYPE.make(lab.devices["m4"])


def message(switch=None, **settings) -> str:
    with pytest.raises(SuiteError) as raised:
        device(switch, **settings)
    return str(raised.value)


def test_a_port_alone_is_enough():
    made = device(port="/dev/ttyACM0")
    assert (made.name, made.resources, made.frameworks, made.is_host) == ("m4", ("m4",), ("firmware",), True)
    assert (made.emulated, made.shares, made.shipped, made.verified) == (False, (), (), "own simulator")
    connection = made.connection()
    assert connection["port"] == "/dev/ttyACM0"
    assert (connection["baud"], connection["mode"], connection["transport"]) == (115200, "performance", "")
    assert (connection["flash"], connection["switch"]) == ([], {})


def test_what_identifies_it_is_the_board_and_its_number_not_the_port():
    assert device(port="/dev/ttyACM0").facts() == {"board": "nucleo"}
    assert device(usb_serial="066BFF").facts() == {"board": "nucleo", "usb_serial": "066BFF"}


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({}, "lab.toml: device.m4.port: needs one of port, usb_serial, location, candidates; it has none"),
        (
            {"port": "/dev/ttyACM0", "usb_serial": "A1"},
            "lab.toml: device.m4.usb_serial: needs one of port, usb_serial, location, candidates; it has port and "
            "usb_serial",
        ),
        ({"candidates": ["/dev/ttyACM0"]}, "lab.toml: device.m4.candidates: needs `name` too: what the board answers"),
        (
            {"port": "/dev/ttyACM0", "flash": ["t", "{image}"], "flash_with": "pyocd"},
            "lab.toml: device.m4.flash_with: `flash` says how to flash already; keep one of them",
        ),
        ({"port": "/dev/ttyACM0", "flash_with": "pyocd"}, "device.m4.flash_target: pyocd must be told the target"),
        (
            {"port": "/dev/ttyACM0", "flash_target": "x"},
            "device.m4.flash_target: is for `flash_with`, which is not set",
        ),
        ({"port": "/dev/ttyACM0", "flash": ["t"]}, "device.m4.flash: no word holds {image}, so no image would be"),
        ({"port": "/dev/ttyACM0", "flash": ["-x", "{image}"]}, 'device.m4.flash[0]: "-x" is an option; the first word'),
    ],
)
def test_settings_that_do_not_go_together_are_told_by_their_key(settings, told):
    assert told in message(**settings)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("port", "-oProxyCommand=x"),
        ("port", "/dev/tty;reboot"),
        ("port", "spy:///dev/ttyACM0"),
        ("port", "/dev/tty $(id)"),
        ("usb_serial", "../../x"),
        ("usb_serial", "-x"),
        ("location", "1-1;x"),
        ("name", "a b"),
        ("soft_reset", "reset%db"),
        ("flash_target", "-c"),
        ("flash_target", "x;y"),
        ("baud", 0),
        ("baud", "fast"),
        ("mode", "fast"),
        ("reset", "cts"),
        ("boot_timeout_s", 0),
    ],
)
def test_what_reaches_a_command_line_or_the_line_is_held_to_its_pattern(key, value):
    settings = {"port": "/dev/ttyACM0", "flash_with": "pyocd", "flash_target": "stm32", key: value}
    if key in ("usb_serial", "location"):
        del settings["port"]
    assert f"device.m4.{key}: " in message(**settings)


@pytest.mark.parametrize(
    "port",
    [
        "/dev/ttyACM0",
        "/dev/serial/by-id/usb-ST_066B-if02",
        "socket://10.0.0.5:4001",
        "rfc2217://host:2217?ign_set_control",
        "COM7",
    ],
)
def test_ports_and_urls_that_are_taken(port):
    assert device(port=port).connection()["port"] == port


@pytest.mark.parametrize("tool", flash_command.PRESETS)
def test_a_known_tool_flashes(tool):
    words = device(port="/dev/ttyACM0", flash_with=tool, flash_target="stm32l4").connection()["flash"]
    assert words[0].startswith(tool)
    assert any("stm32l4" in word for word in words)
    assert any("{image}" in word for word in words)


def test_a_switch_travels_with_the_connection():
    assert device(HUB, port="/dev/ttyACM0").connection()["switch"] == {**HUB, "resource": ""}


def test_probing_says_that_the_port_is_not_there():
    pytest.importorskip("serial")
    assert device(port="/dev/ttyNOTHING").probe().startswith("cannot open /dev/ttyNOTHING: ")
    assert "no serial port has usb_serial 'NONE77'" in device(usb_serial="NONE77").probe()


def test_probing_leaves_a_port_that_is_there_alone():
    pytest.importorskip("serial")
    from pytest_mlbench.testing.fake_board import FakeBoard

    with FakeBoard() as fake:
        assert device(port=fake.port).probe() == ""
        assert fake.commands == []


def test_every_setting_says_what_it_is():
    assert all(setting.help.endswith(".") for setting in SETTINGS.values())
    without = [
        key for key, one in SETTINGS.items() if one.type in (str, list[str]) and not (one.pattern or one.choices)
    ]
    assert without == []
