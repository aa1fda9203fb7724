"""The expected set: the committed file of the cases that a run must collect and measure.

One case id a line, sorted. A case that its suite excludes says why: `digits/classify[...]  # skip: no fp16 file`.
Reading, writing and comparing only; what pytest collects is noted in `inventory`.
"""

from __future__ import annotations

import difflib
import json
import os
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from pytest_mlbench.errors import MlbenchError, SuiteError

HEADER = "# Cases that `pytest --mlbench` must collect and measure. Written by `mlbench freeze`; commit it."
CASE_ID = re.compile(r"[\w.-]+/[\w.-]+\[[\w.-]+\]")

_LINE = re.compile(rf"(?P<case>{CASE_ID.pattern})(?:\s+# skip:(?P<reason>.*))?")
_PAIRED = 50  # with more names on either side, each compared with each, a guess would take long and tell little
_NEAR = 0.6

What = Literal[
    "vanished", "new", "newly skipped", "newly measured", "no reason", "deselected", "never ran", "unchecked"
]

# What to do about each kind; freezing is said once, after these.
_REMEDIES: Mapping[What, str] = {
    "newly skipped": "newly skipped: make it run (install what is missing), or exclude it in its suite with a reason",
    "no reason": "no reason: say in the suite why the case is skipped",
    "deselected": (
        "deselected: where CI is set every case must run; take -k, -m, --lf and --deselect out and name suites "
        "instead, or check nothing with -o mlbench_expected="
    ),
}
_FROZEN: Collection[What] = ("vanished", "new", "newly skipped", "newly measured")


@dataclass(frozen=True)
class Collected:
    """What pytest came across in the suites folder, selected or not.

    `cases` maps each case id to the reason, on one line, for which its suite excludes it; None: it is to be measured.
    `suites` holds the names of the suites that were collected whole, and is None when all of the suites folder
    was: then every line of the expected set counts. `unchecked` maps what could not be collected to the reason.
    """

    cases: Mapping[str, str | None]
    suites: Collection[str] | None
    selected: Collection[str]
    deselected: Collection[str] = ()
    unchecked: Mapping[str, str] | None = None

    def counts(self, case: str) -> bool:
        """Tell whether a case of the expected set should have been collected."""
        return self.suites is None or suite_of(case) in self.suites

    def to_text(self) -> str:
        """Return it for another process."""
        return json.dumps(asdict(self), default=sorted)  # of sets

    @classmethod
    def from_text(cls, text: str) -> Collected:
        """Return what another process made with to_text()."""
        return cls(**json.loads(text))


@dataclass(frozen=True)
class Deviation:
    """One way in which a run differs from the expected set. `name` is a case id, or a path for "unchecked"."""

    what: What
    name: str
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.what}: {self.name}" + (f": {self.detail}" if self.detail else "")

    def to_json(self) -> dict[str, str]:
        """Return it as the run file's footer keeps it."""
        return asdict(self)


def suite_of(case: str) -> str:
    """Return the name of the suite in a case id."""
    return case.partition("/")[0]


def exists(path: Path) -> bool:
    """Tell whether there is an expected set; a link to nowhere counts, so that it is told and not passed over."""
    return os.path.lexists(path)


def load(path: Path) -> dict[str, str | None]:
    """Return the expected set: the reason for which each case is skipped, None for one to be measured.

    Raises SuiteError, with the line, for a file that cannot be read, a line that is no case id, and a case that
    stands there twice.
    """
    if exists(path) and not path.is_file():  # a pipe, for one, would never end
        raise SuiteError("is no regular file; take it away and run `mlbench freeze`", file=path)
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise SuiteError(f"cannot be read: {error.strerror or error}", file=path) from None
    except UnicodeDecodeError as error:
        bad = error.object[: error.start].count(b"\n") + 1
        raise SuiteError(f"is not UTF-8 text: {error.reason}", file=f"{path}:{bad}") from None
    found: dict[str, str | None] = {}
    lines: dict[str, int] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        case, reason = _parsed(line.strip(), f"{path}:{number}")
        if case in found:
            message = f"{case} stands on line {lines[case]} already; take one of the two out"
            raise SuiteError(message, file=f"{path}:{number}")
        found[case], lines[case] = reason, number
    return found


def _parsed(line: str, place: str) -> tuple[str, str | None]:
    match = _LINE.fullmatch(line)
    if match is None:
        shown = line if len(line) <= 80 else line[:80] + "..."
        raise SuiteError(
            f'"{shown}" is no case id; expected SUITE/BENCHMARK[...], alone or followed by "  # skip: REASON". '
            "Correct the line, or delete the file and run `mlbench freeze`",
            file=place,
        )
    reason = match["reason"]
    if reason is not None and not reason.strip():
        raise SuiteError(f"{match['case']} is skipped without a reason; write one after skip:", file=place)
    return match["case"], one_line(reason) if reason is not None else None


def one_line(reason: str) -> str:
    """Return a reason as a line of the file holds it."""
    return " ".join(reason.split())


def text_of(cases: Mapping[str, str | None]) -> str:
    """Return the file's text, as load() reads it."""
    lines = [case if reason is None else f"{case}  # skip: {reason}" for case, reason in sorted(cases.items())]
    return "\n".join([HEADER, *lines]) + "\n"


def save(path: Path, cases: Mapping[str, str | None]) -> None:
    """Write the file whole or not at all; MlbenchError when it cannot be written."""
    part = path.with_name(path.name + ".part")
    try:
        part.write_text(text_of(cases), encoding="utf-8", newline="\n")
        part.replace(path)
    except OSError as error:
        raise MlbenchError(f"cannot write {path}: {error.strerror or error}") from None


def updated(old: Mapping[str, str | None], collected: Collected) -> dict[str, str | None]:
    """Return the expected set after what was collected: other suites' lines stay when only a part was."""
    kept = {case: reason for case, reason in old.items() if not collected.counts(case)}
    return {**kept, **collected.cases}


def changes(old: Mapping[str, str | None], new: Mapping[str, str | None]) -> list[str]:
    """Return a line for each case that was added (+), removed (-) or is skipped in another way (~)."""
    lines = []
    for case in sorted({*old, *new}):
        if case not in new:
            lines.append(f"- {case}")
        elif case not in old or old[case] != new[case]:
            mark = "~" if case in old else "+"
            lines.append(f"{mark} {case}" + (f"  # skip: {new[case]}" if new[case] is not None else ""))
            if mark == "~" and new[case] is None:
                lines[-1] += "  (no longer skipped)"
    return lines


def deviations(expected: Mapping[str, str | None], collected: Collected, *, all_run: bool) -> list[Deviation]:
    """Return how what was collected differs from the expected set.

    With `all_run` (continuous integration) a case to be measured may not be deselected either.
    """
    found = [Deviation("unchecked", name, why) for name, why in (collected.unchecked or {}).items()]
    gone = [case for case in expected if case not in collected.cases and collected.counts(case)]
    new = [case for case in collected.cases if case not in expected]
    renamed = _renamed(gone, new)
    if not found:  # a suite that could not be collected hides its cases
        hints = {case: f"renamed to {renamed[case]}?" for case in renamed}
        found += [Deviation("vanished", case, hints.get(case, "")) for case in gone]
    found += [Deviation("new", case) for case in new if case not in renamed.values()]
    for case, reason in collected.cases.items():
        if reason == "":
            found.append(Deviation("no reason", case))
        elif case not in expected:
            continue
        elif reason is not None and expected[case] is None:
            found.append(Deviation("newly skipped", case, reason))
        elif reason is None and expected[case] is not None:
            found.append(Deviation("newly measured", case, f"expected to be skipped: {expected[case]}"))
        elif all_run and reason is None and case in collected.deselected:
            found.append(Deviation("deselected", case))
    return found


def unmeasured(
    expected: Mapping[str, str | None], collected: Collected, skips: Mapping[str, str | None], *, all_ran: bool
) -> list[Deviation]:
    """Return the cases that should have been measured and were not.

    `skips` maps each case that ran to the reason for which it was skipped, None for one that was not. With
    `all_ran`, a session that went to its end and found nothing wrong, a case missing there is one that something
    kept from running.
    """
    found = []
    for case, excluded in collected.cases.items():
        if excluded is not None or expected.get(case, "") is not None or case not in collected.selected:
            continue
        if case not in skips:
            found += [Deviation("never ran", case, "it was selected, and no outcome was reported")] if all_ran else []
        elif skips[case] is not None:
            found.append(Deviation("newly skipped", case, one_line(str(skips[case]))))
    return found


def _renamed(gone: Sequence[str], new: Sequence[str]) -> dict[str, str]:
    """Return the new name each vanished case may have got: the nearest pairs first, each name once."""
    if not gone or not new or max(len(gone), len(new)) > _PAIRED:
        return {}
    pairs = sorted(
        ((difflib.SequenceMatcher(None, old, name).ratio(), old, name) for old in gone for name in new),
        key=lambda pair: (-pair[0], *pair[1:]),
    )
    found: dict[str, str] = {}
    for ratio, old, name in pairs:
        if ratio >= _NEAR and old not in found and name not in found.values():
            found[old] = name
    return found


def lines_of(found: Sequence[Deviation], path: Path | str, suites: Path | str) -> list[str]:
    """Return what is told at the end of a run: each deviation by name, then what to do."""
    if not found:
        return []
    count = f"{len(found)} case is" if len(found) == 1 else f"{len(found)} cases are"
    lines = [f"mlbench: {count} not as {path} has them:", *(f"  {one}" for one in found)]
    kinds = {one.what for one in found}
    lines += [remedy for what, remedy in _REMEDIES.items() if what in kinds]
    if kinds.intersection(_FROZEN):
        lines.append(f"If the change is meant: mlbench freeze {suites}, and commit {path}")
    return lines
