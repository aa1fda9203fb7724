"""One session with --mlbench: what is known, the run file, outcomes and exit codes."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from datetime import datetime, timezone
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest

from pytest_mlbench import __version__, collect, environment, hookspecs, suitefile
from pytest_mlbench.bench import Bench
from pytest_mlbench.errors import MlbenchError, RunFileError, SuiteError
from pytest_mlbench.matrix import Case
from pytest_mlbench.metrics.catalogue import METRICS
from pytest_mlbench.options import Options
from pytest_mlbench.outcome import exit_code, finish_record
from pytest_mlbench.record import Record
from pytest_mlbench.registry import Registry, names
from pytest_mlbench.reporters import progress as progress_reporter
from pytest_mlbench.spec import BenchmarkSpec, SuiteSpec
from pytest_mlbench.stores import runfile
from pytest_mlbench.tables import Known

_BUILT_IN_METRICS = 5


class MlbenchSession:
    """The plugin object of a session that measures; one per process (pytest itself, each xdist worker)."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.options = Options.from_config(config)
        self.registry = Registry()
        self.worker: Mapping[str, Any] | None = getattr(config, "workerinput", None)
        self.run: runfile.Run | None = None
        self.run_file = self._run_file()
        self._journal = runfile.Journal(self.run_file, self.worker["workerid"] if self.worker else "main")
        self._suites: dict[str, Path] = {}
        self._python_suites: dict[Path, SuiteSpec] = {}
        self._ordinary_failures = 0
        self._trouble: str | None = None
        self._cases_seen: dict[str, Case] = {}

    @cached_property
    def progress(self) -> progress_reporter.Progress:
        """Return where the running case tells its stage; made late, since pytest's terminal comes after us."""
        return progress_reporter.make(self.config, quiet=self.worker is not None)

    # --- what suites may name --------------------------------------------------------------------------

    @cached_property
    def known(self) -> Known:
        """Return the names suites may use in this session."""
        return Known(
            frameworks=self.registry.frameworks,
            devices=names("devices"),
            scenarios=names("scenarios"),
            metrics={name: unit for name, (unit, _) in METRICS.items()},
            vendor_metrics=len(names("metrics")) > _BUILT_IN_METRICS,
        )

    def claim(self, suite: SuiteSpec) -> None:
        """Refuse a second suite of the same name: case ids would collide in records and history."""
        other = self._suites.setdefault(suite.name, suite.path)
        if other != suite.path:
            raise SuiteError(
                f'suite "{suite.name}" is also {other}; give one of them another `name`', file=suite.path
            )

    def python_suite(self, path: Path, tables: Mapping[str, Any]) -> SuiteSpec:
        """Return the models and data sets of a Python suite, parsed once."""
        if path not in self._python_suites:
            self._python_suites[path] = suitefile.suite_from_tables(tables, path, self.known)
            self.claim(self._python_suites[path])
        return self._python_suites[path]

    def cases(self, suite: SuiteSpec, benchmark: BenchmarkSpec) -> list[Case]:
        """Return a benchmark's cases."""
        return collect.expand(self, suite, benchmark)

    @cached_property
    def _earlier(self) -> Mapping[str, Record]:
        if self.options.resume is None:
            return {}
        return {record.case: record for record in runfile.read(self.options.resume).records}

    def resumed(self, case_id: str, identity: str) -> Record | None:
        """Return the passed record of an earlier run when everything it depends on is still the same."""
        record = self._earlier.get(case_id)
        if record is None or record.outcome != "pass" or record.hashes.get("identity") != identity:
            return None
        return record

    # --- collection ------------------------------------------------------------------------------------

    def pytest_collect_file(self, file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
        """Collect suites."""
        return collect.suite_file(file_path, parent)

    def pytest_pycollect_makemodule(
        self, module_path: Path, parent: pytest.Collector
    ) -> pytest.Module | None:
        """Make a Python suite of a bench_*.py file that pytest collects itself."""
        if module_path.name.startswith("bench_"):
            return collect.PythonSuite.from_parent(parent, path=module_path)
        return None

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Expand Python suites."""
        collect.parametrize(metafunc)

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        """Tell an xdist worker where the run file is."""
        node.workerinput["mlbench_run_file"] = str(self.run_file)

    # --- running ---------------------------------------------------------------------------------------

    def pytest_sessionstart(self, session: pytest.Session) -> None:
        """Open the run file before anything is measured, so that a full disk is told at once."""
        if self.options.resume is not None:
            try:
                _ = self._earlier
            except RunFileError as error:
                raise pytest.UsageError(f"--mlbench-resume: {error}") from None
        if self.worker is None and not self._measures_nothing():
            try:
                runfile.begin(self.run_file, self._header())
            except RunFileError as error:
                raise pytest.UsageError(str(error)) from None

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
        """Close the case's record: it is on disk before pytest hears of the outcome."""
        report = yield
        case = collect.case_of(item)
        if case is None or not (report.when == "call" or (report.when == "setup" and not report.passed)):
            return report
        self.progress.clear()
        record = finish_record(case, item.stash.get(Bench.KEY, None), report)
        report.user_properties += [("mlbench_case", record.case), ("mlbench_outcome", record.outcome)]
        try:
            self._journal.append(record)
        except RunFileError as error:
            self._trouble = str(error)
            report.outcome = "failed"
            report.longrepr = f"error(record): {record.case}: {error}"
            report.user_properties.append(("mlbench_trouble", str(error)))
        self.config.hook.pytest_mlbench_record(config=self.config, record=record)
        return report

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Count the failures of ordinary tests, and hear of trouble in workers."""
        properties = dict(report.user_properties)
        if report.failed and "mlbench_case" not in properties:
            self._ordinary_failures += 1
        if report.when == "call" and "mlbench_trouble" in properties:
            self._trouble = str(properties["mlbench_trouble"])

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        """Merge the journals into the run file and settle the exit code."""
        if self.worker is not None or not runfile.parts_dir(self.run_file).is_dir():
            return
        try:
            self.run = runfile.finish(self.run_file, {"exitstatus": int(exitstatus)})
        except RunFileError as error:
            self._trouble = str(error)
            self.run = runfile.read(runfile.parts_dir(self.run_file))
        session.exitstatus = exit_code(exitstatus, self.run.records, self._ordinary_failures, self._trouble)

    def pytest_terminal_summary(self, terminalreporter: Any, exitstatus: int) -> None:
        """Show the results."""
        if self.run is None or self.worker is not None:
            return
        from pytest_mlbench.reporters import terminal

        if self._trouble:
            terminalreporter.write_line(f"mlbench: {self._trouble}", red=True)
        if self.options.format == "table":
            terminal.show(terminalreporter, self.run, self.run_file, self.config.get_verbosity())

    def pytest_unconfigure(self, config: pytest.Config) -> None:
        """Print JSON last, after pytest's own closing line, so that scripts take the last line."""
        if self.worker is None and self.run is not None and self.options.format == "json":
            from pytest_mlbench.reporters import json

            sys.stdout.write(json.render(self.run) + "\n")

    # --- parts -----------------------------------------------------------------------------------------

    def _measures_nothing(self) -> bool:
        return self.config.getoption("collectonly") or self.options.list

    def _run_file(self) -> Path:
        if self.worker is not None and "mlbench_run_file" in self.worker:
            return Path(self.worker["mlbench_run_file"])
        if self.options.output is not None:
            return self.options.output
        stamp = datetime.now(timezone.utc).strftime("%Y%m%dT%H%M%S")
        return self.config.rootpath / ".mlbench" / f"run-{stamp}-{os.getpid()}.jsonl"

    def _header(self) -> dict[str, Any]:
        return {
            "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "id": f"{datetime.now(timezone.utc):%Y%m%dT%H%M%S}-{os.urandom(4).hex()}",
            "versions": {"pytest-mlbench": __version__, "pytest": pytest.__version__},
            "host": environment.host(),
            "source": environment.revision(self.config.rootpath),
            "arguments": list(self.config.invocation_params.args),
            "resumed": str(self.options.resume) if self.options.resume else None,
            "ci": {
                name: os.environ[name] for name in ("CI", "GITHUB_RUN_ID", "GITHUB_SHA") if name in os.environ
            },
        }


KEY = pytest.StashKey[MlbenchSession]()


def join(config: pytest.Config) -> None:
    """Register the session's hooks and fixtures."""
    try:
        session = MlbenchSession(config)
    except MlbenchError as error:
        raise pytest.UsageError(str(error)) from None
    config.stash[KEY] = session
    config.pluginmanager.add_hookspecs(hookspecs)
    config.pluginmanager.register(session, "mlbench-session")
    from pytest_mlbench import fixtures, listing

    config.pluginmanager.register(fixtures, "mlbench-fixtures")
    if session.options.list:
        listing.join(config, session)
    if session.worker is None and config.args_source is not pytest.Config.ArgsSource.ARGS:
        config.args[:] = [str(config.rootpath / config.getini("mlbench_suites"))]
    if session.worker is not None:
        _die_with_controller()


def _die_with_controller() -> None:
    """End this xdist worker when its controller is killed: it would otherwise finish its case first."""
    if sys.platform.startswith("linux"):
        import ctypes
        import signal

        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
