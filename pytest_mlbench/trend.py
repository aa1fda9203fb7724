"""The trend of a case: its points in the history and, after the fact, where its level changed. Never a gate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pytest_mlbench import near
from pytest_mlbench.errors import MlbenchError
from pytest_mlbench.stats.edivisive import ChangePoint, change_points
from pytest_mlbench.stores.api import CaseKey, KeptRun, Point, Store

_BELIEVED = ("pass", "fail")  # outcomes whose values are; the others measured too little, or not what they say


@dataclass(frozen=True)
class Step:
    """A change of level; `point` is the first of the new one. See stats/edivisive.py."""

    point: Point
    found: ChangePoint


@dataclass(frozen=True)
class Trend:
    """The points of one case under one fingerprint, oldest first."""

    key: CaseKey
    points: tuple[Point, ...]
    steps: tuple[Step, ...] = ()
    baseline: str = ""  # id of the run whose record is the newest that may be a baseline


@dataclass(frozen=True)
class Trends:
    """What the history has of some cases: the latest runs, newest first, and a trend per case and fingerprint."""

    metric: str
    runs: tuple[KeptRun, ...]
    trends: tuple[Trend, ...]

    @property
    def case(self) -> str | None:
        """Return the case when there is just one."""
        cases = {trend.key.case for trend in self.trends}
        return cases.pop() if len(cases) == 1 else None


def look_up(store: Store, cases: str, metric: str, limit: int) -> Trends:
    """Return the trends of the cases that fit, over the latest runs that have one of them.

    Steps are looked for when there is one case: among many, some would be found by chance alone. Raises MlbenchError
    with a near match for a case or metric that is not there.
    """
    runs = store.runs(cases, limit)
    if not runs:
        raise MlbenchError(_no_such_case(store, cases))
    series = _together(store.series(store.cases(runs, cases), metric, limit), limit)
    if not any(point.metric for points in series.values() for point in points):
        names = sorted({name for run in runs for name in store.metric_names(run, cases)})
        raise MlbenchError(f"the history {store.place}: {near.unknown('metric', metric, names)}")
    if len({key.case for key in series}) > 1:
        return Trends(metric, runs, tuple(Trend(key, points) for key, points in series.items()))
    baselines = {key: found.run.id for key, found in store.latest(tuple(series)).items()}
    trends = [Trend(key, points, steps_of(points), baselines.get(key, "")) for key, points in series.items()]
    return Trends(metric, runs, tuple(trends))


def steps_of(points: Sequence[Point]) -> tuple[Step, ...]:
    """Return where the level of the measured values changed; none when they are too few to tell."""
    measured = [point for point in points if point.outcome in _BELIEVED and value_of(point) is not None]
    found = change_points([value for point in measured if (value := value_of(point)) is not None])
    return tuple(Step(measured[one.index], one) for one in found)


def value_of(point: Point) -> float | None:
    """Return the metric's value, None when it was not measured."""
    return None if point.metric is None else point.metric.value


def _together(series: Mapping[CaseKey, tuple[Point, ...]], limit: int) -> dict[CaseKey, tuple[Point, ...]]:
    """Return the series with records that have no fingerprint, such as skips, in the case's newest one.

    The series of a case stand in the order of their fingerprints' last run.
    """
    found: dict[CaseKey, tuple[Point, ...]] = {}
    for key, points in series.items():
        if key.fingerprint:
            found[key] = points
    for key, points in series.items():
        if not key.fingerprint:
            home = next((other for other in found if other.case == key.case), key)
            whole = sorted((*found.get(home, ()), *points), key=lambda point: point.started)
            found[home] = tuple(whole[-limit:])
    return found


def _no_such_case(store: Store, cases: str) -> str:
    runs = store.runs()
    if not runs:
        return f"the history {store.place} has no record yet: mlbench import RUN_FILE"
    known = dict.fromkeys(key.case for key in store.cases(runs))
    told = near.unknown("case", cases, known)
    part = "" if set(cases) & set("*?") else f"; a part of a case id takes stars: '*{cases}*'"
    return f"the history {store.place}: {told}{part}"
