"""The table `switch` of a device in a lab file: how its power is switched, checked and with its defaults.

What switches stands in agent/power_switch.py: it works on the machine that the board is wired to.
"""

from __future__ import annotations

import re
from typing import Any

from pytest_mlbench.agent.power_switch import DEADLINE_S, OFF_S
from pytest_mlbench.near import unknown
from pytest_mlbench.tables import Place, Table, as_integer, as_text, as_word

KINDS = ("command", "uhubctl")
_HUB = re.compile(r"[0-9]+(-[0-9]+(\.[0-9]+)*)?")
_SECRET = re.compile(r"(?i)^-{0,2}[\w-]*(password|passwd|token|secret|api-?key)=|://[^/\s]*:[^/\s]*@")
_SECRET_OPTION = re.compile(r"(?i)^-{1,2}(password|passwd|token|secret|api-?key)$")


def read(value: object, place: Place) -> dict[str, Any]:
    """Return a device's `switch`, checked and with its defaults, as plain values."""
    table = Table(value, place)
    kind = as_text(*table.need("kind", 'kind = "command"'))
    if kind not in KINDS:
        raise place.at("kind").error(unknown("kind of switch", kind, KINDS, "kinds"))
    common = ("kind", "off_s", "deadline_s", "resource")
    table = Table(value, place, (*common, *(("hub", "port") if kind == "uhubctl" else ("on", "off", "cycle"))))
    found: dict[str, Any] = {
        "kind": kind,
        "off_s": table.number("off_s", OFF_S, least=0.0),
        "deadline_s": table.number("deadline_s", DEADLINE_S, above=0.0),
        "resource": as_word(*table.at("resource")) if "resource" in table else "",
    }
    if kind == "uhubctl":
        hub, at = table.need("hub", 'hub = "1-1.4"')
        if not _HUB.fullmatch(as_text(hub, at)):
            raise at.error(f'{hub!r} is no location of a hub; expected one as uhubctl prints it, such as "1-1.4"')
        return {**found, "hub": hub, "port": as_integer(*table.need("port", "port = 3"), least=1)}
    found |= {key: [_word(item, at) for item, at in table.items(key, "words")] for key in ("on", "off", "cycle")}
    if not found["cycle"] and not (found["on"] and found["off"]):
        raise place.error('needs "cycle", or "on" and "off"; write for example: cycle = ["pdu", "cycle", "3"]')
    for key in ("on", "off", "cycle"):
        if found[key] and found[key][0].startswith("-"):
            raise place.at(key).at(0).error(f'"{found[key][0]}" is an option, not a program')
    return found


def _word(value: object, place: Place) -> str:
    text = as_text(value, place)
    check_word(text, place)
    return text


def check_word(text: str, place: Place) -> None:
    """Raise SuiteError for a word of a command that cannot be meant: control characters, a secret in plain text."""
    if not text.isprintable():
        raise place.error("holds a control character; a command is a list of its words")
    if _SECRET.search(text) or _SECRET_OPTION.search(text):  # and never show it
        raise place.error(
            "looks like a secret, which may not stand in a file; the command inherits the environment: "
            "let it read the secret from a variable"
        )
