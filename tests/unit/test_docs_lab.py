"""The pages on labs and boards: their samples are right, and they list neither more nor less than the code has."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from pytest_mlbench import boards, labfile, switches
from pytest_mlbench.agent import power_switch
from pytest_mlbench.errors import SuiteError
from pytest_mlbench.labfile import LabKnown, lab_from_tables, load_lab
from pytest_mlbench.registry import Registry
from pytest_mlbench.tables import Place

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "reference" / "lab.md").read_text(encoding="utf-8")
BOARDS = (ROOT / "docs" / "reference" / "boards.md").read_text(encoding="utf-8")
EXAMPLE = ROOT / "hardware" / "labs" / "example.toml"
REGISTRY = Registry(root=ROOT)
BUILT_IN = ("serial", "ssh", "cuda")
KNOWN = LabKnown(REGISTRY.device_types, ("cpu",), REGISTRY.boards)


def samples(kind):
    found = []
    for page in sorted((ROOT / "docs").rglob("*.md")):
        texts = re.findall(rf"^```toml {kind}\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
        found += [pytest.param(text, id=f"{page.stem}-{number}") for number, text in enumerate(texts)]
    assert found, kind
    return found


def section(page, heading):
    found = re.search(rf"^{re.escape(heading)}\n(.*?)(?=^## |\Z)", page, re.MULTILINE | re.DOTALL)
    assert found, heading
    return found[1]


def rows(text):
    """Return the cells behind each word in backquotes in the first cell of a row, of the first table."""
    found = {}
    table = re.search(r"(?:^\|.*\n)+", text, re.MULTILINE)
    assert table, text
    for line in table[0].splitlines():
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        found |= dict.fromkeys(re.findall(r"`([^`]+)`", cells[0]), cells[1:])
    return found


@pytest.mark.parametrize("text", samples("lab"))
def test_a_lab_file_of_the_pages_is_right(text):
    assert lab_from_tables(tomllib.loads(text), ROOT / "lab.toml", KNOWN).devices


@pytest.mark.parametrize("text", samples("board"))
def test_a_board_of_the_pages_is_right(text):
    assert boards.board_from_tables(tomllib.loads(text), Path("sample.toml")).facts


def test_the_example_is_right_and_its_devices_can_be_made():
    lab = load_lab(EXAMPLE, KNOWN)
    registry = Registry(EXAMPLE, ROOT)
    for name, entry in lab.devices.items():
        device = registry.device(name)
        assert device.resources[: len(entry.resources)] == entry.resources
        assert registry.boards[entry.board].title
        assert not entry.switch or power_switch.make(entry.switch)
    assert lab.devices["nucleo"].resources == ("nucleo", "ppk2_left")
    assert lab.devices["nucleo_h7"].resources == ("nucleo_h7", "ppk2_left", "pdu_rack_2")
    assert [device.name for device in registry.device("any.arm64").devices] == ["pi5", "pi4"]


@pytest.mark.parametrize("name", BUILT_IN)
def test_the_settings_of_each_type_are_listed_with_their_defaults(name):
    listed = rows(section(PAGE, f"## Type `{name}`"))
    settings = REGISTRY.device_types[name].settings
    assert set(listed) == set(settings)
    for key, setting in settings.items():
        default = listed[key][1].strip("`").strip('"')
        if setting.required:
            assert default == "required", key
        elif isinstance(setting.default, bool):
            assert default == str(setting.default).lower(), key
        else:
            assert default == str(setting.default if setting.default is not None else "").strip("()"), key
        assert [choice for choice in setting.choices if choice and f"`{choice}`" not in listed[key][2]] == []


def test_the_types_that_come_with_the_package_are_listed():
    assert set(re.findall(r"^## Type `(\w+)`", PAGE, re.MULTILINE)) == set(BUILT_IN)
    module = {name: type(REGISTRY.device_types[name]).__module__ for name in REGISTRY.device_types}
    assert {name for name, where in module.items() if where.startswith("pytest_mlbench.")} == set(BUILT_IN)


def keys_of(read):
    with pytest.raises(SuiteError, match="Keys here: ") as caught:
        read()
    return set(str(caught.value).partition("Keys here: ")[2].split(", "))


def test_the_keys_of_every_device_and_of_the_file_are_listed():
    assert set(rows(section(PAGE, "## Devices"))) == set(labfile._KEYS)
    top = keys_of(lambda: lab_from_tables({"zzz": 1}, Path("lab.toml"), KNOWN))
    assert set(rows(section(PAGE, "## Top level"))) == top


def test_the_keys_of_a_switch_are_listed_with_their_defaults():
    place = Place(Path("lab.toml"), "switch")
    listed = rows(section(PAGE, "## `switch`"))
    keys = set().union(
        *(keys_of(lambda kind=kind: switches.read({"kind": kind, "zzz": 1}, place)) for kind in switches.KINDS)
    )
    assert set(listed) == keys
    found = switches.read({"kind": "uhubctl", "hub": "1", "port": 1}, place)
    for key in ("off_s", "deadline_s"):
        assert float(listed[key][0]) == found[key]
    assert all(f"`{kind}`" in listed["kind"][1] for kind in switches.KINDS)


def test_the_keys_of_a_board_are_listed():
    found = rows(section(BOARDS, "## Facts"))
    assert set(found) == set(boards.KINDS)
    for kind, keys in boards.KINDS.items():
        told = found[kind][0].partition(":")[0]
        assert set(re.findall(r"`(\w+)`", re.sub(r"\(.*?\)", "", told))) == set(keys), kind
    top = keys_of(lambda: boards.board_from_tables({"zzz": 1}, Path("a.toml")))
    assert set(rows(section(BOARDS, "## Top level"))) - {"title", "url", "read"} | {"title"} == top - set(boards.KINDS)
