"""Ports that pyserial opens: found, lost, reset, flashed. On pseudo-terminals and sockets of loopback."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import threading

import pytest

pytest.importorskip("serial")
if not hasattr(os, "openpty"):
    pytest.skip("the fake board is a pseudo-terminal", allow_module_level=True)

from serial.tools.list_ports_common import ListPortInfo

from pytest_mlbench.agent import board, flash_command
from pytest_mlbench.agent.board import BoardError, FlashError, LineLost, WrongBoard
from pytest_mlbench.agent.serial_transport import SerialTransport, find_port, open_transport
from pytest_mlbench.agent.tiny_protocol import LineSettings, TinyLine
from pytest_mlbench.agent.transcript import Transcript
from pytest_mlbench.testing.fake_board import FakeBoard

TIMES = {"boot_timeout_s": 0.5, "reply_timeout_s": 0.2}


@pytest.fixture
def fake():
    with FakeBoard(vendor="acme") as made:
        yield made


def ask(transport, **settings):
    return TinyLine(transport, LineSettings(**{**TIMES, **settings}), Transcript()).open()


def test_the_built_in_transport_is_the_serial_one(fake):
    transport = board.open_transport({"port": fake.port})
    assert isinstance(transport, SerialTransport)
    assert ask(transport).vendor == "acme"
    transport.close()


def test_a_module_that_a_connection_names_opens_the_line(fake):
    transport = board.open_transport({"port": fake.port, "transport": "pytest_mlbench.agent.serial_transport"})
    assert transport.describe()["port"] == fake.port
    transport.close()


def test_a_second_program_does_not_get_the_port(fake):
    first = open_transport({"port": fake.port})
    with pytest.raises(LineLost, match=rf"^cannot open {fake.port}: .*is the board plugged in, and the port free\?$"):
        open_transport({"port": fake.port})
    first.close()
    open_transport({"port": fake.port}).close()


def test_an_unplugged_line_is_lost_and_stays_so(fake):
    transport = open_transport({"port": fake.port})
    fake.unplug()
    with pytest.raises(LineLost, match=f"the line {fake.port} is gone"):
        for _ in range(3):
            transport.read(0.1)
    for call in (lambda: transport.read(0.1), lambda: transport.write(b"%")):
        with pytest.raises(LineLost, match="is closed"):
            call()
    transport.close()


def test_a_board_behind_a_socket():
    """What a terminal server is: bytes over TCP."""
    server = socket.create_server(("127.0.0.1", 0))
    with FakeBoard(vendor="far", quiet=True) as fake:
        line = os.open(fake.port, os.O_RDWR | os.O_NOCTTY)

        def carry():
            with server.accept()[0] as peer:

                def back():
                    with contextlib.suppress(OSError):  # the board's end is closed last
                        while data := os.read(line, 4096):
                            peer.sendall(data)

                threading.Thread(target=back, daemon=True).start()
                while data := peer.recv(4096):
                    os.write(line, data)

        threading.Thread(target=carry, daemon=True).start()
        transport = open_transport({"port": f"socket://127.0.0.1:{server.getsockname()[1]}"})
        assert ask(transport, boot_timeout_s=3.0).vendor == "far"
        transport.close()
        server.close()


def test_a_socket_that_nobody_listens_on():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(LineLost, match=rf"cannot open socket://127.0.0.1:{port}"):
        open_transport({"port": f"socket://127.0.0.1:{port}"})


# --- which port ---------------------------------------------------------------------------------------------


def info(device, serial_number=None, location=None):
    made = ListPortInfo(device)
    made.serial_number, made.location = serial_number, location
    return made


PORTS = [info("/dev/ttyACM0", "066BFF", "1-1.2:1.0"), info("/dev/ttyACM1", "0672AA", "1-1.3:1.0"), info("/dev/ttyS0")]


@pytest.mark.parametrize(
    ("connection", "port"),
    [
        ({"usb_serial": "0672AA"}, "/dev/ttyACM1"),
        ({"location": "1-1.2:1.0"}, "/dev/ttyACM0"),
        ({"port": "/dev/anything"}, "/dev/anything"),
    ],
)
def test_the_right_one_of_boards_that_look_alike(connection, port):
    assert find_port(connection, PORTS) == port


@pytest.mark.parametrize(
    ("connection", "ports", "message"),
    [
        (
            {"usb_serial": "9999"},
            PORTS,
            "no serial port has usb_serial '9999'; ports here: /dev/ttyACM0 (usb_serial 066BFF), /dev/ttyACM1 "
            "(usb_serial 0672AA), /dev/ttyS0 (usb_serial unknown). Is the board plugged in and powered?",
        ),
        ({"usb_serial": "9999"}, [], "no serial port has usb_serial '9999'; ports here: none. Is the board plugged in"),
        (
            {"usb_serial": "066BFF"},
            [PORTS[0], info("/dev/ttyACM5", "066BFF")],
            "2 ports have usb_serial '066BFF' (/dev/ttyACM0, /dev/ttyACM5); tell them apart by `location`",
        ),
        ({}, PORTS, "the device says no port: give it one of port, usb_serial, location or candidates"),
    ],
)
def test_a_board_that_is_not_there_is_told_with_those_that_are(connection, ports, message):
    with pytest.raises(WrongBoard) as raised:
        find_port(connection, ports)
    assert str(raised.value).startswith(message)


def test_a_board_is_found_by_its_name_among_candidates(fake):
    with FakeBoard(vendor="other") as other:
        connection = {"candidates": [other.port, "/dev/ttyNOTHING", fake.port], "name": "acme", **TIMES}
        assert find_port(connection) == fake.port


def test_no_candidate_has_the_board(fake):
    with pytest.raises(WrongBoard) as raised:
        find_port({"candidates": ["/dev/ttyNOTHING", fake.port], "name": "zzz", **TIMES})
    assert str(raised.value).startswith("no candidate has the board 'zzz'. /dev/ttyNOTHING: cannot open")
    assert f"{fake.port}: the board answers `name` with 'dut-[acme]'" in str(raised.value)


# --- resets -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "levels"),
    [
        ({}, ()),
        ({"soft_reset": "reset"}, ("soft_reset",)),
        ({"reset": "dtr", "soft_reset": "break"}, ("soft_reset", "hard_reset")),
        ({"switch": {"kind": "command", "cycle": ["true"]}, "reset": "rts"}, ("hard_reset", "power_cycle")),
    ],
)
def test_the_levels_are_those_that_the_settings_give_means_for(settings, levels):
    transport = SerialTransport.__new__(SerialTransport)
    transport._connection = settings
    assert transport.levels == levels


def test_a_command_of_the_firmware_resets_it(fake):
    transport = open_transport({"port": fake.port, "soft_reset": "reset"})
    transport.recover("soft_reset")
    assert ask(transport).vendor == "acme"
    transport.close()
    assert fake.resets == ["soft_reset"]


def test_a_line_without_modem_lines_says_that_it_cannot_reset(fake):
    """A pseudo-terminal has none; so has socket:// over many terminal servers."""
    transport = open_transport({"port": fake.port})
    transport._connection = {"port": fake.port, "reset": "dtr"}
    with pytest.raises(BoardError, match=rf"^hard_reset by dtr on {fake.port} failed: "):
        transport.recover("hard_reset")
    transport.close()


def test_power_is_cycled_by_the_sites_switch_and_the_port_opened_again(fake, tmp_path):
    log = tmp_path / "log"
    off = [sys.executable, "-c", "import sys; open(sys.argv[1], 'a').write('off')", str(log)]
    on = [sys.executable, "-c", "import sys; open(sys.argv[1], 'w').write('power_cycle')", fake.control]
    switch = {"kind": "command", "off": off, "on": on, "off_s": 0.01}
    transport = open_transport({"port": fake.port, "switch": switch})
    transport.recover("power_cycle")
    assert log.read_text(encoding="utf-8") == "off"
    assert ask(transport, boot_timeout_s=3.0).vendor == "acme"
    transport.close()
    assert fake.resets == ["power_cycle"]


def test_a_switch_that_fails_is_told(fake):
    transport = open_transport({"port": fake.port, "switch": {"kind": "command", "cycle": ["false"]}})
    with pytest.raises(BoardError, match=r"^power switch: `false` failed with exit status 1; it printed nothing$"):
        transport.recover("power_cycle")


# --- flashing -----------------------------------------------------------------------------------------------


def test_placeholders_stay_inside_their_words_and_no_shell_reads_them():
    words = flash_command.filled(["tool", "--file={image}", "{port}"], image="/a b/$(id);x.elf", port="/dev/ttyACM0")
    assert words == ["tool", "--file=/a b/$(id);x.elf", "/dev/ttyACM0"]


def test_a_placeholder_in_a_path_is_part_of_the_path():
    assert flash_command.filled(["t", "{image}"], image="/models/{port}.elf", port="P") == ["t", "/models/{port}.elf"]


@pytest.mark.parametrize(
    ("tool", "words"),
    [
        ("pyocd", ["pyocd", "flash", "--target", "t1", "i.elf"]),
        ("openocd", ["openocd", "-f", "t1", "-c", "program {i.elf} verify reset exit"]),
        ("esptool", ["esptool.py", "--chip", "t1", "--port", "P", "write_flash", "0x0", "i.elf"]),
    ],
)
def test_known_tools(tool, words):
    assert flash_command.filled(flash_command.preset(tool, "t1"), image="i.elf", port="P") == words


@pytest.mark.parametrize("image", ["a} ; shutdown ; {.elf", "a{b.elf", "a\\b.elf", "a\nb.elf"])
def test_openocd_gets_no_path_that_it_would_read_as_code(image):
    with pytest.raises(FlashError, match=r"openocd cannot be given the path .*: it holds a brace, a backslash or"):
        flash_command.filled(flash_command.preset("openocd", "t.cfg"), image=image, port="P")


def test_a_tool_that_fails_shows_the_end_of_what_it_printed(fake):
    code = "import sys; print('x' * 5000); print('no probe'); sys.exit(3)"
    transport = open_transport({"port": fake.port, "flash": [sys.executable, "-c", code, "{image}"]})
    with pytest.raises(FlashError) as raised:
        transport.flash("i.elf")
    assert "failed with exit status 3; it printed:\n" in str(raised.value)
    assert str(raised.value).endswith("no probe")
    assert len(str(raised.value)) < 2000


def test_the_port_is_free_while_it_is_flashed_and_open_afterwards(fake):
    code = "import serial, sys; serial.Serial(sys.argv[1], exclusive=True).close()"
    transport = open_transport({"port": fake.port, "flash": [sys.executable, "-c", code, "{port}", "{image}"]})
    transport.flash("i.elf")
    assert ask(transport).vendor == "acme"
    transport.close()
