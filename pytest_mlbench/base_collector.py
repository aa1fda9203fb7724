"""What basecases.py runs in the base's folder: let pytest collect there, and write the cases into a file."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from pathlib import Path

import pytest

from pytest_mlbench.collect import case_of
from pytest_mlbench.matrix import Case


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
