"""Turn comparisons into a case's outcome, and into the words of a failing test. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from typing import Any

from pytest_mlbench.compare import signed
from pytest_mlbench.record import Comparison, Outcome
from pytest_mlbench.units import percent, plain

_WAIVER_DAYS = 90  # of the waiver that a failure offers to paste


def outcome(comparisons: Sequence[Comparison], *, strict: bool) -> Outcome:
    """Return what the comparisons make of a case: regressed is fail; inconclusive is pass, with `strict` fail."""
    words = {one.verdict for one in comparisons if not one.waived}
    if "regressed" in words:
        return "fail"
    if "invalid" in words:
        return "invalid"
    return "fail" if strict and "inconclusive" in words else "pass"


def lines(case_id: str, comparisons: Sequence[Comparison], facts: Mapping[str, Any], today: date) -> list[str]:
    """Return what to tell of every comparison that is no pass: by how much, how sure, against what, what to do."""
    found = []
    against = f"base {str(facts.get('commit', ''))[:12]} ({facts.get('how')} of {facts.get('ref')})"
    for one in comparisons:
        if one.verdict == "regressed" and not one.waived:
            found.append(f"regressed: {one.reason} against {against}; {_certainty(one)}")
            found.append(_remedy(case_id, one, today))
        elif one.verdict == "invalid":
            found.append(f"invalid: {one.metric}: {one.reason} (against {against})")
        elif one.verdict == "inconclusive":
            found.append(f"inconclusive: {one.reason} against {against}: {_undecided(one)}")
    return found


def _certainty(one: Comparison) -> str:
    limit = f"limit {_margin(one)}"
    if one.method == "exact":
        return f"{limit}, compared exactly"
    p = f"p = {one.p:.2g}, needed {one.alpha:.2g}" if one.p is not None and one.alpha is not None else ""
    count = "paired samples" if one.method == "mcnemar" else "confirming rounds"
    return f"{limit}, {p} in {one.n} {count}"


def _margin(one: Comparison) -> str:
    if one.method == "mcnemar":
        return f"{plain(100 * one.margin, '')} points"
    return percent(one.margin)


def _undecided(one: Comparison) -> str:
    seen = f"; {one.n} rounds as uneven as these find {percent(one.detectable, 2)} or more" if one.detectable else ""
    return f"no worse than {_margin(one)} could not be shown{seen}. Give more --mlbench-rounds, or a quieter machine"


def _remedy(case_id: str, one: Comparison, today: date) -> str:
    """Return what to do: find the cause, or the waiver to paste."""
    ratio = accepted_ratio(one)
    expires = today + timedelta(days=_WAIVER_DAYS)
    return (
        "  Find the cause and correct it, or accept it in mlbench-waivers.toml:\n"
        f'  [[waiver]]\n  case = "{case_id}"\n  metric = "{one.metric}"\n  max_ratio = {ratio:g}\n'
        f'  reason = "why this is worth it"\n  expires = {expires.isoformat()}'
    )


def accepted_ratio(one: Comparison) -> float:
    """Return the ratio of a waiver that would accept this: how many times worse, with the interval's room."""
    if one.base is None or one.candidate is None or not one.base or not one.candidate:
        return 1.0
    worst = one.candidate / one.base
    if one.change is not None and one.interval is not None and one.method == "rounds":
        worst = 1 + (one.interval[0] if one.direction == "higher" else one.interval[1])
    worse = 1 / worst if one.direction == "higher" else worst
    return math.ceil(100 * worse) / 100


def shown(one: Comparison) -> str:
    """Return a verdict as it stands in a table: "pass", "regressed (waived)"."""
    return f"{one.verdict} (waived)" if one.waived else one.verdict


def change(one: Comparison) -> str:
    """Return the change with its interval: "+0.3 % [-0.1 %, +0.8 %]"; "-" where there is none."""
    if one.change is None:
        return "-"
    if one.interval is None:
        return signed(one.change)
    return f"{signed(one.change)} [{signed(one.interval[0])}, {signed(one.interval[1])}]"
