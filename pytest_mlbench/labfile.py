"""Read a lab file: the TOML that says which devices a site has. Everything is checked once, here.

Strings from it reach command lines (ssh, flashing tools, uhubctl), so each is held to a pattern: its Setting's, else
SAFE. Nothing is opened or looked for: a lab may be described where it is not.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_origin

from pytest_mlbench import switches
from pytest_mlbench.devices.api import DeviceType, Setting
from pytest_mlbench.errors import MlbenchError
from pytest_mlbench.lab import ANY, Lab, LabDevice, Secret
from pytest_mlbench.near import nearest, unknown
from pytest_mlbench.suitefile import read_toml
from pytest_mlbench.tables import (
    Place,
    Table,
    as_integer,
    as_items,
    as_known,
    as_number,
    as_text,
    as_word,
    shown,
    unique,
)

SCHEMA = 1
SAFE = r"[A-Za-z0-9_][A-Za-z0-9_.:@+-]*"  # of a setting that has no pattern of its own
_KEYS = ("type", "board", "tags", "switch", "meter")
_SECRET = re.compile(r"(^|_)(password|passwd|passphrase|token|secret|api_?key|private_?key)($|_)", re.IGNORECASE)
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_EXAMPLE = 'type = "ssh"'


@dataclass(frozen=True)
class LabKnown:
    """What a lab file may name on this installation."""

    types: Mapping[str, DeviceType]
    devices: Collection[str]  # registered ones, whose names are taken
    boards: Collection[str]
    broken: Mapping[str, str] = field(default_factory=dict)  # what an installed package registers and cannot give


def load_lab(path: Path, known: LabKnown) -> Lab:
    """Return the lab in the TOML file `path`.

    Raises SuiteError with the file, the key path (or line and column, when it is no TOML) and the remedy.
    """
    return lab_from_tables(read_toml(path), path, known)


def lab_from_tables(tables: Mapping[str, Any], path: Path, known: LabKnown) -> Lab:
    """Return the lab in tables shaped like the file, which stand in `path`."""
    table = Table(tables, Place(path), ("mlbench", "device"))
    schema = as_integer(*table.need("mlbench", "mlbench = 1"))
    if schema != SCHEMA:
        place = table.place.at("mlbench")
        raise place.error(f"schema {schema} is not known, this version reads {SCHEMA}; update pytest-mlbench")
    devices: dict[str, LabDevice] = {}
    for name, value, place in table.table("device"):
        _check_name(name, place, known, devices)
        devices[name] = _device(name, value, place, known)
    if not devices:
        raise table.place.error('holds no device; write for example: [device.pi5] and under it type = "ssh"')
    _check_shared(devices, known, table.place)
    return Lab(path, devices)


def _check_name(name: str, place: Place, known: LabKnown, others: Collection[str]) -> None:
    as_word(name, place)
    counted = re.sub(r"\.\d+$", "", name)  # `cuda.0`: a type whose devices a machine counts by itself
    if name in known.devices or name in known.types or (counted != name and counted in known.types):
        raise place.error(f'"{name}" is registered by an installed package; give this device another name')
    if f"{name}.".startswith(ANY):
        raise place.error(f'a name may not begin with "{ANY}", which selects by tag; give this device another name')
    for other in others:
        if other.lower() == name.lower():  # their locks would be one file on some systems
            raise place.error(f'differs from "{other}" by upper and lower case only; give one another name')


def _device(name: str, value: object, place: Place, known: LabKnown) -> LabDevice:
    raw = Table(value, place)
    given, at = raw.need("type", _EXAMPLE)
    if isinstance(given, str) and given in known.broken:
        raise at.error(known.broken[given])
    word = as_text(given, at)
    if word not in known.types:
        raise at.error(unknown("type of device", word, known.types, "types"))
    settings = known.types[word].settings
    clash = [key for key in settings if key in _KEYS]
    if clash:
        raise MlbenchError(f"device type {word!r} has a setting {clash[0]!r}, which every device has: tell its vendor")
    keys = (*_KEYS, *settings)
    for key, _, at in raw:
        if key not in keys:
            raise at.error(_unknown_key(key, word, keys))
    table = Table(value, place, keys)
    board, at = table.at("board")
    meter = as_word(*table.at("meter")) if "meter" in table else ""
    if meter and (meter in known.devices or meter in known.types):
        raise place.at("meter").error(f'"{meter}" is a registered device, not a meter')
    return LabDevice(
        name=name,
        type=word,
        file=place.file or Path(),
        board="" if board is None else as_known(board, at, "board", known.boards),
        tags=unique([(as_word(item, there), there) for item, there in table.items("tags", "tags")], "tag"),
        switch=switches.read(*table.at("switch")) if "switch" in table else {},
        meter=meter,
        settings={key: _setting(table, key, setting) for key, setting in settings.items()},
    )


def _unknown_key(key: str, word: str, keys: Collection[str]) -> str:
    if _SECRET.search(key):
        return (
            f"a lab file holds no secrets, and type {word!r} asks for none; "
            "leave it to the tool's own configuration or to the environment"
        )
    match = nearest(key, keys)
    hint = f'did you mean "{match}"? ' if match is not None else ""
    return f'unknown key; {hint}Keys of a device of type "{word}": {", ".join(keys)}'


# --- settings -----------------------------------------------------------------------------------------------


def _setting(table: Table, key: str, setting: Setting) -> Any:
    if key not in table:
        if setting.required:
            table.need(key, f"{key} = ... ({setting.help})")
        return setting.default
    value, place = table.at(key)
    if setting.secret:
        return _secret(value, place)
    if setting.type is bool:
        return table.flag(key, False)
    if setting.type is int:
        least = None if setting.minimum is None else int(setting.minimum)
        return as_integer(value, place, least)
    if setting.type is float:
        return as_number(value, place, setting.minimum)
    if setting.type is str:
        return _text(value, place, setting)
    if (get_origin(setting.type) or setting.type) is list:
        words = [(_item(item, at, setting), at) for item, at in as_items(value, place, "strings")]
        if words and words[0][0].startswith("-"):
            raise words[0][1].error(f'"{words[0][0]}" is an option; the first word is the program')
        return tuple(word for word, _ in words)
    raise MlbenchError(f"{place.key}: its device type has a setting of {setting.type}: tell its vendor")


def _secret(value: object, place: Place) -> Secret:
    example = 'write { env = "NAME" } and put the value into the environment variable NAME'
    if not isinstance(value, Mapping):  # and never show it
        raise place.error(f"is a secret, which may not stand in a file; {example}")
    name, at = Table(value, place, ("env",)).need("env", 'env = "PDU_PASSWORD"')
    text = as_text(name, at)
    if not _VARIABLE.fullmatch(text):
        raise at.error(f"expected the name of an environment variable, found {shown(text)}")
    return Secret(text, f"{place.file}: {place.key}")


def _text(value: object, place: Place, setting: Setting) -> str:
    if setting.choices:
        return as_known(value, place, "choice", setting.choices)
    text = as_text(value, place)
    held(text, place, setting.pattern or SAFE, setting.help)
    return text


def _item(value: object, place: Place, setting: Setting) -> str:
    """Return one word of a command: it is passed on as it is, without a shell."""
    if setting.choices:
        return as_known(value, place, "choice", setting.choices)
    text = as_text(value, place)
    if setting.pattern:
        held(text, place, setting.pattern, setting.help)
    switches.check_word(text, place)
    return text


def held(text: str, place: Place, pattern: str, what: str) -> None:
    """Raise SuiteError when `text` does not match `pattern` whole; the message names what would be dangerous."""
    if re.fullmatch(pattern, text) is None:
        raise place.error(f"{text!r} is not accepted{_danger(text)}: {what} It must match {pattern}")


def _danger(text: str) -> str:
    if text.startswith("-"):
        return ", a program would take it for an option"
    if any(character.isspace() or not character.isprintable() for character in text):
        return ", it holds white space or a control character"
    found = re.search(r"[;&|<>$`\"'\\(){}*?\[\]!#~%^]", text)
    if found:
        return f', "{found[0]}" means something to a shell'
    return ", it holds a path separator where no path is expected" if "/" in text else ""


# --- devices together ---------------------------------------------------------------------------------------


def _check_shared(devices: Mapping[str, LabDevice], known: LabKnown, place: Place) -> None:
    """Raise SuiteError for one port, serial number or switch of two devices, and for a meter named as a device."""
    taken: dict[tuple[str, str, object], str] = {}
    for name, device in devices.items():
        at = place.at("device").at(name)
        settings = known.types[device.type].settings
        values = [(key, value) for key, value in device.settings.items() if settings[key].unique and value is not None]
        if device.switch.get("kind") == "uhubctl":
            values.append(("switch", (device.switch["hub"], device.switch["port"])))
        for key, value in values:
            # Two names of one thing: a port by its number and by a stable link.
            real = os.path.realpath(value) if isinstance(value, str) and value.startswith("/") else value
            other = taken.setdefault((device.type if key != "switch" else "", key, real), name)
            if other != name:
                raise at.at(key).error(f'is also that of device "{other}": {_plain(value)}; each is wired to its own')
        if device.meter in devices:
            raise at.at("meter").error(f'"{device.meter}" is a device of this file; a meter has a name of its own')


def _plain(value: object) -> str:
    return f"hub {value[0]} port {value[1]}" if isinstance(value, tuple) else str(value)
