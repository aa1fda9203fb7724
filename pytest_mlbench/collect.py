"""Collect suites: cases become `pytest.Function` items under a `pytest.Module`, parametrized by pytest itself."""

from __future__ import annotations

import inspect
import re
import types
import unittest
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_mlbench import matrix, suitefile
from pytest_mlbench.errors import MlbenchError, SuiteError
from pytest_mlbench.matrix import Case
from pytest_mlbench.spec import BenchmarkSpec, SuiteSpec

if TYPE_CHECKING:
    from collections.abc import Iterable

    import pluggy

    from pytest_mlbench.session import MlbenchSession

BENCHMARK = "mlbench_benchmark"  # where the functions of a TOML suite keep what they measure
TABLES = "mlbench_suite"  # the variable of a Python suite that holds what a TOML suite's tables do


def run_case(mlbench: Any) -> None:
    """Measure the case and hold its expectations."""
    mlbench.run()


class TomlSuite(pytest.Module):
    """A TOML suite: the module a person would write for it, a function `mlbench.run()` for each benchmark.

    So pytest parametrizes TOML and Python suites alike, and what works on the one works on the other.
    """

    def collect(self) -> Iterable[pytest.Item | pytest.Collector]:
        """Make the module, then collect it as pytest does."""
        session = _session(self.config)
        try:
            suite = suitefile.load_suite(self.path, session.known)
            session.claim(suite)
        except MlbenchError as error:
            raise self.CollectError(str(error)) from None
        self.obj = _module(suite)
        return super().collect()

    def funcnamefilter(self, name: str) -> bool:
        """Take every benchmark, whatever its name."""
        return True


def _module(suite: SuiteSpec) -> types.ModuleType:
    """Return a module with a function per benchmark, whose code says that it stands on the benchmark's lines."""
    module = types.ModuleType(suite.path.stem)
    lines = _lines(suite.path)
    for benchmark in suite.benchmarks:
        code = run_case.__code__.replace(
            co_filename=str(suite.path), co_firstlineno=lines.get(benchmark.name, 0) + 1, co_name=benchmark.name
        )
        function = types.FunctionType(code, {}, benchmark.name)
        function.__doc__ = run_case.__doc__
        setattr(function, BENCHMARK, (suite, benchmark))
        setattr(module, benchmark.name, pytest.mark.mlbench(function))
    return module


class PythonSuite(pytest.Module):
    """A Python suite: a module whose functions are benchmarks when they carry the marker `mlbench`."""

    @property
    def is_suite(self) -> bool:
        """Tell a suite from another module whose name begins with bench_ (pytest-benchmark's, say)."""
        return hasattr(self.obj, TABLES)

    def funcnamefilter(self, name: str) -> bool:
        """Take functions named bench_* too."""
        return (self.is_suite and name.startswith("bench_")) or super().funcnamefilter(name)

    def collect(self) -> Iterable[pytest.Item | pytest.Collector]:
        """Refuse a suite that would measure nothing."""
        found = list(super().collect())
        if self.is_suite and not found:
            raise self.CollectError(
                f"{self.path}: the suite holds no function named bench_* or test_*, so there is nothing to measure"
            )
        return found


class PythonSuiteClass(pytest.Class):
    """A class of benchmarks in a Python suite."""

    def funcnamefilter(self, name: str) -> bool:
        """Take methods named bench_* too."""
        return name.startswith("bench_") or super().funcnamefilter(name)


def suite_file(path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    """Return the collector for a file that is a TOML suite."""
    if path.name.startswith("bench_") and path.suffix == ".toml":
        return TomlSuite.from_parent(parent, path=path)
    return None


def suite_class(collector: pytest.Collector, name: str, obj: object) -> pytest.Collector | None:
    """Return the collector for a class named Bench* of a Python suite, which pytest alone would pass over."""
    module = collector.getparent(PythonSuite)
    if module is None or not module.is_suite or not inspect.isclass(obj):
        return None
    if not name.startswith(("Bench", "Test")) or issubclass(obj, unittest.TestCase):
        return None
    return PythonSuiteClass.from_parent(collector, name=name, obj=obj)


def parametrize(metafunc: pytest.Metafunc) -> None:
    """Expand a Python suite's benchmark into parameters of `mlbench_case`."""
    definition = metafunc.definition
    name = metafunc.function.__name__
    mark = definition.get_closest_marker("mlbench")
    module = definition.getparent(PythonSuite)
    try:
        if mark is None:
            if module is not None and module.is_suite and name.startswith("bench_"):
                message = "has no marker; write @pytest.mark.mlbench(model=[...], framework=[...], ...) above it"
                raise SuiteError(message, file=definition.path, key=name)
            return
        if hasattr(metafunc.function, BENCHMARK):
            suite, benchmark = getattr(metafunc.function, BENCHMARK)
            cases = expand(_session(metafunc.config), suite, benchmark, definition.ihook)
        else:
            cases = _python_cases(metafunc, mark, name)
    except MlbenchError as error:
        raise pytest.Collector.CollectError(str(error)) from None
    metafunc.parametrize(
        "mlbench_case",
        [pytest.param(case, id=case.param, marks=_marks(case)) for case in cases],
        indirect=True,
    )


def _python_cases(metafunc: pytest.Metafunc, mark: pytest.Mark, name: str) -> list[Case]:
    path = metafunc.definition.path
    if mark.args:
        raise SuiteError("the marker mlbench takes keyword arguments only", file=path, key=name)
    if "mlbench" not in metafunc.fixturenames:
        message = "does not take the fixture `mlbench`, so nothing would be measured; add it as an argument"
        raise SuiteError(message, file=path, key=name)
    tables = getattr(metafunc.module, TABLES, None)
    if not isinstance(tables, dict):
        raise SuiteError(
            f"a Python suite needs `{TABLES} = {{...}}` with its models and data sets", file=path, key=name
        )
    session = _session(metafunc.config)
    suite = session.python_suite(path, tables)
    word = re.sub(r"^(bench|test)_", "", name)
    session.claim_benchmark(suite, word, metafunc.definition.nodeid)
    benchmark = suitefile.benchmark_from_table(mark.kwargs, word, suite, session.known)
    return expand(session, suite, benchmark, metafunc.definition.ihook)


def _marks(case: Case) -> list[pytest.MarkDecorator]:
    """Return the marks a case carries: its own, and the skip of an exclusion."""
    try:
        marks = [getattr(pytest.mark, name) for name in case.benchmark.marks]
    except pytest.fail.Exception as error:  # --strict-markers
        key = f"{case.benchmark.name}.marks"
        message = f"{error}; register it under `markers` in pytest's configuration"
        raise pytest.Collector.CollectError(f"{case.suite.path}: {key}: {message}") from None
    if case.skip is not None:
        marks.append(pytest.mark.skip(reason=case.skip))
    return marks


def without_cases(item: pytest.Item) -> bool:
    """Tell the placeholder that pytest makes of a benchmark when a hook took out all of its cases."""
    return (
        isinstance(item, pytest.Function)
        and item.get_closest_marker("mlbench") is not None
        and "mlbench_case" in item.fixturenames
        and case_of(item) is None
    )


def case_of(item: pytest.Item) -> Case | None:
    """Return the case of an item, or None for an ordinary test."""
    if not isinstance(item, pytest.Function) or not hasattr(item, "callspec"):
        return None
    found = item.callspec.params.get("mlbench_case")
    return found if isinstance(found, Case) else None


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


def expand(session: MlbenchSession, suite: SuiteSpec, benchmark: BenchmarkSpec, hook: pluggy.HookRelay) -> list[Case]:
    """Return a benchmark's cases after the hooks of the conftest.py files that apply had their say."""
    cases = matrix.expand(suite, benchmark, session.known)
    hook.pytest_mlbench_modify_cases(config=session.config, suite=suite, cases=cases)
    return cases


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    """Collect suites."""
    return suite_file(file_path, parent)


def pytest_pycollect_makemodule(module_path: Path, parent: pytest.Collector) -> pytest.Module | None:
    """Make a Python suite of a bench_*.py file that pytest collects itself."""
    if module_path.name.startswith("bench_"):
        return PythonSuite.from_parent(parent, path=module_path)
    return None


def pytest_pycollect_makeitem(collector: pytest.Collector, name: str, obj: object) -> pytest.Collector | None:
    """Take classes named Bench* in Python suites."""
    return suite_class(collector, name, obj)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Expand Python suites."""
    parametrize(metafunc)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Drop benchmarks that a hook left none of, and refuse two tests of one case."""
    emptied = [item for item in items if without_cases(item)]
    if emptied:
        config.hook.pytest_deselected(items=emptied)
        items[:] = [item for item in items if item not in emptied]
    nodes: dict[str, str] = {}
    for item in items:
        case = case_of(item)
        if case is None:
            continue
        other = nodes.setdefault(case.id, item.nodeid)
        if other != item.nodeid:
            raise pytest.UsageError(
                f"{other} and {item.nodeid} are both case {case.id}: a record tells them apart by nothing. "
                "Make what differs an axis (framework options, batch, threads) instead of parametrizing it"
            )
