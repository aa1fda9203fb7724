"""Write the committed file of expected cases: `mlbench freeze [SUITES]`."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from pytest_mlbench import commands, expected
from pytest_mlbench.errors import MlbenchError
from pytest_mlbench.expected import Collected

COLLECTING_S = 600.0
_TOLD_LINES = 40


@dataclass(frozen=True)
class Found:
    """What pytest collected, and where the expected set is."""

    file: Path
    suites: Path
    collected: Collected


def add_freeze(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register `freeze`; the parsed arguments hold `run`, a function of them that returns the exit code."""
    parser = subparsers.add_parser(
        "freeze",
        help="write the file of cases that a run must measure",
        description="Write the committed file of case ids. From then on a case that vanishes, is new or is newly "
        "skipped fails the run by name.",
    )
    parser.add_argument(
        "suites", nargs="?", type=Path, metavar="SUITES", help="a part of the suites folder (default: all of it)"
    )
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 when the file would change")
    parser.set_defaults(run=run_freeze)


def run_freeze(arguments: argparse.Namespace) -> int:
    """Write the file, or with --check only say whether it would change."""
    found = collect(arguments.suites)
    there = expected.exists(found.file)
    old = expected.load(found.file) if there else {}
    new = expected.updated(old, found.collected)
    shown = Path(os.path.relpath(found.file))
    told = f"{len(new)} cases, {sum(reason is not None for reason in new.values())} of them skipped"
    if there and new == old:
        print(f"{shown} is up to date: {told}")
        return 0
    for line in expected.changes(old, new):
        print(line)
    if arguments.check:
        print(f"{shown} {'would change' if there else 'is missing'}: run `mlbench freeze` and commit it")
        return 1
    expected.save(found.file, new)
    print(f"wrote {shown}: {told}")
    return 0


def collect(suites: Path | None) -> Found:
    """Let pytest collect the suites, in a process of its own; None: the suites folder of its configuration.

    Raises MlbenchError when it cannot, when a case is skipped without a reason, and when there is no case.
    """
    if suites is not None and "::" in str(suites):
        raise MlbenchError(f"{suites} is a node id; give a folder or a suite's file")
    with tempfile.TemporaryDirectory(prefix="mlbench-freeze-") as folder:
        target = Path(folder) / "inventory.json"
        chosen = [] if suites is None else [str(suites)]
        command = [sys.executable, "-m", "pytest", "-p", "pytest_mlbench.inventory", f"--mlbench-inventory={target}"]
        try:
            done = commands.run([*command, "--mlbench-list", *chosen], deadline_s=COLLECTING_S)
        except subprocess.TimeoutExpired:
            message = f"pytest did not finish collecting within {COLLECTING_S:g} s; see where with --mlbench-list"
            raise MlbenchError(message) from None
        if not target.exists():
            told = commands.last_lines(done.out + done.err, _TOLD_LINES)
            raise MlbenchError(f"pytest cannot collect the suites (exit code {done.code}); correct this first:\n{told}")
        answer = json.loads(target.read_text(encoding="utf-8"))
    if answer["file"] is None:
        raise MlbenchError("the ini key mlbench_expected is empty, so no file is held against; take it out")
    return _checked(Found(Path(answer["file"]), Path(answer["suites"]), Collected.from_text(answer["collected"])))


def _checked(found: Found) -> Found:
    collected = found.collected
    if collected.unchecked:
        raise MlbenchError("; ".join(f"{name}: {why}" for name, why in collected.unchecked.items()))
    if not collected.cases:
        raise MlbenchError(
            f"no case was found there in the suites folder, {found.suites} (ini key mlbench_suites), so there is "
            "nothing to freeze; see what there is with pytest --mlbench-list"
        )
    bare = [case for case, reason in collected.cases.items() if reason == ""]
    if bare:
        raise MlbenchError(f"skipped without a reason: {', '.join(bare)}; say in the suite why")
    return found
