"""Collect suites: cases become `pytest.Function` items under a `pytest.File` or `pytest.Module`."""

from __future__ import annotations

import os
import re
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_mlbench import matrix, suitefile
from pytest_mlbench.errors import SuiteError
from pytest_mlbench.matrix import Case
from pytest_mlbench.spec import BenchmarkSpec, SuiteSpec

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_mlbench.session import MlbenchSession

CASE = pytest.StashKey[Case]()


def run_case(mlbench: Any) -> None:
    """Measure the case and hold its expectations."""
    mlbench.run()


class CaseItem(pytest.Function):
    """One case of a TOML suite."""

    def __init__(self, *, case: Case, line: int, **keywords: Any) -> None:
        super().__init__(**keywords)
        self.stash[CASE] = case
        self._line = line
        self.add_marker("mlbench")
        for mark in case.benchmark.marks:
            self.add_marker(mark)
        if case.skip is not None:
            self.add_marker(pytest.mark.skip(reason=case.skip))

    def reportinfo(self) -> tuple[os.PathLike[str] | str, int | None, str]:
        """Point at the benchmark's lines in the suite, not at this module."""
        return self.path, self._line, self.name


class SuiteFile(pytest.File):
    """A TOML suite."""

    def collect(self) -> Iterator[pytest.Item]:
        """Yield an item for each case of each benchmark."""
        session = _session(self.config)
        try:
            suite = suitefile.load_suite(self.path, session.known)
            session.claim(suite)
            lines = _lines(self.path)
            for benchmark in suite.benchmarks:
                line = lines.get(benchmark.name, 0)
                for case in session.cases(suite, benchmark):
                    name = f"{benchmark.name}[{case.param}]"
                    yield CaseItem.from_parent(self, name=name, callobj=run_case, case=case, line=line)
        except SuiteError as error:
            raise self.CollectError(str(error)) from None


class PythonSuite(pytest.Module):
    """A Python suite: a module whose functions are benchmarks when they carry the marker `mlbench`."""

    def funcnamefilter(self, name: str) -> bool:
        """Take functions named bench_* too."""
        return name.startswith("bench_") or super().funcnamefilter(name)


def suite_file(path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    """Return the collector for a file that is a suite."""
    if not path.name.startswith("bench_"):
        return None
    if path.suffix == ".toml":
        return SuiteFile.from_parent(parent, path=path)
    if path.suffix == ".py" and not _collected_by_pytest(path, parent):
        return PythonSuite.from_parent(parent, path=path)
    return None


def _collected_by_pytest(path: Path, parent: pytest.Collector) -> bool:
    """Tell whether pytest makes a module of the file anyway (then pytest_pycollect_makemodule gives ours)."""
    patterns = parent.config.getini("python_files")
    return parent.session.isinitpath(path) or any(fnmatch(path.name, pattern) for pattern in patterns)


def parametrize(metafunc: pytest.Metafunc) -> None:
    """Expand a Python suite's benchmark into parameters of `mlbench_case`."""
    mark = metafunc.definition.get_closest_marker("mlbench")
    if mark is None or "mlbench_case" not in metafunc.fixturenames:
        return
    path = metafunc.definition.path
    session = _session(metafunc.config)
    try:
        if mark.args:
            raise SuiteError(
                "the marker mlbench takes keyword arguments only", file=path, key=metafunc.function.__name__
            )
        tables = getattr(metafunc.module, "mlbench_suite", None)
        if not isinstance(tables, dict):
            raise SuiteError(
                "a Python suite needs `mlbench_suite = {...}` with its models and data sets", file=path
            )
        suite = session.python_suite(path, tables)
        name = re.sub(r"^(bench|test)_", "", metafunc.function.__name__)
        benchmark = suitefile.benchmark_from_table(mark.kwargs, name, suite, session.known)
        cases = session.cases(suite, benchmark)
    except SuiteError as error:
        raise pytest.Collector.CollectError(str(error)) from None
    parameters = [
        pytest.param(case, id=case.param, marks=[pytest.mark.skip(reason=case.skip)] if case.skip else [])
        for case in cases
    ]
    metafunc.parametrize("mlbench_case", parameters, indirect=True)


def case_of(item: pytest.Item) -> Case | None:
    """Return the case of an item, or None for an ordinary test."""
    case = item.stash.get(CASE, None)
    if case is None and isinstance(item, pytest.Function) and hasattr(item, "callspec"):
        case = item.callspec.params.get("mlbench_case")
    return case


def _session(config: pytest.Config) -> MlbenchSession:
    from pytest_mlbench.session import KEY

    return config.stash[KEY]


def _lines(path: Path) -> dict[str, int]:
    """Return the (0-based) line each benchmark's name stands on, for the place pytest prints."""
    lines: dict[str, int] = {}
    inside = False
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines()):
        if line.lstrip().startswith("["):
            inside = line.strip().startswith("[[benchmark]]")
        found = re.match(r"\s*name\s*=\s*[\"']([^\"']+)", line)
        if inside and found:
            lines.setdefault(found[1], number)
    return lines


def expand(session: MlbenchSession, suite: SuiteSpec, benchmark: BenchmarkSpec) -> list[Case]:
    """Return a benchmark's cases after the hook had its say."""
    cases = matrix.expand(suite, benchmark, session.known)
    session.config.hook.pytest_mlbench_modify_cases(config=session.config, suite=suite, cases=cases)
    return cases
