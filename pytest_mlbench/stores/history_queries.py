"""The questions that are put to the history. Each is a few stretches of an index, however much is kept."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, TypeAlias

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    Select,
    String,
    and_,
    bindparam,
    exists,
    func,
    or_,
    select,
    true,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.types import TypeEngine

from pytest_mlbench.stores.api import CaseKey
from pytest_mlbench.stores.history_schema import METRICS, RECORDS, RUNS

Columns: TypeAlias = Sequence[ColumnElement[Any]]
Found: TypeAlias = list[Any]  # rows: tuples whose values have names, too

_RUN = (RUNS.c.number, RUNS.c.id, RUNS.c.started, RUNS.c.commit_sha, RUNS.c.branch, RUNS.c.dirty, RUNS.c.host)
_RECORD = tuple(column for column in RECORDS.c if column.name != "resumed")
_METRIC = tuple(column for column in METRICS.c if column.name not in ("run", "place"))
_BY_TIME = itemgetter(*(_RECORD.index(column) for column in (RECORDS.c.started, RECORDS.c.run, RECORDS.c.place)))
_AT_ONCE = 500  # values in one statement: SQLite takes so many and no more


def fits(dialect: str, cases: str) -> ColumnElement[bool]:
    """Return the condition that a record's case fits a pattern of `*` and `?`, upper and lower case being different."""
    column = RECORDS.c.case_id
    if cases == "*":
        return true()
    if not set(cases) & set("*?"):
        return column == cases
    if dialect == "sqlite":  # its LIKE takes upper for lower case
        return column.op("GLOB")(cases.replace("[", "[[]"))
    words = str.maketrans({"*": "%", "?": "_", "%": r"\%", "_": r"\_", "\\": r"\\"})
    return column.like(cases.translate(words), escape="\\")


def runs(dialect: str, cases: str, limit: int) -> Select[Any]:
    """Return the latest runs that have such a case, newest first."""
    has = exists().where(RECORDS.c.run == RUNS.c.number, fits(dialect, cases))
    return select(*_RUN).where(has).order_by(RUNS.c.started.desc(), RUNS.c.number.desc()).limit(limit)


def runs_of(connection: Connection, numbers: Collection[int]) -> Found:
    """Return the runs of these numbers."""
    given = sorted(numbers)
    parts = [given[begin : begin + _AT_ONCE] for begin in range(0, len(given), _AT_ONCE)]
    return [row for part in parts for row in connection.execute(select(*_RUN).where(RUNS.c.number.in_(part)))]


def cases(dialect: str, cases: str, run_ids: Sequence[str]) -> Select[Any]:
    """Return case, fingerprint and last time of what these runs have."""
    found = select(RECORDS.c.case_id, RECORDS.c.fingerprint, func.max(RECORDS.c.started).label("last"))
    found = found.join(RUNS, RUNS.c.number == RECORDS.c.run).where(RUNS.c.id.in_(run_ids), fits(dialect, cases))
    return found.group_by(RECORDS.c.case_id, RECORDS.c.fingerprint)


def metric_names(dialect: str, cases: str, run_id: str) -> Select[Any]:
    """Return the names of the metrics that a run has of such cases."""
    here = and_(METRICS.c.run == RECORDS.c.run, METRICS.c.place == RECORDS.c.place)
    found = select(METRICS.c.name).distinct().join(RECORDS, here).join(RUNS, RUNS.c.number == RECORDS.c.run)
    return found.where(RUNS.c.id == run_id, fits(dialect, cases))


@dataclass(frozen=True)
class Newest:
    """The newest records of keys: the columns of a record but `resumed`, then those of the metric named, if any."""

    limit: int
    metric: str | None = None
    promoted: bool = False  # those alone that may be a baseline

    def of(self, connection: Connection, keys: Sequence[CaseKey]) -> Found:
        """Return their rows, oldest first."""
        given = [(key.case, key.fingerprint) for key in keys]
        found = _of_each(connection, self._one, {"case_id": String(), "fingerprint": String()}, given)
        return sorted(found, key=_BY_TIME)

    def _one(self, given: Columns) -> Select[Any]:
        case, fingerprint = given
        found = select(*_RECORD, *(_METRIC if self.metric else ()))
        if self.metric:
            here = and_(METRICS.c.run == RECORDS.c.run, METRICS.c.place == RECORDS.c.place)
            found = found.outerjoin_from(RECORDS, METRICS, and_(here, METRICS.c.name == self.metric))
        found = found.where(RECORDS.c.case_id == case, RECORDS.c.fingerprint == fingerprint, _measured_here())
        if self.promoted:
            found = found.where(RECORDS.c.promoted)
        order = (RECORDS.c.started.desc(), RECORDS.c.run.desc(), RECORDS.c.place.desc())
        return found.order_by(*order).limit(self.limit)


def metrics_of(connection: Connection, records: Sequence[tuple[int, int]]) -> Found:
    """Return the metrics of records, each given by run and place."""

    def one(given: Columns) -> Select[Any]:
        run, place = given
        found = select(METRICS.c.run, METRICS.c.place, *_METRIC)
        return found.where(METRICS.c.run == run, METRICS.c.place == place)

    return _of_each(connection, one, {"run": BigInteger(), "place": BigInteger()}, records)


def _measured_here() -> ColumnElement[bool]:
    """Return the condition that a record was measured in its run, or that the run it was taken from is not kept."""
    earlier, other = RUNS.alias(), RECORDS.alias()
    there = select(other.c.run).join(earlier, earlier.c.number == other.c.run)
    there = there.where(earlier.c.id == RECORDS.c.resumed, other.c.case_id == RECORDS.c.case_id)
    return or_(RECORDS.c.resumed == "", ~there.correlate(RECORDS).exists())


def _of_each(
    connection: Connection,
    one: Callable[[Columns], Select[Any]],
    types: dict[str, TypeEngine[Any]],
    given: Sequence[tuple[Any, ...]],
) -> Found:
    """Return the rows of `one` for each of the `given` values, in any order.

    Over a network each statement costs a round trip, so that PostgreSQL gets all of them in one. SQLite has no
    LATERAL, and no network either.
    """
    if not given:
        return []
    if connection.dialect.name == "sqlite":
        statement = one([bindparam(f"given_{name}", type_=kind) for name, kind in types.items()])
        names = [f"given_{name}" for name in types]
        return [row for some in given for row in connection.execute(statement, dict(zip(names, some, strict=True)))]
    arrays = {f"given_{name}": list(some) for name, some in zip(types, zip(*given, strict=True), strict=True)}
    columns = [bindparam(f"given_{name}", type_=ARRAY(kind)) for name, kind in types.items()]
    wanted = func.unnest(*columns).table_valued(*types, name="wanted").render_derived()
    found = one([wanted.c[name] for name in types]).lateral("found")
    return list(connection.execute(select(found).select_from(wanted.join(found, true())), arrays))
