"""Show measured cases in pytest-benchmark's table and files, when it takes part in the session too.

pytest-benchmark times functions itself. After a case has passed, a function that does nothing is given to it with
a timer that reads out the case's readings (its marker's `timer`, and `benchmark.pedantic`), so that its numbers,
files and options work as for a test of its own. Nothing is timed here.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Generator, Sequence
from typing import TYPE_CHECKING, Any

import pytest

from pytest_mlbench.bench import Bench
from pytest_mlbench.collect import case_of
from pytest_mlbench.export import Row, row

if TYPE_CHECKING:
    from pytest_mlbench.session import MlbenchSession

INI = "mlbench_pytest_benchmark"
MODES = ("auto", "always", "never")
_FIXTURE = "benchmark"
_MOST_CALLS = 10_000_000  # of the function that does nothing, for one case: a third of a second
_REQUEST = pytest.StashKey[pytest.FixtureRequest]()


def join(config: pytest.Config, session: MlbenchSession) -> None:
    """Register the bridge where pytest-benchmark would show something; raises pytest.UsageError for a wrong mode."""
    mode = config.getini(INI)
    if mode not in MODES:
        raise pytest.UsageError(f"{INI} = {mode}: expected one of {', '.join(MODES)}")
    plugin = config.pluginmanager.get_plugin(_FIXTURE)
    if mode == "never" or getattr(plugin, "__name__", "") != "pytest_benchmark.plugin" or session.measures_nothing:
        return
    if config.getoption("benchmark_disable") and not config.getoption("benchmark_enable"):
        return
    asked = mode == "always" or _options_given(config)
    if session.worker is not None or config.getoption("dist", "no") != "no":  # pytest-benchmark turns itself off there
        if asked and session.worker is None:
            config.pluginmanager.register(Hint(session), "mlbench-benchmark-hint")
        return
    config.pluginmanager.register(Bridge(asked), "mlbench-benchmark-bridge")


def _options_given(config: pytest.Config) -> bool:
    """Tell whether one of pytest-benchmark's options was given, on the command line or in the configuration."""
    words: list[Any] = [*config.invocation_params.args, *config.getini("addopts")]
    words += shlex.split(os.environ.get("PYTEST_ADDOPTS", ""))
    return any(str(word).startswith("--benchmark-") for word in words)


class Bridge:
    """The hooks of a session in which pytest-benchmark shows something, or would if it had anything."""

    def __init__(self, asked: bool) -> None:
        self._on = asked

    @pytest.hookimpl(wrapper=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> Generator[None, None, None]:
        """Let cases pass for benchmarks while pytest-benchmark looks through the tests: --benchmark-only, -skip.

        Where another test uses its fixture its table is shown anyway, and cases belong in it.
        """
        names = [_fixtures(item) for item in items if case_of(item) is not None]
        self._on = self._on or any(_FIXTURE in _fixtures(item) for item in items if case_of(item) is None)
        added = []
        for fixtures in names if self._on else ():
            if _FIXTURE not in fixtures:  # the cases of one function share a list
                fixtures.append(_FIXTURE)
                added.append(fixtures)
        try:
            return (yield)
        finally:
            for fixtures in added:
                fixtures.remove(_FIXTURE)

    @pytest.fixture(autouse=True)
    def _mlbench_request(self, request: pytest.FixtureRequest) -> None:
        """Keep the request, by which the fixture `benchmark` is had once there is something to show."""
        request.node.stash[_REQUEST] = request

    @pytest.hookimpl(wrapper=True)
    def pytest_pyfunc_call(self, pyfuncitem: pytest.Function) -> Generator[None, Any, Any]:
        """Show the case when its test has passed; one that uses the fixture itself shows what it likes."""
        result = yield
        bench = pyfuncitem.stash.get(Bench.KEY, None)
        if self._on and bench is not None and bench.record is not None and _FIXTURE not in pyfuncitem.fixturenames:
            found = row(bench.record)
            if found is not None:
                _replay(pyfuncitem, found)
        return result


class Hint:
    """The hook of a session with pytest-xdist."""

    def __init__(self, session: MlbenchSession) -> None:
        self._session = session

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Say how to have pytest-benchmark's file all the same."""
        terminalreporter.write_line(
            "mlbench: pytest-benchmark is off under pytest-xdist; for its file: "
            f"mlbench export {shlex.quote(str(self._session.run_file))} --format pytest-benchmark -o FILE"
        )


def _fixtures(item: pytest.Item) -> list[str]:
    names: list[str] = getattr(item, "fixturenames", [])
    return names


def _replay(item: pytest.Function, found: Row) -> None:
    """Give the readings to pytest-benchmark as if it had timed them."""
    calls = found.iterations if found.iterations * len(found.rounds_s) <= _MOST_CALLS else 1
    own = item.get_closest_marker(_FIXTURE)
    options = {**(own.kwargs if own is not None else {}), "timer": _timer(found.rounds_s, found.iterations // calls)}
    item.add_marker(pytest.mark.benchmark(**options), append=False)
    benchmark = item.stash[_REQUEST].getfixturevalue(_FIXTURE)
    if not type(benchmark).__module__.startswith("pytest_benchmark."):
        return  # another plugin's fixture of that name would time the function that does nothing
    benchmark.group = benchmark.group or found.group
    benchmark.params = dict(found.params)
    benchmark.extra_info.update(found.extra_info)
    benchmark.cprofile = None
    benchmark.pedantic(lambda: None, rounds=len(found.rounds_s), iterations=calls)


def _timer(rounds_s: Sequence[float], divisor: int) -> Callable[[], float]:
    """Return a clock that is read before and after each round: 0, then what the round took."""
    readings = iter([value for seconds in rounds_s for value in (0.0, seconds / divisor)])

    def mlbench_samples() -> float:
        return next(readings)

    return mlbench_samples
