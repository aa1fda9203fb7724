"""Parse limits such as "<= 5 ms" into the unit of the metric they bound.

A limit is an operator, a number and a unit: a metric that has a unit takes no bare number, and shares take
`98 %` for 0.98. Prefixes are decimal (kB, MB, GB) or binary (KiB, MiB, GiB).
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from decimal import Decimal

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
    if _NOT_FINITE.match(rest) or (number is not None and not math.isfinite(float(number[1]))):
        raise place.error(f'"{text}": the bound must be a finite number')
    if number is None:
        raise place.error(f'"{text}" has no number after "{op}"; write for example "{example}"')
    written = number[2].strip()
    bound = float(Decimal(number[1]) * _factor(text, written, unit, place, span.percent))
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


def _value(limit: Limit) -> float:
    return limit.value


def _example(unit: str | None) -> str:
    return _EXAMPLE.get(unit or "", f"<= 5 {unit}")


def _factor(text: str, written: str, unit: str | None, place: Place, percent: bool) -> Decimal:
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
    example = _example(unit)
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
