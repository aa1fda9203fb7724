"""What the tests of several modules share."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass(frozen=True)
class GitRepository:
    """A real git repository of its own, with no configuration of this machine or its user."""

    root: Path

    def git(self, *arguments: str) -> str:
        """Run git there and return what it printed; CalledProcessError when it fails."""
        command = ["git", "-C", str(self.root), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.strip()

    def commit(self, **files: str) -> str:
        """Write the files (name__ext is name.ext), commit everything with their texts as message; return the SHA."""
        for name, text in files.items():
            path = self.root / name.replace("__", ".")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", ", ".join(files.values()))
        return self.sha()

    def sha(self, ref: str = "HEAD") -> str:
        """Return the full SHA of a revision."""
        return self.git("rev-parse", f"{ref}^{{commit}}")

    def clone(self, folder: Path, *options: str) -> GitRepository:
        """Clone it as from another machine, and return the clone."""
        command = ["git", "clone", "--quiet", *options, self.root.as_uri(), str(folder)]
        subprocess.run(command, capture_output=True, check=True, timeout=60)
        return GitRepository(folder)


@pytest.fixture
def git_repository(tmp_path, monkeypatch, require):
    """Return a repository with one commit on `main`: `suite.toml`, first version."""
    require("git")
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("GIT_CONFIG_SYSTEM", os.devnull)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    for who in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{who}_NAME", "tester")
        monkeypatch.setenv(f"GIT_{who}_EMAIL", "tester@example.org")
    root = tmp_path / "my project"
    root.mkdir()
    repository = GitRepository(root)
    repository.git("init", "--quiet", "--initial-branch=main")
    repository.commit(suite__toml="first")
    return repository
