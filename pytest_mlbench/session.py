"""One session with --mlbench: what is known, the run file, outcomes and exit codes."""

from __future__ import annotations

import os
import sys
from collections.abc import Generator, Mapping
from dataclasses import replace
from datetime import datetime, timezone
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest

from pytest_mlbench import __version__, collect, environment, near, suitefile
from pytest_mlbench.bench import Bench
from pytest_mlbench.errors import MlbenchError, RunFileError, SuiteError
from pytest_mlbench.metrics.catalogue import METRICS
from pytest_mlbench.options import Options
from pytest_mlbench.outcome import exit_code, finish_record
from pytest_mlbench.record import Record
from pytest_mlbench.registry import Registry, names
from pytest_mlbench.reporters import progress as progress_reporter
from pytest_mlbench.spec import SuiteSpec
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
        self._benchmarks: dict[tuple[Path, str], str] = {}
        self._order: list[str] = []
        self._ordinary_failures = 0
        self._trouble: str | None = None
        self._check_pythons()
        self._terminal = None if self.worker is not None else progress_reporter.terminal()

    @cached_property
    def progress(self) -> progress_reporter.Progress:
        """Return where the running case tells its stage; made late, since pytest's terminal comes after us."""
        return progress_reporter.make(self.config, self._terminal)

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
            raise SuiteError(f'suite "{suite.name}" is also {other}; give one of them another `name`', file=suite.path)

    def python_suite(self, path: Path, tables: Mapping[str, Any]) -> SuiteSpec:
        """Return the models and data sets of a Python suite, parsed once."""
        if path not in self._python_suites:
            suite = suitefile.suite_from_tables(tables, path, self.known)
            if suite.benchmarks:
                message = "a Python suite's benchmarks are its functions; write each as @pytest.mark.mlbench(...)"
                raise SuiteError(message, file=path, key="benchmark")
            self.claim(suite)
            self._python_suites[path] = suite
        return self._python_suites[path]

    def claim_benchmark(self, suite: SuiteSpec, name: str, node: str) -> None:
        """Refuse a second function of one benchmark's name (bench_x and test_x, or in another class)."""
        other = self._benchmarks.setdefault((suite.path, name), node)
        if other != node:
            message = f"{node} and {other} are both benchmark {name!r}, so their case ids would be the same; "
            raise SuiteError(message + "rename one of them", file=suite.path, key=name)

    @cached_property
    def _earlier(self) -> Mapping[str, Record]:
        if self.options.resume is None:
            return {}
        run = runfile.read(self.options.resume)
        run_id = str(run.header.get("id", self.options.resume.name))
        return {record.case: replace(record, resumed=record.resumed or run_id) for record in run.records}

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

    def pytest_pycollect_makemodule(self, module_path: Path, parent: pytest.Collector) -> pytest.Module | None:
        """Make a Python suite of a bench_*.py file that pytest collects itself."""
        if module_path.name.startswith("bench_"):
            return collect.PythonSuite.from_parent(parent, path=module_path)
        return None

    def pytest_pycollect_makeitem(self, collector: pytest.Collector, name: str, obj: object) -> pytest.Collector | None:
        """Take classes named Bench* in Python suites."""
        return collect.suite_class(collector, name, obj)

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Expand Python suites."""
        collect.parametrize(metafunc)

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Note the order of cases, drop benchmarks that a hook left none of, and refuse two tests of one case."""
        emptied = [item for item in items if collect.without_cases(item)]
        if emptied:
            self.config.hook.pytest_deselected(items=emptied)
            items[:] = [item for item in items if item not in emptied]
        nodes: dict[str, str] = {}
        for item in items:
            case = collect.case_of(item)
            if case is None:
                continue
            other = nodes.setdefault(case.id, item.nodeid)
            if other != item.nodeid:
                raise pytest.UsageError(
                    f"{other} and {item.nodeid} are both case {case.id}: a record tells them apart by nothing. "
                    "Make what differs an axis (framework options, batch, threads) instead of parametrizing it"
                )
        self._order = list(nodes.values())

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, node: Any, ids: list[str]) -> None:
        """Note the order in which workers collected."""
        self._order = list(ids)

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
                remedy = "give the run file of an earlier run, or leave the option out"
                raise pytest.UsageError(f"--mlbench-resume: {error}; {remedy}") from None
        if self.worker is None and not self._measures_nothing():
            try:
                runfile.begin(self.run_file, self._header())
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
        self.progress.clear()
        record = finish_record(case, item.stash.get(Bench.KEY, None), report)
        if record.outcome == "skip" and isinstance(report.longrepr, tuple):
            path, line, _ = item.reportinfo()  # the suite's lines, not where in this package it was found
            report.longrepr = (str(path), (line or 0) + 1, f"Skipped: {record.reason}")
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
        item.ihook.pytest_mlbench_record(config=self.config, record=record)
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
        if self.worker is not None or self._measures_nothing():
            return
        parts = runfile.parts_dir(self.run_file)
        if not parts.is_dir() and self._trouble is None:
            return  # the session never began
        try:
            self.run = runfile.sorted_by_node(runfile.read(parts), self._order)
            code = exit_code(exitstatus, self.run.records, self._ordinary_failures, self._trouble)
            self.run = runfile.finish(self.run_file, {"exitstatus": code}, self._order)
        except RunFileError as error:
            self._trouble = self._trouble or str(error)
        records = self.run.records if self.run is not None else ()
        session.exitstatus = exit_code(exitstatus, records, self._ordinary_failures, self._trouble)

    def pytest_terminal_summary(self, terminalreporter: Any, exitstatus: int) -> None:
        """Show the results."""
        if self._trouble:
            terminalreporter.write_line(f"mlbench: {self._trouble}", red=True)
        if self.run is None or self.worker is not None:
            return
        from pytest_mlbench.reporters import terminal

        stopped = (pytest.ExitCode.INTERRUPTED, pytest.ExitCode.INTERNAL_ERROR, pytest.ExitCode.USAGE_ERROR)
        if not self.run.records and exitstatus not in stopped:
            left_out = len(terminalreporter.stats.get("deselected", ()))
            why = f"{left_out} deselected" if left_out else "no suite (bench_*.toml, bench_*.py) was found there"
            line = f"mlbench: no case was selected ({why}); see what there is with --mlbench-list"
            terminalreporter.write_line(line, red=True)
        if self.options.format == "table":
            terminal.show(terminalreporter, self.run, self.run_file, self.config.get_verbosity())

    def pytest_unconfigure(self, config: pytest.Config) -> None:
        """Print JSON last, after pytest's own closing line, so that scripts take the last line."""
        if self._terminal is not None:
            self._terminal.close()
        if self.worker is None and self.run is not None and self.options.format == "json":
            from pytest_mlbench.reporters import json

            sys.stdout.write(json.render(self.run) + "\n")

    # --- parts -----------------------------------------------------------------------------------------

    def _measures_nothing(self) -> bool:
        option = self.config.getoption
        return self.options.list or any(option(name) for name in ("collectonly", "setuponly", "setupplan"))

    def _check_pythons(self) -> None:
        for name, path in self.options.pythons.items():
            given = f"--mlbench-python {name}={path}"
            if name not in self.registry.frameworks:
                raise pytest.UsageError(f"{given}: {near.unknown('framework', name, self.registry.frameworks)}")
            if not (path.is_file() and os.access(path, os.X_OK)):
                raise pytest.UsageError(
                    f"{given}: there is no interpreter of that path; make its environment, or correct the path"
                )

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
            "harness_sha256": environment.sources_sha256(Path(__file__).parent),
            "host": environment.host(),
            "source": environment.revision(self.config.rootpath),
            "arguments": list(self.config.invocation_params.args),
            "resumed": str(self.options.resume) if self.options.resume else None,
            "ci": {name: os.environ[name] for name in ("CI", "GITHUB_RUN_ID", "GITHUB_SHA") if name in os.environ},
        }


KEY = pytest.StashKey[MlbenchSession]()


def join(config: pytest.Config) -> None:
    """Register the session's hooks and fixtures."""
    try:
        session = MlbenchSession(config)
    except MlbenchError as error:
        raise pytest.UsageError(str(error)) from None
    config.stash[KEY] = session
    config.pluginmanager.register(session, "mlbench-session")
    from pytest_mlbench import fixtures, listing

    config.pluginmanager.register(fixtures, "mlbench-fixtures")
    if session.options.list:
        listing.join(config, session)
    config.addinivalue_line("python_files", "bench_*.py")  # so that pytest itself collects each exactly once
    if session.worker is None and config.args_source is not pytest.Config.ArgsSource.ARGS:
        config.args[:] = [_suites_folder(config)]
    if session.worker is not None:
        _die_with_controller()


def _suites_folder(config: pytest.Config) -> str:
    path = config.rootpath / config.getini("mlbench_suites")
    if not path.exists():
        message = (
            f"--mlbench: no suites: {path} does not exist; give the path of a suite, make one with "
            "`mlbench init MODEL`, or set the ini key mlbench_suites"
        )
        here = config.invocation_params.dir
        if config.rootpath not in (here, *here.parents):
            # pytest looks for its root folder before it knows our options, and takes their values for paths.
            message += (
                f". pytest took {config.rootpath} for the project's root, from a path on the command line: "
                "write options with =, as in --mlbench-output=FILE"
            )
        raise pytest.UsageError(message)
    return str(path)


def _die_with_controller() -> None:
    """End this xdist worker when its controller is killed: it would otherwise finish its case first."""
    if sys.platform.startswith("linux"):
        import ctypes
        import signal

        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
