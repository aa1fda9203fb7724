"""Waivers: regressions that a project accepts for a while, each with its case, metric, bound, reason and last day.

A waiver takes away the failure, never the verdict: the comparison stays "regressed" and says why it was accepted.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from datetime import date, datetime, timezone
from pathlib import Path

from pytest_mlbench.errors import SuiteError
from pytest_mlbench.expected import CASE_ID, one_line
from pytest_mlbench.near import nearest
from pytest_mlbench.record import Comparison
from pytest_mlbench.suitefile import read_toml
from pytest_mlbench.tables import Place, Table, as_items, as_number, as_text, shown

_EXAMPLE = {
    "case": 'case = "digits/classify[digits_cnn-litert-int8-cpu]"',
    "metric": 'metric = "latency.p50"',
    "max_ratio": "max_ratio = 1.10",
    "reason": 'reason = "portable kernels, see #123"',
    "expires": "expires = 2026-12-31",
}


@dataclass(frozen=True)
class Waiver:
    """One accepted regression: at most `max_ratio` times worse, up to and with the day `expires`."""

    case: str
    metric: str
    max_ratio: float
    reason: str
    expires: date
    place: Place

    def accepts(self, comparison: Comparison) -> bool:
        """Tell whether the candidate is at most `max_ratio` times worse than the base; unknown is too much."""
        found = ratio(comparison)
        # The bound itself is accepted, whatever rounding did to the last digit.
        return found is not None and found <= self.max_ratio * (1 + 1e-12)


@dataclass(frozen=True)
class Waivers:
    """The waivers of a project on one day: those that hold, and the expired ones."""

    holding: tuple[Waiver, ...] = ()
    expired: tuple[Waiver, ...] = ()

    def find(self, case: str, metric: str) -> Waiver | None:
        """Return the waiver of a case and metric that holds, or None."""
        return _of(self.holding, case, metric)

    def check_cases(self, cases: Collection[str]) -> list[SuiteError]:
        """Return an error for each waiver whose case is none of `cases`: it would wait there for a new one."""
        found = []
        for waiver in (*self.holding, *self.expired):
            if waiver.case in cases:
                continue
            match = nearest(waiver.case, cases)
            hint = f'did you mean "{match}"? ' if match is not None else ""
            message = f'there is no case "{waiver.case}"; {hint}Correct it, or take the waiver out'
            found.append(waiver.place.at("case").error(message))
        return found


def ratio(comparison: Comparison) -> float | None:
    """Return how many times worse the candidate is than the base; None when that is not known.

    Candidate over base where lower is better, base over candidate where higher is. It comes from `change`, the
    best estimate; for accuracies, whose change is a difference, from the two values.
    """
    base, candidate = comparison.base, comparison.candidate
    if comparison.method == "mcnemar" or comparison.metric.startswith("accuracy."):
        grown = candidate / base if base and candidate is not None else None
    else:
        grown = 1 + comparison.change if comparison.change is not None else None
    if grown is None or not grown > 0 or comparison.direction == "none":
        return None
    worse = 1 / grown if comparison.direction == "higher" else grown
    return worse if math.isfinite(worse) else None


def apply(comparison: Comparison, waivers: Waivers, case: str) -> Comparison:
    """Return a regression with the reason for which it is accepted, or with why its waiver does not accept it."""
    if comparison.verdict != "regressed":
        return comparison
    waiver = waivers.find(case, comparison.metric)
    if waiver is not None and waiver.accepts(comparison):
        return replace(comparison, waived=waiver.reason)
    expired = _of(waivers.expired, case, comparison.metric)
    if waiver is not None:
        found = ratio(comparison)
        told = f", this is {found:.5g} times" if found is not None else ""
        why = f"its waiver accepts only up to {waiver.max_ratio:g} times worse{told}"
    elif expired is not None:
        why = f"its waiver expired on {expired.expires.isoformat()}"
    else:
        return comparison
    return replace(comparison, reason="; ".join(filter(None, [comparison.reason, why])))


def load(path: Path, today: date | None = None) -> Waivers:
    """Return the waivers of a file as they are on a day, today in UTC by default; none when there is no file.

    Raises SuiteError with the key path, for example `waiver[0].max_ratio`, and the remedy.
    """
    if not path.is_symlink() and not path.exists():
        return Waivers()
    if path.exists() and not path.is_file():  # a pipe, for one, would never end
        raise SuiteError("is no regular file", file=path)
    day = datetime.now(timezone.utc).date() if today is None else today
    place = Place(path)
    value, at = Table(read_toml(path), place, ("waiver",)).at("waiver")
    if isinstance(value, Mapping):
        raise at.error(f"expected a list of tables, found {shown(value)}; write [[waiver]], not [waiver]")
    found: dict[tuple[str, str], Waiver] = {}
    for item, there in as_items([] if value is None else value, at, "tables"):
        waiver = _waiver(item, there)
        other = found.setdefault((waiver.case, waiver.metric), waiver)
        if other is not waiver:
            message = f"{waiver.metric} of this case is waived twice, here and in {other.place.key}; keep one of them"
            raise there.error(message)
    holding = tuple(waiver for waiver in found.values() if waiver.expires >= day)
    return Waivers(holding, tuple(waiver for waiver in found.values() if waiver.expires < day))


def _waiver(value: object, place: Place) -> Waiver:
    table = Table(value, place, tuple(_EXAMPLE))
    given = {key: table.need(key, example) for key, example in _EXAMPLE.items()}
    case, at = as_text(*given["case"]), given["case"][1]
    if not CASE_ID.fullmatch(case):
        raise at.error(f'"{case}" is no case id; expected SUITE/BENCHMARK[...], as pytest --mlbench-list shows them')
    return Waiver(
        case=case,
        metric=as_text(*given["metric"]),
        max_ratio=as_number(*given["max_ratio"], least=1),
        reason=one_line(as_text(*given["reason"])),
        expires=_as_date(*given["expires"]),
        place=place,
    )


def _as_date(value: object, place: Place) -> date:
    if not isinstance(value, date) or isinstance(value, datetime):
        raise place.error(f"expected a date without quotes or time, as in 2026-12-31, found {shown(value)}")
    return value


def _of(waivers: Collection[Waiver], case: str, metric: str) -> Waiver | None:
    return next((waiver for waiver in waivers if (waiver.case, waiver.metric) == (case, metric)), None)
