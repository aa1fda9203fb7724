"""Environments made from lock files: by the real venv and pip, from wheels made here, without a network."""

from __future__ import annotations

import base64
import hashlib
import os
import shlex
import subprocess
import sys
import zipfile
from pathlib import Path

import execnet
import pytest

from pytest_mlbench import assets, base_environment
from pytest_mlbench.base_environment import environment_of
from pytest_mlbench.errors import BaseError


def wheel(folder, name, version, source="__version__ = {version!r}\n", requires=()):
    """Write a wheel of one module and return its path."""
    files = {
        f"{name}/__init__.py": source.replace("{version!r}", repr(version)),
        f"{name}-{version}.dist-info/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        + "".join(f"Requires-Dist: {other}\n" for other in requires),
        f"{name}-{version}.dist-info/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    path = folder / f"{name}-{version}-py3-none-any.whl"
    folder.mkdir(exist_ok=True)
    lines = []
    with zipfile.ZipFile(path, "w") as archive:
        for file, text in files.items():
            archive.writestr(file, text)
            digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
            lines.append(f"{file},sha256={digest},{len(text)}\n")
        lines.append(f"{name}-{version}.dist-info/RECORD,,\n")
        archive.writestr(f"{name}-{version}.dist-info/RECORD", "".join(lines))
    return path


@pytest.fixture
def base(tmp_path, monkeypatch):
    """Return a base's files with a folder of wheels; pip sees nothing of this machine's settings."""
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("MLBENCH_CACHE", str(tmp_path / "the cache"))
    tree = tmp_path / "the tree"
    tree.mkdir()
    wheel(tree / "wheels", "numpy", "2.0")
    wheel(tree / "wheels", "framework", "1.0", requires=("numpy",))
    wheel(tree / "wheels", "framework", "1.1", requires=("numpy",))
    return tree


def lock(base, *lines, name="requirements.lock"):
    """Write a lock file that takes everything from the folder of wheels."""
    (base / name).write_text("\n".join(("--no-index", "--find-links wheels", *lines, "")), encoding="utf-8")
    return Path(name)


def refusal(base, file):
    with pytest.raises(BaseError) as caught:
        environment_of(base, file)
    return str(caught.value)


def said(python, code):
    done = subprocess.run([python, "-I", "-c", code], capture_output=True, text=True, check=True, timeout=60)
    return done.stdout.strip()


INSTEAD = "or make the environment by hand and name its interpreter with --mlbench-base-python PATH"
VERSION = "import framework; print(framework.__version__)"


# --- an environment is made ---------------------------------------------------------------------------------


def test_what_the_lock_names_is_installed_once(base, tmp_path, monkeypatch):
    (tmp_path / "candidate").mkdir()
    (tmp_path / "candidate" / "pip.py").write_text("raise SystemExit('not the environment's pip')", encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "candidate"))
    monkeypatch.setenv("PIP_TARGET", str(tmp_path / "elsewhere"))
    (base / "random.py").write_text("raise SystemExit('the base shadows a standard module')", encoding="utf-8")
    python = environment_of(base, lock(base, "framework==1.0", "numpy==2.0"))
    assert python.is_relative_to(tmp_path / "the cache" / "environments")
    assert said(python, VERSION) == "1.0"
    assert said(python, "import sys; print(sys.version_info[:3])") == str(sys.version_info[:3])
    assert said(python, "import sys; print(sys.prefix)") == str(python.parent.parent.resolve())
    assert said(python, "import importlib.util; print(importlib.util.find_spec('pytest_mlbench'))") == "None"
    assert not (tmp_path / "elsewhere").exists()
    made = python.parent.parent.stat().st_ctime_ns, (python.parents[2] / "install.log").stat().st_mtime_ns
    assert environment_of(base, lock(base, "framework==1.0", "numpy==2.0")) == python
    assert (python.parent.parent.stat().st_ctime_ns, (python.parents[2] / "install.log").stat().st_mtime_ns) == made
    assert sorted(path.name for path in python.parents[2].iterdir()) == [".lock", "environment", "install.log"]
    _is_driven_by_execnet(python)
    _is_made_again_when_its_python_is_gone(base, python)


def _is_driven_by_execnet(python):
    """An agent needs nothing installed there besides numpy: execnet sends itself."""
    group = execnet.Group(execmodel="thread")
    try:
        channel = group.makegateway(f"popen//python={shlex.quote(str(python))}").remote_exec(
            "import numpy; channel.send(numpy.__version__)"
        )
        assert channel.receive(30) == "2.0"
    finally:
        group.terminate(timeout=5)


def _is_made_again_when_its_python_is_gone(base, python):
    python.unlink()
    python.symlink_to(base / "removed" / "python")
    left = python.parents[2] / "1.part"
    left.mkdir()  # of a killed session
    assert environment_of(base, Path("requirements.lock")) == python
    assert said(python, VERSION) == "1.0"
    assert not left.exists()


def test_another_lock_is_another_environment_and_hashes_are_honoured(base):
    first = wheel(base / "wheels", "framework", "1.2")  # needs nothing, and is the newest
    good = hashlib.sha256(first.read_bytes()).hexdigest()
    numpy = hashlib.sha256((base / "wheels" / "numpy-2.0-py3-none-any.whl").read_bytes()).hexdigest()
    lines = (f"framework==1.2 --hash=sha256:{good}", f"numpy==2.0 --hash=sha256:{numpy}")
    python = environment_of(base, lock(base, *lines))
    assert said(python, VERSION) == "1.2"
    message = refusal(base, lock(base, f"framework==1.2 --hash=sha256:{'0' * 64}", lines[1]))
    file = base / "requirements.lock"
    assert message.startswith(f"cannot install {file} for the base: status 1; its output ends with\n")
    assert "THESE PACKAGES DO NOT MATCH THE HASHES" in message
    assert f"Got        {good}" in message
    assert said(python, VERSION) == "1.2"


def test_sessions_that_start_together_make_it_once(base):
    file = lock(base, "framework", "numpy")
    code = "import sys; from pathlib import Path; from pytest_mlbench.base_environment import environment_of\n"
    code += "print(environment_of(Path(sys.argv[1]), Path(sys.argv[2])))"
    command = [sys.executable, "-c", code, str(base), str(file)]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    ended = [process.communicate(timeout=300) for process in started]
    python = environment_of(base, file)
    assert ended == [(f"{python}\n", "")] * 2
    log = (python.parents[2] / "install.log").read_text(encoding="utf-8")
    assert log.count("Successfully installed") == 1
    assert said(python, VERSION) == "1.1"


# --- which environment --------------------------------------------------------------------------------------


@pytest.fixture
def keys(monkeypatch):
    """Return a function that gives the folder an environment would be made in; nothing is installed."""

    class Asked(Exception):
        pass

    def stop(home, *_):
        raise Asked(home.parent.name)

    monkeypatch.setattr(base_environment, "_make", stop)

    def key(tree, file):
        with pytest.raises(Asked) as caught:
            environment_of(tree, file)
        return str(caught.value)

    return key


def written(tree, name, text):
    path = tree / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return Path(name)


def test_the_key_is_of_the_lock_and_the_python(base, keys, monkeypatch):
    first = keys(base, written(base, "a.txt", "numpy==2.0\n"))
    assert keys(base, written(base, "b.txt", "numpy==2.0\n")) == first
    assert keys(base, base / "a.txt") == first
    assert keys(base, written(base, "a.txt", "numpy==2.1\n")) != first
    written(base, "a.txt", "numpy==2.0\n")
    monkeypatch.setattr(base_environment.platform, "python_version", lambda: "3.99.0")
    assert keys(base, Path("a.txt")) != first


@pytest.mark.parametrize(
    "line", ["-r sub/more.txt", "-c sub/more.txt", "--requirement=sub/more.txt", "--constraint sub/more.txt"]
)
def test_the_key_is_of_included_files_too(base, keys, line):
    written(base, "sub/more.txt", "numpy==2.0\n-r ../a.txt\n-r ../sub/more.txt\n")  # in circles
    file = written(base, "a.txt", f"framework\n{line}\n")
    first = keys(base, file)
    written(base, "sub/more.txt", "numpy==2.1\n")
    assert keys(base, file) != first


@pytest.mark.parametrize(
    ("line", "local"),
    [
        ("numpy==2.0", False),
        ("numpy==2.0 --hash=sha256:00", False),
        ("framework @ https://example.org/framework", False),
        ("-e .", True),
        ("./wheels/numpy-2.0-py3-none-any.whl", True),
        ("wheels/numpy-2.0-py3-none-any.whl", True),
        ("framework @ file:///framework", True),
        ("framework @ ../framework", True),
        ("--find-links wheels", True),
    ],
)
def test_a_lock_that_names_files_of_the_tree_belongs_to_that_tree(base, tmp_path, keys, line, local):
    first = keys(base, written(base, "a.txt", f"{line}\n"))
    assert (keys(tmp_path / "other", written(tmp_path / "other", "a.txt", f"{line}\n")) != first) == local


# --- what cannot be -----------------------------------------------------------------------------------------


def test_a_package_out_of_reach(base):
    message = refusal(base, lock(base, "framework==9.9"))
    log = next((base.parent / "the cache").rglob("install.log"))
    assert "No matching distribution found for framework==9.9" in message
    assert f"all of it: {log}\n" in message
    assert "No matching distribution found for framework==9.9" in log.read_text(encoding="utf-8")
    version = ".".join(map(str, sys.version_info[:3]))
    assert message.endswith(
        f"correct the lock file for Python {version}, see that its packages can be reached from here "
        f"(without a network: the lines --no-index and --find-links FOLDER in it), {INSTEAD}"
    )
    assert sorted(path.name for path in log.parent.iterdir()) == [".lock", "install.log"]


def test_without_numpy_nothing_can_be_measured(base):
    wheel(base / "wheels", "framework", "1.3")
    message = refusal(base, lock(base, "framework==1.3"))
    file = base / "requirements.lock"
    assert message.startswith(f"the environment of {file} has no numpy that works, which measuring needs (")
    assert "No module named 'numpy'" in message
    assert message.endswith(f"add numpy to the lock file, {INSTEAD}")
    assert not list((base.parent / "the cache").rglob("environment"))


def test_an_installation_that_never_ends_is_ended(base, monkeypatch):
    """A package whose build sleeps; the build is a process of pip's."""
    slow = base / "slow"
    slow.mkdir()
    project = '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
    (slow / "pyproject.toml").write_text(project, encoding="utf-8")
    sleep = "import os, time\nopen('pid', 'w').write(str(os.getpid()))\ntime.sleep(600)\n"
    (slow / "backend.py").write_text(sleep, encoding="utf-8")
    monkeypatch.setattr(base_environment, "INSTALL_S", 8.0)
    message = refusal(base, lock(base, "./slow"))
    assert f"cannot install {base / 'requirements.lock'} for the base: it did not end within 8 s" in message
    assert not list((base.parent / "the cache").rglob("*.part"))
    if (slow / "pid").exists() and Path("/proc/self").is_dir():
        status = Path("/proc") / (slow / "pid").read_text(encoding="ascii") / "stat"
        assert not status.exists() or status.read_text(encoding="ascii").rpartition(")")[2].split()[0] == "Z"


def test_a_missing_lock(base):
    assert refusal(base, Path("requirements.lock")) == (
        f"the base has no lock file {base / 'requirements.lock'}; "
        f"name one that was in its revision (or a full path), {INSTEAD}"
    )


def test_a_lock_that_is_no_text(base):
    (base / "requirements.lock").write_bytes(b"numpy\xff\xfe")
    message = refusal(base, Path("requirements.lock"))
    assert message.startswith(f"cannot read the base's lock file {base / 'requirements.lock'} ('utf-8' codec")
    assert message.endswith(f"; expected text in pip's requirements format, {INSTEAD}")
    assert f"cannot read the base's lock file {base / 'wheels'} (" in refusal(base, Path("wheels"))


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("uv.lock", "write one with `uv export --frozen --format requirements-txt > FILE` in {tree}"),
        ("poetry.lock", "write one with `poetry export > FILE` in {tree}"),
        ("pdm.lock", "write one with `pdm export --format requirements > FILE` in {tree}"),
        ("Pipfile.lock", "write one with `pipenv requirements > FILE` in {tree}"),
        ("pyproject.toml", "write one with `pip freeze > FILE`"),
        ("environment.yml", "write one with `pip freeze > FILE`"),
    ],
)
def test_locks_of_other_tools(base, name, remedy):
    assert refusal(base, written(base, name, "")) == (
        f"{base / name} is not in pip's requirements format; {remedy.format(tree=base)} and give the full path of "
        f"FILE, {INSTEAD}"
    )


def test_a_cache_that_cannot_be_written(base, tmp_path):
    (tmp_path / "the cache").write_text("", encoding="utf-8")
    message = refusal(base, lock(base, "numpy"))
    assert message.startswith(f"cannot write {tmp_path / 'the cache' / 'environments'}{os.sep}")
    assert "where the base's environment is put; set MLBENCH_CACHE to a folder that you may write to" in message


def test_a_python_that_cannot_make_environments(base, tmp_path, monkeypatch):
    """Debian's, without its package python3-venv, ends like this."""
    broken = tmp_path / "python"
    broken.write_text("#!/bin/sh\necho 'not created successfully because ensurepip is not available'\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(broken))
    message = refusal(base, lock(base, "numpy"))
    assert message.startswith("cannot make an environment for the base: status 1; its output ends with\n  not created")
    assert "install what `python -m venv` needs (on Debian and Ubuntu the package python3-venv), or make" in message


def test_an_environment_that_does_not_answer_is_not_replaced(base, tmp_path, monkeypatch):
    """It may be whole and in use, on a machine too busy to say so."""
    made = []
    monkeypatch.setattr(base_environment, "_make", lambda home, *_: made.append(home))
    file = lock(base, "numpy")
    python = environment_of(base, file)
    python.parent.mkdir(parents=True)
    python.write_text("#!/bin/sh\nexec sleep 600\n", encoding="ascii")
    python.chmod(0o755)
    monkeypatch.setattr(base_environment, "ANSWER_S", 0.2)
    assert refusal(base, file) == (
        f"{python} did not import numpy within 0.2 s; try again on a less busy machine, or delete {python.parents[2]}"
    )
    assert len(made) == 1


def test_another_session_that_does_not_end(base, monkeypatch):
    file = lock(base, "numpy")
    monkeypatch.setattr(base_environment, "_make", lambda *_: None)
    folder = environment_of(base, file).parents[2]
    for name in ("MAKE_S", "INSTALL_S", "ANSWER_S"):
        monkeypatch.setattr(base_environment, name, 0.02)
    with assets.cache_lock(folder):
        message = refusal(base, file)
    assert message == (
        f"another session still makes the base's environment after 0.06 s (it holds {folder}/.lock); end it, {INSTEAD}"
    )


def test_a_place_that_cannot_be_written(base, monkeypatch):
    file = lock(base, "numpy")
    with monkeypatch.context() as patch:
        patch.setattr(base_environment, "_make", lambda *_: None)
        folder = environment_of(base, file).parents[2]
    (folder / "install.log").mkdir()  # a folder where a file should be stops root, too
    assert refusal(base, file) == (
        f"cannot write the base's environment to {folder} (Is a directory); set MLBENCH_CACHE to a folder with room, "
        f"{INSTEAD}"
    )
