"""The base's files beside the candidate's: real git work trees, whole, damaged, in use and old."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import execnet
import pytest

from pytest_mlbench import assets, checkout
from pytest_mlbench.checkout import Checkout, check_out, discard, hold
from pytest_mlbench.errors import AssetError, BaseError

# Holds a tree until its input closes; prints "held" once it does.
HOLDER = """
import json, sys
from pytest_mlbench.checkout import Checkout, hold
with hold(Checkout.from_json(json.loads(sys.argv[1]))):
    print("held", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MLBENCH_CACHE", str(tmp_path / "the cache"))
    return tmp_path / "the cache"


@pytest.fixture
def repository(git_repository):
    """Two commits; the candidate has an uncommitted third version."""
    git_repository.commit(suite__toml="second", **{"deep/model__bin": "weights"})
    return git_repository


@pytest.fixture
def holder():
    """Start processes that hold a tree; those left are killed."""
    started = []

    def start(made):
        command = [sys.executable, "-c", HOLDER, json.dumps(made.to_json())]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout.readline() == "held\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def trees(repository):
    """Return the work trees git knows besides the repository itself."""
    lines = repository.git("worktree", "list", "--porcelain").splitlines()
    return [Path(line.partition(" ")[2]) for line in lines if line.startswith("worktree ")][1:]


def refusal(call, *given):
    with pytest.raises(BaseError) as caught:
        call(*given)
    return str(caught.value)


def assert_whole(made):
    """Check that the tree holds the base's files, all of them and no others."""
    listed = subprocess.run(
        ["git", "-C", str(made.root), "ls-tree", "-r", "-z", "--name-only", made.base],
        capture_output=True,
        check=True,
        timeout=60,
    )
    expected = {os.fsdecode(name) for name in listed.stdout.split(b"\0") if name}
    files = {path.relative_to(made.tree).as_posix() for path in made.tree.rglob("*") if path.is_file()}
    assert files - {".git"} == expected
    for name in expected:
        shown = subprocess.run(
            ["git", "-C", str(made.root), "show", f"{made.base}:{name}"], capture_output=True, check=True, timeout=60
        )
        assert (made.tree / name).read_bytes() == shown.stdout
    own = ["git", "-C", str(made.tree), "rev-parse", "--git-common-dir"]
    store = subprocess.run(own, capture_output=True, text=True, check=True, timeout=60).stdout.strip()
    assert Path(store) == made.root / ".git"


# --- a tree is made -----------------------------------------------------------------------------------------


def test_the_bases_files_lie_in_the_cache(repository, cache):
    made = check_out(repository.root, "HEAD~1")
    assert made.base == repository.sha("HEAD~1")
    assert made.head == repository.sha()
    assert (made.ref, made.how, made.dirty, made.same, made.notes) == ("HEAD~1", "merge base", False, False, ())
    assert made.root == repository.root.resolve()
    assert made.tree.is_relative_to(cache.resolve() / "checkouts")
    assert made.tree.name == made.base
    assert made.tree.parent.name.startswith("my project-")
    assert (made.tree / "suite.toml").read_text(encoding="utf-8") == "first"
    assert_whole(made)


def test_the_candidate_is_left_alone(repository):
    (repository.root / "suite.toml").write_text("third, not committed", encoding="utf-8")
    status, head = repository.git("status", "--porcelain"), repository.git("rev-parse", "--abbrev-ref", "HEAD")
    made = check_out(repository.root, "HEAD")
    assert made.dirty
    assert not made.same
    assert (made.tree / "suite.toml").read_text(encoding="utf-8") == "second"
    assert (repository.root / "suite.toml").read_text(encoding="utf-8") == "third, not committed"
    assert repository.git("status", "--porcelain") == status
    assert repository.git("rev-parse", "--abbrev-ref", "HEAD") == head
    assert repository.git("branch", "--format=%(refname:short)") == "main"


def test_the_candidate_itself_as_base_is_told(repository):
    made = check_out(repository.root, "main")
    assert made.base == made.head
    assert made.same
    assert_whole(made)


def test_the_revision_itself_when_asked(repository):
    repository.git("checkout", "--quiet", "-b", "other", "HEAD~1")
    repository.commit(other="1")
    assert check_out(repository.root, "main").base == repository.sha("HEAD~1")
    made = check_out(repository.root, "main", exact=True)
    assert (made.base, made.how) == (repository.sha("main"), "as given")
    assert_whole(made)


def test_what_git_warns_of_is_a_note(repository):
    repository.git("tag", "main", "HEAD~1")
    made = check_out(repository.root, "main")
    assert made.base == repository.sha("HEAD~1")
    assert made.notes == ("git warns: refname 'main' is ambiguous.",)


def test_a_cache_named_from_here(repository, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLBENCH_CACHE", "from here")
    made = check_out(repository.root, "HEAD~1")
    assert made.tree.is_relative_to(tmp_path.resolve() / "from here")


def test_repositories_of_one_name_have_trees_of_their_own(repository, tmp_path):
    (tmp_path / "other").mkdir()
    other = repository.clone(tmp_path / "other" / repository.root.name)
    first, second = check_out(repository.root, "HEAD~1"), check_out(other.root, "HEAD~1")
    assert first.base == second.base
    assert first.tree != second.tree
    assert trees(repository) == [first.tree]
    assert trees(other) == [second.tree]


def test_work_trees_of_one_repository_share_it(repository, tmp_path):
    first = check_out(repository.root, "HEAD~1")
    repository.git("worktree", "add", "--quiet", "--detach", str(tmp_path / "second"), "main")
    second = check_out(tmp_path / "second", "HEAD~1")
    assert second.tree == first.tree
    assert second.root == (tmp_path / "second").resolve()


def test_hooks_do_not_run(repository, tmp_path):
    hook = repository.root / ".git" / "hooks" / "post-checkout"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text(f"#!/bin/sh\ntouch '{tmp_path / 'ran'}'\n", encoding="utf-8")
    hook.chmod(0o755)
    repository.git("checkout", "--quiet", "--detach")
    assert (tmp_path / "ran").exists()
    (tmp_path / "ran").unlink()
    check_out(repository.root, "HEAD~1")
    assert not (tmp_path / "ran").exists()


def test_where_the_base_has_a_file(repository, tmp_path, monkeypatch):
    made = check_out(repository.root, "HEAD~1")
    assert made.counterpart(repository.root / "suite.toml") == made.tree / "suite.toml"
    assert made.counterpart(repository.root) == made.tree
    assert made.counterpart(repository.root / "deep" / "model.bin") == made.tree / "deep" / "model.bin"
    monkeypatch.chdir(repository.root / "deep")
    assert made.counterpart(Path("../suite.toml")) == made.tree / "suite.toml"
    (tmp_path / "link").symlink_to(repository.root)
    assert made.counterpart(tmp_path / "link" / "suite.toml") == made.tree / "suite.toml"
    assert refusal(made.counterpart, tmp_path / "elsewhere.toml") == (
        f"{tmp_path / 'elsewhere.toml'} is not in the repository {made.root}, so the base {made.base[:12]} has no "
        "counterpart of it; name suites of that repository, or leave --mlbench-base out"
    )


def test_it_travels_to_workers(repository):
    made = check_out(repository.root, "HEAD~1")
    made = Checkout(**{**vars(made), "notes": ("one", "two")})
    assert Checkout.from_json(execnet.loads(execnet.dumps(made.to_json()))) == made
    assert Checkout.from_json(json.loads(json.dumps(made.to_json()))) == made


# --- a tree is used again, or repaired ----------------------------------------------------------------------


def inode(made):
    return (made.tree / "suite.toml").stat().st_ino, (made.tree / "suite.toml").stat().st_ctime_ns


def test_a_tree_as_it_was_made_is_used_again(repository):
    made = check_out(repository.root, "HEAD~1")
    before = inode(made)
    (made.tree / "__pycache__").mkdir()  # as importing the base's modules leaves it
    (made.tree / "__pycache__" / "x.pyc").write_bytes(b"")
    assert check_out(repository.root, "HEAD~1") == made
    assert inode(made) == before
    assert (made.tree / "__pycache__" / "x.pyc").exists()


def test_files_that_git_ignores_stay(repository):
    repository.commit(**{".gitignore": "built\n"})
    made = check_out(repository.root, "HEAD")
    (made.tree / "built").write_text("", encoding="utf-8")
    check_out(repository.root, "HEAD")
    assert (made.tree / "built").exists()


def _edit(made, repository):
    (made.tree / "suite.toml").write_text("changed", encoding="utf-8")


def _commit_in_it(made, repository):
    _edit(made, repository)
    subprocess.run(["git", "-C", str(made.tree), "commit", "-qam", "x"], check=True, timeout=60)


def _stage(made, repository):
    _edit(made, repository)
    subprocess.run(["git", "-C", str(made.tree), "add", "."], check=True, timeout=60)


def _add_a_file(made, repository):
    (made.tree / "conftest.py").write_text("", encoding="utf-8")


def _delete_a_file(made, repository):
    (made.tree / "suite.toml").unlink()


def _another_commit(made, repository):
    subprocess.run(["git", "-C", str(made.tree), "checkout", "-q", "main~0"], check=True, timeout=60)


def _prune_the_registration(made, repository):
    shutil.rmtree(repository.root / ".git" / "worktrees")


def _delete_the_folder(made, repository):
    shutil.rmtree(made.tree)


def _delete_and_lock(made, repository):
    repository.git("worktree", "lock", str(made.tree))
    shutil.rmtree(made.tree)


def _delete_the_git_file(made, repository):
    (made.tree / ".git").unlink()


def _garble_the_git_file(made, repository):
    (made.tree / ".git").write_text("gitdir: /nowhere", encoding="utf-8")


def _point_to_another(made, repository):
    other = repository.clone(repository.root.parent / "another")
    other.git("worktree", "add", "--quiet", "--detach", str(repository.root.parent / "theirs"), made.base)
    shutil.copy(repository.root.parent / "theirs" / ".git", made.tree / ".git")


def _garble_the_index(made, repository):
    (repository.root / ".git" / "worktrees" / made.tree.name / "index").write_bytes(b"garbage")


def _kill_git_half_way(made, repository):
    """Leave what a killed `git worktree add` leaves: its lock, no index, some of the files, no mark of ours."""
    kept = repository.root / ".git" / "worktrees" / made.tree.name
    (kept / "index").rename(kept / "index.lock")
    (kept / "locked").write_text("initializing", encoding="utf-8")
    (made.tree / "suite.toml").unlink()
    checkout._made(made.tree).unlink()


def _forget_the_mark(made, repository):
    checkout._made(made.tree).unlink()


def _garble_the_mark(made, repository):
    checkout._made(made.tree).write_bytes(b"\xff\n")


def _file_in_its_place(made, repository):
    shutil.rmtree(made.tree)
    made.tree.write_text("", encoding="utf-8")


def _link_in_its_place(made, repository):
    made.tree.rename(repository.root.parent / "moved")
    made.tree.symlink_to(repository.root.parent / "moved")


DAMAGES = [
    _edit,
    _commit_in_it,
    _stage,
    _add_a_file,
    _delete_a_file,
    _another_commit,
    _prune_the_registration,
    _delete_the_folder,
    _delete_and_lock,
    _delete_the_git_file,
    _garble_the_git_file,
    _point_to_another,
    _garble_the_index,
    _kill_git_half_way,
    _forget_the_mark,
    _garble_the_mark,
    _file_in_its_place,
    _link_in_its_place,
]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_tree_is_made_again(repository, damage):
    repository.commit(suite__toml="third")
    made = check_out(repository.root, "HEAD~1")
    damage(made, repository)
    assert check_out(repository.root, "HEAD~1") == made
    assert_whole(made)
    assert not made.tree.is_symlink()
    assert [path.resolve() for path in trees(repository)] == [made.tree]
    before = inode(made)
    check_out(repository.root, "HEAD~1")
    assert inode(made) == before  # once is enough


def test_what_a_link_led_to_is_not_removed(repository):
    made = check_out(repository.root, "HEAD~1")
    _link_in_its_place(made, repository)
    check_out(repository.root, "HEAD~1")
    assert (repository.root.parent / "moved" / "suite.toml").exists()


def test_a_cache_inside_a_repository_does_not_mislead(repository, monkeypatch):
    monkeypatch.setenv("MLBENCH_CACHE", str(repository.root / "cache"))
    made = check_out(repository.root, "HEAD")
    shutil.rmtree(made.tree)
    made.tree.mkdir()  # git run in there finds the repository around it, at the same commit
    check_out(repository.root, "HEAD")
    assert_whole(made)


def test_a_tree_that_is_never_clean_is_made_once(repository):
    """Names that differ by case only do this on some systems; here a filter does."""
    repository.git("config", "filter.odd.smudge", "cat; echo more >> suite.toml; touch new")
    repository.commit(**{".gitattributes": "z filter=odd\n", "z": "1"})
    made = check_out(repository.root, "HEAD")
    shown = ["git", "-C", str(made.tree), "status", "--porcelain"]
    status = subprocess.run(shown, capture_output=True, text=True, check=True, timeout=60).stdout
    assert status == " M suite.toml\n?? new\n"
    before = inode(made)
    check_out(repository.root, "HEAD")
    assert inode(made) == before
    (made.tree / "deep" / "model.bin").unlink()
    check_out(repository.root, "HEAD")
    assert (made.tree / "deep" / "model.bin").exists()


def test_a_fresh_clone_at_the_same_path_takes_a_kept_cache(repository):
    """As in CI, where the cache outlives the clone."""
    made = check_out(repository.root, "HEAD~1")
    moved = repository.root.rename(repository.root.with_name("moved"))
    type(repository)(moved).clone(repository.root)
    assert check_out(repository.root, "HEAD~1") == made
    assert_whole(made)
    assert trees(repository) == [made.tree]


# --- several sessions ---------------------------------------------------------------------------------------


def test_sessions_that_start_together_share_a_whole_tree(repository):
    code = "import sys; from pathlib import Path; from pytest_mlbench.checkout import check_out\n"
    code += "print(check_out(Path(sys.argv[1]), 'HEAD~1').tree)"
    command = [sys.executable, "-c", code, str(repository.root)]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(4)]
    ended = [process.communicate(timeout=120) for process in started]
    made = check_out(repository.root, "HEAD~1")
    assert ended == [(f"{made.tree}\n", "")] * 4
    assert_whole(made)
    assert trees(repository) == [made.tree]


def test_a_tree_in_use_is_neither_remade_nor_discarded(repository, holder):
    made = check_out(repository.root, "HEAD~1")
    session = holder(made)
    before = inode(made)
    assert check_out(repository.root, "HEAD~1") == made
    _add_a_file(made, repository)  # what the base's own code writes must not stop a second session
    assert check_out(repository.root, "HEAD~1") == made
    assert not discard(made)
    assert inode(made) == before
    _edit(made, repository)
    assert refusal(check_out, repository.root, "HEAD~1") == (
        f"the base's files in {made.tree} were changed or damaged while another session measures them; "
        "wait for it or end it, then they are checked out again"
    )
    session.communicate("done\n", timeout=30)
    assert check_out(repository.root, "HEAD~1") == made
    assert_whole(made)


def test_a_killed_session_holds_nothing(repository, holder):
    made = check_out(repository.root, "HEAD~1")
    session = holder(made)
    session.kill()
    session.wait()
    assert list(made.tree.parent.glob("*.use"))
    assert discard(made)
    assert not list(made.tree.parent.glob("*.use"))


def test_two_may_hold_one_tree(repository, holder):
    made = check_out(repository.root, "HEAD~1")
    first = holder(made)
    with hold(made):
        first.communicate("done\n", timeout=30)
        assert not discard(made)
    assert not list(made.tree.parent.glob("*.use"))
    assert discard(made)


def test_a_tree_removed_meanwhile_is_made_again_to_be_held(repository):
    made = check_out(repository.root, "HEAD~1")
    discard(made)
    with hold(made):
        assert_whole(made)


def test_another_session_that_does_not_end(repository, monkeypatch):
    made = check_out(repository.root, "HEAD~1")
    monkeypatch.setattr(checkout, "_WAIT_S", 0.05)
    with assets.cache_lock(made.tree.parent):
        message = refusal(check_out, repository.root, "HEAD~1")
    assert message == (
        f"another session still checks out a base revision after 0.05 s (it holds {made.tree.parent / '.lock'}); "
        "end it, or set MLBENCH_CACHE to a folder of this session's own"
    )


# --- trees are removed --------------------------------------------------------------------------------------


def test_a_discarded_tree_leaves_nothing(repository):
    made = check_out(repository.root, "HEAD~1")
    assert discard(made)
    assert not made.tree.exists()
    assert trees(repository) == []
    assert [path.name for path in made.tree.parent.iterdir()] == [".lock"]
    assert discard(made)  # a second time there is nothing to do
    assert check_out(repository.root, "HEAD~1") == made
    assert_whole(made)


def test_a_tree_of_the_users_own_is_not_forgotten(repository, tmp_path):
    """It may lie on a disk that is not mounted now; `git worktree prune` would drop it."""
    own = tmp_path / "own"
    repository.git("worktree", "add", "--quiet", "-b", "own", str(own))
    own.rename(tmp_path / "unmounted")
    made = check_out(repository.root, "HEAD~1")
    _delete_the_folder(made, repository)
    discard(check_out(repository.root, "HEAD~1"))
    assert trees(repository) == [own]


def test_a_tree_is_discarded_when_its_repository_is_gone(repository):
    made = check_out(repository.root, "HEAD~1")
    shutil.rmtree(repository.root)
    assert discard(made)
    assert not made.tree.exists()


def test_only_the_trees_used_last_are_kept(repository):
    for number in range(checkout.KEPT + 1):
        repository.commit(suite__toml=f"version {number}")
    shas = [repository.sha(f"HEAD~{back}") for back in range(checkout.KEPT + 2)]
    made = [check_out(repository.root, sha) for sha in shas[: checkout.KEPT]]
    check_out(repository.root, shas[0])  # used again, so the second is the oldest now
    check_out(repository.root, shas[checkout.KEPT])
    assert [one.tree.exists() for one in made] == [True, False, True, True, True]
    with hold(made[2]):
        os.utime(checkout._made(made[2].tree), ns=(0, 0))  # the oldest, and in use
        check_out(repository.root, shas[checkout.KEPT + 1])
    assert [one.tree.exists() for one in made] == [True, False, True, False, True]
    assert len(trees(repository)) == checkout.KEPT


def test_a_clock_set_back_does_not_remove_the_tree_just_made(repository, monkeypatch):
    monkeypatch.setattr(checkout, "KEPT", 1)
    first = check_out(repository.root, "HEAD~1")
    os.utime(checkout._made(first.tree), ns=(2**61, 2**61))
    second = check_out(repository.root, "HEAD")
    assert second.tree.exists()
    assert not first.tree.exists()


def test_half_made_trees_count_as_the_oldest(repository, monkeypatch):
    monkeypatch.setattr(checkout, "KEPT", 1)
    made = check_out(repository.root, "HEAD~1")
    half = made.tree.with_name("0" * 40)
    half.mkdir()
    assert check_out(repository.root, "HEAD").notes == ()
    assert not half.exists()
    assert not made.tree.exists()


def test_an_old_tree_that_cannot_be_removed_is_a_note(repository, monkeypatch):
    monkeypatch.setattr(checkout, "KEPT", 1)
    first = check_out(repository.root, "HEAD~1")

    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(shutil, "rmtree", refuse)
    (first.tree / ".git").unlink()  # so that git cannot remove it either
    (note,) = check_out(repository.root, "HEAD").notes
    assert note.startswith(f"cannot remove the old checkout {first.tree} ([Errno 13] Permission denied")
    assert note.endswith("remove that folder by hand")


# --- what cannot be -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["", "checkouts"])
def test_a_cache_that_cannot_be_written(repository, cache, place):
    """A file where a folder should be stops root, too."""
    cache.mkdir()
    if place:
        (cache / place).write_text("", encoding="utf-8")
    else:
        cache.rmdir()
        cache.write_text("", encoding="utf-8")
    message = refusal(check_out, repository.root, "HEAD~1")
    assert message.startswith(f"cannot write {cache / 'checkouts'}{os.sep}my project-")
    assert "where the base's files are put; set MLBENCH_CACHE to a folder that you may write to" in message


def test_a_repository_that_cannot_take_a_work_tree(repository):
    (repository.root / ".git" / "worktrees").write_text("", encoding="utf-8")
    message = refusal(check_out, repository.root, "HEAD~1")
    base = repository.sha("HEAD~1")
    assert message.startswith(f"git cannot check out the base {base} in {repository.root.resolve()} (status 128):\n")
    assert "worktrees" in message
    assert trees(repository) == []


def test_a_filter_that_hangs_is_ended_and_the_tree_made_later(repository, tmp_path, monkeypatch):
    repository.commit(**{".gitattributes": "*.bin filter=slow\n"})
    repository.git("config", "filter.slow.smudge", "sleep 600")
    monkeypatch.setattr(checkout, "CHECKOUT_S", 1.0)
    message = refusal(check_out, repository.root, "HEAD")
    assert message.startswith(f"`git worktree` did not end within 1 s in {repository.root.resolve()}; run it there")
    monkeypatch.undo()
    monkeypatch.setenv("MLBENCH_CACHE", str(tmp_path / "the cache"))
    repository.git("config", "filter.slow.smudge", "cat")
    assert_whole(check_out(repository.root, "HEAD"))


def test_an_unknown_revision_leaves_no_cache(repository, cache):
    assert 'unknown revision "mian"; did you mean "main"?' in refusal(check_out, repository.root, "mian")
    assert not cache.exists()


# --- submodules and large files -----------------------------------------------------------------------------


def test_submodules_are_told_of(repository, tmp_path):
    other = repository.clone(tmp_path / "library")
    allowed = ("-c", "protocol.file.allow=always")
    repository.git(*allowed, "submodule", "--quiet", "add", other.root.as_uri(), "vendored/library")
    repository.git("commit", "--quiet", "--message", "with a submodule")
    made = check_out(repository.root, "HEAD")
    assert made.notes == (
        "the base's submodules are not checked out (vendored/library): if its suites need them, run "
        f"`git submodule update --init` in {made.tree}",
    )
    command = ["git", *allowed, "-C", str(made.tree), "submodule", "--quiet", "update", "--init"]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    again = check_out(repository.root, "HEAD")
    assert again.notes == ()
    assert (made.tree / "vendored" / "library" / "suite.toml").exists()  # the user's work is kept
    assert discard(again)
    assert trees(repository) == []


POINTER = f"version https://git-lfs.github.com/spec/v1\noid sha256:{64 * 'a'}\nsize 7\n"


def test_a_pointer_in_the_base_names_its_commit(repository):
    repository.commit(**{"deep/model__bin": POINTER})
    made = check_out(repository.root, "HEAD")
    with pytest.raises(AssetError) as caught:
        assets.check(made.tree / "deep" / "model.bin", suite=made.tree / "suite.toml")
    assert str(caught.value) == (
        f"{made.tree / 'suite.toml'}: file {made.tree / 'deep' / 'model.bin'} is a Git LFS pointer, not its content; "
        f"run `git lfs fetch origin {made.base} && git lfs checkout` in {made.tree}"
    )


def test_large_files_that_are_not_here(repository):
    repository.commit(**{".gitattributes": "*.bin filter=lfs\n"})
    repository.git("config", "filter.lfs.required", "true")
    repository.git("config", "filter.lfs.clean", "cat")
    repository.git("config", "filter.lfs.smudge", "false")  # as Git LFS fails when its server is out of reach
    base = repository.sha()
    message = refusal(check_out, repository.root, "HEAD")
    assert f"git cannot check out the base {base}" in message
    assert "smudge filter lfs failed" in message
    assert message.endswith(f"fetch its large files with `git lfs fetch origin {base}`")
    assert trees(repository) == []


def test_the_remedy_for_a_pointer_works(repository, tmp_path, require):
    require("git-lfs")
    repository.git("lfs", "install", "--local")
    repository.git("lfs", "track", "*.bin")
    repository.commit(**{"deep/model__bin": "large"})
    repository.commit(suite__toml="third")
    origin = repository.clone(tmp_path / "origin", "--bare")
    repository.git("remote", "add", "origin", origin.root.as_uri())
    repository.git("lfs", "push", "--all", "origin")
    clone = origin.clone(tmp_path / "clone")
    clone.git("lfs", "install", "--local", "--skip-smudge")
    made = check_out(clone.root, "HEAD~1")
    model = made.tree / "deep" / "model.bin"
    assert assets.lfs_pointer(model)
    command = f"git lfs fetch origin {made.base} && git lfs checkout"
    subprocess.run(command, shell=True, cwd=made.tree, check=True, timeout=60)
    assert check_out(clone.root, "HEAD~1") == made
    assert model.read_text(encoding="utf-8") == "large"
