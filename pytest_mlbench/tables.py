"""Read typed values out of a suite's tables, each with its place: every message names file and key path.

A table is a TOML table or, in a Python suite, a dict of the same shape: there a tuple is as good as a list, a
`Path` as good as a string, and a value of None is the same as a key left out.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from pytest_mlbench.devices.api import numbered_word
from pytest_mlbench.errors import AssetError, SuiteError
from pytest_mlbench.frameworks.api import Framework
from pytest_mlbench.lab import Lab
from pytest_mlbench.near import nearest, unknown

PRECISIONS = ("fp64", "fp32", "bf16", "fp16", "int16", "int8", "int4")

D = TypeVar("D")

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_WORD = re.compile(r"[A-Za-z0-9_.]+")
_NAME = re.compile(r"[A-Za-z0-9_.-]+")
_HEX = re.compile(r"[0-9a-fA-F]{64}")
_FUNCTION = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")


@dataclass(frozen=True)
class Traits:
    """What the cases of a device depend on before it is used."""

    frameworks: tuple[str, ...] = ()  # those it takes; () for any that runs Python
    emulated: bool = False


def plain_traits(device: str) -> Traits:
    """Return the traits of a device that takes any framework."""
    return Traits()


@dataclass(frozen=True)
class Known:
    """The names a suite may use: what is registered in this session.

    `metrics` maps a metric's name to its unit ("ns", "bytes", "1/s", "usd", "" for shares and dB; None when
    unknown, then only plain numbers are limits). With `vendor_metrics`, functions are registered whose
    metrics' names cannot be told before they ran, so further names are let through with plain numbers.
    """

    frameworks: Mapping[str, Framework]
    devices: Collection[str]
    scenarios: Collection[str]
    metrics: Mapping[str, str | None]
    vendor_metrics: bool = False
    device_types: Collection[str] = ()
    numbered: Collection[str] = ()  # those whose devices have no names of their own: cuda is for cuda.0, cuda.1, ...
    lab: Lab = field(default_factory=Lab)  # for the message about a device that is not known
    traits: Callable[[str], Traits] = plain_traits  # of a device by its name
    offered: Mapping[str, str] = field(default_factory=dict)  # a suite's `device` tables: name -> what installs it

    def has_device(self, word: str) -> bool:
        """Tell whether a suite may write `word` in `device`."""
        return word in self.devices or numbered_word(word, self.numbered) is not None

    @property
    def formats(self) -> tuple[str, ...]:
        """Return the model formats some registered framework loads, sorted."""
        return tuple(sorted({framework.format for framework in self.frameworks.values()}))


@dataclass(frozen=True)
class Place:
    """Where a value stands: its file and its key path, for example `benchmark[0].expect.latency.p99`."""

    file: Path | None = None
    key: str = ""

    def at(self, step: str | int) -> Place:
        """Return the place one key or one list index further in."""
        if isinstance(step, int):
            return Place(self.file, f"{self.key}[{step}]")
        word = step if _BARE_KEY.fullmatch(step) else f'"{step}"'
        return Place(self.file, f"{self.key}.{word}" if self.key else word)

    def error(self, message: str) -> SuiteError:
        """Return (not raise) a SuiteError of this place."""
        return SuiteError(message, file=self.file, key=self.key or None)

    def asset_error(self, message: str) -> AssetError:
        """Return (not raise) an AssetError of this place."""
        return AssetError(message, file=self.file, key=self.key or None)


def shown(value: object) -> str:
    """Return a value with its kind in words, for messages: `5 (a whole number)`, `a list of 2`."""
    if value is True or value is False:
        return f"{str(value).lower()} (a boolean)"
    if isinstance(value, int):
        return f"{value} (a whole number)"
    if isinstance(value, float):
        return f"{value} (a number)"
    if isinstance(value, str):
        return f'"{value}" (a string)' if len(value) <= 80 else f'"{value[:80]}..." (a string)'
    if isinstance(value, (list, tuple)):
        return f"a list of {len(value)}"
    if isinstance(value, Mapping):
        return f"a table ({', '.join(map(str, value)) or 'empty'})"
    return f"{value!r} ({type(value).__name__})"


def as_text(value: object, place: Place) -> str:
    """Return `value` if it is a string that is not blank."""
    if not isinstance(value, str):
        raise place.error(f"expected a string, found {shown(value)}")
    if not value.strip():
        raise place.error("expected a string that is not empty")
    return value


def as_integer(value: object, place: Place, least: int | None = None) -> int:
    """Return `value` if it is a whole number, at least `least`; a boolean is none."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise place.error(f"expected a whole number, found {shown(value)}")
    if least is not None and value < least:
        raise place.error(f"must be at least {least}, found {value}")
    return value


def as_number(value: object, place: Place, least: float | None = None, above: float | None = None) -> float:
    """Return `value` as float if it is a finite number within `least` (inclusive) and `above` (exclusive)."""
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise place.error(f"expected a number, found {shown(value)}")
    if not math.isfinite(value):
        raise place.error(f"expected a finite number, found {value}")
    if least is not None and value < least:
        raise place.error(f"must be at least {least:g}, found {value:g}")
    if above is not None and value <= above:
        raise place.error(f"must be above {above:g}, found {value:g}")
    return float(value)


def as_items(value: object, place: Place, of: str = "values") -> list[tuple[object, Place]]:
    """Return the items of a list, each with its place; a string or table is not a list."""
    if not isinstance(value, (list, tuple)):
        hint = f'; write ["{value}"]' if isinstance(value, str) else ""
        raise place.error(f"expected a list of {of}, found {shown(value)}{hint}")
    return [(item, place.at(index)) for index, item in enumerate(value)]


def as_word(value: object, place: Place) -> str:
    """Return `value` if it may stand in a case id: letters, digits, `_` and `.`."""
    text = as_text(value, place)
    if not _WORD.fullmatch(text):
        raise place.error(f'"{text}" may hold only letters, digits, "_" and "."')
    return text


def as_name(value: object, place: Place) -> str:
    """Return `value` if it may name a suite or a benchmark: as a word, and `-`."""
    text = as_text(value, place)
    if not _NAME.fullmatch(text):
        raise place.error(f'"{text}" may hold only letters, digits, "_", "." and "-"')
    return text


def as_known(value: object, place: Place, what: str, known: Collection[str]) -> str:
    """Return `value` if it is one of `known`; else say which is near."""
    text = as_text(value, place)
    if text not in known:
        raise place.error(unknown(what, text, known))
    return text


def as_sha256(value: object, place: Place) -> str:
    """Return a digest of 64 hexadecimal digits in lower case."""
    text = as_text(value, place)
    if not _HEX.fullmatch(text):
        raise place.error(f"expected 64 hexadecimal digits (SHA-256), found {shown(text)}")
    return text.lower()


def as_function(value: object, place: Place) -> str:
    """Return `value` if it has the shape `module:function`; nothing is imported."""
    text = as_text(value, place)
    if not _FUNCTION.fullmatch(text):
        raise place.error(f'expected "module:function", found {shown(text)}')
    return text


def as_inside(value: object, place: Place) -> Path:
    """Return the absolute path of a file named relative to the suite's folder, which it may not leave.

    Symbolic links are followed for this decision. The file is neither opened nor looked for. AssetError
    for an absolute path and for one that ends outside.
    """
    text = as_text(str(value) if isinstance(value, Path) else value, place)
    assert place.file is not None, "a table with paths in it comes from a file"
    folder = place.file.absolute().parent
    if Path(text).is_absolute() or text.startswith("~"):
        raise place.asset_error(f'"{text}" must be relative to the folder of the suite, {folder}')
    try:
        root = folder.resolve()
        real = (root / text).resolve()
    except (OSError, RuntimeError, ValueError) as error:
        raise place.asset_error(f'"{text}" is no usable path: {error}') from error
    if root not in real.parents:
        raise place.asset_error(
            f'"{text}" is outside the folder of the suite, {folder}, which files may not leave; copy it in'
        )
    return folder / real.relative_to(root)


def unique(items: list[tuple[D, Place]], what: str) -> tuple[D, ...]:
    """Return the items alone; the second of two equal ones is an error at its place."""
    seen: list[D] = []
    for item, place in items:
        if item in seen:
            raise place.error(f'{what} "{item}" is given twice')
        seen.append(item)
    return tuple(seen)


class Table:
    """One table with its place; reading a key of the wrong type says what was found and expected.

    Keys outside `keys` are refused when it is made; `None` lets every key pass (tables of user's names).
    """

    def __init__(self, value: object, place: Place, keys: Collection[str] | None = None) -> None:
        if not isinstance(value, Mapping):
            raise place.error(f"expected a table, found {shown(value)}")
        for key in value:
            if not isinstance(key, str):
                raise place.error(f"expected strings as keys, found {shown(key)}")
            if keys is not None and key not in keys:
                match = nearest(key, keys)
                hint = f'did you mean "{match}"? ' if match is not None else ""
                raise place.at(key).error(f"unknown key; {hint}Keys here: {', '.join(keys)}")
        self.place = place
        self._values = {key: item for key, item in value.items() if item is not None}

    def __contains__(self, key: str) -> bool:
        return key in self._values

    def __iter__(self) -> Iterator[tuple[str, object, Place]]:
        """Yield key, value and place of what the table holds."""
        for key, value in self._values.items():
            yield key, value, self.place.at(key)

    def __len__(self) -> int:
        return len(self._values)

    def at(self, key: str) -> tuple[object, Place]:
        """Return the value of `key` (None when absent) and its place, as the as_... functions take them."""
        return self._values.get(key), self.place.at(key)

    def need(self, key: str, example: str) -> tuple[object, Place]:
        """Return what `at` does; an absent key is an error which shows how to write it."""
        if key not in self._values:
            raise self.place.error(f'the key "{key}" is missing; write for example: {example}')
        return self.at(key)

    def text(self, key: str, default: D) -> str | D:
        """Return the string `key`, or `default`."""
        return as_text(*self.at(key)) if key in self else default

    def integer(self, key: str, default: D, least: int | None = None) -> int | D:
        """Return the whole number `key`, or `default`."""
        return as_integer(*self.at(key), least) if key in self else default

    def number(self, key: str, default: D, least: float | None = None, above: float | None = None) -> float | D:
        """Return the number `key`, or `default`."""
        return as_number(*self.at(key), least, above) if key in self else default

    def flag(self, key: str, default: bool) -> bool:
        """Return the boolean `key`, or `default`."""
        value, place = self.at(key)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise place.error(f"expected true or false, found {shown(value)}")
        return value

    def known(self, key: str, default: D, what: str, words: Collection[str]) -> str | D:
        """Return the string `key`, one of `words`, or `default`."""
        return as_known(*self.at(key), what, words) if key in self else default

    def function(self, key: str, default: D) -> str | D:
        """Return the `module:function` under `key`, or `default`."""
        return as_function(*self.at(key)) if key in self else default

    def inside(self, key: str) -> Path | None:
        """Return the path under `key`, which stays in the suite's folder, or None."""
        return as_inside(*self.at(key)) if key in self else None

    def table(self, key: str, keys: Collection[str] | None = None) -> Table:
        """Return the table under `key`; an empty one when it is absent."""
        value, place = self.at(key)
        return Table({} if value is None else value, place, keys)

    def items(self, key: str, of: str = "values") -> list[tuple[object, Place]]:
        """Return the items of the list under `key` with their places; none when it is absent."""
        value, place = self.at(key)
        return [] if value is None else as_items(value, place, of)
