"""`mlbench devices`: what it lists, why something cannot be used, and who holds it."""

from __future__ import annotations

import json
import os
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

import pytest

from pytest_mlbench import devices_command, lease, registry
from pytest_mlbench.cli import main
from pytest_mlbench.devices_command import Row, lines, probed

VENDOR = Path(__file__).parents[1] / "vendor"
LAB = """mlbench = 1
[device.one]
type = "rack"
slot = 1
board = "raspberry-pi-5"
tags = ["m4", "fast"]
meter = "ppk2"
[device.gone]
type = "rack"
slot = 2
plugged = false
"""


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.setenv("MLBENCH_STATE", str(tmp_path / "state"))
    monkeypatch.delenv("MLBENCH_LAB", raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(VENDOR))
    registry._entry_points.cache_clear()
    (tmp_path / "lab.toml").write_text(LAB, encoding="utf-8")
    yield tmp_path
    registry._entry_points.cache_clear()
    sys.modules.pop("mlbench_rack", None)


def listed(capsys, *arguments):
    assert main(["devices", "--format", "json", *arguments]) == 0
    document = json.loads(capsys.readouterr().out)
    return document, {row["name"]: row for row in document["devices"]}


def test_without_a_lab_the_registered_devices_are_listed(capsys):
    document, found = listed(capsys)
    assert document["lab"] == ""
    assert found["cpu"]["type"] == "registered"
    assert (found["cpu"]["verified"], found["cpu"]["reason"], found["cpu"]["held"]) == ("hardware", "", {})
    assert not {"one", "rack"} & set(found)
    assert document["types"]["rack"] == "own simulator"


@pytest.mark.parametrize("by", ["option", "environment"])
def test_the_labs_devices_are_listed_with_board_tags_and_verification(capsys, monkeypatch, here, by):
    if by == "environment":
        monkeypatch.setenv("MLBENCH_LAB", str(here / "lab.toml"))
    document, found = listed(capsys, *(["--lab", "lab.toml"] if by == "option" else []))
    assert document["lab"] == str(here / "lab.toml")
    assert found["one"] == {
        "name": "one",
        "type": "rack",
        "board": "raspberry-pi-5",
        "title": "Raspberry Pi 5",
        "tags": ["m4", "fast"],
        "verified": "own simulator",
        "reason": "",
        "held": {},
    }
    assert found["gone"]["reason"] == "there is no board in slot 2; plug one in"
    assert "any.m4" not in found


def test_who_holds_a_device_or_what_is_wired_to_it_is_told(capsys):
    with lease.hold(("one",), timeout_s=0, case="digits/a[x]"):
        _, found = listed(capsys, "--lab", "lab.toml")
        assert set(found["one"]["held"]) == {"one"}
        assert found["one"]["held"]["one"].startswith(f"held by process {os.getpid()} since 20")
        assert "case digits/a[x]" in found["one"]["held"]["one"]
    with lease.hold(("ppk2",), timeout_s=0):
        _, found = listed(capsys, "--lab", "lab.toml")
        assert set(found["one"]["held"]) == {"ppk2"}
        assert found["gone"]["held"] == {}
    _, found = listed(capsys, "--lab", "lab.toml")
    assert found["one"]["held"] == {}


def test_listing_takes_no_lease(capsys):
    """A session that has no time to wait gets its device while another one lists them."""
    with lease.hold(("one",), timeout_s=0):
        listed(capsys, "--lab", "lab.toml")
    with lease.hold(("one", "ppk2", "cpu"), timeout_s=0):
        pass


def test_the_table(capsys):
    with lease.hold(("ppk2",), timeout_s=0):
        assert main(["devices", "--lab", "lab.toml"]) == 0
    printed = capsys.readouterr().out.splitlines()
    rows = [line.split() for line in printed]
    assert ["one", "rack", "raspberry-pi-5", "m4", "fast", "own", "simulator", "yes", "yes"] in rows
    assert ["gone", "rack", "-", "-", "own", "simulator", "no", "no"] in rows
    assert "  gone: there is no board in slot 2; plug one in" in printed
    assert any(line.startswith("  one (ppk2): held by process ") for line in printed)
    assert any(
        line.startswith("Types that a lab file may name: ") and "rack (own simulator)" in line for line in printed
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "mlbench: --lab: {lab}: cannot be read: No such file or directory\n"),
        ("mlbench = 1\n[device.one\n", "mlbench: --lab: {lab}: malformed TOML: "),
        (LAB.replace("slot = 2", "slot = 1"), 'mlbench: --lab: {lab}: device.gone.slot: is also that of device "one"'),
        (LAB.replace("raspberry-pi-5", "pi5"), 'mlbench: --lab: {lab}: device.one.board: unknown board "pi5"'),
    ],
)
def test_a_wrong_lab_file_is_one_message_and_exit_code_2(capsys, here, text, message):
    (here / "lab.toml").unlink()
    if text is not None:
        (here / "lab.toml").write_text(text, encoding="utf-8")
    assert main(["devices", "--lab", "lab.toml"]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith(message.format(lab=here / "lab.toml"))


def test_the_variable_is_named_when_it_named_the_file(capsys, monkeypatch, here):
    monkeypatch.setenv("MLBENCH_LAB", "none.toml")
    assert main(["devices"]) == 2
    assert capsys.readouterr().err.startswith(f"mlbench: MLBENCH_LAB: {here / 'none.toml'}: cannot be read")


# --- asking -----------------------------------------------------------------------------------------------------


@dataclass
class Asked:
    answer: str = ""
    raises: Exception | None = None
    hangs: threading.Event | None = None

    def probe(self):
        if self.hangs is not None:
            self.hangs.wait(60)
        if self.raises is not None:
            raise self.raises
        return self.answer


def test_a_device_that_hangs_or_fails_while_it_is_asked_does_not_keep_the_others():
    hangs = threading.Event()
    devices = {"a": Asked(), "b": Asked("absent"), "c": Asked(raises=OSError("no bus")), "d": Asked(hangs=hangs)}
    try:
        assert probed(devices, 0.3) == {
            "a": "",
            "b": "absent",
            "c": "asking it failed: OSError: no bus",
            "d": "it did not say within 0.3 s whether it can be used",
        }
    finally:
        hangs.set()


def test_a_reason_of_several_lines_is_one_line_of_the_table():
    told = lines([Row("a", "rack", reason="first\n  second")], {})
    assert "  a: first second" in told
    assert "1 device: 0 usable" in told


def test_what_cannot_be_loaded_is_listed_with_the_reason(capsys, monkeypatch, here):
    info = here / "site" / "mlbench_none-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: mlbench-none\nVersion: 1.0\n", encoding="utf-8")
    (info / "entry_points.txt").write_text("[mlbench.devices]\nnone = no_such_sdk:DEVICE\n", encoding="utf-8")
    monkeypatch.syspath_prepend(str(here / "site"))
    registry._entry_points.cache_clear()
    _, found = listed(capsys)
    assert "device 'none' (no_such_sdk:DEVICE) cannot be loaded" in found["none"]["reason"]
    assert found["cpu"]["reason"] == ""


def test_the_deadline_is_for_all_devices_together():
    assert devices_command.PROBE_S <= 30
