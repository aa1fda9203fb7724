"""The history in SQL: a SQLite file, or PostgreSQL for a team. Needs the extra `sql`.

One transaction per run. A writer of SQLite takes the file's lock when it begins, so that two writers never wait
for each other; PostgreSQL's writers meet at the run's id alone, and at a lock of their own while a schema is made.
"""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import URL, Connection, Engine, QueuePool, create_engine, event, exc, insert, make_url, select

from pytest_mlbench.errors import HistoryError, RunFileError
from pytest_mlbench.record import Metric
from pytest_mlbench.stores import history_queries as queries
from pytest_mlbench.stores import history_schema as schema
from pytest_mlbench.stores.api import Added, Baseline, CaseKey, KeptRun, Point
from pytest_mlbench.stores.history_errors import passing, told
from pytest_mlbench.stores.history_rows import Rows, rows_of
from pytest_mlbench.stores.runfile import Run

_ATTEMPTS = 3
_STATEMENT_S = 120  # for one statement of PostgreSQL, so that a lost server is noticed
_SCHEMA_LOCK = 0x6D6C62  # of PostgreSQL, held while the schema is made or changed
_WRITE = "mlbench_write"

Result = TypeVar("Result")


def open_history(url: str, *, create: bool, wait_s: float) -> SqlHistory:
    """Open the history at a `sqlite://` or `postgresql://` URL and bring its schema to today's.

    A SQLite file that is not there is made with `create` alone. HistoryError tells what is wrong with it.
    """
    if url.startswith("sqlite:"):
        return SqlHistory(_sqlite(url, create, wait_s), url)
    try:
        parsed = make_url(url)
    except (exc.ArgumentError, ValueError):  # the message would repeat the URL, and a password in it
        raise HistoryError("the history's URL (--db or MLBENCH_HISTORY) cannot be read: check host and port") from None
    shown = parsed.difference_update_query(["password", "sslpassword"]).render_as_string(hide_password=True)
    return SqlHistory(_postgresql(parsed, wait_s), shown)


class SqlHistory:
    """A store in SQL; see stores/api.py for what each method promises."""

    def __init__(self, engine: Engine, place: str) -> None:
        self._engine = engine
        self.place = place
        try:
            self._bring_up_to_date()
        except BaseException:
            engine.dispose()
            raise

    def _bring_up_to_date(self) -> None:
        reached = self._read(schema.version)
        if reached > schema.VERSION:
            raise HistoryError(
                f"the history {self.place} has schema {reached}, this version of pytest-mlbench knows up to "
                f"{schema.VERSION}: upgrade pytest-mlbench"
            )
        if reached < schema.VERSION:
            while self._write(_step):
                pass

    def add(self, run: Run, file_sha256: str = "") -> Added:
        """Keep a run, whole or not at all; again is no change.

        RunFileError tells what cannot be kept, a run of an id that is there with other content among it.
        """
        rows = rows_of(run)
        rows.run["file_sha256"] = file_sha256 or None
        rows.run["imported"] = datetime.now(timezone.utc)
        already = self._write(lambda connection: self._insert(connection, rows))
        return Added(len(rows.records), already)

    def _insert(self, connection: Connection, rows: Rows) -> bool:
        known = select(schema.RUNS.c.content_sha256).where(schema.RUNS.c.id == rows.run["id"])
        content = connection.scalar(known)
        if content is not None:
            if content != rows.run["content_sha256"]:
                raise RunFileError(
                    f"the history {self.place} has a run {rows.run['id']} with other content: one of the two files "
                    "was changed after it was written; import the original"
                )
            return True
        inserted = connection.execute(insert(schema.RUNS).values(rows.run)).inserted_primary_key
        assert inserted is not None, "one row was inserted"
        number = inserted[0]
        for table, some in ((schema.RECORDS, rows.records), (schema.METRICS, rows.metrics)):
            if some:
                connection.execute(insert(table), [{**row, "run": number} for row in some])
        return False

    def runs(self, cases: str = "*", limit: int = 30) -> tuple[KeptRun, ...]:
        """Return the latest runs that have such a case, newest first."""
        found = self._read(lambda connection: connection.execute(queries.runs(self._dialect, cases, limit)).all())
        return tuple(_run(row) for row in found)

    def cases(self, runs: Sequence[KeptRun], cases: str = "*") -> tuple[CaseKey, ...]:
        """Return what these runs have, by case, the fingerprint measured last first."""
        statement = queries.cases(self._dialect, cases, [run.id for run in runs])
        found = self._read(lambda connection: connection.execute(statement).all())
        # Sorted here: the order of letters is not the same in every database.
        found = sorted(sorted(found, key=lambda row: row.last, reverse=True), key=lambda row: row.case_id)
        return tuple(CaseKey(row.case_id, row.fingerprint) for row in found)

    def metric_names(self, run: KeptRun, cases: str = "*") -> tuple[str, ...]:
        """Return the names of the metrics that a run has of such cases, sorted."""
        statement = queries.metric_names(self._dialect, cases, run.id)
        found = self._read(lambda connection: connection.scalars(statement).all())
        return tuple(sorted(found))

    def series(self, keys: Sequence[CaseKey], metric: str, limit: int = 30) -> Mapping[CaseKey, tuple[Point, ...]]:
        """Return the latest records of each key, oldest first. A resumed record counts once, where it was measured."""
        newest = queries.Newest(limit, metric=metric)

        def look_up(connection: Connection) -> tuple[queries.Found, Mapping[int, KeptRun]]:
            rows = newest.of(connection, keys)
            return rows, _runs(connection, rows)

        rows, runs = self._read(look_up)
        found: dict[CaseKey, list[Point]] = {key: [] for key in keys}
        for number, _, case, fingerprint, started, outcome, reason, promoted, *values in rows:
            point = Point(runs[number], started, outcome, reason, promoted, _metric(values))
            found[CaseKey(case, fingerprint)].append(point)
        return {key: tuple(points) for key, points in found.items() if points}

    def latest(self, keys: Sequence[CaseKey]) -> Mapping[CaseKey, Baseline]:
        """Return the newest record of each key that may be a baseline; keys that have none are left out."""
        newest = queries.Newest(1, promoted=True)

        def look_up(connection: Connection) -> Mapping[CaseKey, Baseline]:
            rows = newest.of(connection, keys)
            runs = _runs(connection, rows)
            metrics: dict[tuple[int, int], dict[str, Metric]] = {(row.run, row.place): {} for row in rows}
            for number, place, *values in queries.metrics_of(connection, list(metrics)):
                metric = _metric(values)
                assert metric is not None, "a row of a metric has its name"
                metrics[number, place][metric.name] = metric
            return {
                CaseKey(row.case_id, row.fingerprint): Baseline(runs[row.run], row.started, metrics[row.run, row.place])
                for row in rows
            }

        return self._read(look_up)

    def close(self) -> None:
        """Let go of the database."""
        self._engine.dispose()

    @property
    def _dialect(self) -> str:
        return self._engine.dialect.name

    def _read(self, query: Callable[[Connection], Result]) -> Result:
        with told(self.place), self._engine.connect() as connection, connection.begin():
            return query(connection)

    def _write(self, change: Callable[[Connection], Result]) -> Result:
        """Make a change in a transaction of its own; a lock in its way is waited for, a bounded number of times."""
        with told(self.place):
            for attempt in range(1, _ATTEMPTS + 1):
                try:
                    with self._engine.connect() as plain:
                        connection = plain.execution_options(**{_WRITE: True})
                        with connection.begin():
                            return change(connection)
                except exc.DBAPIError as error:
                    if attempt == _ATTEMPTS or not passing(error):
                        raise
                    time.sleep(0.05 * attempt)
        raise AssertionError("the last attempt returns or raises")


def _step(connection: Connection) -> bool:
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_SCHEMA_LOCK})")
    return schema.step(connection)


def _sqlite(url: str, create: bool, wait_s: float) -> Engine:
    name = url.removeprefix("sqlite:///")
    if name in ("", ":memory:", url) or "?" in name:
        raise HistoryError(f"the history {url} names no file: expected sqlite:///FILE, without options")
    file = Path(name).absolute()
    if create:
        _make_folder(file.parent)
    elif not file.exists():
        raise HistoryError(f"there is no history at {name}: import a run first, mlbench import RUN_FILE")
    engine = create_engine(
        "sqlite://", creator=partial(_connect, file, create, wait_s), poolclass=QueuePool, pool_size=1
    )

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        writes = connection.get_execution_options().get(_WRITE)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


def _connect(file: Path, create: bool, wait_s: float) -> sqlite3.Connection:
    """Connect to a file. Transactions are begun above: the module itself would begin them later, by its own rules."""

    def connected(options: str) -> sqlite3.Connection:
        timeout = wait_s / _ATTEMPTS
        return sqlite3.connect(f"{file.as_uri()}?{options}", uri=True, timeout=timeout, isolation_level=None)

    made = connected("mode=rwc" if create else "mode=rw")  # of a file that cannot be written, rw makes a read-only one
    try:
        if create:
            with suppress(sqlite3.OperationalError):  # some file systems cannot; the rollback journal serves, too
                made.execute("PRAGMA journal_mode = WAL")
        else:
            made.execute("SELECT count(*) FROM sqlite_master")
    except sqlite3.OperationalError as error:
        made.close()
        if create or "readonly" not in str(error) or file.with_name(f"{file.name}-wal").exists():
            raise
        # A reader, too, makes files beside one that is written ahead. Where it may not, nobody writes: read it as is.
        return connected("mode=ro&immutable=1")
    except BaseException:
        made.close()
        raise
    return made


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        ignore = folder / ".gitignore"
        if folder.name == ".mlbench" and not ignore.exists():
            ignore.write_text("*\n", encoding="utf-8")
    except OSError as error:
        raise HistoryError(
            f"the history cannot be kept in {folder}: {error.strerror or error}; name another place with --db"
        ) from None


def _postgresql(url: URL, wait_s: float) -> Engine:
    # Else it prints that a connection was lost, beside the message that tells it.
    logging.getLogger("psycopg").addHandler(logging.NullHandler())
    limits = {"connect_timeout": 10, "tcp_user_timeout": 30_000, "application_name": "mlbench"}
    # What the URL says goes before.
    given = {name: value for name, value in limits.items() if name not in url.query}
    try:
        engine = create_engine(url.set(drivername="postgresql+psycopg"), connect_args=given, pool_size=1)
    except ImportError as error:
        raise HistoryError(f"psycopg cannot be loaded: {error}; pip install 'pytest-mlbench[sql]'") from None
    lock_ms = int(wait_s * 1000 / _ATTEMPTS)

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql(
            # What is asked is quick, and compiling it takes longer than answering it.
            f"SET LOCAL jit = off; SET LOCAL lock_timeout = {lock_ms}; "
            f"SET LOCAL statement_timeout = {_STATEMENT_S * 1000}"
        )

    return engine


def _run(row: Any) -> KeptRun:
    return KeptRun(row.id, row.started, row.commit_sha or "", row.branch or "", row.dirty, row.host or "")


def _runs(connection: Connection, records: queries.Found) -> Mapping[int, KeptRun]:
    return {row.number: _run(row) for row in queries.runs_of(connection, {record.run for record in records})}


def _metric(values: Sequence[Any]) -> Metric | None:
    """Return the metric of a row, from its columns in their order; None where the record has none of that name."""
    name, value, unit, direction, origin, n, low, high, confidence, reason, note = values
    if name is None:
        return None
    interval = None if low is None or high is None else (low, high)
    return Metric(name, value, unit, direction, origin, n, interval, confidence, reason, note)
