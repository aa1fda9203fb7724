"""What ran where, and in which precision: decided on the nodes that compute."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from pytest_mlbench.checks.facts import plural
from pytest_mlbench.record import CheckResult
from pytest_mlbench.spec import Limit
from pytest_mlbench.units import percent

UNKNOWN = "unknown"
SHOWN_NODES = 5
_PRECISION = re.compile(r"(fp|bf|int|uint)\d+|mixed|unknown")

Summary = Mapping[str, Any]


def summarise(nodes: Sequence[Mapping[str, Any]], source: str = "", reason: str = "") -> dict[str, Any]:
    """Return the placement facts of a record from nodes with the keys name, op, where, precision, compute.

    {"source", "reason", "nodes": count, "compute_nodes": count, "where": {name: share}, "precision":
    {name: share}, "examples": {"where" | "precision": {name: up to five "name (op)"}}}. Shares are of the
    nodes that compute; both maps are empty, and `reason` says why, when there are none. Largest share first.
    """
    compute = [node for node in nodes if node["compute"]]
    if not compute and not reason:
        reason = f"none of {plural(len(nodes), 'node')} computes" if nodes else "the framework reported no nodes"
    return {
        "source": source,
        "reason": "" if compute else reason,
        "nodes": len(nodes),
        "compute_nodes": len(compute),
        "where": _shares(compute, "where"),
        "precision": _shares(compute, "precision"),
        "examples": {key: _examples(compute, key) for key in ("where", "precision")},
    }


def executed(summary: Summary) -> str:
    """Return the one executed precision, "mixed" when there are several, "unknown" when no node tells."""
    names = list(summary["precision"])
    if not names:
        return UNKNOWN
    return str(names[0]) if len(names) == 1 else "mixed"


def executed_label(summary: Summary) -> str:
    """Return what ran, for people: "int8", "mixed (int8 80 %, fp32 20 %)", "unknown (reason)"."""
    name = executed(summary)
    if name == "mixed":
        return f"mixed ({_listed(summary['precision'])})"
    if name == UNKNOWN:
        return f"unknown ({summary.get('reason') or 'the framework does not tell'})"
    return name


def shown_precision(summary: Summary, axis: str) -> str:
    """Return the label of the precision axis: "int8", or "int8 (runs fp32)" when something else ran."""
    name = executed(summary)
    if name == axis:
        return axis
    return f"{axis} (runs {_listed(summary['precision']) if name == 'mixed' else name})"


def check_precision(summary: Summary, axis: str, acknowledged: str | None) -> CheckResult:
    """Fail when the executed precision differs from the axis and the suite does not say so.

    `acknowledged` is the suite's `executed_precision`: a precision, "mixed" or "unknown". It must be what
    really ran; one that is no longer true fails too. A precision that nobody reports is "invalid" unless it
    is acknowledged as "unknown".
    """
    ran, label = executed(summary), executed_label(summary)
    shown = shown_precision(summary, axis)
    outcome, message = _judge(summary, axis, acknowledged)
    source = f" [{summary['source']}]" if summary.get("source") else ""
    facts = {"axis": axis, "executed": ran, "label": label, "shown": shown, "acknowledged": acknowledged}
    return CheckResult("executed_precision", outcome, message + source, facts)


def check_shares(summary: Summary, limits: Mapping[str, Limit]) -> list[CheckResult]:
    """Return one result per required share of the computing nodes, named `placement.<name>`.

    A name is a place ("cpu") or a precision ("int8"); one that did not appear has the share 0. Nodes that do
    not tell are counted against the limit: when they could tip it the result is "invalid".
    """
    return [_check_share(summary, name, limit) for name, limit in limits.items()]


def check_device(summary: Summary, device: str, places: Sequence[str]) -> CheckResult:
    """Fail when a computing node ran elsewhere than in one of `places`, the words for `device` in a placement."""
    shares: Mapping[str, float] = summary["where"]
    facts: dict[str, Any] = {"device": device, "shares": dict(shares)}
    if not shares:
        why = summary.get("reason") or "the framework reported no nodes"
        return CheckResult("placement.device", "invalid", f"nothing proves that {device} computed ({why})", facts)
    elsewhere = {name: share for name, share in shares.items() if name not in places}
    if not elsewhere:
        return CheckResult("placement.device", "pass", f"every computing node ran on {device}", facts)
    nodes = [node for name in elsewhere for node in _named(summary, "where").get(name, [])][:SHOWN_NODES]
    message = (
        f"labelled {device} but computing nodes ran elsewhere ({_listed(elsewhere)}): {', '.join(nodes)}; use "
        'operators that it has, or accept it with expect.placement = { cpu = "<= ..." }'
    )
    return CheckResult("placement.device", "fail", message, facts)


def _judge(summary: Summary, axis: str, acknowledged: str | None) -> tuple[Any, str]:
    ran, label = executed(summary), executed_label(summary)
    if acknowledged is not None:
        if acknowledged == ran:
            same = ran == axis
            return "pass", f"runs {label}" if same else f"runs {label}, acknowledged for {axis}"
        if ran == axis:
            return "fail", (
                f"executed_precision = {acknowledged!r} is no longer true: it runs {label}, as the axis "
                "says; remove executed_precision"
            )
        if ran == UNKNOWN:
            return "invalid", (
                f"executed precision is {label}, so executed_precision = {acknowledged!r} is not proven; "
                "write executed_precision = 'unknown' to accept that"
            )
        return "fail", (
            f"executed_precision = {acknowledged!r} is not what ran: "
            f"{label}{_offenders(summary, acknowledged)}; make it {ran!r} if that is meant"
        )
    if ran == axis:
        return "pass", f"runs {label}"
    if ran == UNKNOWN or set(summary["precision"]) == {axis, UNKNOWN}:
        return "invalid", (
            f"executed precision is {label}, so nothing proves that {axis} ran; "
            f"write executed_precision = {ran!r} to accept that"
        )
    return "fail", (
        f"labelled {axis} but runs {label}{_offenders(summary, axis)}; use a model or an option that runs "
        f"{axis}, or write executed_precision = {ran!r} to show it as {shown_precision(summary, axis)!r}"
    )


def _check_share(summary: Summary, name: str, limit: Limit) -> CheckResult:
    kind = "precision" if name in summary["precision"] or _PRECISION.fullmatch(name) else "where"
    shares: Mapping[str, float] = summary[kind]
    key = f"placement.{name}"
    facts: dict[str, Any] = {"limit": limit.text, "shares": dict(shares)}
    if not shares:
        why = summary.get("reason") or "the framework reported no nodes"
        return CheckResult(key, "invalid", f"placement is unknown ({why}); limit {limit.text} is undecided", facts)
    share = shares.get(name, 0.0)
    silent = 0.0 if name == UNKNOWN else shares.get(UNKNOWN, 0.0)
    text = f"{percent(share)} of {plural(summary['compute_nodes'], 'computing node')} are {name}"
    text += f" ({_listed(shares)}), limit {limit.text}"
    facts["found"] = share
    least, most = limit.holds(share), limit.holds(min(1.0, share + silent))
    if least and most:
        return CheckResult(key, "pass", text, facts)
    if least != most:
        return CheckResult(key, "invalid", f"{text}; {percent(silent)} do not tell, which could decide it", facts)
    wanted = limit.op in (">=", ">", "==")
    nodes = _others(summary, kind, name) if wanted else _named(summary, kind).get(name, [])
    return CheckResult(key, "fail", text + (f": {', '.join(nodes)}" if nodes else ""), facts)


def _shares(nodes: Sequence[Mapping[str, Any]], key: str) -> dict[str, float]:
    counts = Counter(str(node[key]) for node in nodes)
    return {name: count / len(nodes) for name, count in counts.most_common()}


def _examples(nodes: Sequence[Mapping[str, Any]], key: str) -> dict[str, list[str]]:
    examples: dict[str, list[str]] = {}
    for node in nodes:
        named = examples.setdefault(str(node[key]), [])
        if len(named) < SHOWN_NODES:
            named.append(f"{node['name']} ({node['op']})")
    return examples


def _others(summary: Summary, kind: str, name: str) -> list[str]:
    examples = _named(summary, kind)
    return [f"{node} {other}" for other, nodes in examples.items() if other != name for node in nodes][:SHOWN_NODES]


def _named(summary: Summary, kind: str) -> Mapping[str, list[str]]:
    # A summary read back from elsewhere may lack the examples; only the message needs them.
    examples: Mapping[str, list[str]] = summary.get("examples", {}).get(kind, {})
    return examples


def _offenders(summary: Summary, axis: str) -> str:
    nodes = _others(summary, "precision", axis)
    return f": {', '.join(nodes)}" if nodes else ""


def _listed(shares: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {percent(share)}" for name, share in shares.items())
