"""Public descriptions of boards: `hardware/boards/NAME.toml`, each fact with its source, an unknown fact left out.

Found on a path: the project's own, then those of installed packages (entry-point group `mlbench.boards`, a package
whose folder holds `hardware/boards`), then those that came with this package. The first of a name is taken.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from pytest_mlbench.errors import SuiteError
from pytest_mlbench.near import unknown
from pytest_mlbench.suitefile import read_toml
from pytest_mlbench.tables import Place, Table, as_integer, as_items, as_name, as_number, as_text, shown, unique

SCHEMA = 1
FOLDER = Path("hardware") / "boards"
GROUP = "mlbench.boards"
_KEYS = ("mlbench", "title", "maker", "emulated", "notes", "sources")
_URL = re.compile(r"https?://[^\s\"<>]+")
_NEEDED = {"prices": ("amount", "currency", "as_of"), "clocks": ("of", "clock")}  # elsewhere the name, where it has one
_DATE = re.compile(r"\d{4}(-(0[1-9]|1[0-2])(-(0[1-9]|[12]\d|3[01]))?)?")
_MULTIPLES: Mapping[str, Mapping[str, float]] = {
    "hz": {"Hz": 1, "kHz": 10**3, "MHz": 10**6, "GHz": 10**9},
    "bytes": {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "kB": 10**3, "MB": 10**6, "GB": 10**9},
    "v": {"mV": 10**-3, "V": 1},
    "a": {"mA": 10**-3, "A": 1},
    "w": {"mW": 10**-3, "W": 1},
}
_QUANTITY = re.compile(r"(\d+(?:\.\d+)?) (\w+)")


@dataclass(frozen=True)
class Source:
    """Where facts come from, and the day they were read there."""

    title: str
    url: str
    read: date


@dataclass(frozen=True)
class Fact:
    """A few values that one source tells: a kind of core, a memory, a rail, a price.

    Quantities are plain numbers under names with their unit: `clock_hz`, `bytes`, `voltage_v`.
    """

    kind: str  # one of KINDS
    values: Mapping[str, Any]
    source: Source


@dataclass(frozen=True)
class Board:
    """A type of hardware that anyone can buy, or an emulated machine."""

    name: str
    title: str
    maker: str
    emulated: bool
    facts: tuple[Fact, ...]
    notes: str = ""
    file: Path = Path()

    def of(self, kind: str) -> tuple[Mapping[str, Any], ...]:
        """Return the values of the facts of one kind, in the file's order; () when nothing is known."""
        return tuple(fact.values for fact in self.facts if fact.kind == kind)


# --- where they are -----------------------------------------------------------------------------------------


def folders(root: Path | None) -> tuple[Path, ...]:
    """Return the folders of descriptions that exist, first those of the project at `root`, last our own."""
    found = [root / FOLDER] if root is not None else []
    for entry in sorted(importlib.metadata.entry_points(group=GROUP), key=lambda one: one.name):
        spec = importlib.util.find_spec(entry.value.partition(".")[0])  # of a package's first name: imports nothing
        places = spec.submodule_search_locations if spec is not None else None
        found += [Path(place, *entry.value.split(".")[1:]) / FOLDER for place in places or ()]
    package = Path(__file__).parent
    found += [package / FOLDER, package.parent / FOLDER]  # in the wheel, in a checkout
    return tuple(dict.fromkeys(path.resolve() for path in found if path.is_dir()))


class Boards(Mapping[str, Board]):
    """The boards of some folders by name, looked for and read when first asked for."""

    def __init__(self, places: Sequence[Path]) -> None:
        self._places = places
        self._read: dict[str, Board] = {}
        self._found: dict[str, Path] | None = None

    @property
    def files(self) -> Mapping[str, Path]:
        """Return the file of each name."""
        if self._found is None:
            self._found = {}
            for place in self._places:
                for file in sorted(place.glob("*.toml")):
                    self._found.setdefault(file.stem, file)
        return self._found

    def __getitem__(self, name: str) -> Board:
        """Return a board; KeyError when there is none, SuiteError when its file is wrong."""
        if name not in self._read:
            self._read[name] = load_board(self.files[name])
        return self._read[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.files)

    def __len__(self) -> int:
        return len(self.files)

    def __contains__(self, name: object) -> bool:
        return name in self.files

    def get_known(self, name: str) -> Board:
        """Return a board; SuiteError with a near match when there is none."""
        if name not in self:
            raise SuiteError(unknown("board", name, self))
        return self[name]


# --- one file -------------------------------------------------------------------------------------------------


def load_board(path: Path) -> Board:
    """Return the board that `path` describes; SuiteError with file, key path and remedy when it is wrong."""
    return board_from_tables(read_toml(path), path)


def board_from_tables(tables: Mapping[str, Any], path: Path) -> Board:
    """Return the board in tables shaped like the file `path`, whose stem is its name."""
    table = Table(tables, Place(path), (*_KEYS, *KINDS))
    if as_integer(*table.need("mlbench", "mlbench = 1")) != SCHEMA:
        raise table.place.at("mlbench").error(f"this version reads schema {SCHEMA}; update pytest-mlbench")
    as_name(path.stem, table.place)
    sources = {name: _source(value, at) for name, value, at in table.table("sources")}
    facts: list[Fact] = []
    used: set[str] = set()
    for kind, keys in KINDS.items():
        for value, at in table.items(kind, "tables"):
            name, fact = _fact(kind, keys, value, at, sources)
            used.add(name)
            facts.append(fact)
    for name in sources:
        if name not in used:
            raise table.place.at("sources").at(name).error("no fact names it; take it out")
    return Board(
        name=path.stem,
        title=as_text(*table.need("title", 'title = "Raspberry Pi 5"')),
        maker=as_text(*table.need("maker", 'maker = "Raspberry Pi"')),
        emulated=table.flag("emulated", False),
        facts=tuple(facts),
        notes=table.text("notes", ""),
        file=path,
    )


def _source(value: object, place: Place) -> Source:
    table = Table(value, place, ("title", "url", "read"))
    url, at = table.need("url", 'url = "https://..."')
    if not _URL.fullmatch(as_text(url, at)):
        raise at.error(f"expected the address of a page, found {shown(url)}")
    title = as_text(*table.need("title", 'title = "Product brief"'))
    return Source(title, str(url), _day(*table.need("read", "read = 2026-01-31")))


def _fact(
    kind: str, keys: Mapping[str, Read], value: object, place: Place, sources: Mapping[str, Source]
) -> tuple[str, Fact]:
    table = Table(value, place, (*keys, "source"))
    name, at = table.need("source", 'source = "brief", a key of [sources]: every fact has one')
    text = as_text(name, at)
    if text not in sources:
        raise at.error(unknown("source", text, sources))
    values: dict[str, Any] = {}
    for key, item, there in table:
        if key != "source":
            named, found = keys[key](key, item, there)
            values[named] = found
    for key in _NEEDED.get(kind, ("name",) if "name" in keys else ()):
        table.need(key, f"{key} = ...")
    if not values:
        raise place.error("tells nothing beside its source; take it out")
    return text, Fact(kind, values, sources[text])


# --- values: a reader returns the name under which a value is kept, and the value ---------------------------------

Read = Callable[[str, object, Place], tuple[str, Any]]


def _text(key: str, value: object, place: Place) -> tuple[str, Any]:
    return key, as_text(value, place)


def _texts(key: str, value: object, place: Place) -> tuple[str, Any]:
    return key, unique([(as_text(item, at), at) for item, at in as_items(value, place, "strings")], key)


def _count(key: str, value: object, place: Place) -> tuple[str, Any]:
    return key, as_integer(value, place, least=1)


def _when(key: str, value: object, place: Place) -> tuple[str, Any]:
    text = as_text(value, place)
    if not _DATE.fullmatch(text):
        raise place.error(f'expected when it was so, as in "2023", "2023-10" or "2023-10-31", found {shown(text)}')
    return key, text


def _day(value: object, place: Place) -> date:
    if type(value) is not date:  # a datetime is a date too
        raise place.error(f"expected a day, as in 2026-01-31, found {shown(value)}")
    return value


def _amount(key: str, value: object, place: Place) -> tuple[str, Any]:
    return key, as_number(value, place, above=0.0)


def _in(unit: str) -> Read:
    def read(key: str, value: object, place: Place) -> tuple[str, Any]:
        text = as_text(value, place)
        found = _QUANTITY.fullmatch(text)
        multiples = _MULTIPLES[unit]
        if found is None or found[2] not in multiples:
            raise place.error(f'expected a number and one of {", ".join(multiples)}, as in "2 {list(multiples)[-1]}"')
        number = float(found[1]) * multiples[found[2]]
        name = unit if key == "size" else f"{key}_{unit}"
        return name, int(number) if number == int(number) else number

    return read


KINDS: Mapping[str, Mapping[str, Read]] = {
    "soc": {"name": _text, "process": _text},
    "cores": {"name": _text, "count": _count, "clock": _in("hz"), "isa": _text, "extensions": _texts},
    "clocks": {"of": _text, "clock": _in("hz")},  # where another source tells the clock than the cores
    "accelerators": {"name": _text, "kind": _text, "count": _count, "clock": _in("hz"), "memory": _in("bytes")},
    "memory": {"kind": _text, "size": _in("bytes"), "use": _text, "bus": _text},
    "storage": {"kind": _text, "size": _in("bytes")},
    "rails": {"name": _text, "voltage": _in("v"), "current": _in("a"), "power": _in("w"), "how": _text},
    "serial": {"name": _text, "how": _text},
    "prices": {"amount": _amount, "currency": _text, "of": _text, "as_of": _when},
}
