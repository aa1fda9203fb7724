"""Read a benchmark's `expect` table: accuracy, equivalence, placement, compliance and limits on metrics.

Every other table is joined with "." into a metric's name: `latency = { p99 = "<= 5 ms" }` bounds the
metric `latency.p99`. Where a limit may stand, so may a table that also says how much worse than the base
revision the metric may be: `{ limit = "<= 5 ms", max_regression = "3 %", ignore_below = "200 ns" }`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from pytest_mlbench.metrics.catalogue import METRICS, ONCE
from pytest_mlbench.near import nearest, unknown
from pytest_mlbench.quantities import ANY, SHARE, Span, parse_amount, parse_limit, parse_limits, parse_regression
from pytest_mlbench.spec import Expect, Limit, MaxDrop, Regression, Tolerance
from pytest_mlbench.tables import (
    PRECISIONS,
    Known,
    Place,
    Table,
    as_items,
    as_known,
    as_number,
    as_word,
    unique,
)

COMPLIANCE = ("repeat_sample", "timed_outputs", "batch_invariance")

_LABELLED: dict[str, str | None] = {"accuracy.top1": "", "accuracy.top5": ""}
_OWN_TABLES = ("accuracy", "equivalence", "unchanged", "placement", "compliance")
# The keys of a table that stands in the place of a limit.
_BOUND = ("limit", "max_regression", "ignore_below")
_AT_MOST = ("<=", "<", "==")
_AT_LEAST = (">=", ">", "==")
# The limits of a tolerance: the operators that make sense, and the values that can be found.
_TOLERANCE_LIMITS: dict[str, tuple[tuple[str, ...], Span]] = {
    "max_abs": (_AT_MOST, Span(0.0, percent=False)),
    "sqnr_db": (_AT_LEAST, Span(percent=False)),
    "cosine": (_AT_LEAST, Span(-1.0, 1.0, percent=False)),
    "top1_agreement": (_AT_LEAST, SHARE),
}
_TOLERANCE = ("rtol", "atol", *_TOLERANCE_LIMITS, "bit_exact")


@dataclass(frozen=True)
class MetricNames:
    """The metrics that may be bounded. `is_open`: user or vendor functions may add names not known here."""

    units: Mapping[str, str | None]
    is_open: bool

    @classmethod
    def of(cls, known: Known, own_metrics: bool) -> MetricNames:
        """Return the registered metrics and those of labels; `own_metrics`: the benchmark names functions."""
        return cls({**_LABELLED, **known.metrics}, own_metrics or known.vendor_metrics)

    def check(self, name: str, place: Place) -> None:
        """Raise SuiteError for a name that no metric can have."""
        if name in self.units:
            return
        owner = next((known for known in self.units if name.startswith(f"{known}.")), None)
        if owner is not None:
            message = f'unknown key: the metric "{owner}" takes a limit, for example {owner} = "<= ..."'
            raise place.error(f"{message}, or a table of {', '.join(_BOUND)}")
        if self.is_open:
            return
        first = name.split(".")[0]
        heads = [*_OWN_TABLES, *dict.fromkeys(known.split(".")[0] for known in self.units)]
        head = nearest(first, heads)
        if first not in heads and head is not None and nearest(name, self.units) is None:
            raise place.error(f'unknown metric "{name}"; did you mean "{head}" instead of "{first}"?')
        raise place.error(unknown("metric", name, sorted(self.units)))


def read_expect(value: object, place: Place, names: MetricNames, base: Expect) -> Expect:
    """Return `base` with what the table names put in its place; what it does not name stays."""
    table = Table(value, place)
    changes: dict[str, Any] = {}
    bounds = _Bounds(names, dict(base.limits), dict(base.regressions))
    for key, item, at in table:
        if key == "accuracy":
            accuracy = Table(item, at)
            for part, found, there in accuracy:
                if part == "max_drop":
                    changes["max_drop"] = _max_drop(found, there, base.max_drop)
                else:
                    bounds.read(found, there, f"accuracy.{part}")
        elif key in ("equivalence", "unchanged"):
            before: Mapping[str, Tolerance] = getattr(base, key)
            changes[key] = {**before, **_equivalence(item, at, before)}
        elif key == "placement":
            changes["placement"] = {**base.placement, **_placement(item, at)}
        elif key == "compliance":
            changes["compliance"] = _compliance(item, at)
        else:
            bounds.read(item, at, key)
    return replace(base, limits=bounds.limits, regressions=bounds.regressions, **changes)


@dataclass(frozen=True)
class _Bounds:
    """The bounds of metrics by name; read() adds to them, or puts others in their place."""

    names: MetricNames
    limits: dict[str, tuple[Limit, ...]]
    regressions: dict[str, Regression]

    def read(self, value: object, place: Place, name: str) -> None:
        """Walk down to the limits and their tables; the keys on the way, joined, are the metric's name."""
        if not isinstance(value, Mapping):
            self._limit(value, place, name)
            return
        table = Table(value, place)
        keys = [key for key, _, _ in table]
        if name in self.names.units and not keys:
            raise place.error(f"is empty, so nothing would be checked; set one of {', '.join(_BOUND)}")
        if self._is_bound(keys, place, name):
            self._bound(Table(value, place, _BOUND), name)
            return
        for key, item, at in table:
            self.read(item, at, f"{name}.{key}")

    def _is_bound(self, keys: list[str], place: Place, name: str) -> bool:
        """Tell whether these are the keys of a metric's own table, and not parts of longer names of metrics."""
        parts = [key for key in keys if self._is_name(f"{name}.{key}")]
        ours = [key for key in keys if key in _BOUND and key not in parts]
        if not ours:
            misspelt = [key for key in keys if key not in parts and nearest(key, _BOUND)]
            return name in self.names.units and bool(misspelt)
        if self.names.is_open:
            parts += [key for key in keys if key not in ours and nearest(key, _BOUND) is None]
        if parts:
            raise place.error(
                f'mixes the keys of a limit ({", ".join(ours)}) with "{parts[0]}", a part of another metric\'s name; '
                f'write that one beside it, as "{name}.{parts[0]}" with its whole name'
            )
        return True

    def _is_name(self, name: str) -> bool:
        return any(known == name or known.startswith(f"{name}.") for known in self.names.units)

    def _bound(self, table: Table, name: str) -> None:
        self.names.check(name, table.place)
        if "limit" in table:
            self._limit(*table.at("limit"), name)
        if "max_regression" not in table and "ignore_below" not in table:
            return
        if name in ONCE:
            raise table.place.error(
                "is measured once, when the cache has no such file yet, and not in every round, so a gate cannot "
                'compare it; set "limit", or compare two runs with `mlbench compare`'
            )
        before = self.regressions.get(name)
        if before is None and "max_regression" not in table:
            example = "0.5 points" if name in _LABELLED else "3 %"
            raise table.place.error(f'"ignore_below" needs max_regression beside it, for example "{example}"')
        margin, ignored = (before.margin, before.ignore_below) if before else (0.0, 0.0)
        if "max_regression" in table:
            # A metric of unknown direction may be one that falls, too.
            below = METRICS.get(name, ("", "higher"))[1] != "lower"
            margin = parse_regression(*table.at("max_regression"), name in _LABELLED, below)
        if "ignore_below" in table:
            value, at = table.at("ignore_below")
            ignored = parse_amount(value, self.names.units.get(name), at, _span(name))
        self.regressions[name] = Regression(margin, ignored)

    def _limit(self, value: object, place: Place, name: str) -> None:
        self.names.check(name, place)
        self.limits[name] = parse_limits(value, self.names.units.get(name), place, _span(name))


def _span(name: str) -> Span:
    return SHARE if name in _LABELLED else Span(percent=False) if name.endswith("_db") else ANY


def _max_drop(value: object, place: Place, base: MaxDrop | None) -> MaxDrop:
    table = Table(value, place, ("from", "points"))
    example = '{ from = "fp32", points = 1.0 }'
    if base is None or "from" in table:
        source = as_known(*table.need("from", example), "precision", PRECISIONS)
    else:
        source = base.source
    if base is None or "points" in table:
        points = as_number(*table.need("points", example), least=0)
    else:
        points = base.points
    return MaxDrop(source, points)


def _equivalence(value: object, place: Place, base: Mapping[str, Tolerance]) -> dict[str, Tolerance]:
    found: dict[str, Tolerance] = {}
    for key, item, at in Table(value, place):
        if key != "*" and key not in PRECISIONS:
            raise at.error(unknown("precision", key, ("*", *PRECISIONS)))
        found[key] = _tolerance(item, at, base.get(key, Tolerance()))
    return found


def _tolerance(value: object, place: Place, base: Tolerance) -> Tolerance:
    table = Table(value, place, _TOLERANCE)
    changes: dict[str, Any] = {}
    for key, item, at in table:
        if key in ("rtol", "atol"):
            changes[key] = as_number(item, at, least=0)
        elif key in _TOLERANCE_LIMITS:
            operators, span = _TOLERANCE_LIMITS[key]
            limit = parse_limit(item, "", at, span)
            if limit.op not in operators:
                raise at.error(f'"{limit.text}" bounds the wrong side; use one of {", ".join(operators)}')
            changes[key] = limit
    changes["bit_exact"] = table.flag("bit_exact", base.bit_exact)
    tolerance = replace(base, **changes)
    if tolerance == Tolerance():
        raise place.error(f"no rule is set, so nothing would be checked; set one of {', '.join(_TOLERANCE)}")
    return tolerance


def _placement(value: object, place: Place) -> dict[str, Limit]:
    return {as_word(key, at): parse_limit(item, "", at, SHARE) for key, item, at in Table(value, place)}


def _compliance(value: object, place: Place) -> tuple[str, ...]:
    items = as_items(value, place, "strings")
    return unique([(as_known(item, at, "check", COMPLIANCE), at) for item, at in items], "check")
