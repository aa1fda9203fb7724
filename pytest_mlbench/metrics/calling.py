"""Call a metric function that is not ours, and hold what it gives to what a record may contain."""

from __future__ import annotations

import math
import traceback
from collections.abc import Iterable
from dataclasses import replace
from numbers import Real
from typing import Any, get_args

from pytest_mlbench.errors import StageError
from pytest_mlbench.metrics.api import Measurement, MetricFunction
from pytest_mlbench.record import Direction, Metric, Origin

STAGE = "metrics"


def call(name: str, function: MetricFunction, measurement: Measurement) -> list[Metric]:
    """Return the metrics of `function`, whose name users know is `name`.

    Raises StageError (stage "metrics") when the function raises, with its traceback, and when it gives
    anything but metrics that say what they are.
    """
    try:
        given: Any = function(measurement)
        is_list = isinstance(given, Iterable) and not isinstance(given, (str, bytes))
        entries = list(given) if is_list else None  # inside: a generator raises only now
    except Exception as error:  # a user's or vendor's own code
        inner = error.__traceback__.tb_next if error.__traceback__ is not None else None
        detail = "".join(traceback.format_exception(type(error), error, inner))
        message = f"metric function {name} raised {type(error).__name__}: {error}"
        raise StageError(STAGE, message, detail if inner is not None else "") from None
    if entries is None:
        raise _wrong(name, f"gave a {type(given).__name__}, expected a list of Metric")
    return [_checked(name, entry) for entry in entries]


def _wrong(name: str, what: str) -> StageError:
    return StageError(STAGE, f"metric function {name} {what} (pytest_mlbench.record.Metric)")


def _checked(name: str, entry: object) -> Metric:
    if not isinstance(entry, Metric):
        raise _wrong(name, f"gave a {type(entry).__name__} in its list, expected Metric")
    if not isinstance(entry.name, str) or not entry.name:
        raise _wrong(name, f"gave a metric named {entry.name!r}, expected a string")
    for field, words in (("direction", get_args(Direction)), ("origin", get_args(Origin))):
        if getattr(entry, field) not in words:
            raise _wrong(name, f"gave {entry.name} with {field} {getattr(entry, field)!r}, expected {', '.join(words)}")
    if not isinstance(entry.unit, str):
        raise _wrong(name, f"gave {entry.name} with unit {entry.unit!r}, expected a string")
    value: Any = entry.value
    if value is None:
        if not entry.reason:
            raise _wrong(name, f"gave {entry.name} without a value, expected the reason why it was not measured")
        return entry
    if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value):
        raise _wrong(name, f"gave {entry.name} the value {value!r}, expected a finite number, or None with a reason")
    return replace(entry, value=float(value))
