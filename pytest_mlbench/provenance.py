"""Prove which sources ran: where a suite's own modules came from, and that they are still the same.

When two revisions are compared, each loads its own modules. One that is also installed in the environment could
be imported from there for both, and every comparison would then find no change (DESIGN decision 8).
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from pytest_mlbench import assets


@dataclass(frozen=True)
class Side:
    """One of two revisions that are compared: the top folder of its files, and that of the other one."""

    name: Literal["base", "candidate"]
    root: Path
    other: Path
    changed: frozenset[str] = frozenset()  # the files that differ between the two, as paths from the top folder

    def paths(self, suite: Path) -> list[str]:
        """Return where the modules that a suite names are looked for, before what is installed."""
        folders = (suite.parent, self.root, self.root / "src")
        return list(dict.fromkeys(str(folder) for folder in folders if folder.is_dir()))


def own_modules(paths: list[str]) -> list[str]:
    """Return the names of the modules and packages whose sources stand in `paths`."""
    found: set[str] = set()
    for folder in map(Path, paths):
        for entry in folder.iterdir():
            if entry.suffix == ".py" and entry.stem.isidentifier():
                found.add(entry.stem)
            elif entry.is_dir() and entry.name.isidentifier() and any(entry.glob("*.py")):
                found.add(entry.name)
    return sorted(found)


def first_names(changed: Collection[str]) -> list[str]:
    """Return the first names of all modules that files may belong to, whichever folder modules are installed from."""
    found: set[str] = set()
    for path in map(PurePosixPath, changed):
        found.update(part for part in (*path.parent.parts, path.stem) if part.isidentifier())
    return sorted(found)


def digest(side: Side) -> str:
    """Return a hash of what the revision has in place of each file that differs between the two."""
    files = [side.root / name for name in sorted(side.changed)]
    return assets.key_of(sorted(side.changed), *(assets.sha256_of(file) if file.is_file() else "" for file in files))


def strays(loaded: Mapping[str, str], side: Side, suite: Path) -> list[str]:
    """Return the loaded modules (name -> file) that are this revision's own but came from elsewhere."""
    own = set(own_modules(side.paths(suite)))
    found = []
    for name, file in sorted(loaded.items()):
        inside = _inside(file, side.root)
        of_other = _inside(file, side.other)
        if inside and of_other:  # one folder in the other: the inner one says whose it is
            inside = len(side.root.resolve().parts) > len(side.other.resolve().parts)
            of_other = not inside
        if of_other or (not inside and (name.partition(".")[0] in own or _is_copy(name, side))):
            found.append(f"{name} from {file}")
    return found


def told(found: list[str], side: Side) -> str:
    """Say in words which modules came from elsewhere, and what to do."""
    other = "base" if side.name == "candidate" else "candidate"
    return (
        f"the {side.name} must load its own modules, from {side.root}, but it loaded {', '.join(found)}: "
        f"the {other} would be compared with itself. Name modules that stand beside the suite or in the "
        "repository's top folder or src/, or give the base an environment of its own with --mlbench-base-python"
    )


def _is_copy(name: str, side: Side) -> bool:
    """Tell whether a module that is no file of the repository is one of a package in which the two revisions differ.

    A repository may install its modules from any folder, so each whose files end as the module's name is looked at.
    """
    first, tail = name.partition(".")[0], PurePosixPath(*name.split("."))
    for path in map(PurePosixPath, side.changed):
        parts = path.with_suffix("").parts if path.suffix == ".py" else path.parent.parts
        for place in (index for index, part in enumerate(parts) if part == first):
            home = PurePosixPath(*parts[:place])
            files = (home / tail.with_suffix(".py"), home / tail / "__init__.py")
            if any((root / file).is_file() for root in (side.root, side.other) for file in files):
                return True
    return False


def _inside(file: str, folder: Path) -> bool:
    return Path(file).resolve().is_relative_to(folder.resolve())


def write_manifest(path: Path, loaded: Mapping[str, str]) -> None:
    """Keep the files (name -> file) that made something, with their hashes."""
    files = {name: [file, assets.sha256_of(Path(file))] for name, file in loaded.items()}
    path.write_text(json.dumps(files, indent=1, sort_keys=True), encoding="utf-8")


def read_manifest(path: Path) -> dict[str, str] | None:
    """Return the files (name -> file) that made something; None when one of them is not the same any more."""
    try:
        files = json.loads(path.read_text(encoding="utf-8"))
        unchanged = all(assets.sha256_of(Path(file)) == digest for file, digest in files.values())
    except (OSError, ValueError, TypeError, AttributeError):  # gone, or not what was written
        return None
    return {name: file for name, (file, _) in files.items()} if unchanged else None
