"""Ask git which commit is the base: the one the user named, or where the candidate left it."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from dataclasses import dataclass
from pathlib import Path

from pytest_mlbench import commands, near
from pytest_mlbench.commands import Done
from pytest_mlbench.errors import BaseError

QUESTION_S = 60.0
LISTING_S = 300.0  # of every file of a large work tree
DEEPEN = 200
_REFS = 2000  # so many branches and tags are looked through for a near match
_OF_A_HOOK = frozenset({"GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR", "GIT_PREFIX", "GIT_NAMESPACE"})
_QUIET = {
    "LC_ALL": "C",  # the messages of git looked for below are English
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_ASKPASS": "",
    "SSH_ASKPASS_REQUIRE": "never",
    "GCM_INTERACTIVE": "never",
    "GIT_OPTIONAL_LOCKS": "0",  # looking must not write into the user's index
}


@dataclass(frozen=True)
class Revisions:
    """The two commits of a comparison, and the repository they are in."""

    root: Path  # top folder of the candidate's files
    store: Path  # git's own folder, which all work trees of the repository share
    base: str
    head: str
    dirty: bool
    how: str
    notes: tuple[str, ...]


def git(folder: Path, *arguments: str, deadline_s: float | None = None) -> Done:
    """Run git in `folder` without a hook, a question or a shell.

    Raises BaseError when git is missing or passes its deadline; any exit status is the caller's to judge.
    """
    deadline_s = QUESTION_S if deadline_s is None else deadline_s
    settings = ("-c", "core.fsmonitor=false", "-c", f"core.hooksPath={os.devnull}")
    environment = {name: text for name, text in os.environ.items() if name not in _OF_A_HOOK} | _QUIET
    try:
        return commands.run(
            ["git", *settings, "-C", str(folder), *arguments], deadline_s=deadline_s, environment=environment
        )
    except subprocess.TimeoutExpired:
        message = f"`git {arguments[0]}` did not end within {deadline_s:g} s in {folder}; run it there by hand to see"
        raise BaseError(f"{message} what it waits for") from None
    except OSError as error:
        message = f"cannot run git ({error.strerror}): the base revision is checked out with it; install git"
        raise BaseError(message) from None


def failed(what: str, folder: Path, done: Done) -> BaseError:
    """Return the error of a git command that had no reason to fail, in git's own words."""
    return BaseError(f"git cannot {what} in {folder} (status {done.code}):\n{commands.last_lines(done.err, 6)}")


def resolve(folder: Path, ref: str, *, exact: bool = False) -> Revisions:
    """Return the base that `ref` means for the files in `folder`: its merge base with HEAD, or itself if `exact`.

    Raises BaseError, with the remedy, when there is no such commit or no repository.
    """
    root = _root(folder)
    store = git(root, "rev-parse", "--git-common-dir")
    if store.code:
        raise failed("name its own folder", root, store)
    head = git(root, "rev-parse", "--verify", "HEAD^{commit}")
    if head.code:
        message = f"the repository {root} has no commit yet: commit the candidate, and name an earlier commit as base"
        raise BaseError(message)
    named, notes = _commit(root, ref)
    base = named
    if not exact:
        base, more = _merge_base(root, ref, named, head.out.strip())
        notes += more
    changes = git(root, "status", "--porcelain", "--untracked-files=no")
    if changes.code:
        raise failed("list the changes", root, changes)
    return Revisions(
        root=root,
        store=(root / store.out.removesuffix("\n")).resolve(),
        base=base,
        head=head.out.strip(),
        dirty=bool(changes.out),
        how="as given" if exact else "merge base",
        notes=notes,
    )


def changed(root: Path, base: str) -> frozenset[str]:
    """Return the files that differ between a commit and the work tree, new ones too, as paths from the top folder."""
    found: set[str] = set()
    new = ("ls-files", "--others", "--exclude-standard", "-z")
    for listing in (("diff", "--name-only", "--no-renames", "-z", base, "--"), new):
        done = git(root, *listing, deadline_s=LISTING_S)
        if done.code:
            raise failed(f"list what changed since {base[:12]}", root, done)
        found.update(filter(None, done.out.split("\0")))
    return frozenset(found)


def _root(folder: Path) -> Path:
    done = git(folder, "rev-parse", "--show-toplevel")
    if not done.code:
        return Path(done.out.removesuffix("\n"))
    if "safe.directory" in done.err:
        owned = re.search(r"safe\.directory (.+)", done.err)
        place = owned[1] if owned else shlex.quote(str(folder))
        raise BaseError(
            f"git does not trust {folder}, which belongs to another user; if you do: "
            f"`git config --global --add safe.directory {place}`"
        )
    told = done.err.strip().splitlines() or [f"status {done.code}"]
    raise BaseError(
        f"{folder} is not in a git work tree ({told[-1]}), so it has no base; run in a clone of the project, "
        "or leave --mlbench-base out"
    )


def _commit(root: Path, ref: str) -> tuple[str, tuple[str, ...]]:
    """Return the commit of `ref` and what git warns of, for example of a branch and a tag of one name."""
    if not ref.strip() or ref.startswith(("-", "^")) or not ref.isprintable():
        raise BaseError(f"{ref!r} is no revision: expected a branch, a tag or a commit, as in origin/main")
    done = git(root, "rev-parse", "--verify", ref)
    found = done.out.strip()
    # In two steps: with :/TEXT, a suffix would belong to the text.
    commit = git(root, "rev-parse", "--verify", f"{found}^{{commit}}") if not done.code else done
    if commit.code:
        kind = git(root, "cat-file", "-t", found).out.strip() if found else ""
        if kind in ("blob", "tree"):
            raise BaseError(f"{ref!r} is a {kind}, not a commit: expected a branch, a tag or a commit")
        raise _unknown(root, ref)
    warnings = [line.removeprefix("warning: ") for line in done.err.splitlines() if line.startswith("warning: ")]
    return commit.out.strip(), tuple(f"git warns: {line}" for line in warnings)


def _merge_base(root: Path, ref: str, named: str, head: str) -> tuple[str, tuple[str, ...]]:
    done = git(root, "merge-base", "--all", named, head)
    if done.code > 1:
        raise failed("find the merge base", root, done)
    found = done.out.split()
    instead = f"or compare with {ref} itself: --mlbench-base-exact"
    if not found:
        pair = f"{ref} ({named[:12]}) and HEAD ({head[:12]})"
        if shallow(root):
            raise BaseError(f"{pair} share no commit in this shallow clone; {_deepen(root, ref)}; {instead}")
        raise BaseError(
            f"{pair} have unrelated histories, so no merge base; name a revision that HEAD comes from, {instead}"
        )
    notes = []
    if len(found) > 1:
        others = ", ".join(sha[:12] for sha in found[1:])
        notes.append(f"{ref} and HEAD have {len(found)} merge bases; taken is {found[0][:12]}, not {others}")
    if found[0] != named and shallow(root):
        notes.append("this clone is shallow: a nearer merge base may lie in the history it lacks")
    return found[0], tuple(notes)


def shallow(root: Path) -> bool:
    """Tell whether the clone lacks a part of the history."""
    return git(root, "rev-parse", "--is-shallow-repository").out.strip() == "true"


def _unknown(root: Path, ref: str) -> BaseError:
    form = "--format=%(refname:short)"
    listed = git(root, "for-each-ref", form, f"--count={_REFS}", "refs/heads", "refs/tags", "refs/remotes")
    message = near.unknown("revision", ref, listed.out.split(), "branches and tags") + f" (in {root})"
    remote, name = _remote_and_name(root, ref)
    if shallow(root):
        return BaseError(f"{message}; this is a shallow clone: {_deepen(root, ref)}")
    if remote is None:
        return BaseError(f"{message}; name one of them or a commit of this repository")
    if not name:
        return BaseError(f"{message}; fetch it with `git fetch {remote}`")
    spec = _spec(remote, name)
    told = f"fetch it with `git fetch {remote} {spec}`"
    if spec.startswith("+") and f"{remote}/{name}" != ref:
        told += f" and name it {remote}/{name}, or if it is a tag with `git fetch {remote} tag {shlex.quote(name)}`"
    return BaseError(f"{message}; {told}")


def _deepen(root: Path, ref: str) -> str:
    remote, name = _remote_and_name(root, ref)
    if remote is None:
        return "it has no remote to fetch more from; use a full clone"
    what = f"{remote} {_spec(remote, name)}" if name else remote
    named = f" (it is then {remote}/{name})" if name and _spec(remote, name).startswith("+") else ""
    return (
        f"deepen it with `git fetch --deepen={DEEPEN} {what}`, or fetch everything with "
        f"`git fetch --unshallow {what}`{named}; for actions/checkout set `fetch-depth: 0`"
    )


def _remote_and_name(root: Path, ref: str) -> tuple[str | None, str]:
    """Return the remote to ask and the name it knows `ref` by; the name is empty when only everything can be asked."""
    remotes = git(root, "remote").out.split()
    if not remotes:
        return None, ""
    name = re.split(r"[~^:]|@\{", ref)[0]
    for remote in remotes:
        if name.startswith(f"{remote}/"):
            return remote, name[len(remote) + 1 :]
    remote = "origin" if "origin" in remotes else remotes[0]
    if name and not git(root, "rev-parse", "--verify", "--quiet", f"refs/tags/{name}").code:
        return remote, f"refs/tags/{name}"
    if name in ("", "@", "HEAD") or re.fullmatch(r"[0-9a-f]{4,39}", name):  # a shortened SHA cannot be asked for
        return remote, ""
    return remote, name


def _spec(remote: str, name: str) -> str:
    """Return what to fetch so that the name is known here afterwards, whatever the clone fetches by default."""
    if re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", name):
        return name
    if name.startswith("refs/"):
        return shlex.quote(f"{name}:{name}")
    return shlex.quote(f"+refs/heads/{name}:refs/remotes/{remote}/{name}")
