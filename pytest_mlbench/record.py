"""The values a run file holds: metrics, check results, records. Standard library only.

Schema history (field `schema` of the header line of a run file):
  1  first version.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

SCHEMA = 1

Direction = Literal["lower", "higher", "none"]
Origin = Literal["measured", "derived", "declared"]
Outcome = Literal["pass", "fail", "skip", "invalid", "insufficient", "error"]
Verdict = Literal["pass", "regressed", "improved", "inconclusive", "invalid"]
Method = Literal["rounds", "exact", "mcnemar", "runs"]


@dataclass(frozen=True)
class Metric:
    """A quantity with unit, direction (which way is better) and origin.

    `value` is None when it was not measured, and then `reason` says why; it is never 0 for "unknown".
    `interval` is the confidence interval (low, high) at `confidence`, and `n` the number of readings.
    """

    name: str
    value: float | None
    unit: str
    direction: Direction
    origin: Origin = "measured"
    n: int | None = None
    interval: tuple[float, float] | None = None
    confidence: float | None = None
    reason: str = ""
    note: str = ""  # how it was obtained, when that is not obvious from the name


@dataclass(frozen=True)
class CheckResult:
    """The decision on one declared expectation.

    `name` is the expectation's key path in the suite without `expect.`, for example `latency.p99` or
    `equivalence.sqnr_db`. `message` is one or more lines for people: what was found, what was expected and,
    on failure, the remedy or the value that would pass. `facts` holds the numbers behind it (JSON values).
    """

    name: str
    outcome: Literal["pass", "fail", "invalid", "insufficient"]
    message: str
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Comparison:
    """One metric of one case, base against candidate, and the verdict on it.

    `method` tells how it was decided: "rounds" (paired rounds of fresh processes), "exact" (a deterministic
    value), "mcnemar" (right or wrong on the same samples) or "runs" (records of whole runs). `change` is how
    the candidate differs, as a share of the base (0.03 is 3 % more; for accuracies the difference itself),
    and `interval` holds it at `confidence`. `p` is that of "worse than the margin by chance", judged against
    `alpha`. `detectable` is the least worsening that would have been found in four of five such comparisons.
    """

    metric: str
    unit: str
    direction: Direction
    method: Method
    verdict: Verdict
    reason: str = ""  # in words: by how much, how sure, or why there is no verdict
    base: float | None = None
    candidate: float | None = None
    change: float | None = None
    interval: tuple[float, float] | None = None
    confidence: float | None = None
    n: int = 0  # rounds, samples or runs behind the verdict
    p: float | None = None
    alpha: float | None = None
    margin: float = 0.0
    ignore_below: float = 0.0
    detectable: float | None = None
    waived: str = ""  # the reason of the waiver that accepts this regression
    base_values: tuple[float, ...] = ()  # of every round, screening rounds first
    candidate_values: tuple[float, ...] = ()


@dataclass(frozen=True)
class Record:
    """One case's result. Every field is a JSON value, so a record is a line of the run file as it stands."""

    case: str  # case id: "digits/classify[digits_cnn-onnxruntime-int8-cpu]"
    node: str  # pytest's node id
    axes: dict[str, Any]
    outcome: Outcome
    reason: str = ""
    stage: str = ""  # the stage that failed, for outcome "error"
    metrics: tuple[Metric, ...] = ()
    checks: tuple[CheckResult, ...] = ()
    samples: dict[str, Any] = field(default_factory=dict)
    scenario: dict[str, Any] = field(default_factory=dict)
    placement: dict[str, Any] = field(default_factory=dict)
    stages_ns: dict[str, int] = field(default_factory=dict)
    resumed: str = ""  # id of the earlier run this record was taken from, with --mlbench-resume
    reference: str = ""  # id of the case the suite names as reference
    target: dict[str, Any] = field(default_factory=dict)
    hashes: dict[str, str] = field(default_factory=dict)
    environment: dict[str, Any] = field(default_factory=dict)
    fingerprint: str = ""
    lease: dict[str, Any] = field(default_factory=dict)  # what was held for the case, from when to when
    comparisons: tuple[Comparison, ...] = ()  # with --mlbench-base
    base: dict[str, Any] = field(default_factory=dict)  # what it was compared with, and the rounds as they happened
    started: str = ""  # ISO 8601, UTC
    wall_s: float = 0.0

    def metric(self, name: str) -> Metric:
        """Return the metric `name`; KeyError lists the names there are."""
        for metric in self.metrics:
            if metric.name == name:
                return metric
        raise KeyError(f"no metric {name!r}; this record has {', '.join(m.name for m in self.metrics) or 'none'}")

    def to_json(self) -> dict[str, Any]:
        """Return the record as JSON values, with the line's `kind`."""
        return {"kind": "record", **asdict(self)}

    @classmethod
    def from_json(cls, line: dict[str, Any]) -> Record:
        """Build a record from a run file's line; unknown keys of newer minor versions are ignored.

        A run file may come from anywhere: ValueError names the key whose value is not what it must be.
        """
        values = _values(line, _RECORD, "")
        for key in ("case", "node", "axes", "outcome"):
            if key not in values:
                raise ValueError(f"{key} is missing")
        values["metrics"] = tuple(_metric(entry, f"metrics[{i}]") for i, entry in enumerate(values.get("metrics", ())))
        values["checks"] = tuple(_check(entry, f"checks[{i}]") for i, entry in enumerate(values.get("checks", ())))
        given = enumerate(values.get("comparisons", ()))
        values["comparisons"] = tuple(_comparison(entry, f"comparisons[{i}]") for i, entry in given)
        for key, ns in values.get("stages_ns", {}).items():
            _number(ns, f"stages_ns.{key}")
        for key, share in _mapping(values.get("placement", {}).get("precision", {}), "placement.precision").items():
            _number(share, f"placement.precision.{key}")
        if values.get("placement"):
            values["placement"].setdefault("precision", {})
        return cls(**values)


_RECORD: Mapping[str, type | tuple[object, ...]] = {
    **dict.fromkeys(("case", "node", "reason", "stage", "resumed", "reference", "fingerprint", "started"), str),
    **dict.fromkeys(
        ("axes", "samples", "scenario", "placement", "stages_ns", "target", "hashes", "environment", "lease"), dict
    ),
    **dict.fromkeys(("metrics", "checks", "comparisons"), list),
    "base": dict,
    "outcome": get_args(Outcome),
    "wall_s": float,
}
_METRIC: Mapping[str, type | tuple[object, ...]] = {
    **dict.fromkeys(("name", "unit", "reason", "note"), str),
    "direction": get_args(Direction),
    "origin": get_args(Origin),
}
_CHECK: Mapping[str, type | tuple[object, ...]] = {
    **dict.fromkeys(("name", "message"), str),
    "outcome": ("pass", "fail", "invalid", "insufficient"),
    "facts": dict,
}
_COMPARISON: Mapping[str, type | tuple[object, ...]] = {
    **dict.fromkeys(("metric", "unit", "reason", "waived"), str),
    "direction": get_args(Direction),
    "method": get_args(Method),
    "verdict": get_args(Verdict),
    **dict.fromkeys(("margin", "ignore_below"), float),
}


def _values(entry: object, types: Mapping[str, type | tuple[object, ...]], where: str) -> dict[str, Any]:
    """Return the keys of a JSON object that `types` has: each of that type, or one of those words."""
    found = {}
    for key, value in _mapping(entry, where).items():
        place = f"{where}.{key}" if where else key
        wanted = types.get(key)
        if wanted is None:
            continue
        if isinstance(wanted, tuple):
            if value not in wanted:
                raise ValueError(f"{place}: expected one of {', '.join(map(str, wanted))}, found {str(value)[:40]!r}")
        elif wanted is float:
            _number(value, place)
        elif not isinstance(value, wanted):
            raise ValueError(f"{place}: expected {wanted.__name__}, found {type(value).__name__}")
        found[key] = value
    return found


def _metric(entry: object, where: str) -> Metric:
    values = _values(entry, _METRIC, where)
    given = _mapping(entry, where)
    for key in ("name", "unit", "direction"):
        if key not in values:
            raise ValueError(f"{where}.{key} is missing")
    for key in ("value", "n", "confidence"):
        values[key] = given.get(key)
        if values[key] is not None:
            _number(values[key], f"{where}.{key}")
    values["interval"] = _interval(given, where)
    return Metric(**values)


def _interval(given: Mapping[str, Any], where: str) -> tuple[float, float] | None:
    interval = given.get("interval")
    if interval is None:
        return None
    if not isinstance(interval, (list, tuple)) or len(interval) != 2:
        raise ValueError(f"{where}.interval: expected two numbers")
    low, high = interval
    _number(low, f"{where}.interval")
    _number(high, f"{where}.interval")
    return low, high


def _comparison(entry: object, where: str) -> Comparison:
    values = _values(entry, _COMPARISON, where)
    given = _mapping(entry, where)
    for key in ("metric", "unit", "direction", "method", "verdict"):
        if key not in values:
            raise ValueError(f"{where}.{key} is missing")
    for key in ("base", "candidate", "change", "confidence", "p", "alpha", "detectable"):
        values[key] = given.get(key)
        if values[key] is not None:
            _number(values[key], f"{where}.{key}")
    values["interval"] = _interval(given, where)
    values["n"] = given.get("n", 0)
    if isinstance(values["n"], bool) or not isinstance(values["n"], int) or values["n"] < 0:
        raise ValueError(f"{where}.n: expected a whole number of at least 0, found {str(values['n'])[:40]}")
    for key in ("base_values", "candidate_values"):
        found = given.get(key, ())
        if not isinstance(found, (list, tuple)):
            raise ValueError(f"{where}.{key}: expected numbers")
        for number in found:
            _number(number, f"{where}.{key}")
        values[key] = tuple(found)
    return Comparison(**values)


def _check(entry: object, where: str) -> CheckResult:
    values = _values(entry, _CHECK, where)
    for key in ("name", "outcome", "message"):
        if key not in values:
            raise ValueError(f"{where}.{key} is missing")
    return CheckResult(**values)


def _mapping(value: object, where: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ValueError(f"{where}: expected an object, found {type(value).__name__}")
    return value


def _number(value: object, where: str) -> None:
    """Refuse what is no finite number, and whole numbers that no float can hold."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(f"{where}: expected a number, found {type(value).__name__}")
    try:
        finite = math.isfinite(value)
    except OverflowError:
        finite = False
    if not finite:
        raise ValueError(f"{where}: expected a finite number")
