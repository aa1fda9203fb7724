"""Show how the candidate compares with its base: every case and metric, the green ones too."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

from pytest_mlbench import verdict
from pytest_mlbench.record import Comparison, Record
from pytest_mlbench.reporters.table import Table
from pytest_mlbench.units import percent, plain

_COLUMNS = ("case", "metric", "base", "candidate", "change [95 %]", "could see", "verdict")
_RIGHT = ("base", "candidate", "change [95 %]", "could see")


def lines(records: Sequence[Record]) -> list[str]:
    """Return the lines of the comparison with a base; none where there was no base."""
    compared = [record for record in records if record.base]
    if not compared:
        return []
    found = [f"against {verdict.named(compared[0].base)}"]
    table = Table(_COLUMNS, _RIGHT)
    rows = [(record, one) for record in compared for one in record.comparisons]
    for record, one in rows:
        shown = (_value(one, one.base), _value(one, one.candidate), verdict.change(one), _could_see(one))
        table.add(record.case, one.metric, *shown, verdict.shown(one))
    found += table.lines() if rows else []
    notes = [*_waived(rows), *_different(compared), *_new(compared)]
    return [*found, "", *notes, ""] if notes else [*found, ""]


def details(records: Sequence[Record], today: date) -> list[str]:
    """Return what to tell of every comparison that is no pass; cases of which the same is told stand together."""
    found: dict[tuple[str, ...], list[str]] = {}
    for record in records:
        told = tuple(verdict.lines(record.case, record.comparisons, record.base, today))
        if told:
            found.setdefault(told, []).append(record.case)
    return [line for told, cases in found.items() for line in (*cases, *_indented(told))]


def _indented(told: Sequence[str]) -> list[str]:
    return [f"  {line}" for text in told for line in text.split("\n")]


def _value(one: Comparison, value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.2%}" if verdict.in_points(one) else plain(value, one.unit)


def _could_see(one: Comparison) -> str:
    """Return the least worsening that would have been found; anything, where nothing is left to chance."""
    if one.method == "exact" and one.verdict != "invalid":
        return "any"
    if one.detectable is None:
        return "-"
    return f"{100 * one.detectable:.3g} points" if verdict.in_points(one) else percent(one.detectable, 2)


def _waived(rows: Sequence[tuple[Record, Comparison]]) -> list[str]:
    return [f"waived: {record.case} {one.metric}: {one.waived}" for record, one in rows if one.waived]


def _different(records: Sequence[Record]) -> list[str]:
    told = [(record, record.base.get("outputs", "identical")) for record in records]
    return [f"outputs differ from the base's: {record.case}: {text}" for record, text in told if text != "identical"]


def _new(records: Sequence[Record]) -> list[str]:
    excluded = [record for record in records if record.base.get("excluded")]
    new = [record.case for record in records if record.base.get("new") and not record.base.get("excluded")]
    told = [f"not in the base, so not compared: {', '.join(new)}"] if new else []
    return told + [f"not run in the base, so not compared: {one.case} ({one.base['excluded']})" for one in excluded]
