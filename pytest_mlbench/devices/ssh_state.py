"""What a board's kernel told at one moment, read as the files of this machine would be."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from pytest_mlbench.machine import Machine


@dataclass(frozen=True)
class Snapshot(Machine):
    """The files that were sent, by path without the first slash; any other is missing."""

    files: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, files: Mapping[str, str], ticks_per_s: int) -> Snapshot:
        """Return the machine that these files describe."""
        return cls(ticks_per_s=ticks_per_s, files=files)

    def text(self, path: str) -> str | None:
        """Return a file's text."""
        return self.files.get(path)

    def paths(self, pattern: str) -> list[str]:
        """Return the paths that match, cpu2 before cpu10; `*` does not match a slash."""
        parts = pattern.split("/")
        found = [
            path
            for path in self.files
            if len(words := path.split("/")) == len(parts) and all(map(fnmatchcase, words, parts))
        ]
        return sorted(found, key=lambda path: re.sub(r"\d+", lambda digits: digits[0].zfill(20), path))
