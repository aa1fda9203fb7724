"""The package that `mlbench new device` writes: built, found by its entry point, and green before it is changed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, "openpty"), reason="its simulated board is a pseudo-terminal")


def run(*words: str, folder: Path, site: Path | None = None) -> subprocess.CompletedProcess[str]:
    env = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "MLBENCH_"))}
    env |= {"COLUMNS": "200"} | ({"PYTHONPATH": str(site)} if site else {})
    command = [sys.executable, "-m", *words]
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=300, check=False)


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a package as a vendor gets it."""
    folder = tmp_path_factory.mktemp("vendor")
    done = run("pytest_mlbench", "new", "device", "acme_m4", folder=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "pytest-mlbench-acme-m4"


@pytest.fixture(scope="module")
def site(package: Path, tmp_path_factory: pytest.TempPathFactory, require) -> Path:
    """Return a folder with what the package's wheel installs; nothing is fetched, nor changed in this environment."""
    require("hatchling")
    folder = tmp_path_factory.mktemp("built")
    offline = ("--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check")
    done = run("pip", "wheel", "--quiet", *offline, "--wheel-dir", str(folder), ".", folder=package)
    assert done.returncode == 0, done.stdout + done.stderr
    (found,) = folder.glob("pytest_mlbench_acme_m4-0.1.0-*.whl")
    with zipfile.ZipFile(found) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


@pytest.fixture(scope="module")
def tests(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the package's tests and not its sources: what is tested is what was installed."""
    folder = tmp_path_factory.mktemp("apart")
    shutil.copytree(package / "tests", folder / "tests")
    shutil.copy(package / "pyproject.toml", folder)
    return folder


def test_its_own_tests_pass_at_once(tests, site):
    done = run("pytest", "-p", "no:cacheprovider", "-q", folder=tests, site=site)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout
    assert " failed" not in done.stdout
    skipped = [line for line in done.stdout.splitlines() if line.startswith("SKIPPED")]
    assert [line for line in skipped if "is none of its levels" not in line] == []


def test_its_type_can_be_named_in_a_lab_file(site, tmp_path):
    lab = '[device.bench]\ntype = "acme_m4"\nport = "/dev/no-such-port"\nprobe = ["acme_m4_probe"]\n'
    (tmp_path / "lab.toml").write_text(f"mlbench = 1\n{lab}", encoding="utf-8")
    done = run("pytest_mlbench", "devices", "--lab", "lab.toml", "--format", "json", folder=tmp_path, site=site)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout)
    (row,) = [row for row in found["devices"] if row["name"] == "bench"]
    assert row["type"] == "acme_m4"
    assert row["verified"] == "own simulator"
    assert row["reason"].startswith("/dev/no-such-port does not exist: plug the board in")


def test_a_transport_that_breaks_the_contract_is_found(tests, site, tmp_path):
    """What is green shows something only when it can be red."""
    broken = tmp_path / "site"
    shutil.copytree(site, broken)
    transport = broken / "pytest_mlbench_acme_m4" / "acme_m4_transport.py"
    text, closed = transport.read_text(encoding="utf-8"), "os.close(self._line)\n            self._line = -1\n"
    assert text.count(closed) == 1
    transport.write_text(text.replace(closed, "os.close(self._line)\n"), encoding="utf-8")
    words = ("pytest", "-p", "no:cacheprovider", "-q", "-k", "closing_twice", "tests/test_contract.py")
    done = run(*words, folder=tests, site=broken)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "1 failed" in done.stdout
    assert "Bad file descriptor" in done.stdout
