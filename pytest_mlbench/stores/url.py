"""Where the history is: its URL, and the store that opens it."""

from __future__ import annotations

import importlib.util
import os
from typing import Protocol

from pytest_mlbench import registry
from pytest_mlbench.errors import HistoryError, Unavailable
from pytest_mlbench.stores.api import Store

DEFAULT = "sqlite:///.mlbench/history.db"
WAIT_S = 30.0  # for a database that another process holds
_EXPECTED = "expected sqlite:///FILE or postgresql://USER@HOST/NAME"
# What the built-in stores need. A URL may name the driver behind a plus sign.
_MODULES = {"sqlite": ("sqlalchemy",), "postgresql": ("sqlalchemy", "psycopg")}
_ALIASES = {"postgres": "postgresql", "postgresql+psycopg": "postgresql", "sqlite+pysqlite": "sqlite"}


class _Opener(Protocol):
    def __call__(self, url: str, *, create: bool, wait_s: float) -> Store: ...


def history_url(given: str | None) -> str:
    """Return the URL that was given, or that of MLBENCH_HISTORY, or the file in the current folder."""
    return given or os.environ.get("MLBENCH_HISTORY") or DEFAULT


def open_store(url: str, *, create: bool, wait_s: float = WAIT_S) -> Store:
    """Open the history at `url`; with `create`, a SQLite file that is not there is made.

    `wait_s` bounds how long a database that is locked is waited for. Raises HistoryError for what is no such URL or
    cannot be opened, Unavailable with the line that installs what is missing.
    """
    scheme, colon, rest = url.partition("://")
    if not colon or not rest:
        # A URL may hold a password: it is never repeated.
        raise HistoryError(f"the history's URL (--db or MLBENCH_HISTORY) is none: {_EXPECTED}")
    name = _ALIASES.get(scheme, scheme)
    if name not in registry.names("stores"):
        known = ", ".join(registry.names("stores"))
        raise HistoryError(f"no store is known for the URL scheme {scheme!r}: {_EXPECTED} (known: {known})")
    missing = [module for module in _MODULES.get(name, ()) if importlib.util.find_spec(module) is None]
    if missing:
        raise Unavailable(
            f"the history needs {' and '.join(missing)}, not installed here: pip install 'pytest-mlbench[sql]'"
        )
    opener: _Opener = registry.load("stores", name)
    return opener(f"{name}://{rest}", create=create, wait_s=wait_s)
