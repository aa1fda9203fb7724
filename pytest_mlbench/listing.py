"""`--mlbench-list`: print the expanded matrix with the reason of each skip, and run nothing."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pytest

from pytest_mlbench import registry
from pytest_mlbench.collect import case_of
from pytest_mlbench.matrix import Case
from pytest_mlbench.reporters.table import Table

if TYPE_CHECKING:
    from pytest_mlbench.session import MlbenchSession


class Listing:
    """The hooks that replace running by printing."""

    def __init__(self, config: pytest.Config, session: MlbenchSession) -> None:
        self._config = config
        self._session = session
        self._rows: list[dict[str, Any]] = []

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool | None:
        """Take the place of the loop that runs items; a collection that failed is pytest's to report."""
        if session.testsfailed:
            return None
        self._rows = self.rows(session.items)
        if self._session.options.format == "table":
            writer = self._config.get_terminal_writer()
            writer.line()
            for line in self.table():
                writer.line(line)
        return True

    def pytest_unconfigure(self, config: pytest.Config) -> None:
        """Print JSON last, so that scripts take the last line."""
        if self._session.options.format == "json":
            sys.stdout.write(json.dumps({"cases": self._rows}) + "\n")

    def rows(self, items: Sequence[pytest.Item]) -> list[dict[str, Any]]:
        """Return one row per selected case."""
        cases = [(item, case) for item in items if (case := case_of(item)) is not None]
        return [{"case": case.id, "node": item.nodeid, **case.axes, "skip": self._skip(case)} for item, case in cases]

    def _skip(self, case: Case) -> str | None:
        if case.skip is not None:
            return case.skip
        framework = self._session.registry.frameworks[case.framework.name]
        if not self._session.registry.device(case.device).is_host:  # what is installed there is asked when it runs
            return None
        python = case.framework.python or self._session.options.pythons.get(framework.name)
        return registry.missing(framework, python)

    def table(self) -> list[str]:
        """Return the lines of the table."""
        table = Table(("case", "runs"))
        for row in self._rows:
            table.add(row["case"], "yes" if row["skip"] is None else f"skip: {row['skip']}")
        runs = sum(row["skip"] is None for row in self._rows)
        return [*table.lines(), "", f"{len(self._rows)} cases, {runs} run, {len(self._rows) - runs} skipped"]


def join(config: pytest.Config, session: MlbenchSession) -> None:
    """Print instead of running; without workers, which would collect only to be told to do nothing."""
    if config.pluginmanager.hasplugin("xdist"):
        config.option.dist, config.option.tx, config.option.numprocesses = "no", [], None
    config.pluginmanager.register(Listing(config, session), "mlbench-list")
