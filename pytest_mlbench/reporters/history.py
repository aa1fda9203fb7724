"""What the history has, as text: cases by runs, or the trend of one case; and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from pytest_mlbench.checks.facts import plural
from pytest_mlbench.reporters.table import Table
from pytest_mlbench.stores.api import KeptRun, Point
from pytest_mlbench.trend import Step, Trend, Trends, value_of
from pytest_mlbench.units import percent, plain

_COMMIT, _FINGERPRINT = 7, 8  # characters shown
_CHANGED = "+ behind a commit: tracked files were changed"


def overview(found: Trends, width: int) -> list[str]:
    """Return cases by runs, oldest left, as many of the latest runs as fit into `width` characters."""
    several = len({trend.key.case for trend in found.trends}) < len(found.trends)
    columns = [[f"{found.metric}, run begun (UTC)", "commit", *(trend.key.case for trend in found.trends)]]
    if several:
        columns.append(["fingerprint", "", *(trend.key.fingerprint[:_FINGERPRINT] or "-" for trend in found.trends)])
    used = sum(_wide(column) for column in columns) + 2 * (len(columns) - 1)
    at = len(columns)
    shown: list[KeptRun] = []
    for run in found.runs:
        column = [f"{run.started:%m-%d %H:%M}", _commit(run), *(_cell(trend, run) for trend in found.trends)]
        used += 2 + _wide(column)
        if shown and used > width:
            break
        shown.append(run)
        # The heading's words may be there twice, so that Table cannot be told by them what stands to the right.
        columns.insert(at, [cell.rjust(_wide(column)) for cell in column])
    heading, *rows = zip(*columns, strict=True)
    table = Table(heading)
    for row in rows:
        if any(cell.strip() for cell in row[at:]):  # a fingerprint may be of runs that did not fit
            table.add(*row)
    lines = table.lines()
    if any(run.dirty for run in shown):
        lines.append(_CHANGED)
    if len(shown) < len(found.runs):
        left = plural(len(found.runs) - len(shown), "earlier run")
        lines.append(f"{left} left out: wider with COLUMNS={2 * width}, all of them with --format json")
    return lines


def trends(found: Trends) -> list[str]:
    """Return the trend of one case, each fingerprint by itself, the one measured last first."""
    lines: list[str] = []
    for trend in found.trends:
        hosts = ", ".join(dict.fromkeys(point.run.host for point in trend.points if point.run.host))
        about = f"fingerprint {trend.key.fingerprint or 'unknown'}{' on ' + hosts if hosts else ''}"
        lines += [trend.key.case, f"{about}, {plural(len(trend.points), 'record')}", *_rows(found.metric, trend), ""]
    if any(point.run.dirty for trend in found.trends for point in trend.points):
        lines.append(_CHANGED)
    if any(trend.steps for trend in found.trends):
        lines.append("a step is found once runs of the new level are there: read it, do not gate on it")
    if len(found.trends) > 1:
        lines.append("values of different fingerprints (machine, versions, options) cannot be compared")
    return lines if lines[-1] else lines[:-1]


def document(place: str, found: Trends) -> dict[str, Any]:
    """Return everything as JSON values."""
    return {"history": place, "metric": found.metric, "series": [_series(trend) for trend in found.trends]}


def _rows(metric: str, trend: Trend) -> list[str]:
    steps = {step.point: step for step in trend.steps}
    table = Table(("begun (UTC)", "commit", "branch", "outcome", metric, ""), right=(metric,))
    for point in trend.points:
        notes = [_told(steps[point])] if point in steps else []
        if point.run.id == trend.baseline:
            notes.append("newest baseline")
        waived = point.outcome == "pass" and not point.promoted
        table.add(
            f"{point.started:%Y-%m-%d %H:%M:%S}",
            _commit(point.run),
            point.run.branch,
            "pass (waived)" if waived else point.outcome,
            _value(point),
            "; ".join(notes),
        )
    return table.lines()


def _told(step: Step) -> str:
    metric, found = step.point.metric, step.found
    assert metric is not None, "a step is at a measured value"
    share = found.after / found.before - 1 if found.before else 0.0
    better = {"lower": found.after < found.before, "higher": found.after > found.before}.get(metric.direction)
    word = "" if better is None else ", better" if better else ", worse"
    change = f"{'+' if share > 0 else ''}{percent(share)}: " if share else ""
    before, after = (plain(value, metric.unit) for value in (found.before, found.after))
    return f"step: {change}{before} -> {after}{word} (p = {found.p:.2g})"


def _series(trend: Trend) -> dict[str, Any]:
    return {
        "case": trend.key.case,
        "fingerprint": trend.key.fingerprint,
        "baseline": trend.baseline or None,
        "points": [_point(point) for point in trend.points],
        "steps": [
            {"run": step.point.run.id, "before": step.found.before, "after": step.found.after, "p": step.found.p}
            for step in trend.steps
        ],
    }


def _point(point: Point) -> dict[str, Any]:
    run = point.run
    return {
        "run": run.id,
        "started": point.started.isoformat(),
        "commit": run.commit or None,
        "branch": run.branch or None,
        "dirty": run.dirty,
        "host": run.host or None,
        "outcome": point.outcome,
        "reason": point.reason,
        "promoted": point.promoted,
        "metric": None if point.metric is None else asdict(point.metric),
    }


def _cell(trend: Trend, run: KeptRun) -> str:
    here = [point for point in trend.points if point.run.id == run.id]
    if not here:
        return ""
    value, outcome = _value(here[-1]), here[-1].outcome
    if outcome == "pass":
        return value
    return outcome if value == "-" else f"{value} {outcome}"


def _value(point: Point) -> str:
    value = value_of(point)
    return "-" if point.metric is None or value is None else plain(value, point.metric.unit)


def _commit(run: KeptRun) -> str:
    return (run.commit[:_COMMIT] or "-") + ("+" if run.dirty else "")


def _wide(column: Sequence[str]) -> int:
    return max(len(cell) for cell in column)
