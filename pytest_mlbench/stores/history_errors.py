"""What a database says when it fails, in words that name the remedy."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from sqlalchemy import exc

from pytest_mlbench.errors import HistoryError

_LOCKED = "end what holds it, or try again"
_RIGHTS = "ask for the right to create and write tables there, or name another database"
# SQLSTATE of PostgreSQL, or what it begins with -> what failed, and the remedy. The first that fits is taken.
_STATES = (
    ("53100", "the server's disk is full; nothing of this run was kept", "free space there"),
    ("53", "the server has no room for this", "try again later"),
    ("25006", "it is read-only", "name the server that takes writes"),
    ("42501", "not allowed", _RIGHTS),
    ("55P03", "it is locked by another process", _LOCKED),
    ("40", "other processes are in the way", _LOCKED),
    ("57014", "it took too long", "try again when there is less load"),
    ("", "it failed", "read what the server says"),
)
# The same for the text of what is said before there is a connection, or when it is lost: there is no state then.
_REFUSALS = (
    ("authentication failed", "the server refused the user", "check the user in the URL, PGPASSWORD or ~/.pgpass"),
    ("no password supplied", "the server wants a password", "give it in PGPASSWORD or ~/.pgpass"),
    (
        'FATAL: role "',
        "the server does not know the user",
        "name another one in the URL, or create it: createuser NAME",
    ),
    ('FATAL: database "', "there is no such database", "create it: createdb NAME"),
    ("", "it cannot be reached", "see that the server runs and that the URL names it"),
)
# The same for the text of SQLite's messages.
_TEXTS = (
    ("locked", "it is locked by another process", _LOCKED),
    ("busy", "it is locked by another process", _LOCKED),
    ("readonly", "it is read-only", "make the file and its folder writable, or name another file"),
    ("not a database", "the file is something else", "name another file"),
    ("malformed", "the file is damaged", "restore a copy, or move it away and import the run files again"),
    ("disk is full", "the disk is full; nothing of this run was kept", "free space there"),
    ("disk I/O", "the disk failed or is full; nothing of this run was kept", "free space there, or name another file"),
    ("unable to open", "the file cannot be opened", "make the folder writable, or name another file"),
    ("", "it failed", "restore a copy, or name another file"),
)


def passing(error: exc.SQLAlchemyError) -> bool:
    """Tell whether another attempt may succeed: a lock, or another process that added the same run first."""
    if isinstance(error, exc.IntegrityError):
        return True
    return (_state(error) or "").startswith(("55P03", "40")) or any(
        word in _said(error) for word in ("is locked", "is busy")
    )


@contextmanager
def told(place: str) -> Iterator[None]:
    """Raise HistoryError for what the database cannot do; `place` is its URL without the password."""
    try:
        yield
    except exc.SQLAlchemyError as error:
        raise HistoryError(_message(place, error)) from None


def _message(place: str, error: exc.SQLAlchemyError) -> str:
    said, state = _said(error), _state(error)
    if state is None:
        _, failed, remedy = _first(_TEXTS, said.__contains__)
    elif (not state and isinstance(error, exc.OperationalError)) or state.startswith(("08", "57P")):
        _, failed, remedy = _first(_REFUSALS, said.__contains__)
    else:
        _, failed, remedy = _first(_STATES, state.startswith)
    return f"the history {place}: {failed}: {said}; {remedy}"


def _state(error: exc.SQLAlchemyError) -> str | None:
    """Return PostgreSQL's SQLSTATE, empty when the server never answered, None for SQLite's errors."""
    original = getattr(error, "orig", None)
    return (original.sqlstate or "") if original is not None and hasattr(original, "sqlstate") else None


def _first(table: tuple[tuple[str, str, str], ...], fits: Callable[[str], bool]) -> tuple[str, str, str]:
    return next(row for row in table if fits(row[0]))


def _said(error: exc.SQLAlchemyError) -> str:
    """Return the database's own words on one line, without the statement and its values."""
    return " ".join(str(getattr(error, "orig", None) or error).split())
