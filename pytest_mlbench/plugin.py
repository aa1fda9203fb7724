"""pytest's hooks. Without --mlbench (or --mlbench-list) only the options are declared; nothing else is imported."""

from __future__ import annotations

import pytest

from pytest_mlbench import options


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare the options."""
    options.add(parser)


def pytest_addhooks(pluginmanager: pytest.PytestPluginManager) -> None:
    """Declare our hooks always: a conftest.py that joins them must load without --mlbench too."""
    from pytest_mlbench import hookspecs

    pluginmanager.add_hookspecs(hookspecs)


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Join the session when it was asked for. First, so that xdist sees that --mlbench-list runs nothing."""
    config.addinivalue_line(
        "markers",
        "mlbench(**benchmark): a benchmark of a Python suite; keys as in a suite's [[benchmark]] table",
    )
    if _asked(config):
        from pytest_mlbench import start

        start.join(config)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip benchmarks that pytest collects itself (bench_*.py in `python_files`) when they are not to run."""
    if _asked(config):
        return
    for item in items:
        if item.get_closest_marker("mlbench") is not None:
            item.add_marker(pytest.mark.skip(reason="a benchmark: give --mlbench to run it"))


def _asked(config: pytest.Config) -> bool:
    return bool(config.getoption("mlbench") or config.getoption("mlbench_list"))
