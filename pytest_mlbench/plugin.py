"""pytest's hooks. Without --mlbench (or --mlbench-list) only the options are declared; nothing else is imported."""

from __future__ import annotations

import pytest

from pytest_mlbench import options


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare the options."""
    options.add(parser)


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Join the session when it was asked for. First, so that xdist sees that --mlbench-list runs nothing."""
    config.addinivalue_line(
        "markers", "mlbench(**benchmark): a benchmark of a Python suite; keys as in a suite's [[benchmark]] table"
    )
    if config.getoption("mlbench") or config.getoption("mlbench_list"):
        from pytest_mlbench import session

        session.join(config)
