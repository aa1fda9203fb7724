"""What core expects of a type of device that lab files may name, as tests that the vendor's package runs on its own:

class TestType(DeviceTypeContract):
    @pytest.fixture
    def device_type(self):
        return TYPE

    @pytest.fixture
    def settings(self):
        return {"port": "/dev/ttyACM0"}
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_origin

import pytest

from pytest_mlbench import labfile
from pytest_mlbench.devices.api import VERIFIED, Device, DeviceType
from pytest_mlbench.lab import LabDevice
from pytest_mlbench.testing.plain import not_given

_OF_EVERY_DEVICE = ("type", "board", "tags", "switch", "meter")
_TYPE = "the_type"


class DeviceTypeContract:
    """Hold a type to devices/api.py. A subclass gives `device_type`, and `settings` that a lab file would hold."""

    @pytest.fixture
    def device_type(self) -> DeviceType:
        """Return the type that is held to the contract."""
        found: DeviceType = not_given(self, "device_type", "the type")
        return found

    @pytest.fixture
    def settings(self) -> Mapping[str, Any]:
        """Return keys of its own and values, as they stand in a lab file."""
        found: Mapping[str, Any] = not_given(self, "settings", "a lab file's keys and values")
        return found

    def test_it_says_how_far_it_was_verified(self, device_type: DeviceType) -> None:
        """`mlbench devices` shows it."""
        found = device_type.verified
        assert found in VERIFIED, f"verified is {found!r}, expected one of {', '.join(VERIFIED)}"

    def test_its_settings_can_be_read_and_explained(self, device_type: DeviceType) -> None:
        """A lab file may give each of them, and a wrong one is told with what would be right."""
        for key, setting in device_type.settings.items():
            assert re.fullmatch(r"[a-z][a-z0-9_]*", key), f"setting {key!r}: use lower case, digits and `_`"
            assert key not in _OF_EVERY_DEVICE, f"setting {key!r} is a key that every device has"
            assert setting.help.strip().endswith("."), f"setting {key!r}: its help is a sentence with a full stop"
            is_list = get_origin(setting.type) is list
            assert is_list or setting.type in (int, float, str, bool), f"setting {key!r} has the type {setting.type}"
            default = setting.default
            if default is not None and not is_list:
                told = f"setting {key!r}: the default {default!r} is no {setting.type.__name__}"
                assert type(default) is setting.type, told
            assert not (setting.required and default is not None), f"setting {key!r} is required and has a default"

    def test_text_that_may_reach_a_command_line_is_held_to_a_pattern(self, device_type: DeviceType) -> None:
        """A pattern of its own, choices, or a secret, which is an environment variable."""
        for key, setting in device_type.settings.items():
            if setting.type is str or get_origin(setting.type) is list:
                held = setting.pattern or setting.choices or setting.secret
                assert held, f"setting {key!r} is text of any kind: give it a `pattern` or `choices`"
                re.compile(setting.pattern)

    def test_it_makes_the_device_that_a_lab_file_describes(
        self, device_type: DeviceType, settings: Mapping[str, Any], tmp_path: Path
    ) -> None:
        """With the name and the meter of the file, and the same each time."""
        entry = _read(device_type, settings, tmp_path)
        device: Device = device_type.make(entry)
        assert device.name == entry.name, f"the device is called {device.name!r}, the lab file says {entry.name!r}"
        held = device.resources[: len(entry.resources)]
        told = f"resources begin with {held}, expected those of the lab file, {entry.resources}: a meter is held too"
        assert held == entry.resources, told
        assert device_type.make(entry) == device, "the same entry makes another device when it is made again"


def _read(device_type: DeviceType, settings: Mapping[str, Any], folder: Path) -> LabDevice:
    """Return the entry of a lab file with one device of the type."""
    file = folder / "lab.toml"
    lines = ["mlbench = 1", "[device.bench]", f'type = "{_TYPE}"', 'meter = "bench_meter"']
    lines += [f"{key} = {_toml(value)}" for key, value in settings.items()]
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    known = labfile.LabKnown({_TYPE: device_type}, (), ())
    return labfile.load_lab(file, known).devices["bench"]


def _toml(value: Any) -> str:
    """Return a value as TOML: JSON is TOML for text, numbers, bools and lists of them; a secret is a table."""
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{key} = {_toml(item)}" for key, item in value.items()) + " }"
    return json.dumps(list(value) if isinstance(value, tuple) else value)
