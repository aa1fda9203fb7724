"""Note every case that pytest comes across, also those that are deselected afterwards.

Loaded as a plugin (`-p pytest_mlbench.inventory`) it writes what was found into a file: `mlbench freeze` reads it.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Collection, Generator, Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from pytest_mlbench.collect import PythonSuite, TomlSuite, case_of
from pytest_mlbench.expected import Collected, one_line, suite_of


def suites_folder(config: pytest.Config) -> Path:
    """Return the folder whose cases the expected set holds."""
    return config.rootpath / str(config.getini("mlbench_suites"))


def expected_file(config: pytest.Config) -> Path | None:
    """Return where the expected set is or would be; None when the ini key is empty: nothing is checked."""
    name = str(config.getini("mlbench_expected")).strip()
    return suites_folder(config) / name if name else None


class Inventory:
    """The hooks that note cases before anything deselects them."""

    def __init__(self) -> None:
        self._cases: dict[str, str | None] = {}
        self._suites: dict[str, Path] = {}  # name -> file
        self._deselected: set[str] = set()
        self._passed_over: list[pytest.Collector] = []
        self._complete = False

    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_make_collect_report(
        self, collector: pytest.Collector
    ) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
        """Note the cases of a suite. Innermost, since --lf takes items out of this report."""
        report = yield
        self._note(node for node in report.result or () if isinstance(node, pytest.Item))
        if isinstance(collector, (TomlSuite, PythonSuite)) and report.passed and not report.result:
            self._passed_over.append(collector)  # by --lf, which skips files without a failure
        return report

    def pytest_deselected(self, items: Sequence[pytest.Item]) -> None:
        """Note what -k, -m, --lf, --deselect or a plugin took out."""
        self._deselected.update(case.id for item in items if (case := case_of(item)) is not None)

    def pytest_collection_modifyitems(self) -> None:
        """Note that collecting went to its end: this hook is not called when it was interrupted."""
        self._complete = True

    def collected(self, session: pytest.Session) -> Collected | None:
        """Return what was found, once collecting has finished; None when it did not, or a suite has an error."""
        if not self._complete or session.testsfailed:
            return None
        unchecked = dict(self._look_into(session.config.rootpath))
        folder = suites_folder(session.config).resolve()
        resolved = {name: path.resolve() for name, path in self._suites.items()}
        inside = {name: path for name, path in resolved.items() if folder in path.parents}
        cases = {case: reason for case, reason in self._cases.items() if suite_of(case) in inside}
        suites = _whole(session.config, folder, inside)
        selected = {case.id for item in session.items if (case := case_of(item)) is not None} & cases.keys()
        # A plugin may take items out without a word, and --lf does it while collecting.
        silently = {case for case in cases if suites is None or suite_of(case) in suites} - selected
        deselected = (self._deselected & cases.keys()) | silently
        return Collected(cases, suites, selected, deselected, unchecked)

    def _note(self, items: Iterator[pytest.Item]) -> None:
        for item in items:
            case = case_of(item)
            if case is not None:
                self._cases[case.id] = _excluded(item)
                self._suites[case.suite.name] = case.suite.path

    def _look_into(self, root: Path) -> Iterator[tuple[str, str]]:
        """Collect the suites that were passed over; yields those that cannot be, with the error."""
        for collector in self._passed_over:
            try:
                if isinstance(collector, TomlSuite) or (isinstance(collector, PythonSuite) and collector.is_suite):
                    self._note(_items(collector))
            except pytest.skip.Exception:
                continue  # a module that skips itself has no cases, here as in a run of everything
            except (Exception, pytest.fail.Exception) as error:
                path = collector.path
                name = path.relative_to(root) if path.is_relative_to(root) else path
                yield name.as_posix(), f"cannot be collected: {error}"


def _items(collector: pytest.Collector) -> Iterator[pytest.Item]:
    for node in collector.collect():
        if isinstance(node, pytest.Item):
            yield node
        elif isinstance(node, pytest.Collector):
            yield from _items(node)


def _excluded(item: pytest.Item) -> str | None:
    """Return why the suite has the case skipped, on every machine; None when it is to be measured."""
    skip = item.get_closest_marker("skip")
    if skip is not None:
        return one_line(str(skip.kwargs.get("reason", next(iter(skip.args), ""))))
    xfail = item.get_closest_marker("xfail")
    if xfail is not None and not xfail.args and "condition" not in xfail.kwargs:
        reason = one_line(str(xfail.kwargs.get("reason", "")))
        return f"expected to fail (xfail): {reason}" if reason else ""
    return None


def _whole(config: pytest.Config, folder: Path, suites: Mapping[str, Path]) -> Collection[str] | None:
    """Return the names of the suites that were collected whole; None when all of the suites folder was.

    A node id gives a part of a file: of such a suite nothing can be missed.
    """
    base = config.invocation_params.dir
    given = [(base / argument).resolve() for argument in config.args if "::" not in argument]
    if any(path in (folder, *folder.parents) for path in given):
        return None
    return {name for name, path in suites.items() if any(one in (path, *path.parents) for one in given)}


# --- for `mlbench freeze` --------------------------------------------------------------------------------


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare where to write what was found."""
    parser.addoption("--mlbench-inventory", type=Path, default=None, help=argparse.SUPPRESS)


def pytest_configure(config: pytest.Config) -> None:
    """Note cases, and write them when all are collected."""
    target: Path | None = config.getoption("--mlbench-inventory")
    if target is not None:
        inventory = Inventory()
        config.pluginmanager.register(inventory, "mlbench-inventory-to-write")
        config.pluginmanager.register(_Writer(inventory, target), "mlbench-inventory-writer")


class _Writer:
    def __init__(self, inventory: Inventory, target: Path) -> None:
        self._inventory = inventory
        self._target = target

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Write what was found, and where the expected set is."""
        collected = self._inventory.collected(session)
        if collected is not None:
            file, folder = expected_file(session.config), suites_folder(session.config)
            told = {"file": None if file is None else str(file), "suites": str(folder)}
            self._target.write_text(json.dumps({**told, "collected": collected.to_text()}), encoding="utf-8")
