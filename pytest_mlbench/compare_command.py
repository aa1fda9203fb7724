"""`mlbench compare BASE CANDIDATE`: read runs, compare them, print, and end with an exit code that can gate."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_mlbench.errors import MlbenchError, RunFileError

if TYPE_CHECKING:
    from pytest_mlbench.compare_runs import Compared, Limits
    from pytest_mlbench.stores.runfile import Run

# Modules that do the work are imported by the verb: they bring numpy and pytest along, which other verbs do not need.

_MARGIN = "3 %"
_WAIVERS = Path("mlbench-waivers.toml")
_OF_TWO = ("base", "candidate", "max_regression", "metric", "waivers")  # options that mean nothing for one run


def add_compare(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register `compare`; the parsed arguments hold `run`, a function of them that returns the exit code."""
    parser = subparsers.add_parser(
        "compare",
        help="compare runs that were taken before, or show what a run was compared with",
        description="Compare the runs of a candidate with those of a base, case by case, or show the comparisons with "
        "a base revision that one run holds. Nothing is measured. Exit codes as those of pytest --mlbench.",
        usage="mlbench compare [-h] [BASE] CANDIDATE [--base FILE ...] [--candidate FILE ...] [OPTION ...]",
    )
    parser.add_argument("runs", nargs="*", type=Path, metavar="BASE CANDIDATE", help="one run of each side; or one run")
    for side in ("base", "candidate"):
        more = f"more runs of the {side}: only several of each side tell what chance does"
        parser.add_argument(f"--{side}", nargs="+", action="extend", type=Path, default=[], metavar="FILE", help=more)
    parser.add_argument("--max-regression", metavar="SHARE", help="accepted worsening (default: 3 %%)")
    parser.add_argument(
        "--metric", nargs="+", action="extend", default=[], metavar="NAME", help="metrics to compare besides the usual"
    )
    parser.add_argument("--waivers", type=Path, metavar="FILE", help=f"accepted regressions (default: {_WAIVERS})")
    parser.add_argument("--strict", action="store_true", help="fail what could not be decided (inconclusive)")
    parser.add_argument("--format", choices=("table", "json"), default="table", help="for people, or for scripts")
    parser.set_defaults(run=run_compare)


def run_compare(arguments: argparse.Namespace) -> int:
    """Compare, print the result, and return its exit code."""
    from pytest_mlbench import compare_runs

    base, candidate = sides(arguments)
    there, here = [read(path) for path in base], [read(path) for path in candidate]
    _refuse_twice([*base, *candidate], _ids([*there, *here]))
    if base:
        found = compare_runs.compare(there, here, _limits(arguments))
        code, notes = exit_code(found), found.notes
    else:
        given = [f"--{name.replace('_', '-')}" for name in _OF_TWO if getattr(arguments, name)]
        if given:
            raise MlbenchError(f"{', '.join(given)}: one run was judged by the limits of its session; give two runs")
        try:
            found = compare_runs.held(here[0], strict=arguments.strict)
        except MlbenchError as error:
            raise MlbenchError(f"{candidate[0]}: {error}") from None
        code, told = with_session(exit_code(found), here[0])
        notes = (*found.notes, *told)
    if arguments.format == "json":
        print(json.dumps({"base": _ids(there), "candidate": _ids(here), **document(found, notes, code)}))
    else:
        _print(lines(found, notes))
    return code


def sides(arguments: argparse.Namespace) -> tuple[list[Path], list[Path]]:
    """Return the files of base and candidate; no base: the one file's own comparisons are to be shown."""
    runs, base, candidate = list(arguments.runs), list(arguments.base), list(arguments.candidate)
    if len(runs) > 2:
        raise MlbenchError(
            f"{len(runs)} runs without a side: name one of each, BASE CANDIDATE, and more with --base FILE ... and "
            "--candidate FILE ..."
        )
    if len(runs) == 2:
        base.insert(0, runs[0])
    candidate = runs[-1:] + candidate
    if not candidate:
        raise MlbenchError("name the candidate's run: mlbench compare BASE CANDIDATE")
    if len(candidate) > 1 and not base:
        raise MlbenchError("name a run of the base too: mlbench compare BASE CANDIDATE, or --base FILE ...")
    return base, candidate


def read(path: Path) -> Run:
    """Return the run of a file, ours or another tool's; RunFileError, which names the file, when it holds none."""
    from pytest_mlbench import importers, run_sides

    try:
        if path.is_dir() and not (path / "header.json").exists():
            raise RunFileError("it is a folder; name a run file, or the .parts folder that a killed run left")
        run = importers.read(path)
        run_sides.kept(run)
        if not run.footer and path.is_file():
            raise RunFileError("it has no footer, so it was cut off; copy it again, or measure again")
    except (OSError, RunFileError) as error:
        told = str(error)
        raise RunFileError(told if str(path) in told else f"{path}: {told}") from None
    return run


def _refuse_twice(paths: Sequence[Path], ids: Sequence[str]) -> None:
    seen: dict[str, Path] = {}
    for path, run in zip(paths, ids, strict=True):
        if run in seen:
            raise MlbenchError(
                f"{path} and {seen[run]} are the same run, {run}: it cannot be compared with itself, and counted twice "
                "it would only look more certain; name each run once"
            )
        seen[run] = path


def _limits(arguments: argparse.Namespace) -> Limits:
    from pytest_mlbench import quantities, waivers
    from pytest_mlbench.compare_runs import Limits
    from pytest_mlbench.tables import Place

    place = Place(key="--max-regression")
    margin = quantities.parse_regression(arguments.max_regression or _MARGIN, place, points=False, below=True)
    file = arguments.waivers
    if file is not None and not file.exists():
        raise MlbenchError(f"--waivers: there is no file {file}")
    return Limits(margin, tuple(arguments.metric), waivers.load(file or _WAIVERS), arguments.strict)


# --- exit code ----------------------------------------------------------------------------------------------


def exit_code(found: Compared) -> int:
    """Return the exit code, by the rules of a session; 13 when nothing could be compared."""
    from pytest_mlbench import outcome

    if not found.shared:
        return outcome.NOTHING_MEASURED
    code = outcome.exit_code(0, found.records, len(found.lost), None)
    nothing = code in (0, outcome.INCONCLUSIVE) and not found.comparisons
    return outcome.NOTHING_MEASURED if nothing else code


def with_session(code: int, run: Run) -> tuple[int, list[str]]:
    """Return the worse of an exit code and that of the run's own session, and a note where that one is worse.

    The session knew more than its file holds: ordinary tests that failed, cases that were lost.
    """
    from pytest_mlbench import outcome

    own = run.footer.get("exitstatus")
    if own is None:
        note = "the session was killed: what it had finished is shown"
        return (outcome.INFRASTRUCTURE if code in (0, outcome.INCONCLUSIVE) else code), [note]
    order = [1, outcome.INFRASTRUCTURE, outcome.INVALID, outcome.NOTHING_MEASURED, outcome.INCONCLUSIVE, 0]
    if type(own) is not int or not 0 <= own <= 255 or own == code:
        return code, []
    if own in order and order.index(own) > order.index(code):
        return code, []
    return own, [f"the session itself ended with exit code {own}: it also knew of what its file does not hold"]


# --- what is printed ----------------------------------------------------------------------------------------


def lines(found: Compared, notes: Sequence[str]) -> list[str]:
    """Return the table, what to tell of each comparison that is no pass, and what else there is to tell."""
    from pytest_mlbench import verdict
    from pytest_mlbench.checks.facts import plural
    from pytest_mlbench.reporters import comparison

    if not found.shared:
        told = ["no case is in both, so nothing was compared"]
    else:
        today = datetime.now(timezone.utc).date()
        told = [verdict.named(found.revision, "candidate"), *comparison.lines(found.records)]
        told += comparison.details(found.records, today)
    if found.lost:
        told += ["the candidate lacks cases that the base measured; look why, or compare runs of the same suites:"]
        told += [f"  {one}" for one in found.lost]
    told += notes
    words = [one.verdict for _, one in found.comparisons]
    counts = ", ".join(f"{words.count(word)} {word}" for word in dict.fromkeys(words)) or "none"
    return [*told, f"{plural(len(words), 'comparison')} of {plural(found.shared, 'case')}: {counts}"]


def document(found: Compared, notes: Sequence[str], code: int) -> dict[str, Any]:
    """Return everything as JSON values."""
    return {
        "exit_code": code,
        "comparisons": [{"case": case, **asdict(one)} for case, one in found.comparisons],
        "cases": [
            {"case": record.case, "outcome": record.outcome, "new": bool(record.base.get("new"))}
            for record in found.records
        ],
        "lost": [one.to_json() for one in found.lost],
        "notes": list(notes),
    }


def _ids(runs: Sequence[Run]) -> list[str]:
    return [str(run.header["id"]) for run in runs]


def _print(told: Sequence[str]) -> None:
    """Print lines; what a file of a stranger holds must not steer the terminal."""
    for line in "\n".join(told).split("\n"):
        shown = "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in line)
        sys.stdout.write(shown + "\n")
