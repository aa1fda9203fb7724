"""Fixed bounds on metrics."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

from pytest_mlbench.checks.facts import number
from pytest_mlbench.record import CheckResult, Metric
from pytest_mlbench.spec import Limit
from pytest_mlbench.units import percent, plain


def check(limits: Mapping[str, tuple[Limit, ...]], metrics: Sequence[Metric]) -> list[CheckResult]:
    """Return one result per bound, named like its metric.

    A metric without a value decides nothing: "insufficient", with its own reason. A metric that does not
    exist fails, because a misspelt limit must not pass.
    """
    by_name = {metric.name: metric for metric in metrics}
    return [
        _decide(name, bound, by_name[name]) if name in by_name else _unknown(name, bound, list(by_name))
        for name, bounds in limits.items()
        for bound in bounds
    ]


def excess(found: float, bound: Limit) -> str:
    """Return how far `found` is outside the bound ("24 % over"), "" when that has no meaning."""
    if not bound.value or found != found or abs(found) == float("inf"):
        return ""
    share = (found - bound.value) / abs(bound.value)
    if not share:
        return "the bound itself is excluded"
    return f"{percent(abs(share), 2)} {'over' if share > 0 else 'under'}"


def apart(found: float, bound: Limit, unit: str) -> str:
    """Return `found` in plain units with as many digits as tell it from the bound (three at least)."""
    for digits in range(3, 16):
        text = plain(found, unit, digits)
        if found == bound.value or text != plain(bound.value, unit, digits):
            return text
    return repr(found)


def _decide(name: str, bound: Limit, metric: Metric) -> CheckResult:
    facts: dict[str, Any] = {"limit": bound.text, "bound": number(bound.value), "unit": metric.unit}
    if metric.value is None:
        reason = metric.reason or "its source gave no reason"
        message = f"{name} was not measured, so limit {bound.text} is undecided: {reason}"
        return CheckResult(name, "insufficient", message, {**facts, "found": None})
    facts["found"] = number(metric.value)
    text = f"{name} is {apart(metric.value, bound, metric.unit)}, limit {bound.text}"
    if bound.holds(metric.value):
        return CheckResult(name, "pass", text, facts)
    how_far = excess(metric.value, bound)
    return CheckResult(name, "fail", f"{text} ({how_far})" if how_far else text, facts)


def _unknown(name: str, bound: Limit, names: list[str]) -> CheckResult:
    near = difflib.get_close_matches(name, names, n=1)
    meant = f"; did you mean {near[0]}?" if near else ""
    message = f"no metric {name!r} for limit {bound.text}{meant} (there are: {', '.join(names) or 'none'})"
    return CheckResult(name, "fail", message, {"limit": bound.text, "known": names})
