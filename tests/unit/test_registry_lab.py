"""Devices of a lab beside registered ones: what suites may name, and what they get."""

from __future__ import annotations

import sys
from dataclasses import dataclass

import pytest

from pytest_mlbench import registry
from pytest_mlbench.devices.choice import Choice, choice
from pytest_mlbench.errors import MlbenchError, SuiteError
from pytest_mlbench.registry import Registry

CODE = """
from dataclasses import dataclass
from pytest_mlbench.devices.api import Setting
from pytest_mlbench.devices.cpu import Cpu

@dataclass(frozen=True)
class Type:
    settings = {"frameworks": Setting(str, "The one it takes.", default="")}
    verified = "own simulator"

    def make(self, entry):
        takes = entry.settings["frameworks"]
        return Cpu(name=entry.name, resources=entry.resources, frameworks=(takes,) if takes else ())

@dataclass(frozen=True)
class Careless(Type):
    def make(self, entry):
        return Cpu(name=entry.name, resources=("cpu",))

BOX = Cpu(name="npu", resources=("npu0",))
TYPE = Type()
CARELESS = Careless()
"""
ENTRIES = """[mlbench.devices]
npu = mlbench_rack:BOX
rack = mlbench_rack:TYPE
careless = mlbench_rack:CARELESS
broken = no_such_sdk:DEVICE
"""
LAB = """
mlbench = 1
[device.a]
type = "rack"
tags = ["m4"]
meter = "ppk2"
[device.b]
type = "rack"
tags = ["m4", "fast"]
[device.c]
type = "rack"
frameworks = "firmware"
tags = ["mixed"]
[device.d]
type = "rack"
tags = ["mixed"]
[device.e]
type = "careless"
meter = "ppk2"
"""


@pytest.fixture
def made(tmp_path, monkeypatch):
    """Return a registry with a vendor's devices and types, and with the lab file of the text given."""
    folder = tmp_path / "site"
    info = folder / "mlbench_rack-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: mlbench-rack\nVersion: 1.0\n", encoding="utf-8")
    (info / "entry_points.txt").write_text(ENTRIES, encoding="utf-8")
    (folder / "mlbench_rack.py").write_text(CODE, encoding="utf-8")
    monkeypatch.syspath_prepend(str(folder))
    registry._entry_points.cache_clear()

    def make(text=LAB):
        if text is None:
            return Registry(root=tmp_path)
        path = tmp_path / "lab.toml"
        path.write_text(text, encoding="utf-8")
        return Registry(path, tmp_path)

    yield make
    registry._entry_points.cache_clear()
    sys.modules.pop("mlbench_rack", None)


def test_a_suite_may_name_registered_devices_the_labs_and_its_tags(made):
    words = made().devices
    assert {"cpu", "npu", "broken", "a", "b", "c", "d", "e", "any.m4", "any.fast", "any.mixed"} <= set(words)
    assert not {"rack", "careless"} & set(words), "a type is no device"
    assert not {"a", "any.m4"} & set(made(None).devices)


def test_a_device_of_the_lab_is_made_by_its_type(made):
    device = made().device("a")
    assert (device.name, device.resources) == ("a", ("a", "ppk2"))
    assert made().device("npu").resources == ("npu0",)


def test_a_type_is_no_device(made):
    with pytest.raises(SuiteError, match='"rack" is a type of device: describe one in a lab file'):
        made().device("rack")


def test_without_a_lab_file_its_devices_are_not_known(made):
    with pytest.raises(SuiteError, match="--mlbench-lab FILE, or MLBENCH_LAB"):
        made(None).device("a")


def test_a_broken_package_harms_only_those_who_name_it(made):
    assert made().device("a").name == "a"
    with pytest.raises(MlbenchError, match="device 'broken' \\(no_such_sdk:DEVICE\\) cannot be loaded"):
        made().device("broken")
    with pytest.raises(SuiteError) as caught:
        _ = made('mlbench = 1\n[device.x]\ntype = "broken"\n').lab
    assert "device.x.type: device 'broken' (no_such_sdk:DEVICE) cannot be loaded" in str(caught.value)


def test_a_device_of_the_lab_may_not_take_a_registered_name(made):
    with pytest.raises(SuiteError, match='"npu" is registered by an installed package'):
        _ = made('mlbench = 1\n[device.npu]\ntype = "rack"\n').lab


def test_a_type_that_leaves_out_what_is_wired_to_a_device_is_told_of(made):
    with pytest.raises(MlbenchError) as caught:
        made().device("e")
    assert "device type 'careless' made 'e' with the resources cpu of 'e', which must come first: e, ppk2" in str(
        caught.value
    )


def test_a_board_is_one_that_is_described(made, tmp_path):
    text = LAB.replace("[device.b]\n", '[device.b]\nboard = "acme_box"\n')
    with pytest.raises(SuiteError, match=r'device\.b\.board: unknown board "acme_box"'):
        _ = made(text).lab
    folder = tmp_path / "hardware" / "boards"
    folder.mkdir(parents=True)
    (folder / "acme_box.toml").write_text("", encoding="utf-8")  # only its name is looked for here
    assert made(text).lab.devices["b"].board == "acme_box"


# --- any board with a tag ---------------------------------------------------------------------------------------


def test_a_tag_is_a_choice_of_the_devices_that_carry_it(made):
    found = made().device("any.m4")
    assert isinstance(found, Choice)
    assert [device.name for device in found.devices] == ["a", "b"]
    assert (found.name, found.is_host, found.frameworks, found.emulated) == ("any.m4", True, (), False)
    assert found.probe() == ""


def test_what_only_one_device_can_tell_is_not_told_before_one_is_chosen(made):
    found = made().device("any.m4")
    for ask in (
        lambda: found.resources,
        lambda: found.shares,
        lambda: found.shipped,
        lambda: found.verified,
        lambda: found.gateway(None),
        found.connection,
        lambda: found.place(None),
        found.facts,
    ):
        with pytest.raises(SuiteError, match=r'"any\.m4" stands for one of a, b; its \w+ is known once'):
            ask()


def test_devices_that_take_other_frameworks_are_no_choice(made):
    with pytest.raises(SuiteError) as caught:
        made().device("any.mixed")
    told = '"any.mixed" stands for devices that differ in frameworks (c: firmware; d: any); give them different tags'
    assert str(caught.value) == told


def test_a_tag_that_nothing_carries(made):
    with pytest.raises(SuiteError, match='has the tag "m5"; tags there: m4, fast, mixed'):
        made().device("any.m5")


def test_a_choice_of_which_none_can_be_used_says_why(made):
    @dataclass(frozen=True)
    class Absent:
        name: str
        is_host: bool = True
        frameworks: tuple = ()
        emulated: bool = False

        def probe(self):
            return "no such port"

    assert choice("any.x", (Absent("p"), Absent("q"))).probe() == "p: no such port; q: no such port"
