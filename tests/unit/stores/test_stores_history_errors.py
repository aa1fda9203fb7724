"""What a database says when it fails, in words that name the remedy. The real faults are in tests/integration."""

from __future__ import annotations

import sqlite3

import psycopg
import pytest
from sqlalchemy import exc

from pytest_mlbench.errors import HistoryError
from pytest_mlbench.stores.history_errors import passing, told

PLACE = "postgresql://ci@db/mlbench"
ERRORS = psycopg.errors


def wrapped(original, kind=exc.OperationalError):
    return kind("INSERT INTO mlbench_runs VALUES (%s)", {"id": "secret value"}, original)


def message(error):
    with pytest.raises(HistoryError) as caught, told(PLACE):
        raise error
    return str(caught.value)


@pytest.mark.parametrize(
    ("original", "words"),
    [
        (ERRORS.DiskFull("no space"), "the server's disk is full; nothing of this run was kept: no space; free space"),
        (ERRORS.TooManyConnections("sorry"), "the server has no room for this: sorry; try again later"),
        (ERRORS.ReadOnlySqlTransaction("cannot"), "it is read-only: cannot; name the server that takes writes"),
        (ERRORS.InsufficientPrivilege("no"), "not allowed: no; ask for the right to create and write tables there"),
        (ERRORS.LockNotAvailable("lock"), "it is locked by another process: lock; end what holds it, or try again"),
        (ERRORS.DeadlockDetected("dead"), "other processes are in the way: dead; end what holds it, or try again"),
        (ERRORS.QueryCanceled("slow"), "it took too long: slow; try again when there is less load"),
        (ERRORS.AdminShutdown("bye"), "it cannot be reached: bye; see that the server runs and that the URL names it"),
        (ERRORS.ConnectionFailure("gone"), "it cannot be reached: gone; see that the server runs"),
        (psycopg.OperationalError("lost"), "it cannot be reached: lost; see that the server runs"),
        (
            psycopg.OperationalError("FATAL:  no password supplied"),
            "the server wants a password: FATAL: no password supplied; give it",
        ),
        (ERRORS.UndefinedTable("what"), "it failed: what; read what the server says"),
        (sqlite3.OperationalError("database is locked"), "it is locked by another process: database is locked; end"),
        (sqlite3.OperationalError("attempt to write a readonly database"), "it is read-only: attempt to write a"),
        (sqlite3.DatabaseError("file is not a database"), "the file is something else: file is not a database; name"),
        (sqlite3.DatabaseError("database disk image is malformed"), "the file is damaged: database disk image is"),
        (sqlite3.OperationalError("database or disk is full"), "the disk is full; nothing of this run was kept: data"),
        (sqlite3.OperationalError("disk I/O error"), "the disk failed or is full; nothing of this run was kept: disk"),
        (sqlite3.OperationalError("unable to open database file"), "the file cannot be opened: unable to open data"),
        (sqlite3.OperationalError("no such column: x"), "it failed: no such column: x; restore a copy, or name"),
    ],
    ids=lambda value: None if isinstance(value, str) else f"{type(value).__name__}-{str(value)[:12]}",
)
def test_each_failure_is_one_line_with_the_place_and_the_remedy(original, words):
    found = message(wrapped(original))
    assert found.startswith(f"the history {PLACE}: {words}")
    assert "\n" not in found
    assert "INSERT" not in found, "no statement"
    assert "secret value" not in found, "no values"


def test_a_message_of_several_lines_becomes_one():
    assert ": first second; " in message(wrapped(psycopg.OperationalError("first\n\tsecond")))


def test_what_the_library_itself_says_is_told():
    assert "it failed: no more connections; " in message(exc.TimeoutError("no more connections"))


def test_other_errors_are_not_touched():
    with pytest.raises(HistoryError, match=r"^as it was$"), told(PLACE):
        raise HistoryError("as it was")
    with pytest.raises(KeyError), told(PLACE):
        raise KeyError("a mistake of this package")


@pytest.mark.parametrize(
    ("error", "again"),
    [
        (wrapped(sqlite3.OperationalError("database is locked")), True),
        (wrapped(sqlite3.OperationalError("database table is locked: x")), True),
        (wrapped(ERRORS.LockNotAvailable("lock")), True),
        (wrapped(ERRORS.DeadlockDetected("dead")), True),
        (wrapped(ERRORS.SerializationFailure("late")), True),
        (wrapped(ERRORS.UniqueViolation("twice"), exc.IntegrityError), True),
        (wrapped(sqlite3.OperationalError("database or disk is full")), False),
        (wrapped(psycopg.OperationalError("lost")), False),
        (wrapped(ERRORS.QueryCanceled("slow")), False),
        (wrapped(ERRORS.ReadOnlySqlTransaction("cannot")), False),
    ],
    ids=lambda value: None if isinstance(value, bool) else str(value.orig),
)
def test_only_what_may_pass_is_tried_again(error, again):
    assert passing(error) is again
