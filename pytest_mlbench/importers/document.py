"""A JSON file that another tool wrote, read as untrusted input: each value is asked for by its place and type."""

from __future__ import annotations

import gzip
import hashlib
import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, NoReturn

from pytest_mlbench.errors import RunFileError

MOST_BYTES = 1 << 29  # of a file, unpacked: 512 MB, a thousand times what tools write
_GZIP = b"\x1f\x8b"
_YEARS = range(2000, 2200)  # a benchmark's date outside is a clock that was never set, or no date


@dataclass(frozen=True)
class Place:
    """A value in a JSON file and the keys that lead to it, for messages."""

    file: Path
    key: str
    value: Any

    def wrong(self, expected: str, remedy: str = "") -> NoReturn:
        """Raise RunFileError: what was expected here, what is there."""
        raise RunFileError(
            f"{self.file}: {self.key or 'top level'}: expected {expected}, found {_shown(self.value)}"
            + (f"; {remedy}" if remedy else "")
        )

    def find(self, *names: str) -> Place | None:
        """Return the value under these keys, or None when there is none, or null."""
        here = self
        for name in names:
            value = here.mapping().get(name)
            if value is None:
                return None
            here = Place(self.file, f"{here.key}.{name}" if here.key else name, value)
        return here

    def at(self, *names: str) -> Place:
        """Return the value under these keys; RunFileError when there is none."""
        found = self.find(*names)
        if found is None:
            key = ".".join([self.key, *names]).lstrip(".")
            raise RunFileError(f"{self.file}: {key} is missing; the file is of another version or was changed")
        return found

    def mapping(self) -> Mapping[str, Any]:
        """Return the value, which must be an object."""
        if not isinstance(self.value, dict):
            self.wrong("an object")
        return self.value

    def entries(self) -> list[Place]:
        """Return the places of a list's values."""
        if not isinstance(self.value, list):
            self.wrong("a list")
        return [Place(self.file, f"{self.key}[{i}]", value) for i, value in enumerate(self.value)]

    def text(self) -> str:
        """Return the value, which must be a string that can be shown and stored."""
        if not isinstance(self.value, str):
            self.wrong("a string")
        try:
            self.value.encode()
        except UnicodeEncodeError:
            self.wrong("a string without halves of characters")
        if not self.value.isprintable():
            self.wrong("a string without control characters")
        return self.value

    def number(self, low: float, high: float, unit: str = "") -> float:
        """Return the value, which must be a number from `low` to `high`: NaN and infinities are not."""
        if isinstance(self.value, bool) or not isinstance(self.value, (int, float)) or not low <= self.value <= high:
            self.wrong(f"a number from {low:g} to {high:g}{unit and ' ' + unit}")
        return float(self.value)

    def count(self, high: int, low: int = 1) -> int:
        """Return the value, which must be a whole number from `low` to `high`."""
        if isinstance(self.value, bool) or not isinstance(self.value, int) or not low <= self.value <= high:
            self.wrong(f"a whole number from {low} to {high}")
        return self.value

    def moment(self) -> datetime:
        """Return the value, which must be a date with time, in UTC; one without a time zone is taken for UTC."""
        expected = "a date like 2026-01-31T12:00:00+00:00"
        try:
            found = datetime.fromisoformat(self.text().replace("Z", "+00:00"))
            found = found.replace(tzinfo=timezone.utc) if found.tzinfo is None else found.astimezone(timezone.utc)
        except (ValueError, OverflowError):
            self.wrong(expected)
        if found.year not in _YEARS:
            self.wrong(expected)
        return found


@dataclass(frozen=True)
class Document:
    """A JSON file: its top level, and the hash of its text, which the run's id is made of."""

    root: Place
    sha256: str


def read_bytes(path: Path) -> bytes:
    """Return a file's content, unpacked when it is gzip. RunFileError when it cannot be read, or is too large."""
    if path.exists() and not path.is_file():  # a device, for one, may never end
        raise RunFileError(f"cannot read {path}: it is no regular file")
    try:
        with path.open("rb") as stream:
            packed = stream.read(2) == _GZIP
            stream.seek(0)
            source = gzip.GzipFile(fileobj=stream) if packed else stream
            content: bytes = source.read(MOST_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise RunFileError(f"cannot read {path}: {error}") from None
    if len(content) > MOST_BYTES:
        raise RunFileError(f"cannot read {path}: it holds more than {MOST_BYTES} bytes, which no benchmark file does")
    return content


def parse(path: Path, content: bytes) -> Document:
    """Return the JSON of a file. NaN is taken here, and refused where a number is asked for, by its key."""
    try:
        value = json.loads(content.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise RunFileError(f"{path}: not JSON: {error}; the file is cut off or of another format") from None
    return Document(Place(path, "", value), hashlib.sha256(content).hexdigest())


def _shown(value: object) -> str:
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return "a list"
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 10**30:
        return "a number of more than 30 digits"  # the digits of a huge one may not be asked for
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."
