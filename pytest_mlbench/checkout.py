"""Put the files of the base revision beside the candidate's: one git work tree for each commit, kept in the cache.

In the cache folder of a repository lie, for each commit: `SHA` (the files), `SHA.made` (what the tree was like when
it was whole; its time is that of the last use) and `SHA.*.use` (locked by a session that measures the tree).
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from pytest_mlbench import assets, revisions
from pytest_mlbench.errors import BaseError
from pytest_mlbench.revisions import git

KEPT = 5
CHECKOUT_S = 900.0
_WAIT_S = CHECKOUT_S + 100.0  # for another session, which may be checking out


@dataclass(frozen=True)
class Checkout:
    """The base revision of a session: which commit, why that one, and where its files are."""

    ref: str  # as the user named it
    base: str  # full SHA of what is measured as the base
    head: str  # full SHA of the candidate
    dirty: bool  # the candidate has uncommitted changes to tracked files
    how: str  # "merge base" or "as given"
    root: Path  # top folder of the candidate's repository
    tree: Path  # top folder of the base's files
    notes: tuple[str, ...] = ()  # what the user should know, for example of several merge bases

    @property
    def same(self) -> bool:
        """Tell whether base and candidate are one commit, without uncommitted changes."""
        return self.base == self.head and not self.dirty

    def counterpart(self, path: Path) -> Path:
        """Return where the base has a file or folder of the candidate; it may not exist there.

        Raises BaseError for a path outside the repository.
        """
        place = path.resolve()
        if place.is_relative_to(self.root.resolve()):
            return self.tree / place.relative_to(self.root.resolve())
        message = f"{path} is not in the repository {self.root}, so the base {self.base[:12]} has no counterpart of it"
        raise BaseError(f"{message}; name suites of that repository, or leave --mlbench-base out")

    def to_json(self) -> dict[str, Any]:
        """Return it as plain values."""
        return {**asdict(self), "root": str(self.root), "tree": str(self.tree), "notes": list(self.notes)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Checkout:
        """Return what `to_json` was called on."""
        paths = {"root": Path(values["root"]), "tree": Path(values["tree"])}
        return cls(**{**values, **paths, "notes": tuple(values["notes"])})


def check_out(folder: Path, ref: str, *, exact: bool = False) -> Checkout:
    """Check out the base that `ref` means for the files in `folder`: the merge base with HEAD, or `ref` if `exact`.

    A tree that is there and unchanged is taken as it is; any other is made anew. Raises BaseError.
    """
    found = revisions.resolve(folder, ref, exact=exact)
    place = _place(found.store)
    checkout = Checkout(
        ref=ref,
        base=found.base,
        head=found.head,
        dirty=found.dirty,
        how=found.how,
        root=found.root,
        tree=place / found.base,
    )
    with _locked(place):
        _ensure(checkout)
        notes = (*found.notes, *_submodules(checkout.tree), *_remove_oldest(checkout))
    return Checkout(**{**vars(checkout), "notes": notes})


@contextlib.contextmanager
def hold(checkout: Checkout) -> Iterator[None]:
    """Keep other sessions from removing or remaking the tree while this one measures it.

    A tree that was removed since `check_out` is made again.
    """
    with _locked(checkout.tree.parent):
        _ensure(checkout)
        used = FileLock(f"{checkout.tree}.{os.getpid()}-{uuid.uuid4().hex[:8]}.use")
        used.acquire(timeout=0)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            Path(used.lock_file).unlink()
        used.release()


def discard(checkout: Checkout) -> bool:
    """Remove the tree and git's note of it; False when another session measures it."""
    with _locked(checkout.tree.parent):
        if _in_use(checkout.tree):
            return False
        _remove(checkout.root, checkout.tree)
    return True


# --- the cache's folder -------------------------------------------------------------------------------------


def _place(store: Path) -> Path:
    name = store.parent.name if store.name == ".git" else store.name
    key = f"{name[:40]}-{assets.key_of(store)[:12]}"
    try:
        return assets.cached(assets.CHECKOUTS, key).resolve()
    except OSError as error:
        raise _unwritable(assets.cache_dir() / assets.CHECKOUTS / key, error) from None


def _unwritable(path: Path, error: OSError) -> BaseError:
    message = f"cannot write {path} ({error.strerror or error}), where the base's files are put"
    return BaseError(f"{message}; set MLBENCH_CACHE to a folder that you may write to")


@contextlib.contextmanager
def _locked(place: Path) -> Iterator[None]:
    try:
        place.mkdir(parents=True, exist_ok=True)
        lock = assets.cache_lock(place)
        lock.acquire(timeout=_WAIT_S)
    except Timeout:
        message = f"another session still checks out a base revision after {_WAIT_S:g} s (it holds {place / '.lock'})"
        raise BaseError(f"{message}; end it, or set MLBENCH_CACHE to a folder of this session's own") from None
    except OSError as error:
        raise _unwritable(place, error) from None
    try:
        yield
    finally:
        lock.release()


def _in_use(tree: Path) -> bool:
    """Tell whether a session that lives holds the tree; what a killed one left is removed."""
    for file in tree.parent.glob(f"{tree.name}.*.use"):
        lock = FileLock(file)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return True
        lock.release()
        file.unlink(missing_ok=True)
    return False


def _remove_oldest(checkout: Checkout) -> Iterator[str]:
    """Remove the trees used least recently, down to KEPT; yield a note for each that could not be removed."""
    place = checkout.tree.parent
    trees = [path for path in place.iterdir() if re.fullmatch(r"[0-9a-f]{40,64}", path.name)]
    idle = [path for path in trees if path != checkout.tree and not _in_use(path)]
    for tree in sorted(idle, key=_last_use)[: max(0, len(trees) - KEPT)]:
        try:
            _remove(checkout.root, tree)
        except BaseError as error:
            yield str(error)


def _last_use(tree: Path) -> int:
    try:
        return _made(tree).stat().st_mtime_ns
    except OSError:
        return 0


def _made(tree: Path) -> Path:
    return tree.with_name(f"{tree.name}.made")


# --- one tree -----------------------------------------------------------------------------------------------


def _ensure(checkout: Checkout) -> None:
    """Make the tree, or make it anew, unless it is as it was made."""
    tree = checkout.tree
    in_use = _in_use(tree)
    if not _as_made(checkout, strays_too=not in_use):
        if in_use:
            message = f"the base's files in {tree} were changed or damaged while another session measures them"
            raise BaseError(f"{message}; wait for it or end it, then they are checked out again")
        _make(checkout)
    try:
        os.utime(_made(tree))
    except OSError as error:
        raise _unwritable(_made(tree), error) from None


def _as_made(checkout: Checkout, *, strays_too: bool) -> bool:
    tree = checkout.tree
    told = git(tree, "rev-parse", "--show-toplevel", "--git-common-dir", "HEAD").out.split("\n")
    own = git(checkout.root, "rev-parse", "--git-common-dir").out.removesuffix("\n")
    # Without its own .git, git finds a repository around the cache.
    if len(told) != 4 or Path(told[0]) != tree or told[2] != checkout.base:
        return False
    if (tree / told[1]).resolve() != (checkout.root / own).resolve():
        return False
    try:
        tracked, strays = _made(tree).read_text(encoding="ascii").split()
    except (OSError, ValueError):
        return False
    now = _state(tree)
    return now[0] == tracked and (now[1] == strays or not strays_too)


def _state(tree: Path) -> tuple[str, str]:
    """Return a hash of the changes to tracked files, and one of the files that are neither tracked nor ignored.

    Some trees are never clean (line ends, names that differ by case only), so what counts is a difference.
    Bytecode is no difference: measuring a Python suite leaves it.
    """
    done = git(tree, "status", "--porcelain", "-z", "--untracked-files=all", deadline_s=CHECKOUT_S)
    if done.code:
        return "", ""
    entries = done.out.split("\0")
    strays = [entry for entry in entries if entry.startswith("?? ") and "__pycache__/" not in entry]
    tracked = [entry for entry in entries if not entry.startswith("?? ")]
    return assets.key_of(*map(os.fsencode, tracked)), assets.key_of(*map(os.fsencode, strays))


def _make(checkout: Checkout) -> None:
    root, tree, base = checkout.root, checkout.tree, checkout.base
    _remove(root, tree)
    done = git(root, "worktree", "add", "--detach", str(tree), base, deadline_s=CHECKOUT_S)
    if done.code:
        error = revisions.failed(f"check out the base {base}", root, done)
        if "smudge filter lfs failed" in done.err:
            error = BaseError(f"{error}\nfetch its large files with `git lfs fetch origin {base}`")
        raise error
    try:
        _made(tree).write_text("\n".join(_state(tree)), encoding="ascii")
    except OSError as error:
        raise _unwritable(_made(tree), error) from None


def _remove(root: Path, tree: Path) -> None:
    """Remove a tree in any condition, and git's note of it.

    No `git worktree prune`: it would also drop the user's own trees on a disk that is not mounted now.
    """
    forget = ("worktree", "remove", "--force", "--force", str(tree))  # twice: a killed git leaves it locked
    try:
        _made(tree).unlink(missing_ok=True)
        if tree.is_symlink() or tree.is_file():
            tree.unlink()  # first, for git would follow a link and remove what it leads to
        git(root, *forget, deadline_s=CHECKOUT_S)
        if tree.exists():  # damaged, or not git's
            shutil.rmtree(tree)
            git(root, *forget)
    except OSError as error:
        raise BaseError(f"cannot remove the old checkout {tree} ({error}); remove that folder by hand") from None


def _submodules(tree: Path) -> Iterator[str]:
    listed = git(tree, "config", "--file", ".gitmodules", "--get-regexp", r"^submodule\..*\.path$").out
    paths = [line.partition(" ")[2] for line in listed.splitlines()]
    empty = [path for path in paths if not any((tree / path).glob("*"))]
    if empty:
        yield (
            f"the base's submodules are not checked out ({', '.join(empty)}): if its suites need them, run "
            f"`git submodule update --init` in {tree}"
        )
