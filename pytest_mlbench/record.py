"""The values a run file holds: metrics, check results, records. Standard library only.

Schema history (field `schema` of the header line of a run file):
  1  first version.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

SCHEMA = 1

Direction = Literal["lower", "higher", "none"]
Origin = Literal["measured", "derived", "declared"]
Outcome = Literal["pass", "fail", "skip", "invalid", "insufficient", "error"]


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
    started: str = ""  # ISO 8601, UTC
    wall_s: float = 0.0

    def metric(self, name: str) -> Metric:
        """Return the metric `name`; KeyError lists the names there are."""
        for metric in self.metrics:
            if metric.name == name:
                return metric
        raise KeyError(
            f"no metric {name!r}; this record has {', '.join(m.name for m in self.metrics) or 'none'}"
        )

    def to_json(self) -> dict[str, Any]:
        """Return the record as JSON values, with the line's `kind`."""
        return {"kind": "record", **asdict(self)}

    @classmethod
    def from_json(cls, line: dict[str, Any]) -> Record:
        """Build a record from a run file's line; unknown keys of newer minor versions are ignored."""
        names = set(cls.__dataclass_fields__)
        values = {key: value for key, value in line.items() if key in names}
        for name, kinds in _KINDS.items():
            if not isinstance(values.get(name, kinds[0]()), kinds):
                raise TypeError(f"{name} is a {type(values[name]).__name__}, expected {kinds[0].__name__}")
        if values.get("outcome") not in get_args(Outcome):
            raise ValueError(f"outcome {values.get('outcome')!r} is not known")
        values["metrics"] = tuple(_metric(entry) for entry in values.get("metrics", ()))
        values["checks"] = tuple(CheckResult(**entry) for entry in values.get("checks", ()))
        return cls(**values)


def _metric(entry: dict[str, Any]) -> Metric:
    if not isinstance(entry.get("value"), (int, float, type(None))):
        raise TypeError(f"metric {entry.get('name')!r} has the value {entry['value']!r}")
    interval = entry.get("interval")
    return Metric(**{**entry, "interval": tuple(interval) if interval else None})


# The type of each field in JSON, where a file may hold anything.
_TEXTS = ("case", "node", "outcome", "reason", "stage", "reference", "fingerprint", "started", "resumed")
_OBJECTS = ("axes", "samples", "scenario", "placement", "stages_ns", "target", "hashes", "environment")
_KINDS: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(_TEXTS, (str,)),
    **dict.fromkeys(_OBJECTS, (dict,)),
    **dict.fromkeys(("metrics", "checks"), (list,)),
    "wall_s": (float, int),
}
