"""Hold a session against the committed expected set: a case that is missing, new or skipped fails it by name."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from pytest_mlbench import expected, outcome
from pytest_mlbench.errors import SuiteError
from pytest_mlbench.expected import Collected, Deviation
from pytest_mlbench.inventory import Inventory, expected_file, suites_folder
from pytest_mlbench.session import MlbenchSession
from pytest_mlbench.stores import runfile


def join(config: pytest.Config, session: MlbenchSession) -> None:
    """Register the check where there is an expected set; a session that measures nothing needs none."""
    file = expected_file(config)
    if file is None or not expected.exists(file) or session.measures_nothing:
        return
    inventory = Inventory()
    config.pluginmanager.register(inventory, "mlbench-inventory")
    config.pluginmanager.register(Completeness(session, inventory, file), "mlbench-completeness")


class Completeness:
    """The hooks around the check. An xdist worker collects and tells the controller, which compares."""

    def __init__(self, session: MlbenchSession, inventory: Inventory, file: Path) -> None:
        self._session = session
        self._inventory = inventory
        self._file = file
        self._expected: Mapping[str, str | None] = {}
        self._collected: Collected | None = None
        self._skips: dict[str, str | None] = {}  # of each case that ran

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionstart(self, session: pytest.Session) -> None:
        """Read the file before anything is measured."""
        if self._session.worker is None:
            try:
                self._expected = expected.load(self._file)
            except SuiteError as error:
                raise pytest.UsageError(str(error)) from None
            self._session.deviations = ()

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Keep what was collected. A worker writes it beside its journal: that stays when -x stops the workers."""
        self._collected = self._inventory.collected(session)
        if self._session.worker is not None and self._collected is not None:
            parts = runfile.parts_dir(self._session.run_file)
            part = parts / f"collected-{self._session.worker['workerid']}.part"
            with contextlib.suppress(OSError):  # the controller says that it heard nothing
                part.write_text(self._collected.to_text(), encoding="utf-8")
                part.replace(part.with_suffix(".json"))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note which cases ran, and the reasons of skips."""
        properties = dict(report.user_properties)
        if report.when != "teardown" and "mlbench_outcome" in properties:
            skipped = properties["mlbench_outcome"] == "skip"
            self._skips[str(properties["mlbench_case"])] = outcome.skip_reason(report) if skipped else None

    def pytest_sessionfinish(self, exitstatus: int) -> None:
        """Compare, before the exit code is settled and the run file written."""
        if self._session.worker is None:
            stopped = exitstatus in (pytest.ExitCode.INTERNAL_ERROR, pytest.ExitCode.USAGE_ERROR)
            self._session.deviations = None if stopped else tuple(self._deviations(exitstatus))

    def _deviations(self, exitstatus: int) -> list[Deviation]:
        collected = self._collected or self._from_workers()
        ended = exitstatus == pytest.ExitCode.OK
        if collected is None:  # collecting failed, and pytest says so
            why = "no worker told what it collected, so its cases were not compared with those of the run"
            name = os.path.relpath(self._file, self._session.config.rootpath)
            return [Deviation("unchecked", name, why)] if ended else []
        return [
            *expected.deviations(self._expected, collected, all_run=in_ci(os.environ)),
            *expected.unmeasured(self._expected, collected, self._skips, all_ran=ended),
        ]

    def _from_workers(self) -> Collected | None:
        """Return what a worker collected; they all collect the same."""
        for path in sorted(runfile.parts_dir(self._session.run_file).glob("collected-*.json")):
            return Collected.from_text(path.read_text(encoding="utf-8"))
        return None

    @pytest.hookimpl(trylast=True)
    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Tell each deviation by name, and the remedy."""
        here = self._session.config.invocation_params.dir
        suites = os.path.relpath(suites_folder(self._session.config), here)
        for line in expected.lines_of(self._session.deviations or (), os.path.relpath(self._file, here), suites):
            terminalreporter.write_line(line, red=True)


def in_ci(environment: Mapping[str, str]) -> bool:
    """Tell whether this is continuous integration, by the variable CI that such services set."""
    return environment.get("CI", "").strip().lower() not in ("", "0", "false")
