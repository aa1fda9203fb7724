"""The table at the end of a session, grouped by suite, with the reason of every skip and the slowest stages."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pytest_mlbench.checks.facts import plural
from pytest_mlbench.checks.placement import shown_precision
from pytest_mlbench.record import Metric, Record
from pytest_mlbench.reporters import comparison
from pytest_mlbench.reporters.table import Table
from pytest_mlbench.stores.runfile import Run
from pytest_mlbench.units import plain

_COLUMNS = (
    "case",
    "precision",
    "outcome",
    "p50",
    "+-",
    "p99",
    "throughput",
    "top-1",
    "memory",
    "size",
    "vs ref",
)
_RIGHT = ("p50", "+-", "p99", "throughput", "top-1", "memory", "size", "vs ref")
_STAGES_SHOWN = 3


def show(reporter: Any, run: Run, run_file: Path, verbosity: int) -> None:
    """Write the results of a run: the table, reasons of skips, slowest stages, where the run file is."""
    if not run.records:
        return
    if verbosity < 0:
        reporter.write_line(summary(run.records, run_file))
        return
    reporter.section("mlbench")
    for line in lines(run.records, verbosity):
        reporter.write_line(line)
    reporter.write_line(summary(run.records, run_file))


def lines(records: Sequence[Record], verbosity: int = 0) -> list[str]:
    """Return the lines of the tables, suite by suite."""
    found: list[str] = []
    for suite in dict.fromkeys(record.case.split("/", 1)[0] for record in records):
        group = [record for record in records if record.case.split("/", 1)[0] == suite]
        measured = [record for record in group if record.outcome != "skip"]
        if measured:
            found += [f"{suite}", *_table(measured), ""]
        skips = _skips(group)
        found += [*skips, ""] if skips else []
        if verbosity > 0:
            found += _details(measured)
    return [*found, *comparison.lines(records), *_slowest(records)]


def summary(records: Sequence[Record], run_file: Path) -> str:
    """Return one line: how many cases came out how, and where the run file is."""
    counts = {
        word: sum(record.outcome == word for record in records) for word in dict.fromkeys(r.outcome for r in records)
    }
    told = ", ".join(f"{count} {word}" for word, count in counts.items())
    return f"{plural(len(records), 'case')}: {told}. Run file: {run_file}"


def _table(records: Sequence[Record]) -> list[str]:
    table = Table(_COLUMNS, _RIGHT)
    metrics = {record.case: {metric.name: metric for metric in record.metrics} for record in records}
    for record in records:
        values = metrics[record.case]
        table.add(
            record.case.split("/", 1)[1],
            _precision(record),
            _outcome(record),
            _time(values),
            _spread(values.get("latency.p50")),
            _cell(values.get("latency.p99")),
            _cell(values.get("throughput")),
            _share(values.get("accuracy.top1")),
            _cell(values.get("memory.peak")),
            _cell(values.get("model.size")),
            _against(record, metrics),
        )
    return table.lines()


def _outcome(record: Record) -> str:
    if record.outcome == "error":
        return f"error({record.stage})"
    return f"{record.outcome} (resumed)" if record.resumed else record.outcome


def _precision(record: Record) -> str:
    """Return the precision as the axis says it, and what ran when that differs."""
    axis = str(record.axes.get("precision", ""))
    return shown_precision(record.placement, axis) if record.placement else axis


def _cell(metric: Metric | None) -> str:
    return "-" if metric is None or metric.value is None else plain(metric.value, metric.unit)


def _time(values: Mapping[str, Metric]) -> str:
    """Return the median call; an emulated board's says that it is none of hardware."""
    emulated = values.get("emulated.time")
    return _cell(values.get("latency.p50")) if emulated is None else f"{_cell(emulated)} (emulated)"


def _share(metric: Metric | None) -> str:
    return "-" if metric is None or metric.value is None else f"{metric.value:.2%}"


def _spread(metric: Metric | None) -> str:
    """Return half the width of the interval, in percent of the value."""
    if metric is None or not metric.value or metric.interval is None:
        return "-"
    low, high = metric.interval
    return f"{(high - low) / 2 / metric.value:.1%}"


def _against(record: Record, metrics: dict[str, dict[str, Metric]]) -> str:
    """Return how many times the reference's p50 is this case's: above 1 is faster than the reference."""
    if record.reference == record.case:
        return "ref"
    here = metrics[record.case].get("latency.p50")
    there = metrics.get(record.reference, {}).get("latency.p50")
    if here is None or there is None or not here.value or not there.value:
        return "-"
    return f"{there.value / here.value:.2f}x"


def _skips(records: Iterable[Record]) -> list[str]:
    reasons: dict[str, list[str]] = {}
    for record in records:
        if record.outcome == "skip":
            reasons.setdefault(record.reason, []).append(record.case.split("/", 1)[1])
    return [f"skipped {len(cases)}: {reason} ({', '.join(cases)})" for reason, cases in reasons.items()]


def _slowest(records: Iterable[Record]) -> list[str]:
    parts = {"prepare", "start", "import", "flash", "connect", "load", "first"}
    stages = [(ns, name, r.case) for r in records for name, ns in r.stages_ns.items() if name in parts]
    worst = sorted(stages, reverse=True)[:_STAGES_SHOWN]
    if not worst:
        return []
    return ["slowest stages: " + "; ".join(f"{name} {plain(ns, 'ns')} {case}" for ns, name, case in worst)]


def _details(records: Iterable[Record]) -> list[str]:
    """Return every metric and check of each record (-v)."""
    found: list[str] = []
    for record in records:
        found.append(record.case)
        for metric in record.metrics:
            value = "-" if metric.value is None else plain(metric.value, metric.unit)
            found.append(f"  {metric.name:<22} {value:>12}  {metric.origin}  {metric.reason or metric.note}".rstrip())
        for check in record.checks:
            found.append(f"  {check.outcome:<4} {check.name}: {check.message}")
    return [*found, ""] if found else []
