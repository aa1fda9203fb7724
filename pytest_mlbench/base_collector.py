"""What basecases.py loads as a plugin in the base's folder (`-p pytest_mlbench.base_collector`): write the cases."""

from __future__ import annotations

import argparse
import pickle
from pathlib import Path

import pytest

from pytest_mlbench.collect import case_of
from pytest_mlbench.matrix import Case


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare where to write what was collected."""
    parser.addoption("--mlbench-collected", type=Path, default=None, help=argparse.SUPPRESS)


def pytest_configure(config: pytest.Config) -> None:
    """Write the cases when collecting has ended."""
    config.pluginmanager.register(_Writer(config.rootpath, config.getoption("--mlbench-collected")))


class _Writer:
    """Notes what pytest collected, and each file that could not be, by its whole path."""

    def __init__(self, root: Path, target: Path) -> None:
        self._root = root
        self._target = target
        self._cases: dict[str, Case] = {}
        self._errors: dict[str, str] = {}

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Note a file that cannot be collected."""
        if report.failed:
            place = self._root / report.nodeid.partition("::")[0]
            self._errors[str(place.resolve())] = report.longreprtext.strip()

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Note the cases."""
        self._cases = {case.id: case for case in map(case_of, session.items) if case is not None}

    def pytest_sessionfinish(self, exitstatus: int) -> None:
        """Write them, unless the session went wrong elsewhere than in a suite."""
        collected = (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED)
        if exitstatus in collected or self._errors:
            with self._target.open("wb") as stream:
                pickle.dump((self._cases, self._errors), stream)
