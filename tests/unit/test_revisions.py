"""Which commit is the base: real repositories, whole and shallow, and every way in which there is none."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest

from pytest_mlbench import revisions
from pytest_mlbench.errors import BaseError


@pytest.fixture
def branched(git_repository):
    """Two commits, then `main` two further and `feature`, checked out, three further."""
    git_repository.commit(suite__toml="second")
    git_repository.git("branch", "feature")
    for text in ("main 1", "main 2"):
        git_repository.commit(suite__toml=text)
    git_repository.git("checkout", "--quiet", "feature")
    for text in ("one", "two", "three"):
        git_repository.commit(feature__py=text)
    return git_repository


def refusal(folder, ref, **given):
    with pytest.raises(BaseError) as caught:
        revisions.resolve(folder, ref, **given)
    return str(caught.value)


def follow(message, number, folder):
    """Run the command that a message gives between backticks, as a reader would."""
    command = re.findall(r"`(git [^`]+)`", message)[number]
    subprocess.run(command, shell=True, cwd=folder, check=True, capture_output=True, timeout=60)


# --- the merge base -----------------------------------------------------------------------------------------


def test_the_merge_base_is_taken(branched):
    found = revisions.resolve(branched.root, "main")
    assert found.base == branched.sha("main~2") == branched.sha("feature~3")
    assert found.head == branched.sha("feature")
    assert found.how == "merge base"
    assert found.root == branched.root.resolve()
    assert found.store == branched.root.resolve() / ".git"
    assert found.notes == ()


def test_the_revision_itself_is_taken_when_asked(branched):
    found = revisions.resolve(branched.root, "main", exact=True)
    assert (found.base, found.how) == (branched.sha("main"), "as given")


def test_an_older_commit_is_its_own_merge_base(branched):
    assert revisions.resolve(branched.root, "HEAD~2").base == branched.sha("HEAD~2")
    assert revisions.resolve(branched.root, "main").base == branched.sha("main~2")


@pytest.mark.parametrize("ref", ["v1", "light", "refs/tags/v1", "heads/main~1", ":/main 1", "full", "short"])
def test_every_way_to_name_a_commit(branched, ref):
    branched.git("tag", "--annotate", "--message", "first", "v1", "main~1")
    branched.git("tag", "light", "main~1")
    named = {"full": branched.sha("main~1"), "short": branched.sha("main~1")[:9]}.get(ref, ref)
    assert revisions.resolve(branched.root, named, exact=True).base == branched.sha("main~1")


def test_from_a_folder_inside_and_with_a_detached_head(branched):
    (branched.root / "deep" / "er").mkdir(parents=True)
    branched.git("checkout", "--quiet", "--detach")
    found = revisions.resolve(branched.root / "deep" / "er", "main")
    assert (found.root, found.base) == (branched.root.resolve(), branched.sha("main~2"))
    assert found.store == branched.root.resolve() / ".git"


def test_in_a_work_tree_the_store_is_shared(branched, tmp_path):
    branched.git("worktree", "add", "--quiet", "--detach", str(tmp_path / "other tree"), "main")
    found = revisions.resolve(tmp_path / "other tree", "feature")
    assert found.root == (tmp_path / "other tree").resolve()
    assert found.store == branched.root.resolve() / ".git"
    assert found.head == branched.sha("main")


def test_of_several_merge_bases_the_taken_one_and_the_others_are_named(git_repository):
    repository = git_repository
    repository.git("checkout", "--quiet", "-b", "left")
    left = repository.commit(left="1")
    repository.git("checkout", "--quiet", "-b", "right", "main")
    right = repository.commit(right="1")
    repository.git("merge", "--quiet", "--no-edit", left)
    repository.git("checkout", "--quiet", "left")
    repository.git("merge", "--quiet", "--no-edit", right)
    found = revisions.resolve(repository.root, "right")
    other = ({left, right} - {found.base}).pop()
    assert found.base in (left, right)
    note = f"right and HEAD have 2 merge bases; taken is {found.base[:12]}, not {other[:12]}"
    assert found.notes == (note,)


def test_a_merge_commit_as_a_pull_request_is_checked_out(branched):
    """On `pull_request`, CI checks out the merge of both: the base is then the tip of the target branch."""
    branched.git("checkout", "--quiet", "--detach", "main")
    branched.git("merge", "--quiet", "--no-edit", "feature")
    assert revisions.resolve(branched.root, "main").base == branched.sha("main")


def test_a_branch_and_a_tag_of_one_name_are_told_of(branched):
    branched.git("tag", "main", "feature~1")
    found = revisions.resolve(branched.root, "main", exact=True)
    assert found.base == branched.sha("feature~1")
    assert found.notes == ("git warns: refname 'main' is ambiguous.",)


# --- the candidate ------------------------------------------------------------------------------------------


def test_the_candidate_is_dirty_when_a_tracked_file_is_changed(branched):
    (branched.root / "untracked").write_text("", encoding="utf-8")
    assert not revisions.resolve(branched.root, "main").dirty
    (branched.root / "feature.py").write_text("changed", encoding="utf-8")
    assert revisions.resolve(branched.root, "main").dirty
    branched.git("add", "feature.py")
    assert revisions.resolve(branched.root, "main").dirty


def test_looking_leaves_the_index_alone(branched):
    index = branched.root / ".git" / "index"
    (branched.root / "feature.py").touch()  # git would write the new time down
    before = index.stat().st_mtime_ns, index.read_bytes()
    revisions.resolve(branched.root, "main")
    assert (index.stat().st_mtime_ns, index.read_bytes()) == before


def test_what_a_hook_sets_for_git_does_not_mislead(branched, tmp_path, monkeypatch):
    subprocess.run(["git", "init", "--quiet", str(tmp_path / "other")], check=True, timeout=60)
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "other" / ".git"))
    monkeypatch.setenv("GIT_INDEX_FILE", str(tmp_path / "other" / ".git" / "index"))
    found = revisions.resolve(branched.root, "main")
    monkeypatch.delenv("GIT_DIR")
    assert (found.root, found.dirty) == (branched.root.resolve(), False)
    assert found.head == branched.sha("feature")


def test_git_is_asked_in_english_and_cannot_ask_back(branched, tmp_path, monkeypatch):
    wrapper = f'#!/bin/sh\nenv > "{tmp_path}/seen"\nexec "{shutil.which("git")}" "$@"\n'
    (tmp_path / "git").write_text(wrapper, encoding="utf-8")
    (tmp_path / "git").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    for name, text in {"LANG": "de_DE.UTF-8", "LC_ALL": "de_DE.UTF-8", "GIT_ASKPASS": "/bin/false"}.items():
        monkeypatch.setenv(name, text)
    revisions.resolve(branched.root, "main")
    seen = (tmp_path / "seen").read_text(encoding="utf-8").splitlines()
    assert {"LC_ALL=C", "GIT_TERMINAL_PROMPT=0", "GIT_ASKPASS=", "SSH_ASKPASS_REQUIRE=never"} <= set(seen)


# --- no such revision ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("ref", "near"), [("feture", "feature"), ("v1.O", "v1.0"), ("origin/mian", "origin/main")])
def test_near_matches_are_branches_tags_and_remote_branches(branched, ref, near):
    branched.git("tag", "v1.0", "main")
    branched.git("update-ref", "refs/remotes/origin/main", "main")
    assert f'unknown revision "{ref}"; did you mean "{near}"?' in refusal(branched.root, ref)


def test_an_unknown_revision_with_a_near_match(branched):
    message = refusal(branched.root, "mian")
    assert message.startswith('unknown revision "mian"; did you mean "main"? Known branches and tags: feature, main')
    assert message.endswith(f"(in {branched.root.resolve()}); name one of them or a commit of this repository")


@pytest.mark.parametrize("ref", [40 * "7", "main..feature", "HEAD~99", "a b", "main^{tree}~0"])
def test_other_unknown_revisions(branched, ref):
    assert f'unknown revision "{ref}"' in refusal(branched.root, ref)


@pytest.mark.parametrize("ref", ["", "  ", "-h", "--all", "^main", "--output=x", "main\n", "a\0b"])
def test_what_cannot_be_a_revision(branched, ref):
    message = refusal(branched.root, ref)
    assert message == f"{ref!r} is no revision: expected a branch, a tag or a commit, as in origin/main"


@pytest.mark.parametrize(("ref", "kind"), [("HEAD:feature.py", "blob"), ("HEAD^{tree}", "tree")])
def test_what_is_no_commit(branched, ref, kind):
    assert refusal(branched.root, ref).startswith(f"{ref!r} is a {kind}, not a commit: expected a branch")


@pytest.mark.parametrize("ref", ["origin/later", "later"])
def test_a_branch_that_was_not_fetched_is_fetched_as_the_message_says(branched, tmp_path, ref):
    clone = branched.clone(tmp_path / "clone", "--branch=feature", "--single-branch")
    branched.git("checkout", "--quiet", "-b", "later", "main")
    message = refusal(clone.root, ref)
    assert "fetch it with `git fetch origin +refs/heads/later:refs/remotes/origin/later`" in message
    assert ("and name it origin/later, or if it is a tag with `git fetch origin tag later`" in message) == (
        ref == "later"
    )
    follow(message, 0, clone.root)
    assert revisions.resolve(clone.root, "origin/later").base == branched.sha("main~2")


def test_a_tag_that_was_not_fetched(branched, tmp_path):
    clone = branched.clone(tmp_path / "clone")
    branched.git("tag", "v2", "main")
    follow(refusal(clone.root, "v2"), 1, clone.root)
    assert revisions.resolve(clone.root, "v2", exact=True).base == branched.sha("main")


def test_a_commit_that_was_not_fetched(branched, tmp_path):
    clone = branched.clone(tmp_path / "clone")
    branched.git("checkout", "--quiet", "main")
    sha = branched.commit(more="1")
    assert refusal(clone.root, sha[:10]).endswith("; fetch it with `git fetch origin`")
    message = refusal(clone.root, sha)
    assert message.endswith(f"; fetch it with `git fetch origin {sha}`")
    follow(message, 0, clone.root)
    assert revisions.resolve(clone.root, sha, exact=True).base == sha


def test_a_name_that_a_shell_would_run_is_quoted(branched, tmp_path):
    clone = branched.clone(tmp_path / "clone")
    message = refusal(clone.root, "x;touch$IFS'y'")
    assert "git fetch origin '+refs/heads/x;touch$IFS'\"'\"'y'\"'\"':refs/remotes/origin/x;" in message


# --- shallow clones -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [0, 1], ids=["deepen", "unshallow"])
def test_a_shallow_clone_without_the_revision(branched, tmp_path, number):
    clone = branched.clone(tmp_path / "clone", "--branch=feature", "--depth=1")
    message = refusal(clone.root, "origin/main")
    spec = "+refs/heads/main:refs/remotes/origin/main"
    assert (
        f"this is a shallow clone: deepen it with `git fetch --deepen=200 origin {spec}`, or fetch everything with "
        f"`git fetch --unshallow origin {spec}` (it is then origin/main); for actions/checkout set `fetch-depth: 0`"
    ) in message
    follow(message, number, clone.root)
    assert revisions.resolve(clone.root, "origin/main").base == branched.sha("main~2")


@pytest.mark.parametrize("number", [0, 1], ids=["deepen", "unshallow"])
@pytest.mark.parametrize("ref", ["origin/main", "base", "sha"])
def test_a_shallow_clone_without_the_merge_base(branched, tmp_path, ref, number):
    branched.git("tag", "base", "main")
    clone = branched.clone(tmp_path / "clone", "--branch=feature", "--depth=1")
    clone.git("fetch", "--quiet", "--depth=1", "origin", "+main:refs/remotes/origin/main", "tag", "base")
    named = branched.sha("main") if ref == "sha" else ref
    message = refusal(clone.root, named)
    main, feature = branched.sha("main")[:12], branched.sha("feature")[:12]
    assert message.startswith(f"{named} ({main}) and HEAD ({feature}) share no commit in this shallow clone; deepen")
    assert "for actions/checkout set `fetch-depth: 0`" in message
    assert message.endswith(f"; or compare with {named} itself: --mlbench-base-exact")
    assert revisions.resolve(clone.root, named, exact=True).base == branched.sha("main")
    follow(message, number, clone.root)
    assert revisions.resolve(clone.root, named).base == branched.sha("main~2")


def test_a_shallow_clone_that_may_lack_the_nearest_merge_base_says_so(branched, tmp_path):
    clone = branched.clone(tmp_path / "clone", "--branch=feature", "--depth=4", "--no-single-branch")
    found = revisions.resolve(clone.root, "origin/main")
    assert found.base == branched.sha("main~2")
    assert found.notes == ("this clone is shallow: a nearer merge base may lie in the history it lacks",)
    assert revisions.resolve(clone.root, "HEAD~1").notes == ()  # nothing is nearer than the revision itself


def test_a_shallow_clone_whose_remote_is_gone(branched, tmp_path):
    clone = branched.clone(tmp_path / "clone", "--branch=feature", "--depth=1")
    clone.git("remote", "remove", "origin")
    assert "this is a shallow clone: it has no remote to fetch more from; use a full clone" in refusal(
        clone.root, "HEAD~1"
    )


def test_a_shallow_clone_without_an_older_commit(branched, tmp_path):
    clone = branched.clone(tmp_path / "clone", "--branch=feature", "--depth=1")
    message = refusal(clone.root, "HEAD~1")
    assert "deepen it with `git fetch --deepen=200 origin`, or" in message
    follow(message, 0, clone.root)
    assert revisions.resolve(clone.root, "HEAD~1").base == branched.sha("feature~1")


# --- no repository, no history ------------------------------------------------------------------------------


def test_unrelated_histories(branched):
    branched.git("checkout", "--quiet", "--orphan", "island")
    island = branched.commit(other="1")
    message = refusal(branched.root, "main")
    assert message == (
        f"main ({branched.sha('main')[:12]}) and HEAD ({island[:12]}) have unrelated histories, so no merge base; "
        "name a revision that HEAD comes from, or compare with main itself: --mlbench-base-exact"
    )
    assert revisions.resolve(branched.root, "main", exact=True).base == branched.sha("main")


def test_no_commit_yet(git_repository, tmp_path):
    subprocess.run(["git", "init", "--quiet", str(tmp_path / "new")], check=True, timeout=60)
    message = refusal(tmp_path / "new", "main")
    assert message.startswith(f"the repository {(tmp_path / 'new').resolve()} has no commit yet: commit the candidate")


def test_not_a_repository(git_repository, tmp_path):
    for folder in (tmp_path, tmp_path / "missing"):
        message = refusal(folder, "main")
        assert message.startswith(f"{folder} is not in a git work tree (fatal: ")
        assert message.endswith("run in a clone of the project, or leave --mlbench-base out")


def test_a_bare_repository(branched, tmp_path):
    bare = branched.clone(tmp_path / "bare", "--bare")
    message = refusal(bare.root, "main")
    assert "is not in a git work tree (fatal: this operation must be run in a work tree)" in message


def test_a_repository_of_another_user(branched, monkeypatch):
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")  # git's own switch for this
    message = refusal(branched.root, "main")
    if "does not trust" not in message:
        pytest.skip("this git does not look at owners")
    assert f"git does not trust {branched.root}, which belongs to another user" in message
    assert "`git config --global --add safe.directory " in message


# --- what differs -------------------------------------------------------------------------------------------


def test_what_changed_is_told_from_the_top_folder(branched):
    root = branched.root
    base = branched.sha("HEAD~1")
    (root / "a folder").mkdir()
    (root / "a folder" / "n\u00e9w.py").write_text("not committed", encoding="utf-8")
    (root / "suite.toml").unlink()
    (root / ".gitignore").write_text("ignored.py\n", encoding="utf-8")
    (root / "ignored.py").touch()
    expected = {"feature.py", "a folder/n\u00e9w.py", "suite.toml", ".gitignore"}
    assert revisions.changed(root, base) == expected


def test_a_moved_file_changed_in_both_places(branched):
    branched.git("mv", "suite.toml", "moved.toml")
    assert revisions.changed(branched.root, branched.sha()) == {"suite.toml", "moved.toml"}


def test_nothing_changed(branched):
    assert revisions.changed(branched.root, branched.sha()) == frozenset()


def test_a_commit_that_is_gone_is_told_in_gits_words(branched):
    with pytest.raises(
        BaseError, match=r"git cannot list what changed since 000000000000 in .* \(status \d+\):\n.*0000"
    ):
        revisions.changed(branched.root, "0" * 40)


def test_git_is_missing(git_repository, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    message = "cannot run git (No such file or directory): the base revision is checked out with it; install git"
    assert refusal(git_repository.root, "main") == message


def test_git_that_never_answers(git_repository, tmp_path, monkeypatch):
    (tmp_path / "git").write_text("#!/bin/sh\nexec sleep 600\n", encoding="ascii")
    (tmp_path / "git").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr(revisions, "QUESTION_S", 0.2)
    message = refusal(git_repository.root, "main")
    assert message == (
        f"`git rev-parse` did not end within 0.2 s in {git_repository.root}; "
        "run it there by hand to see what it waits for"
    )


def test_a_damaged_repository_is_told_in_gits_words(branched):
    (branched.root / ".git" / "index").write_bytes(b"not an index")
    message = refusal(branched.root, "main")
    assert message.startswith(f"git cannot list the changes in {branched.root.resolve()} (status 128):\n")
    assert "index" in message.splitlines()[-1]
