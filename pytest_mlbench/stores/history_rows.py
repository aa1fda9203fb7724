"""What the history keeps of a run: checked rows, and the hash that tells one run's content from another's.

A run file may come from anywhere, and databases refuse less, or other things, than JSON holds: everything is
checked here, before the first statement. Standard library only.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from pytest_mlbench.errors import RunFileError
from pytest_mlbench.record import SCHEMA, Record
from pytest_mlbench.stores.runfile import Run

Row = dict[str, Any]
# Most characters of a case id, a name, a word, as the tables have them. PostgreSQL cannot index more than 2704
# bytes, and a character may take 4 of them.
CASE, NAME, WORD = 400, 200, 64


@dataclass(frozen=True)
class Rows:
    """The rows of one run, by table; `place` is a record's position in the run."""

    run: Row
    records: tuple[Row, ...]
    metrics: tuple[Row, ...]


def rows_of(run: Run) -> Rows:
    """Return what is kept of a run; RunFileError names the key whose value cannot be kept."""
    header = _header(run)
    try:
        records = [_record(record, place, header["started"]) for place, record in enumerate(run.records)]
        metrics = [row for place, record in enumerate(run.records) for row in _metrics(record, place)]
    except ValueError as error:
        raise RunFileError(f"run {header['id']}: {error}") from None
    content = json.dumps([header, records, metrics], default=datetime.isoformat, sort_keys=True)
    header["content_sha256"] = hashlib.sha256(content.encode()).hexdigest()
    return Rows(header, tuple(records), tuple(metrics))


def promoted(record: Record) -> bool:
    """Tell whether a record may be a baseline: it passed, and nothing about it regressed, waived or not.

    A waiver lets a slower candidate through; were that one the next baseline, a series of waivers could hide any loss.
    """
    return record.outcome == "pass" and not any(one.verdict == "regressed" for one in record.comparisons)


def _header(run: Run) -> Row:
    try:
        source, host = (_mapping(run.header.get(key) or {}, key) for key in ("source", "host"))
        dirty = source.get("dirty")
        if not (dirty is None or isinstance(dirty, bool)):
            raise ValueError(f"source.dirty: expected true or false, found {type(dirty).__name__}")
        return {
            "id": _word(run.header.get("id"), "id", NAME),
            "started": _moment(run.header.get("started"), "started"),
            "commit_sha": _optional(source.get("commit"), "source.commit", WORD),
            "branch": _optional(source.get("branch"), "source.branch", NAME),
            "dirty": dirty,
            "host": _optional(host.get("node"), "host.node", NAME),
            "file_schema": _whole(run.header.get("schema", SCHEMA), "schema", 2**31 - 1),
        }
    except ValueError as error:
        raise RunFileError(f"the header of the run: {error}") from None


def _record(record: Record, place: int, started: datetime) -> Row:
    where = f"record {place + 1}: "
    return {
        "place": place,
        "case_id": _word(record.case, f"{where}case", CASE),
        "fingerprint": _word(record.fingerprint, f"{where}fingerprint", WORD, least=0),
        "started": _moment(record.started, f"{where}started") if record.started else started,
        "outcome": record.outcome,
        "reason": _text(record.reason, f"{where}reason"),
        "promoted": promoted(record),
        "resumed": _word(record.resumed, f"{where}resumed", NAME, least=0),
    }


def _metrics(record: Record, place: int) -> list[Row]:
    found: dict[str, Row] = {}
    for metric in record.metrics:
        where = f"record {place + 1}: metric {metric.name[:NAME]!r}"
        if metric.name in found:
            raise ValueError(f"{where} is there twice")
        low, high = metric.interval or (None, None)
        found[metric.name] = {
            "place": place,
            "name": _word(metric.name, f"{where}: name", NAME),
            "value": _float(metric.value, f"{where}: value"),
            "unit": _word(metric.unit, f"{where}: unit", WORD, least=0),
            "direction": metric.direction,
            "origin": metric.origin,
            "n": None if metric.n is None else _whole(metric.n, f"{where}: n", 2**63 - 1),
            "low": _float(low, f"{where}: interval"),
            "high": _float(high, f"{where}: interval"),
            "confidence": _float(metric.confidence, f"{where}: confidence"),
            "reason": _text(metric.reason, f"{where}: reason"),
            "note": _text(metric.note, f"{where}: note"),
        }
    return list(found.values())


def _word(value: object, where: str, most: int, *, least: int = 1) -> str:
    """Return a name. It is printed in terminals, so that control characters are refused."""
    if not isinstance(value, str):
        raise ValueError(f"{where}: expected a string, found {type(value).__name__}")
    if not least <= len(value) <= most:
        raise ValueError(f"{where}: expected {least} to {most} characters, found {len(value)}")
    if not value.isprintable():
        raise ValueError(f"{where}: {value[:40]!r} holds characters that cannot be printed")
    return value


def _optional(value: object, where: str, most: int) -> str | None:
    return None if value in (None, "") else _word(value, where, most)


def _text(value: str, where: str) -> str:
    """Return free text. Half of a character pair is no text, and PostgreSQL takes no NUL."""
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{where}: holds half of a character (a lone surrogate)") from None
    if "\0" in value:
        raise ValueError(f"{where}: holds a NUL character")
    return value


def _moment(value: object, where: str) -> datetime:
    try:
        found = datetime.fromisoformat(value if isinstance(value, str) else "")
        if found.tzinfo is not None:
            return found.astimezone(timezone.utc)
    except (ValueError, OverflowError):  # what overflows: the first and the last day there is, in another zone
        pass
    shown = repr(value)[:40]
    raise ValueError(f"{where}: expected a time like 2026-01-31T12:00:00+00:00, found {shown}")


def _float(value: float | None, where: str) -> float | None:
    if value is None:
        return None
    try:
        found = float(value)
    except OverflowError:
        found = math.inf
    if not math.isfinite(found):
        raise ValueError(f"{where}: expected a finite number")
    return found


def _whole(value: object, where: str, most: int) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value % 1 or not 0 <= value <= most:
        raise ValueError(f"{where}: expected a whole number from 0 to {most}, found {repr(value)[:40]}")
    return int(value)


def _mapping(value: object, where: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ValueError(f"{where}: expected an object, found {type(value).__name__}")
    return value
