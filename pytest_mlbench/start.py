"""Join a pytest session that was asked to measure: register its hooks and fixtures."""

from __future__ import annotations

import sys

import pytest

from pytest_mlbench import benchmark_bridge, collect, completeness, fixtures, gating, listing
from pytest_mlbench.errors import MlbenchError
from pytest_mlbench.recording import Recording
from pytest_mlbench.session import KEY, MlbenchSession


def join(config: pytest.Config) -> None:
    """Register everything; raises pytest.UsageError for options that cannot be meant."""
    try:
        session = MlbenchSession(config)
    except MlbenchError as error:
        raise pytest.UsageError(str(error)) from None
    config.stash[KEY] = session
    config.pluginmanager.register(collect, "mlbench-collect")
    config.pluginmanager.register(Recording(session), "mlbench-recording")
    config.pluginmanager.register(fixtures, "mlbench-fixtures")
    completeness.join(config, session)
    gating.join(config, session)
    benchmark_bridge.join(config, session)
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
