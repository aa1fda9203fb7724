"""What all tests share."""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

pytest_plugins = ["pytester"]


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
