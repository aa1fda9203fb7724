"""How long does a history of 1,000,000 records take to give the baselines and the 30-run trends of 500 cases?

On SQLite and on PostgreSQL (MLBENCH_TEST_POSTGRES, or a server started for this), opened anew for each reading. The
bound is 1 s for both questions together. Beside it: the same trends by one window query over the whole table.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import os
import random
import sqlite3
import sys
import tempfile
import uuid
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from statistics import median
from time import perf_counter

from pytest_mlbench.stores import history_schema as schema
from pytest_mlbench.stores.api import CaseKey
from pytest_mlbench.stores.url import open_store

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
import postgres_server

CASES, RUNS_SHOWN, BOUND_S = 500, 30, 1.0
BEGIN = datetime(2020, 1, 1, tzinfo=timezone.utc)
METRICS = (("latency.p50", "ns", "lower"), ("latency.p99", "ns", "lower"), ("memory.peak", "bytes", "lower"))
KEYS = [CaseKey(f"suite_{n % 10}/classify[net_{n}-onnxruntime-int8-cpu]", f"{n:016x}") for n in range(CASES)]
WINDOW = """
SELECT count(*), sum(m.value) FROM (
  SELECT run, place, row_number() OVER (PARTITION BY case_id, fingerprint ORDER BY started DESC) AS back
  FROM mlbench_records) r
JOIN mlbench_metrics m ON m.run = r.run AND m.place = r.place AND m.name = 'latency.p50'
WHERE r.back <= 30
"""

Rows = Iterator[tuple[object, ...]]


def runs(count: int) -> Rows:
    """Yield the rows of the runs, one in six hours."""
    for number in range(1, count + 1):
        started = BEGIN + timedelta(hours=6 * number)
        yield (
            number,
            f"run-{number}",
            started,
            f"{number:040x}",
            "main",
            False,
            "lab",
            1,
            None,
            f"{number:064x}",
            started,
        )


def records(count: int) -> Rows:
    """Yield every case of every run; one record in a hundred failed."""
    draw = random.Random(1)
    for number in range(1, count + 1):
        started = BEGIN + timedelta(hours=6 * number)
        for place, key in enumerate(KEYS):
            good = draw.random() > 0.01
            at = started + timedelta(seconds=place)
            yield number, place, key.case, key.fingerprint, at, "pass" if good else "fail", "", good, ""


def metrics(count: int) -> Rows:
    """Yield three metrics of every record."""
    draw = random.Random(2)
    for number in range(1, count + 1):
        for place in range(CASES):
            for name, unit, direction in METRICS:
                value = 1000.0 * (place + 1) * (1 + 0.01 * draw.random())
                yield number, place, name, value, unit, direction, "measured", 64, value, value, 0.95, "", ""


def fill_sqlite(url: str, count: int) -> None:
    """Write the tables as fast as the module can."""
    connection = sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)
    connection.execute("PRAGMA synchronous = OFF")
    connection.execute("BEGIN")
    for table, rows in ((schema.RUNS, runs), (schema.RECORDS, records), (schema.METRICS, metrics)):
        marks = ", ".join("?" * len(table.columns))
        # As SQLAlchemy keeps a time there.
        plain = (
            [f"{cell:%Y-%m-%d %H:%M:%S.%f}" if isinstance(cell, datetime) else cell for cell in row]
            for row in rows(count)
        )
        connection.executemany(f"INSERT INTO {table.name} VALUES ({marks})", plain)
    connection.execute("COMMIT")
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()


def fill_postgresql(url: str, count: int) -> None:
    """Write the tables by COPY."""
    import psycopg

    with psycopg.connect(url) as connection:
        for table, rows in ((schema.RUNS, runs), (schema.RECORDS, records), (schema.METRICS, metrics)):
            names = ", ".join(column.name for column in table.columns)
            with connection.cursor().copy(f"COPY {table.name} ({names}) FROM STDIN") as copy:
                for row in rows(count):
                    copy.write_row(row)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("ANALYZE")


def window_s(url: str) -> float:
    """Return the seconds of the trends by one window query over the whole table."""
    if url.startswith("sqlite"):
        connection = sqlite3.connect(url.removeprefix("sqlite:///"))
    else:
        import psycopg

        connection = psycopg.connect(url)
    begin = perf_counter()
    (found, _) = connection.execute(WINDOW).fetchone()
    spent = perf_counter() - begin
    connection.close()
    if found != CASES * RUNS_SHOWN:
        raise RuntimeError(f"the window query found {found} values")
    return spent


def asked_s(url: str) -> float:
    """Open the history, ask both questions, check the answers; return the seconds."""
    begin = perf_counter()
    store = open_store(url, create=False)
    baselines = store.latest(KEYS)
    trends = store.series(KEYS, "latency.p50", RUNS_SHOWN)
    store.close()
    spent = perf_counter() - begin
    if len(baselines) != CASES or {len(points) for points in trends.values()} != {RUNS_SHOWN}:
        raise RuntimeError(f"{len(baselines)} baselines and {len(trends)} trends were found")
    if any(len(found.metrics) != len(METRICS) for found in baselines.values()):
        raise RuntimeError("a baseline lacks a metric")
    return spent


def measure(name: str, url: str, count: int, rounds: int) -> bool:
    """Fill a history, ask it, print the figures; tell whether the bound is met."""
    begin = perf_counter()
    open_store(url, create=True).close()
    (fill_sqlite if url.startswith("sqlite") else fill_postgresql)(url, count)
    filled = perf_counter() - begin
    spent = [asked_s(url) for _ in range(rounds)]
    typical, slow = median(spent), window_s(url)
    print(f"{name}: {count * CASES} records, {count * CASES * len(METRICS)} metrics, filled in {filled:.0f} s")
    print(
        f"  baselines and {RUNS_SHOWN}-run trends of {CASES} cases: {typical:.2f} s "
        f"(first {spent[0]:.2f}, slowest {max(spent):.2f}), ratio to the bound {typical / BOUND_S:.2f}"
    )
    print(f"  trends alone by a window query over the table: {slow:.2f} s, {slow / typical:.1f} times as long")
    print(f"  bound {BOUND_S:.0f} s: {'met' if max(spent) <= BOUND_S else 'MISSED'}", flush=True)
    return max(spent) <= BOUND_S


@contextlib.contextmanager
def database() -> Iterator[str | None]:
    """Yield the URL of an empty PostgreSQL database; None with a line that says why when there is none."""
    given = os.environ.get("MLBENCH_TEST_POSTGRES")
    missing = None if given else postgres_server.missing()
    if missing:
        print(f"PostgreSQL: not measured, {missing}")
        yield None
        return
    with contextlib.nullcontext(given) if given else postgres_server.server() as server:
        import psycopg
        from sqlalchemy import make_url

        name = f"mlbench_{uuid.uuid4().hex}"
        with psycopg.connect(server, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        try:
            yield make_url(server).set(database=name).render_as_string(hide_password=False)
        finally:
            with psycopg.connect(server, autocommit=True) as connection:
                connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


def main() -> int:
    """Measure both databases; exit 1 when a bound is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    count = max(2 * RUNS_SHOWN, math.ceil(arguments.records / CASES))
    with tempfile.TemporaryDirectory() as folder:
        met = measure("SQLite", f"sqlite:///{folder}/history.db", count, arguments.rounds)
    with database() as url:
        if url is not None:
            met &= measure("PostgreSQL", url, count, arguments.rounds)
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
