"""`mlbench new device NAME`: a vendor's package from the template, which passes its own tests before it is changed."""

from __future__ import annotations

import argparse
import re
import shlex
import shutil
from collections.abc import Mapping
from pathlib import Path

from pytest_mlbench.errors import MlbenchError

NAME = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
MOST_CHARACTERS = 40
TEMPLATE = "template"
_IN_CHECKOUT = ("fixtures", "template")
_NOT_COPIED = ("__pycache__", ".pytest_cache", ".ruff_cache", ".mypy_cache", "dist", "build")


def add_new(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register `new`; the parsed arguments hold `run`, a function of them that returns the exit code."""
    parser = subparsers.add_parser(
        "new",
        help="begin a package that adds a device",
        description="Write a package that adds a device, with a simulated board and tests that pass at once.",
    )
    parser.add_argument("kind", choices=("device",), metavar="device", help="what the package adds")
    parser.add_argument("name", metavar="NAME", help="the type that lab files will name, such as acme_m4")
    parser.add_argument("--folder", type=Path, metavar="DIR", help="where (default: pytest-mlbench-NAME)")
    parser.set_defaults(run=run_new)


def run_new(arguments: argparse.Namespace) -> int:
    """Write the package and say what comes next."""
    from pytest_mlbench.registry import names  # here, since it looks through every installed package

    folder = write_package(arguments.name, arguments.folder, template_folder(), names("devices"))
    print(f"wrote {folder}\nnext:\n  pip install -e {shlex.quote(str(folder))}")
    print(f"  cd {shlex.quote(str(folder))} && python -m pytest")
    print(f"The tests pass on a simulated board; {folder / 'README.md'} says what to replace.")
    return 0


def template_folder(package: Path | None = None) -> Path:
    """Return the template's folder, in the wheel or in a checkout; MlbenchError when the installation has none.

    `package` is where pytest_mlbench lies, by default this one.
    """
    package = package or Path(__file__).parent
    for folder in (package / TEMPLATE, package.parent.joinpath(*_IN_CHECKOUT)):
        if (folder / "pyproject.toml").is_file():
            return folder
    raise MlbenchError(
        f"the template of a device's package is missing from this installation ({package / TEMPLATE}); "
        "reinstall it: pip install --force-reinstall pytest-mlbench"
    )


def write_package(name: str, folder: Path | None, template: Path, taken: tuple[str, ...] = ()) -> Path:
    """Write the package of device `name` into `folder` (None: `pytest-mlbench-NAME` here) and return its path.

    The folder must not exist, or be empty; when writing fails it is left so. `taken` are the names
    that installed packages register. Raises MlbenchError.
    """
    _check_name(name, taken)
    words = replacements(name)
    folder = folder or Path(f"pytest-mlbench-{words['template-board']}")
    _check_folder(folder)
    files = _filled(template, words)
    existed = folder.is_dir()
    try:
        for inside, text in files.items():
            file = folder / inside
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8", newline="\n")
    except BaseException as error:
        _remove(folder, existed)
        if not isinstance(error, OSError):
            raise
        told = f"the package cannot be written to {folder}: {error.strerror or error}"
        raise MlbenchError(f"{told}; name a folder that you may write to with --folder") from None
    return folder


def replacements(name: str) -> Mapping[str, str]:
    """Return what stands in the template, and what it becomes for a device of that name."""
    parts = name.split("_")
    return {
        "template_board": name,
        "template-board": "-".join(parts),
        "TemplateBoard": "".join(part.capitalize() for part in parts),
    }


def _check_name(name: str, taken: tuple[str, ...]) -> None:
    if not NAME.fullmatch(name) or len(name) > MOST_CHARACTERS:
        plain = re.sub(r"[^a-z0-9]+", "_", name.lower()).lstrip("_0123456789")[:MOST_CHARACTERS].strip("_")
        hint = f', for example "{plain}"' if NAME.fullmatch(plain) else ', for example "acme_m4"'
        raise MlbenchError(
            f"{name!r} can be no device's name: it stands in case ids and names a Python module; "
            f"write lower-case letters, digits and single `_` between them, at most {MOST_CHARACTERS}{hint}"
        )
    if name in taken:
        raise MlbenchError(f"a device {name!r} is registered by an installed package already; choose another name")


def _check_folder(folder: Path) -> None:
    if folder.is_dir():
        if any(folder.iterdir()):
            raise MlbenchError(f"{folder} exists and is not empty; name another folder with --folder, or remove it")
    elif folder.exists() or folder.is_symlink():
        raise MlbenchError(f"{folder} exists and is no folder; name another one with --folder")


def _filled(template: Path, words: Mapping[str, str]) -> dict[str, str]:
    """Return the files of the package, by their paths inside it."""
    found = {}
    for source in sorted(template.rglob("*")):
        inside = source.relative_to(template)
        if source.is_file() and not any(part in _NOT_COPIED or part.endswith(".egg-info") for part in inside.parts):
            found[_replaced(inside.as_posix(), words)] = _replaced(source.read_text(encoding="utf-8"), words)
    return found


def _replaced(text: str, words: Mapping[str, str]) -> str:
    return re.sub("|".join(words), lambda found: words[found[0]], text)


def _remove(folder: Path, existed: bool) -> None:
    """Take away what was written; a folder that was there stays, empty as it was."""
    for path in list(folder.iterdir()) if existed else [folder]:
        if path.is_file():
            path.unlink(missing_ok=True)
        else:
            shutil.rmtree(path, ignore_errors=True)
