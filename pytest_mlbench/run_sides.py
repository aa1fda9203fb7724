"""The runs of one side of a comparison: their records by case, their revision, whether they are alike. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pytest_mlbench.checks.facts import plural
from pytest_mlbench.errors import MlbenchError
from pytest_mlbench.record import Outcome, Record
from pytest_mlbench.stores.api import KeptRun
from pytest_mlbench.stores.history_rows import rows_of
from pytest_mlbench.stores.runfile import Run

SideName = Literal["base", "candidate"]

_BELIEVED = ("pass", "fail", "insufficient")  # outcomes whose measured values are what they say
_WORST_FIRST: tuple[Outcome, ...] = ("fail", "error", "invalid", "insufficient", "pass", "skip")
# Of what a record tells of its target, what its fingerprint holds; and of a board's, what it does not.
_TARGET = ("device", "node", "processor", "machine", "cores_allowed", "python", "gpu_name", "gpu_driver")
_NOT_OF_BOARD = ("firmware", "recovered", "versions", "agent")
_SHOWN = 4  # facts in which two records differ
_LONGEST = 60  # characters of one of them


@dataclass(frozen=True)
class Side:
    """The runs of one side. `cases` has each measurement once: case id -> id of the run that made it -> record."""

    name: SideName
    runs: tuple[KeptRun, ...]
    cases: Mapping[str, Mapping[str, Record]]
    notes: tuple[str, ...]

    def records(self, case: str) -> tuple[Record, ...]:
        """Return the records of a case, in the order of the runs; none when there is no such case."""
        return tuple(self.cases.get(case, {}).values())

    def believed(self, case: str) -> tuple[Record, ...]:
        """Return the records of a case whose values count."""
        return tuple(record for record in self.records(case) if record.outcome in _BELIEVED)

    def is_skipped(self, case: str) -> bool:
        """Tell whether no run of this side measured the case, because it was skipped."""
        return all(record.outcome == "skip" for record in self.records(case))


def revision(runs: Sequence[KeptRun]) -> dict[str, Any]:
    """Return which revision runs are of, as a record keeps it of its base."""
    changed = ", with changed files" if any(run.dirty for run in runs) else ""
    ref = (runs[0].branch or "no branch") + changed
    return {"commit": runs[0].commit, "how": plural(len(runs), "run"), "ref": ref}


def kept(run: Run) -> KeptRun:
    """Return what a run's header tells of it; RunFileError names what cannot be in a run."""
    header = rows_of(run).run
    return KeptRun(
        id=header["id"],
        started=header["started"],
        commit=header["commit_sha"] or "",
        branch=header["branch"] or "",
        dirty=header["dirty"],
        host=header["host"] or "",
    )


def side(name: SideName, runs: Sequence[Run]) -> Side:
    """Return one side. Raises RunFileError for what cannot be in a run, MlbenchError for a run with a case twice."""
    known = [kept(run) for run in runs]
    cases: dict[str, dict[str, Record]] = {}
    notes = []
    for run, own in zip(runs, known, strict=True):
        seen = set()
        for record in run.records:
            if record.case in seen:
                raise MlbenchError(f"the run {own.id} holds the case {record.case} twice; give the file as it was made")
            seen.add(record.case)
            # A resumed record is the measurement of the run that it was taken from.
            first = cases.setdefault(record.case, {}).setdefault(record.resumed or own.id, record)
            if first is not record:
                notes.append(f"counted once: {record.case}, which the {name}'s runs share (--mlbench-resume)")
        if not run.footer:
            notes.append(f"the {name}'s run {own.id} was killed: it has the cases that it had finished")
    revisions = list(dict.fromkeys(run.commit[:12] or "unknown" for run in known))
    if len(revisions) > 1:
        notes.append(f"the {name}'s runs are of several revisions: {', '.join(revisions)}")
    return Side(name, tuple(known), cases, tuple(notes))


def taken_in_turn(base: Side, candidate: Side) -> bool:
    """Tell whether the runs of the two sides overlap in time; one of each cannot."""
    there, here = ([run.started for run in side.runs] for side in (base, candidate))
    return len(there) + len(here) <= 2 or (max(there) >= min(here) and max(here) >= min(there))


def unlike(base: Side, candidate: Side, case: str) -> str:
    """Return why the records of a case may not be compared, "" when they may."""
    there, here = base.believed(case), candidate.believed(case)
    if not there:
        return f"the base has no values to compare with: it came out as {shown(worst(base.records(case)))}"
    same = base.cases[case].keys() & candidate.cases[case].keys()
    if same:
        return f"both sides hold the same measurement, that of the run {min(same)} (--mlbench-resume)"
    if not all(record.fingerprint for record in (*there, *here)):
        return "a record has no fingerprint, so nothing tells whether it may be compared"
    for side, records in ((base, there), (candidate, here)):
        other = next((record for record in records if record.fingerprint != records[0].fingerprint), None)
        if other is not None:
            return f"the {side.name}'s runs are not runs of one thing: {_differences(records[0], other)}"
    if there[0].fingerprint == here[0].fingerprint:
        return ""
    return (
        f"base and candidate are not alike: {_differences(there[0], here[0])}. What was measured on two machines or "
        "with two settings cannot be compared; to compare two versions or options on purpose, measure both in one "
        "session: pytest --mlbench --mlbench-base REF, with --mlbench-base-python for another version"
    )


def _differences(one: Record, other: Record) -> str:
    """Return in which facts two records of different fingerprints differ, as far as they tell."""
    here, there = _facts(one), _facts(other)
    names = [name for name in dict.fromkeys((*here, *there)) if here.get(name) != there.get(name)]
    if not names:
        return "in what the records do not hold, such as the framework's options"
    told = [f"{name} is {_text(here.get(name))} and {_text(there.get(name))}" for name in names[:_SHOWN]]
    return "; ".join(told) + (f"; and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")


def _facts(record: Record) -> dict[str, object]:
    """Return what a record tells of the facts in its fingerprint, each by its key path."""
    target = record.target
    if "imported" in target:  # what other tools tell of a machine has names of its own
        names = [name for name, value in target.items() if isinstance(value, (str, int))]
    elif "firmware" in target:  # what a maker's device tells of a board has names of its own too
        names = [name for name in target if name not in _NOT_OF_BOARD]
    else:
        names = [name for name in _TARGET if name in target]
    versions = target.get("versions")
    return {
        **{f"target.{name}": target[name] for name in names},
        **{f"versions.{name}": value for name, value in (versions.items() if isinstance(versions, dict) else ())},
        **{f"scenario.{name}": value for name, value in record.scenario.items() if name != "happened"},
        **{f"axes.{name}": value for name, value in record.axes.items()},
    }


def _text(value: object) -> str:
    text = "unknown" if value is None else str(value)
    return text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "..."


def worst(records: Sequence[Record]) -> Record:
    """Return the record with the worst outcome, a skip last: what any run found wrong is wrong."""
    return min(records, key=lambda record: _WORST_FIRST.index(record.outcome))


def worst_outcome(one: Outcome, other: Outcome) -> Outcome:
    """Return the worse of two outcomes."""
    return min(one, other, key=_WORST_FIRST.index)


def shown(record: Record) -> str:
    """Return how a record came out, with the first line of why: "error(load): no such file"."""
    word = f"error({record.stage})" if record.outcome == "error" else record.outcome
    return ": ".join(filter(None, [word, *record.reason.strip().splitlines()[:1]]))
