"""Keep what a session measures: records as cases end, the run file, the exit code, what is shown at the end."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Generator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

from pytest_mlbench import __version__, collect, environment, lease
from pytest_mlbench.bench import Bench
from pytest_mlbench.errors import RunFileError
from pytest_mlbench.outcome import exit_code, finish_record
from pytest_mlbench.session import MlbenchSession
from pytest_mlbench.stores import runfile


class Recording:
    """The hooks around running. Each worker writes its own journal; the controller makes the run file of them."""

    def __init__(self, session: MlbenchSession) -> None:
        self.session = session
        self.run: runfile.Run | None = None
        worker = session.worker["workerid"] if session.worker else "main"
        self._journal = runfile.Journal(session.run_file, worker)
        self._order: list[str] = []
        self._ordinary_failures = 0
        self._trouble: str | None = None
        self._held = contextlib.ExitStack()

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Note the order of cases, which the run file keeps."""
        self._order = [item.nodeid for item in session.items]

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, node: Any, ids: list[str]) -> None:
        """Note the order in which workers collected."""
        self._order = list(ids)

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        """Tell an xdist worker where the run file is."""
        node.workerinput["mlbench_run_file"] = str(self.session.run_file)

    def pytest_sessionstart(self, session: pytest.Session) -> None:
        """Open the run file before anything is measured, so that a full disk is told at once."""
        if self.session.options.resume is not None:
            try:
                _ = self.session.earlier
            except RunFileError as error:
                remedy = "give the run file of an earlier run, or leave the option out"
                raise pytest.UsageError(f"--mlbench-resume: {error}; {remedy}") from None
        if self.session.worker is None and not self.session.measures_nothing:
            try:
                self._held.enter_context(lease.sole_writer(self.session.run_file))
                runfile.begin(self.session.run_file, self._header())
            except RunFileError as error:
                raise pytest.UsageError(str(error)) from None

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Close the case's record: it is on disk before pytest hears of the outcome."""
        report = yield
        case = collect.case_of(item)
        if case is None or not (report.when == "call" or (report.when == "setup" and not report.passed)):
            return report
        self.session.progress.clear()
        record = finish_record(case, item.stash.get(Bench.KEY, None), report)
        if record.outcome == "skip" and isinstance(report.longrepr, tuple):
            path, line, _ = item.reportinfo()  # the suite's lines, not where in this package it was found
            report.longrepr = (str(path), (line or 0) + 1, f"Skipped: {record.reason}")
        bench = item.stash.get(Bench.KEY, None)
        if report.failed and bench is not None:
            report.sections += bench.traffic()
        told: list[tuple[str, object]] = [("mlbench_case", record.case), ("mlbench_outcome", record.outcome)]
        report.user_properties += told
        item.user_properties += told  # JUnit XML takes those of the teardown's report
        try:
            self._journal.append(record)
        except RunFileError as error:
            self._trouble = str(error)
            report.outcome = "failed"
            report.longrepr = f"error(record): {record.case}: {error}"
            report.user_properties.append(("mlbench_trouble", str(error)))
        item.ihook.pytest_mlbench_record(config=self.session.config, record=record)
        return report

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Count the failures of ordinary tests, and hear of trouble in workers."""
        properties = dict(report.user_properties)
        if report.failed and ("mlbench_case" not in properties or report.when == "teardown"):
            self._ordinary_failures += 1
        if report.when == "call" and "mlbench_trouble" in properties:
            self._trouble = str(properties["mlbench_trouble"])

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        """Merge the journals into the run file and settle the exit code."""
        if self.session.worker is not None or self.session.measures_nothing:
            return
        parts = runfile.parts_dir(self.session.run_file)
        if not parts.is_dir() and self._trouble is None:
            return  # the session never began
        try:
            self.run = runfile.sorted_by_node(runfile.read(parts), self._order)
            code = exit_code(exitstatus, self.run.records, self._other_failures(), self._trouble)
            self.run = runfile.finish(self.session.run_file, self._footer(code), self._order)
        except RunFileError as error:
            self._trouble = self._trouble or str(error)
        records = self.run.records if self.run is not None else ()
        session.exitstatus = exit_code(exitstatus, records, self._other_failures(), self._trouble)

    def _other_failures(self) -> int:
        return self._ordinary_failures + len(self.session.deviations or ()) + len(self.session.lost)

    def _footer(self, code: int) -> dict[str, Any]:
        deviations = self.session.deviations
        told = {} if deviations is None else {"deviations": [one.to_json() for one in deviations]}
        if self.session.options.gate is not None:
            told["lost"] = [one.to_json() for one in self.session.lost]
        return {"exitstatus": code, **told}

    def pytest_terminal_summary(self, terminalreporter: Any, exitstatus: int) -> None:
        """Show the results."""
        if self._trouble:
            terminalreporter.write_line(f"mlbench: {self._trouble}", red=True)
        if self.run is None or self.session.worker is not None:
            return
        from pytest_mlbench.reporters import terminal

        stopped = (pytest.ExitCode.INTERRUPTED, pytest.ExitCode.INTERNAL_ERROR, pytest.ExitCode.USAGE_ERROR)
        if not self.run.records and exitstatus not in stopped:
            left_out = len(terminalreporter.stats.get("deselected", ()))
            why = f"{left_out} deselected" if left_out else "no suite (bench_*.toml, bench_*.py) was found there"
            line = f"mlbench: no case was selected ({why}); see what there is with --mlbench-list"
            terminalreporter.write_line(line, red=True)
        if self.session.options.format == "table":
            terminal.show(terminalreporter, self.run, self.session.run_file, self.session.config.get_verbosity())

    def pytest_unconfigure(self, config: pytest.Config) -> None:
        """Print JSON last, after pytest's own closing line, so that scripts take the last line."""
        self.session.close()
        self._held.close()
        if self.session.worker is None and self.run is not None and self.session.options.format == "json":
            from pytest_mlbench.reporters import json

            sys.stdout.write(json.render(self.run) + "\n")

    def _header(self) -> dict[str, Any]:
        return {
            "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "id": f"{datetime.now(timezone.utc):%Y%m%dT%H%M%S}-{os.urandom(4).hex()}",
            "versions": {"pytest-mlbench": __version__, "pytest": pytest.__version__},
            "harness_sha256": environment.sources_sha256(Path(__file__).parent),
            "host": environment.host(),
            "source": environment.revision(self.session.config.rootpath),
            "arguments": list(self.session.config.invocation_params.args),
            "resumed": str(self.session.options.resume) if self.session.options.resume else None,
            "ci": {name: os.environ[name] for name in ("CI", "GITHUB_RUN_ID", "GITHUB_SHA") if name in os.environ},
        }
