"""Collect the base revision's cases: pytest itself, in a process of its own, on the base's files.

The base's conftest.py files and Python suites are imported there and never here, so that neither revision's modules
can stand for the other's. What comes back are plain cases, whose suites lie in the base's folder.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pytest_mlbench import commands
from pytest_mlbench.checkout import Checkout
from pytest_mlbench.errors import BaseError
from pytest_mlbench.matrix import Case

DEADLINE_S = 300.0
_TOLD_LINES = 15
# Without the current folder on its module path: a base that is this harness's own source must not replace it.
_START = "import sys; sys.path[:] = filter(None, sys.path); import pytest; sys.exit(pytest.console_main())"
_OPTIONS = ("-p", "pytest_mlbench.base_collector", "--mlbench", "--collect-only", "-q", "-p", "no:cacheprovider")


@dataclass(frozen=True)
class BaseCases:
    """The base's cases by id, and what kept a file of it from being collected (whole path -> message)."""

    cases: Mapping[str, Case]
    errors: Mapping[str, str]


def collect(checkout: Checkout, paths: Sequence[Path], folder: Path, lab: Path | None = None) -> BaseCases:
    """Return the cases of the candidate's suites at `paths` as the base has them; `folder` is the current one.

    Devices are those of the candidate's `lab` file: the hardware is one, whichever revision runs on it.
    A path that the base has not is left out. Raises BaseError for a path outside the repository, and when pytest
    cannot collect the base at all.
    """
    given = [str(path) for path in map(checkout.counterpart, paths) if path.exists()]
    if not given:
        return BaseCases({}, {})
    inside = folder.resolve().is_relative_to(checkout.root.resolve())
    here = checkout.counterpart(folder) if inside else checkout.tree
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "COV_"))}
    with tempfile.TemporaryDirectory(prefix="mlbench-base-") as scratch:
        out = Path(scratch) / "cases.pickle"
        command = [sys.executable, "-c", _START, *_OPTIONS, f"--mlbench-collected={out}", *given, "--mlbench-base="]
        command.append(f"--mlbench-lab={lab or ''}")
        try:
            done = commands.run(
                command,
                deadline_s=DEADLINE_S,
                environment=environment,
                folder=here if here.is_dir() else checkout.tree,
            )
        except subprocess.TimeoutExpired:
            message = f"collecting the base's suites in {checkout.tree} took more than {DEADLINE_S:g} s"
            raise BaseError(f"{message}; look what its conftest.py does when it is imported") from None
        if not out.exists():
            told = commands.last_lines(f"{done.out}\n{done.err}", _TOLD_LINES)
            message = f"pytest cannot collect the base's suites in {checkout.tree} (exit status {done.code})"
            raise BaseError(f"{message}; its last lines were:\n{told}")
        with out.open("rb") as stream:
            cases, errors = pickle.load(stream)  # written by our own process, a moment ago
    return BaseCases(cases, errors)


def unreadable(errors: Mapping[str, str], suite: Path) -> str:
    """Return why the base's file `suite`, or a folder it lies in, gave no cases; "" when it did or is not there."""
    path = suite.resolve()
    return next((errors[str(place)] for place in (path, *path.parents) if str(place) in errors), "")
