"""Turn comparisons into a case's outcome, and into the words of a failing test. Pure."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import date, timedelta
from typing import Any

from pytest_mlbench import waivers
from pytest_mlbench.compare import signed
from pytest_mlbench.metrics.catalogue import ACCURACIES
from pytest_mlbench.record import Comparison, Outcome
from pytest_mlbench.units import percent, plain

_WAIVER_DAYS = 90  # of the waiver that a failure offers to paste
_LARGEST_RATIO = 1e300  # of which 100 times are still a number; a file of a stranger may hold more


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
    against = named(facts)
    invalid: dict[str, list[str]] = {}  # what is wrong with the base is wrong for all metrics: told once
    for one in comparisons:
        if one.verdict == "regressed" and not one.waived:
            found.append(f"regressed: {one.reason} against {against}; {_certainty(one)}")
            found.append(_remedy(case_id, one, today))
        elif one.verdict == "invalid":
            invalid.setdefault(one.reason, []).append(one.metric)
        elif one.verdict == "inconclusive":
            found.append(f"inconclusive: {one.reason} against {against}: {_undecided(one)}")
    told = (f"invalid: {', '.join(metrics)}: {reason} (against {against})" for reason, metrics in invalid.items())
    return [*found, *told]


def named(facts: Mapping[str, Any], side: str = "base") -> str:
    """Return a side in words: "base 0123456789ab (merge base of main)"."""
    commit = str(facts.get("commit") or "")[:12]
    if not commit:
        return f"the {side}"
    how = f"{facts.get('how')} of " if facts.get("how") != "as given" else ""
    return f"{side} {commit} ({how}{facts.get('ref')})"


def _certainty(one: Comparison) -> str:
    limit = f"limit {_margin(one)}"
    if one.method == "exact":
        return f"{limit}, compared exactly"
    p = f"p = {one.p:.2g}, needed {one.alpha:.2g}" if one.p is not None and one.alpha is not None else ""
    return f"{limit}, {p} in {one.n} {_counted(one)}"


def _counted(one: Comparison) -> str:
    """Return what `n` counts, in words."""
    if one.method == "runs":
        return "samples" if in_points(one) else "runs"
    return "paired samples" if one.method == "mcnemar" else "confirming rounds"


def in_points(one: Comparison) -> bool:
    """Tell whether the change is one between shares of right answers, in points, and not a share of the base."""
    return one.method == "mcnemar" or (one.method == "runs" and one.metric in ACCURACIES)


def _margin(one: Comparison) -> str:
    if in_points(one):
        return f"{plain(100 * one.margin, '')} points"
    return percent(one.margin)


def _undecided(one: Comparison) -> str:
    seen = ""
    if one.detectable and in_points(one):
        seen = f"; counts of {one.n} samples tell a drop of {100 * one.detectable:.3g} points or more"
    elif one.detectable:
        count = "runs" if one.method == "runs" else "rounds"
        seen = f"; {one.n} {count} as uneven as these find a worsening of {percent(one.detectable, 2)} or more"
    found = f"that it is no worse than {_margin(one)} could not be shown, nor that it is worse{seen}"
    return f"{found}. {_more(one)}"


def _more(one: Comparison) -> str:
    """Return what would decide it."""
    if in_points(one):
        return "--mlbench-base compares answer by answer, which tells more"
    if one.method == "runs":
        return "Give more runs of both sides, taken in turn, or a quieter machine"
    return "Give more --mlbench-rounds, or a quieter machine"


def _remedy(case_id: str, one: Comparison, today: date) -> str:
    """Return what to do: find the cause, or the waiver to paste."""
    accepted = accepted_ratio(one)
    if accepted is None:
        return "  Find the cause and correct it; a waiver accepts no ratio that is not known"
    expires = today + timedelta(days=_WAIVER_DAYS)
    metric = json.dumps(one.metric, ensure_ascii=False)  # a user's own name may hold quotes
    return (
        "  Find the cause and correct it, or accept it in mlbench-waivers.toml:\n"
        f'  [[waiver]]\n  case = "{case_id}"\n  metric = {metric}\n  max_ratio = {accepted:.2f}\n'
        f'  reason = "why this is worth it"\n  expires = {expires.isoformat()}'
    )


def accepted_ratio(one: Comparison) -> float | None:
    """Return the ratio of a waiver that would accept this: how many times worse, with the interval's room.

    None where the ratio is not known, which no waiver accepts.
    """
    found = waivers.ratio(one)
    if found is None:
        return None
    if one.interval is not None and one.method in ("rounds", "runs"):
        worst = waivers.ratio(replace(one, change=one.interval[0 if one.direction == "higher" else 1]))
        found = max(found, worst or found)
    return math.ceil(100 * found) / 100 if found < _LARGEST_RATIO else None


def shown(one: Comparison) -> str:
    """Return a verdict as it stands in a table: "pass", "regressed (waived)"."""
    return f"{one.verdict} (waived)" if one.waived else one.verdict


def change(one: Comparison) -> str:
    """Return the change with its interval: "+0.3 % [-0.1 %, +0.8 %]"; "-" where there is none.

    An accuracy changes by points, not by a share of itself.
    """
    if one.change is None:
        return "-"
    told = points(one.change) if in_points(one) else signed(one.change)
    if one.interval is None:
        return told
    low, high = (f"{100 * end:+.3g}" if in_points(one) else signed(end) for end in one.interval)
    return f"{told} [{low}, {high}]"


def points(difference: float) -> str:
    """Return a difference of accuracies: "-1.4 points"."""
    return f"{100 * difference:+.3g} points" if difference else "0 points"
