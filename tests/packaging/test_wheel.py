"""The installed package: what the wheel holds, and that nothing of the sources is needed beside it."""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import pytest_mlbench

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the wheel under test: the one ci/test-wheel.sh built and installed, or one built here."""
    given = os.environ.get("MLBENCH_WHEEL")
    if given:
        return Path(given)
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(ROOT)]
    subprocess.run(command, check=True, timeout=300)
    return next(folder.glob("*.whl"))


def test_the_wheel_holds_the_package_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert {name.split("/")[0].split("-")[0] for name in names} == {"pytest_mlbench"}
    inside = {name for name in names if not name.endswith("/")}
    assert {"pytest_mlbench/plugin.py", "pytest_mlbench/py.typed", "pytest_mlbench/agent/bootstrap.py"} <= inside
    assert "pytest_mlbench/schemas/run-1.schema.json" in inside
    assert "pytest_mlbench/hardware/boards/raspberry-pi-5.toml" in inside
    allowed = (".py", ".json", "py.typed", "METADATA", "WHEEL", "RECORD", "entry_points.txt", "LICENSE")
    others = [name for name in inside if not name.endswith(allowed)]
    data = ("pytest_mlbench/hardware/boards/", "pytest_mlbench/template/")
    assert [name for name in others if not name.startswith(data)] == []


def test_the_wheel_holds_the_template_of_a_package_and_nothing_that_tools_left_in_it(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if name.startswith("pytest_mlbench/template/")}
    assert "pytest_mlbench/template/pyproject.toml" in names
    assert "pytest_mlbench/template/pytest_mlbench_template_board/devices.py" in names
    assert [name for name in names if not name.endswith((".py", ".md", ".toml"))] == []


def test_every_entry_point_loads():
    groups = ("pytest11", "console_scripts", *(f"mlbench.{word}" for word in _groups()))
    entries = [entry for group in groups for entry in importlib.metadata.entry_points(group=group)]
    ours = [entry for entry in entries if entry.value.startswith("pytest_mlbench")]
    assert len(ours) >= 15
    for entry in ours:
        assert entry.load() is not None


def _groups():
    return ("frameworks", "devices", "scenarios", "metrics")


def test_the_version_is_the_packages():
    assert importlib.metadata.version("pytest-mlbench") == pytest_mlbench.__version__


def test_the_command_and_the_module_say_the_version():
    code = "from pytest_mlbench.cli import main; main()"
    for command in (["-m", "pytest_mlbench", "--version"], ["-c", code, "--version"]):
        done = subprocess.run([sys.executable, *command], capture_output=True, text=True, check=False, timeout=60)
        assert done.stdout.strip() == f"pytest-mlbench {pytest_mlbench.__version__}"


@pytest.mark.skipif("MLBENCH_WHEEL" not in os.environ, reason="only ci/test-wheel.sh installs the wheel")
def test_the_tests_run_against_the_installed_wheel():
    assert "site-packages" in pytest_mlbench.__file__


def test_the_descriptions_of_boards_are_found_where_the_package_is(tmp_path):
    code = "from pytest_mlbench.boards import Boards, folders; print(Boards(folders(None))['raspberry-pi-5'].title)"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "Raspberry Pi 5"


def test_importing_the_plugin_imports_nothing_heavy():
    code = (
        "import sys, pytest_mlbench.plugin\n"
        "heavy = ['numpy', 'execnet', 'filelock', 'onnxruntime', 'tvm', 'openvino', 'ai_edge_litert', 'onnx']\n"
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"
