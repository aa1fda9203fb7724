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

import pytest

from pytest_mlbench.checkout import Checkout
from pytest_mlbench.collect import case_of
from pytest_mlbench.errors import BaseError
from pytest_mlbench.matrix import Case

DEADLINE_S = 300.0
_TOLD_LINES = 15
# Without the current folder on its module path: a base that is this harness's own source must not replace it.
_START = (
    "import sys; sys.path[:] = [path for path in sys.path if path]; from pytest_mlbench import basecases; "
    "sys.exit(basecases.main(sys.argv[1:]))"
)


@dataclass(frozen=True)
class BaseCases:
    """The base's cases by id, and what kept a file of it from being collected (relative path -> message)."""

    cases: Mapping[str, Case]
    errors: Mapping[str, str]


class _Dump:
    """Note what pytest collected."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.cases: dict[str, Case] = {}
        self.errors: dict[str, str] = {}

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            place = report.nodeid.partition("::")[0] or "conftest.py"
            self.errors[self._from_root(place)] = report.longreprtext.strip()

    def pytest_configure(self, config: pytest.Config) -> None:
        self._rootdir = config.rootpath

    def _from_root(self, place: str) -> str:
        path = (self._rootdir / place).resolve()
        return path.relative_to(self.root).as_posix() if path.is_relative_to(self.root) else place

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self.cases = {case.id: case for case in map(case_of, session.items) if case is not None}


def main(arguments: Sequence[str]) -> int:
    """Collect and write what was found; the arguments are the file to write, the base's top folder, and pytest's."""
    out, root, *given = arguments
    dump = _Dump(Path(root).resolve())
    code = pytest.main(["--mlbench", "--collect-only", "-q", "-p", "no:cacheprovider", *given], plugins=[dump])
    if code not in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED) and not dump.errors:
        return int(code)
    with Path(out).open("wb") as stream:
        pickle.dump((dump.cases, dump.errors), stream)
    return 0


def collect(checkout: Checkout, paths: Sequence[Path], folder: Path) -> BaseCases:
    """Return the cases of the candidate's suites at `paths` as the base has them; `folder` is the current one.

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
        command = [sys.executable, "-c", _START, str(out), str(checkout.tree), *given, "--mlbench-base="]
        try:
            done = subprocess.run(
                command,
                cwd=here if here.is_dir() else checkout.tree,
                env=environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=DEADLINE_S,
            )
        except subprocess.TimeoutExpired:
            message = f"collecting the base's suites in {checkout.tree} took more than {DEADLINE_S:g} s"
            raise BaseError(f"{message}; look what its conftest.py does when it is imported") from None
        if done.returncode != 0 or not out.exists():
            told = "\n".join((done.stdout + done.stderr).strip().splitlines()[-_TOLD_LINES:])
            message = f"pytest cannot collect the base's suites in {checkout.tree} (exit status {done.returncode})"
            raise BaseError(f"{message}; its last lines were:\n{told}")
        with out.open("rb") as stream:
            cases, errors = pickle.load(stream)  # written by our own process, a moment ago
    return BaseCases(cases, errors)


def unreadable(errors: Mapping[str, str], suite: Path, root: Path) -> str:
    """Return why the base's file of this suite gave no cases, "" when it did or was not there."""
    relative = suite.resolve().relative_to(root.resolve()).as_posix()
    return errors.get(relative, errors.get("conftest.py", ""))
