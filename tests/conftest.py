"""What all tests share."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

pytest_plugins = ["pytester"]

# Tests run real pytest sessions. With this project's own tests under xdist, those would take themselves for workers.
for _name in [name for name in os.environ if name.startswith("PYTEST_XDIST_")]:
    del os.environ[_name]


@pytest.fixture(scope="session")
def require() -> Callable[[str], None]:
    """Return a function that skips the test when a module or tool is missing, and fails it where all must be there.

    Continuous integration sets MLBENCH_REQUIRE_ALL=1, so that a broken installation cannot pass as a skip.
    """

    def need(name: str) -> None:
        if shutil.which(name) is not None or importlib.util.find_spec(name) is not None:
            return
        if os.environ.get("MLBENCH_REQUIRE_ALL") == "1":
            pytest.fail(f"{name} is missing, and MLBENCH_REQUIRE_ALL=1 demands it", pytrace=False)
        pytest.skip(f"{name} is not installed")

    return need


@pytest.fixture(scope="session")
def tflite_python(pytestconfig: pytest.Config) -> Path:
    """Return the interpreter of an environment with tflite-runtime, which needs a numpy that the rest does not.

    MLBENCH_TFLITE_PYTHON names it; else it is the one that `make .venv-tflite/.made` makes.
    """
    default = pytestconfig.rootpath / ".venv-tflite" / "bin" / "python"
    path = Path(os.environ.get("MLBENCH_TFLITE_PYTHON") or default)
    if not path.is_file():
        missing = f"{path} does not exist: make .venv-tflite/.made, or set MLBENCH_TFLITE_PYTHON"
        if os.environ.get("MLBENCH_REQUIRE_ALL") == "1":
            pytest.fail(f"{missing}; MLBENCH_REQUIRE_ALL=1 demands it", pytrace=False)
        pytest.skip(missing)
    return path


@pytest.fixture(scope="session")
def postgres(require: Callable[[str], None]) -> Iterator[str]:
    """Return the URL of a real PostgreSQL server, whose user may make databases.

    MLBENCH_TEST_POSTGRES names one that runs; else one is started, and stopped at the end of the session.
    """
    require("psycopg")
    given = os.environ.get("MLBENCH_TEST_POSTGRES")
    if given:
        yield given
        return
    spec = importlib.util.spec_from_file_location("postgres_server", Path(__file__).with_name("postgres_server.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    missing = module.missing()
    if missing is not None:
        if os.environ.get("MLBENCH_REQUIRE_ALL") == "1":
            pytest.fail(f"{missing}; MLBENCH_REQUIRE_ALL=1 demands it", pytrace=False)
        pytest.skip(missing)
    with module.server() as url:
        yield url


@pytest.fixture
def postgres_database(postgres: str) -> Iterator[str]:
    """Return the URL of an empty database of its own."""
    import psycopg
    from sqlalchemy import make_url

    name = f"mlbench_{uuid.uuid4().hex}"
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    yield make_url(postgres).set(database=name).render_as_string(hide_password=False)
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def ssh_server(tmp_path: Path) -> Iterator[Any]:
    """Return a real sshd on this machine's loopback (ssh_server.Server), as a board; ended with the test."""
    module = beside_tests("ssh_server")
    missing = module.missing()
    if missing is not None:
        if os.environ.get("MLBENCH_REQUIRE_ALL") == "1":
            pytest.fail(f"{missing}; MLBENCH_REQUIRE_ALL=1 demands it", pytrace=False)
        pytest.skip(missing)
    with module.server(tmp_path / "sshd") as server:
        yield server


def beside_tests(name: str) -> ModuleType:
    """Return a module that stands beside this file."""
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
        assert spec is not None
        assert spec.loader is not None
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


@pytest.fixture(params=["sqlite", "postgresql"])
def history_url(request: pytest.FixtureRequest, tmp_path: Path, require: Callable[[str], None]) -> str:
    """Return the URL of a history that does not exist yet, in each of the databases."""
    require("sqlalchemy")
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'history.db'}"
    url: str = request.getfixturevalue("postgres_database")
    return url
