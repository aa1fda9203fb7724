"""Compare whole runs, one or several of a side: pair their cases, refuse unlike ones, judge each metric. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pytest_mlbench import compare_exact, compare_unpaired, expected, near, run_sides, verdict, waivers
from pytest_mlbench.compare_unpaired import Asked
from pytest_mlbench.errors import MlbenchError, RunFileError
from pytest_mlbench.expected import Collected, Deviation, What
from pytest_mlbench.metrics.catalogue import ACCURACIES, METRICS
from pytest_mlbench.record import Comparison, Metric, Record
from pytest_mlbench.run_sides import Side, shown, unlike, worst
from pytest_mlbench.spec import Regression
from pytest_mlbench.stores.runfile import Run
from pytest_mlbench.waivers import Waivers

_FIGURES = ("latency.p50", "throughput", compare_exact.EMULATED)
_NOT_OF_THE_MODEL = ("suite", "identity")  # hashes that may change while what is measured stays the same
_LOST: tuple[What, ...] = ("vanished", "newly skipped")
_NAMED = 5  # cases in a note that is about many


@dataclass(frozen=True)
class Limits:
    """How much worse is accepted (of p50 or throughput, and of `metrics`), and which regressions are waived."""

    margin: float
    metrics: tuple[str, ...] = ()
    waivers: Waivers = field(default_factory=Waivers)
    strict: bool = False


@dataclass(frozen=True)
class Compared:
    """Cases as the comparison makes them, and what is to be told besides.

    `records` has one for each case of the candidate, with its comparisons; `lost` the base's cases that the candidate
    did not measure; `shared` counts the cases that both have. `revision` is the candidate's.
    """

    records: tuple[Record, ...]
    shared: int
    revision: Mapping[str, Any]
    lost: tuple[Deviation, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def comparisons(self) -> list[tuple[str, Comparison]]:
        """Return every comparison with its case id."""
        return [(record.case, one) for record in self.records for one in record.comparisons]


@dataclass(frozen=True)
class _Question:
    """One metric of one case that at least one side measured; `reason` says why it cannot be judged."""

    metric: Metric
    base: tuple[Metric, ...]
    candidate: tuple[Metric, ...]
    regression: Regression
    reason: str = ""

    @property
    def is_of_chance(self) -> bool:
        """Tell whether chance has a part in it, so that it counts among the comparisons made."""
        return not self.reason and self.metric.name not in compare_exact.DETERMINISTIC


def compare(base: Sequence[Run], candidate: Sequence[Run], limits: Limits) -> Compared:
    """Compare the candidate's runs with the base's; the unit is the run.

    Raises RunFileError for what cannot be in a run, and MlbenchError for a run with a case twice and for a metric of
    the limits that no record has.
    """
    there, here = run_sides.side("base", base), run_sides.side("candidate", candidate)
    _refuse_unknown(limits.metrics, [record for run in (*base, *candidate) for record in run.records])
    shared = [case for case in here.cases if case in there.cases]
    asked = {case: _questions(there, here, case, limits) for case in shared}
    family = sum(one.is_of_chance for questions in asked.values() for one in questions)
    records = []
    for case in here.cases:
        same = _are_same((*there.believed(case), *here.believed(case)))
        made = [_believed(_decided(one, family), same) for one in asked.get(case, ())]
        found = tuple(waivers.apply(one, limits.waivers, case) for one in made)
        records.append(_judged(worst(here.records(case)), found, _facts(there, case), limits.strict))
    lost = _lost(there, here)
    notes = _notes(there, here, shared, limits)
    return Compared(tuple(records), len(shared), run_sides.revision(here.runs), tuple(lost), tuple(notes))


def held(run: Run, *, strict: bool) -> Compared:
    """Return the comparisons with a base revision that a run itself holds.

    Raises MlbenchError when it has none, RunFileError for what cannot be in a run.
    """
    revision = run_sides.revision([run_sides.kept(run)])
    compared = [record for record in run.records if record.base]
    if not compared:
        raise MlbenchError(
            "it was measured without --mlbench-base, so it holds no comparison; give two runs: mlbench compare BASE "
            "CANDIDATE"
        )
    failed = [
        f"not passed: {record.case}: {shown(record)}"
        for record in run.records
        if record.outcome not in ("pass", "skip") and verdict.outcome(record.comparisons, strict=strict) == "pass"
    ]
    records = tuple(_judged(record, record.comparisons, record.base, strict) for record in run.records)
    return Compared(records, len(compared), revision, tuple(_told_lost(run)), tuple(failed))


def _told_lost(run: Run) -> list[Deviation]:
    """Return the cases that a run's session says were lost: what vanished or was newly skipped."""
    entries = run.footer.get("lost", [])
    found = []
    for entry in entries if isinstance(entries, list) else [entries]:
        told = [entry.get(key) for key in ("what", "name", "detail")] if isinstance(entry, Mapping) else [None]
        what = next((word for word in _LOST if word == told[0]), None)
        if what is None or not all(isinstance(one, str) for one in told):
            raise RunFileError(f"the footer of the run: lost: {str(entry)[:60]!r} is no case that was lost")
        found.append(Deviation(what, str(told[1]), str(told[2])))
    return found


def _refuse_unknown(names: Sequence[str], records: Sequence[Record]) -> None:
    known = dict.fromkeys(metric.name for record in records for metric in record.metrics)
    for name in names:
        if name not in known:
            raise MlbenchError(f"--metric {name}: {near.unknown('metric', name, known)}")


# --- questions ----------------------------------------------------------------------------------------------


def _questions(there: Side, here: Side, case: str, limits: Limits) -> list[_Question]:
    """Return what is asked of a case that both sides have.

    Nothing where the base skipped it, or where the candidate has no values: its outcome says so.
    """
    sides = there.believed(case), here.believed(case)
    if not sides[1] or there.is_skipped(case):
        return []
    trouble = unlike(there, here, case)
    found = []
    for name in _wanted((*sides[0], *sides[1]), limits):
        base, candidate = (tuple(_metric(record, name) for record in records) for records in sides)
        known = [metric for metric in (*base, *candidate) if metric.value is not None]
        if known:
            margin = 0.0 if name in ACCURACIES else limits.margin
            reason = trouble or _other_data(name, *sides) or _unaskable(name, base, candidate)
            found.append(_Question(known[-1], base, candidate, Regression(margin), reason))
    return found


def _wanted(records: Sequence[Record], limits: Limits) -> list[str]:
    has = {metric.name for record in records for metric in record.metrics if metric.value is not None}
    figure = next((name for name in _FIGURES if name in has), _FIGURES[0])
    quality = [name for name in ACCURACIES[:1] if name in has]
    return list(dict.fromkeys([figure, *quality, *limits.metrics]))


def _metric(record: Record, name: str) -> Metric:
    return next((one for one in record.metrics if one.name == name), Metric(name, None, "", "none"))


def _other_data(name: str, base: Sequence[Record], candidate: Sequence[Record]) -> str:
    """Return why two accuracies are of different questions, "" when they are of the same."""
    if name in ACCURACIES and len({str(record.hashes.get("dataset")) for record in (*base, *candidate)}) > 1:
        return "the data sets differ (hashes.dataset), so right answers cannot be compared"
    return ""


def _unaskable(name: str, base: Sequence[Metric], candidate: Sequence[Metric]) -> str:
    for side, metrics in (("base", base), ("candidate", candidate)):
        lacking = [metric for metric in metrics if metric.value is None]
        if lacking:
            many = f" in {len(lacking)} of {len(metrics)} runs" if len(metrics) > 1 else ""
            return f"the {side} did not measure {name}{many}" + (f": {lacking[0].reason}" if lacking[0].reason else "")
    kinds = list(dict.fromkeys((metric.unit, metric.direction) for metric in (*base, *candidate)))
    if len(kinds) > 1:
        told = " and ".join(f"in {unit or 'no unit'}, {direction} is better" for unit, direction in kinds)
        return f"{name} is not one metric: it is {told}"
    if base[0].direction == "none":
        return f"{name} has no better direction, so it can be neither better nor worse"
    return ""


# --- verdicts -----------------------------------------------------------------------------------------------


def _decided(question: _Question, family: int) -> Comparison:
    metric = question.metric
    asked = Asked(metric, question.regression, family)
    if question.reason:
        return compare_unpaired.invalid(asked, question.reason)
    if metric.name in ACCURACIES:
        return compare_unpaired.accuracy(asked, question.base, question.candidate)
    base, candidate = ([float(one.value or 0.0) for one in side] for side in (question.base, question.candidate))
    if metric.name not in compare_exact.DETERMINISTIC:
        return compare_unpaired.values(asked, base, candidate)
    for side, values in (("base", base), ("candidate", candidate)):
        if max(values) - min(values) > compare_exact.ticks(metric):
            told = f"{metric.name} is not the same in all runs of the {side}, from {min(values):g} to {max(values):g}"
            return compare_unpaired.invalid(asked, told)
    return compare_exact.exact(metric, base[0], candidate[0], question.regression)


def _are_same(records: Sequence[Record]) -> bool:
    """Tell whether records say that one and the same thing was measured: model, data, code and harness."""
    told = [{name: value for name, value in one.hashes.items() if name not in _NOT_OF_THE_MODEL} for one in records]
    return bool(told) and "loaded" in told[0] and all(one == told[0] for one in told)


def _believed(comparison: Comparison, same: bool) -> Comparison:
    """Withdraw a verdict on two sides that are the same: it is about the machine."""
    if not same or comparison.verdict not in ("regressed", "improved") or comparison.metric not in METRICS:
        return comparison
    reason = (
        f"{comparison.reason}, although both sides are the same model, data, options, framework and code: what differs "
        "is the machine, or something that the records do not hold"
    )
    return replace(comparison, verdict="invalid", reason=reason)


def _judged(record: Record, comparisons: tuple[Comparison, ...], facts: Mapping[str, Any], strict: bool) -> Record:
    """Return the record with its comparisons, and the outcome that it has with them."""
    found = verdict.outcome(comparisons, strict=strict)
    worse = run_sides.worst_outcome(record.outcome, found) if found != "pass" else record.outcome
    return replace(record, outcome=worse, comparisons=comparisons, base=dict(facts))


def _facts(there: Side, case: str) -> dict[str, Any]:
    """Return what the candidate's record keeps of its base."""
    facts, records = run_sides.revision(there.runs), there.records(case)
    if records and not there.is_skipped(case):
        return facts
    excluded = {"excluded": records[0].reason or "skipped"} if records else {}
    return {**facts, "new": True, **excluded}


# --- what else is told --------------------------------------------------------------------------------------


def _lost(there: Side, here: Side) -> list[Deviation]:
    """Return the cases that the base measured and the candidate does not have, or skipped."""
    wanted, found = (
        {
            case: (side.records(case)[0].reason or "no reason is given") if side.is_skipped(case) else None
            for case in side.cases
        }
        for side in (there, here)
    )
    differ = expected.deviations(wanted, Collected(found, None, tuple(found)), all_run=False)
    return [one for one in differ if one.what in _LOST and wanted[one.name] is None]


def _notes(there: Side, here: Side, shared: Sequence[str], limits: Limits) -> list[str]:
    notes = [*there.notes, *here.notes]
    if not run_sides.taken_in_turn(there, here):
        notes.append(
            "the runs of one side were all taken before the other's: whatever else changed on the machine meanwhile "
            "counts too. Take them in turn, or compare with --mlbench-base"
        )
    agents = [case for case in shared if len(_agents((*there.believed(case), *here.believed(case)))) > 1]
    if agents:
        notes.append(f"measured by two versions of pytest-mlbench (hashes.agent): {_some(agents)}")
    for name, cases in _unmeasured(there, here, shared, limits).items():
        notes.append(f"{name} was measured on neither side, so it is not compared: {_some(cases)}")
    for side in (there, here):
        for case in side.cases:
            notes += _of_case(side, case, is_shared=case in shared)
    # A case that the base measured and that is skipped now is lost, and told as such.
    notes += [
        f"skipped: {case}: {here.records(case)[0].reason}"
        for case in here.cases
        if here.is_skipped(case) and (case not in there.cases or there.is_skipped(case))
    ]
    return notes


def _of_case(side: Side, case: str, *, is_shared: bool) -> list[str]:
    """Return what is told of one case of a side: that it did not pass, or that not all runs have it."""
    where = "in the base" if side.name == "base" else "in the candidate"
    found, values = worst(side.records(case)), len(side.believed(case))
    notes = [] if found.outcome in ("pass", "skip") else [f"not passed {where}: {case}: {shown(found)}"]
    if is_shared and 0 < values < len(side.runs):
        notes.append(f"only {values} of {len(side.runs)} runs {where} have values: {case}")
    return notes


def _unmeasured(there: Side, here: Side, shared: Sequence[str], limits: Limits) -> dict[str, list[str]]:
    """Return, by metric, the cases that both sides measured and that have no value of it to compare."""
    found: dict[str, list[str]] = {}
    for case in shared:
        records = (*there.believed(case), *here.believed(case)) if here.believed(case) else ()
        for name in _wanted(records, limits) if records else ():
            if all(_metric(record, name).value is None for record in records):
                found.setdefault(name, []).append(case)
    return found


def _agents(records: Sequence[Record]) -> set[str]:
    return {str(record.hashes.get("agent")) for record in records}


def _some(cases: Sequence[str]) -> str:
    """Return the names of cases, of many the first ones."""
    rest = len(cases) - _NAMED
    return ", ".join(cases[:_NAMED]) + (f" and {rest} more" if rest > 0 else "")
