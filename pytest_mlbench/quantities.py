"""Parse limits such as "<= 5 ms" into the unit of the metric they bound, and how much worse it may become.

A limit is an operator, a number and a unit: a metric that has a unit takes no bare number, and shares take
`98 %` for 0.98. Prefixes are decimal (kB, MB, GB) or binary (KiB, MiB, GiB).
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation

from pytest_mlbench.near import nearest
from pytest_mlbench.spec import Limit
from pytest_mlbench.tables import Place, as_items, shown

# Metric unit -> unit as written -> factor. Integers, so that "1.1 us" is 1100 ns and not 1100.0000000000002.
UNITS: dict[str, dict[str, int]] = {
    "ns": {"ns": 1, "us": 10**3, "µs": 10**3, "μs": 10**3, "ms": 10**6, "s": 10**9, "min": 60 * 10**9},
    "bytes": {
        "B": 1,
        "kB": 10**3,
        "MB": 10**6,
        "GB": 10**9,
        "KiB": 2**10,
        "MiB": 2**20,
        "GiB": 2**30,
    },
    "1/s": {"/s": 1},
    "usd": {"usd": 1},
}
_MEANING = {
    "ns": "a time",
    "bytes": "a size",
    "1/s": "a rate",
    "usd": "a price",
    "": "a plain number or share",
}
_EXAMPLE = {"ns": "<= 5 ms", "bytes": "<= 40 MB", "1/s": ">= 400 /s", "usd": "<= 0.002 usd", "": ">= 0.97"}
# What a change of a metric may be too small to matter.
_AMOUNT = {"ns": "200 ns", "bytes": "4 kB", "1/s": "5 /s", "usd": "0.0001 usd", "": "0.002"}
_OPERATORS = "<=, <, >=, > and =="
_LIMIT = re.compile(r"(<=|>=|==|<|>)\s*(.*)", re.DOTALL)
_NUMBER = re.compile(r"([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*(.*)", re.DOTALL)
_NOT_FINITE = re.compile(r"[-+]?(nan|inf)", re.IGNORECASE)


@dataclass(frozen=True)
class Span:
    """The values a metric can have; `percent` tells whether "98 %" may stand for 0.98 (unit "" only)."""

    least: float = -math.inf
    most: float = math.inf
    percent: bool = True


ANY = Span()
SHARE = Span(0.0, 1.0)


def parse_limit(value: object, unit: str | None, place: Place, span: Span = ANY) -> Limit:
    """Return the limit written as `value` for a metric of `unit`; None: a metric of unknown unit.

    A bound outside `span` is refused, since it would hold always or never; a metric with one of the UNITS
    is never below 0. Raises SuiteError at `place`.
    """
    example = _example(unit)
    if not isinstance(value, str):
        write = f'; write it in quotes with its operator and unit, for example "{example}"'
        raise place.error(f"expected a limit, found {shown(value)}{write}")
    text = value.strip()
    parts = _LIMIT.fullmatch(text)
    if parts is None or parts[2].startswith(("=", "<", ">")):
        raise place.error(f'"{text}" does not begin with an operator ({_OPERATORS}); write for example "{example}"')
    op, rest = parts[1], parts[2]
    number = _NUMBER.fullmatch(rest)
    if number is None and not _NOT_FINITE.match(rest):
        raise place.error(f'"{text}" has no number after "{op}"; write for example "{example}"')
    if number is None or not _is_finite(number[1]):
        raise place.error(f'"{text}": the bound must be a finite number')
    written = number[2].strip()
    bound = _scaled(number[1], _factor(text, written, unit, place, span.percent, example), text, place)
    least = max(span.least, 0.0) if unit in UNITS else span.least
    if not least <= bound <= span.most:
        can = f"{least:g} to {span.most:g}" if math.isfinite(span.most) else f"at least {least:g}"
        hint = f'; for percent write "{op} {bound:g} %"' if span == SHARE and 1 < bound <= 100 else ""
        raise place.error(f'"{text}" is outside the values this metric can have ({can}){hint}')
    return Limit(op, bound, written, text)


def parse_limits(value: object, unit: str | None, place: Place, span: Span = ANY) -> tuple[Limit, ...]:
    """Return the limit, or the list of limits, written as `value`, each as parse_limit does.

    A list that no value can satisfy, such as [">= 5 ms", "<= 3 ms"], is an error.
    """
    if not isinstance(value, (list, tuple)):
        return (parse_limit(value, unit, place, span),)
    limits = tuple(parse_limit(item, unit, at, span) for item, at in as_items(value, place))
    if not limits:
        raise place.error("expected at least one limit, found an empty list")
    low = max((limit for limit in limits if limit.op in (">", ">=", "==")), key=_value, default=None)
    high = min((limit for limit in limits if limit.op in ("<", "<=", "==")), key=_value, default=None)
    if low is not None and high is not None:
        strict = low.op == ">" or high.op == "<"
        if low.value > high.value or (strict and low.value == high.value):
            raise place.error(f'nothing is both "{low.text}" and "{high.text}"')
    return limits


def parse_amount(value: object, unit: str | None, place: Place, span: Span = ANY) -> float:
    """Return a size of change such as "200 ns" in the metric's unit; SuiteError at `place` when it is below 0."""
    example = _AMOUNT.get(unit or "", f"5 {unit}")
    number, written, text = _number(value, "an amount", example, place)
    amount = _scaled(number, _factor(text, written, unit, place, span.percent, example), text, place)
    if amount < 0:
        raise place.error(f'"{text}" must be at least 0; write for example "{example}"')
    return amount


def parse_regression(value: object, place: Place, points: bool, below: bool) -> float:
    """Return the accepted worsening: "3 %" as 0.03 or, with `points`, "0.5 points" as 0.005.

    With `below` it must be less than the whole, which a metric that falls can lose but once. Raises SuiteError
    at `place`.
    """
    unit, other, example = ("points", "%", "0.5 points") if points else ("%", "points", "3 %")
    what = "percentage points of accuracy" if points else "a percentage"
    number, written, text = _number(value, what, example, place)
    if written == other:
        why = "an accuracy is compared in percentage points" if points else "only accuracies are compared in points"
        raise place.error(f'"{text}": {why}; write for example "{example}"')
    if written != unit:
        raise place.error(f'"{text}" has not the unit "{unit}"; write for example "{example}"')
    share = Decimal(number) / 100
    if share < 0:
        raise place.error(f'"{text}" must be at least 0 {unit}')
    if below and share >= 1:
        raise place.error(f'"{text}" must be below 100 {unit}: no value is so much worse, so nothing would be checked')
    return float(share)


def _number(value: object, what: str, example: str, place: Place) -> tuple[str, str, str]:
    """Return the number and the unit of a text without operator, and the text without blanks around it."""
    if not isinstance(value, str):
        raise place.error(f'expected {what}, found {shown(value)}; write it in quotes, for example "{example}"')
    text = value.strip()
    number = _NUMBER.fullmatch(text)
    if number is None:
        raise place.error(f'"{text}" does not begin with a number; write for example "{example}"')
    if not _is_finite(number[1]):
        raise place.error(f'"{text}": the number must be finite')
    return number[1], number[2].strip(), text


def _is_finite(number: str) -> bool:
    try:
        return math.isfinite(float(Decimal(number)))
    except InvalidOperation:  # an exponent of 19 digits and more, even a negative one
        return False


def _scaled(number: str, factor: Decimal, text: str, place: Place) -> float:
    scaled = float(Decimal(number) * factor)
    if not math.isfinite(scaled):
        raise place.error(f'"{text}" is too large')
    return scaled


def _value(limit: Limit) -> float:
    return limit.value


def _example(unit: str | None) -> str:
    return _EXAMPLE.get(unit or "", f"<= 5 {unit}")


def _factor(text: str, written: str, unit: str | None, place: Place, percent: bool, example: str) -> Decimal:
    """Return what the number is multiplied with to be in the metric's unit."""
    if unit is None:
        if written:
            message = f'"{text}": the unit of this metric is not known, so write a plain number in its own unit'
            raise place.error(message)
        return Decimal(1)
    if not written and unit == "":
        return Decimal(1)
    if written == "%" and unit == "" and percent:
        return Decimal("0.01")
    factors = UNITS.get(unit, {unit: 1} if unit else {})
    if written in factors:
        return Decimal(factors[written])
    meaning = _MEANING.get(unit, f"in {unit}")
    units = f" (units: {', '.join(factors)})" if factors else ""
    if not written:
        raise place.error(f'"{text}" has no unit; this metric is {meaning}: write for example "{example}"{units}')
    for other, theirs in UNITS.items():
        if written in theirs:
            message = f'"{text}" is {_MEANING[other]}, but this metric is {meaning}'
            raise place.error(f'{message}: write for example "{example}"{units}')
    match = nearest(written, factors)
    hint = f'; did you mean "{match}"?' if match is not None else "."
    message = f'"{text}": unknown unit "{written}"{hint} This metric is {meaning}'
    raise place.error(f'{message}: write for example "{example}"{units}')
