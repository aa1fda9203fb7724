"""Make the Python environment that the base's lock file describes, once, and keep it in the cache."""

from __future__ import annotations

import contextlib
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from filelock import Timeout

from pytest_mlbench import assets, commands
from pytest_mlbench.errors import BaseError

MAKE_S = 180.0
INSTALL_S = 3600.0
ANSWER_S = 60.0
_SHOWN_LINES = 15
_INSTEAD = "or make the environment by hand and name its interpreter with --mlbench-base-python PATH"

# They would put packages elsewhere, or packages from elsewhere (the candidate's) into the environment.
_NOT_INHERITED = frozenset(
    {
        "PYTHONPATH",
        "PYTHONHOME",
        "PYTHONUSERBASE",
        "VIRTUAL_ENV",
        "PIP_DRY_RUN",
        "PIP_PREFIX",
        "PIP_PYTHON",
        "PIP_ROOT",
        "PIP_TARGET",
        "PIP_USER",
    }
)

_EXPORTS = {
    "uv.lock": "uv export --frozen --format requirements-txt",
    "poetry.lock": "poetry export",
    "pdm.lock": "pdm export --format requirements",
    "Pipfile.lock": "pipenv requirements",
}
_OTHER_FORMATS = (".toml", ".json", ".yaml", ".yml")
_INCLUDES = re.compile(r"^\s*(?:-r|-c|--requirement|--constraint)(?:\s+|=)?(\S+)", re.MULTILINE)
_LOCAL = re.compile(
    r"^\s*(?:-e|--editable|-f|--find-links|\.{0,2}/)|file:|@\s*\.{0,2}/|\.(?:whl|zip|tar\.gz)\b", re.MULTILINE
)


def environment_of(tree: Path, lock: Path) -> Path:
    """Return the interpreter of an environment with the packages of `lock`, a file of pip's requirements format.

    `lock` is a path in `tree`, the base's files, unless it is absolute. The environment is made by this Python and
    kept by the hash of the lock file (with those it includes) and the version of Python. Raises BaseError when it
    cannot be made or lacks numpy, which the agent needs.
    """
    file = tree / lock
    texts = dict(_texts(file))
    local = str(tree) if any(_LOCAL.search(text) for text in texts.values()) else ""
    python = (platform.python_implementation(), platform.python_version(), platform.machine())
    key = assets.key_of("environment", *texts.values(), local, *python)
    folder = assets.cache_dir().absolute() / "environments" / key
    with _locked(folder):
        home = folder / "environment"
        if _complaint(home) is not None:  # not made yet, or by a Python that is gone
            _make(home, file, tree)
        return _interpreter(home)


def _texts(file: Path, seen: frozenset[Path] = frozenset()) -> Iterator[tuple[Path, str]]:
    """Yield a requirements file and the files it includes, each once."""
    name = file.name
    if name in _EXPORTS or file.suffix in _OTHER_FORMATS:
        export = _EXPORTS.get(name)
        how = f"write one with `{export} > FILE` in {file.parent}" if export else "write one with `pip freeze > FILE`"
        message = f"{file} is not in pip's requirements format; {how} and give the full path of FILE"
        raise BaseError(f"{message}, {_INSTEAD}")
    try:
        text = file.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        message = f"the base has no lock file {file}; name one that was in its revision (or a full path)"
        raise BaseError(f"{message}, {_INSTEAD}") from None
    except (OSError, UnicodeDecodeError) as error:
        message = f"cannot read the base's lock file {file} ({error}); expected text in pip's requirements format"
        raise BaseError(f"{message}, {_INSTEAD}") from None
    yield file, text
    for include in _INCLUDES.findall(text):
        other = (file.parent / include).resolve()
        if "://" not in include and other.is_file() and other not in seen | {file.resolve()}:
            yield from _texts(other, seen | {file.resolve()})


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    longest = MAKE_S + INSTALL_S + ANSWER_S
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = assets.cache_lock(folder)
        lock.acquire(timeout=longest)
    except Timeout:
        message = f"another session still makes the base's environment after {longest:g} s (it holds {folder}/.lock)"
        raise BaseError(f"{message}; end it, {_INSTEAD}") from None
    except OSError as error:
        message = f"cannot write {folder} ({error.strerror or error}), where the base's environment is put"
        raise BaseError(f"{message}; set MLBENCH_CACHE to a folder that you may write to, {_INSTEAD}") from None
    try:
        yield
    finally:
        lock.release()


def _interpreter(home: Path) -> Path:
    return home / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")


def _complaint(home: Path) -> str | None:
    """Say why the environment cannot serve an agent, or None when it can.

    Only numpy is needed: execnet sends its own source, and the agent's, to the interpreter it starts. Raises
    BaseError when there is no answer in time: the environment may be whole, and in use.
    """
    code = "import sys; import numpy; sys.exit(sys.prefix == sys.base_prefix)"
    try:
        done = commands.run([_interpreter(home), "-I", "-c", code], deadline_s=ANSWER_S)
    except OSError as error:
        return str(error)
    except subprocess.TimeoutExpired:
        message = f"{_interpreter(home)} did not import numpy within {ANSWER_S:g} s; try again on a less busy machine"
        raise BaseError(f"{message}, or delete {home.parent}") from None
    return None if done.code == 0 else commands.last_lines(done.err, 3).strip() or f"status {done.code}"


def _make(home: Path, file: Path, tree: Path) -> None:
    """Make the environment beside its place and move it there when it is whole. Only the lock's holder calls this."""
    folder = home.parent
    for old in folder.glob("*.part"):  # of a killed session
        shutil.rmtree(old, ignore_errors=True)
    part = folder / f"{os.getpid()}.part"
    log = folder / "install.log"
    try:
        with log.open("wb"):
            pass
        make: list[str | Path] = [sys.executable, "-m", "venv", part]
        pip: list[str | Path] = [_interpreter(part), "-X", "utf8", "-m", "pip", "install", "--no-input"]
        _step("make an environment", make, MAKE_S, log, folder)
        _step(f"install {file}", [*pip, "--progress-bar", "off", "--requirement", file], INSTALL_S, log, tree)
        complaint = _complaint(part)
        if complaint is not None:
            message = f"the environment of {file} has no numpy that works, which measuring needs ({complaint})"
            raise BaseError(f"{message}; add numpy to the lock file, {_INSTEAD}")
        shutil.rmtree(home, ignore_errors=True)
        part.replace(home)
    except OSError as error:
        message = f"cannot write the base's environment to {folder} ({error.strerror or error})"
        raise BaseError(f"{message}; set MLBENCH_CACHE to a folder with room, {_INSTEAD}") from None
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _step(what: str, command: list[str | Path], deadline_s: float, log: Path, folder: Path) -> None:
    """Run one step in `folder`, where pip looks for a requirement such as ./package; its output goes to the log."""
    environment = {name: text for name, text in os.environ.items() if name not in _NOT_INHERITED}
    environment |= {"PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_COLOR": "1"}
    try:
        with log.open("ab") as stream:
            done = commands.run(command, deadline_s=deadline_s, environment=environment, folder=folder, log=stream)
    except subprocess.TimeoutExpired:
        ended = f"it did not end within {deadline_s:g} s"
    else:
        if done.code == 0:
            return
        ended = f"status {done.code}"
    printed = commands.last_lines(log.read_text(encoding="utf-8", errors="replace"), _SHOWN_LINES)
    remedy = (
        f"correct the lock file for Python {platform.python_version()}, see that its packages can be reached from here "
        "(without a network: the lines --no-index and --find-links FOLDER in it)"
    )
    if "ensurepip" in printed:
        remedy = "install what `python -m venv` needs (on Debian and Ubuntu the package python3-venv)"
    message = f"cannot {what} for the base: {ended}; its output ends with\n{printed}\nall of it: {log}"
    raise BaseError(f"{message}\n{remedy}, {_INSTEAD}")
