"""A board's cache: whole or not at all, bounded, least recently used first, never one in use."""

from __future__ import annotations

import errno
import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("fcntl")

from pytest_mlbench.agent import board_cache
from pytest_mlbench.agent.board_cache import Cache, NotKept


def digest(data):
    return hashlib.sha256(data).hexdigest()


def keep(cache, key, **files):
    cache.begin(sum(map(len, files.values())))
    for name, data in files.items():
        half = len(data) // 2
        cache.write(name, data[:half])
        cache.write(name, data[half:])
    folder = Path(cache.finish(key, {name: digest(data) for name, data in files.items()}))
    cache.close()  # of a session that has ended
    return folder


def key(number):
    return f"{number:064x}"


@pytest.fixture
def make(tmp_path):
    return lambda limit=1000: Cache(str(tmp_path / "cache"), limit)


def names(tmp_path):
    return sorted(path.name for path in (tmp_path / "cache").iterdir())


def test_an_entry_is_found_again_by_another_session(make):
    folder = keep(make(), key(1), a=b"model", b=b"weights")
    assert (folder / "a").read_bytes() == b"model"
    assert (folder / "b").read_bytes() == b"weights"
    assert make().find(key(1)) == str(folder)
    assert make().find(key(2)) == ""


def test_files_in_folders(make):
    cache = make()
    cache.begin(3)
    cache.write("data/w.bin", b"abc")
    folder = Path(cache.finish(key(1), {"data/w.bin": digest(b"abc")}))
    assert (folder / "data" / "w.bin").read_bytes() == b"abc"


def test_nothing_is_there_before_it_is_finished(make, tmp_path):
    cache = make()
    cache.begin(4)
    cache.write("a", b"half")
    assert make().find(key(1)) == ""
    cache.abandon()
    assert names(tmp_path) == []


def test_a_file_that_arrived_altered_is_not_kept(make, tmp_path):
    cache = make()
    cache.begin(4)
    cache.write("a", b"haXf")
    with pytest.raises(NotKept, match=f"a arrived with SHA-256 {digest(b'haXf')}, expected {digest(b'half')}"):
        cache.finish(key(1), {"a": digest(b"half")})
    assert names(tmp_path) == []


def test_two_sessions_that_write_the_same_entry(make, tmp_path):
    one, other = make(), make()
    one.begin(1)
    other.begin(1)
    one.write("a", b"x")
    other.write("a", b"x")
    folders = {one.finish(key(1), {"a": digest(b"x")}), other.finish(key(1), {"a": digest(b"x")})}
    assert folders == {str(tmp_path / "cache" / key(1))}
    assert names(tmp_path) == [key(1)]


def test_the_least_recently_used_goes_first(make, tmp_path):
    for number in (1, 2, 3):
        keep(make(), key(number), a=b"x" * 300)
        os.utime(tmp_path / "cache" / key(number), (number, number))
    session = make()
    assert session.find(key(1))  # used: now the latest
    session.close()
    keep(make(), key(4), a=b"x" * 300)
    assert names(tmp_path) == [key(1), key(3), key(4)]


def test_what_another_process_uses_is_never_removed(make, tmp_path):
    keep(make(), key(1), a=b"x" * 600)
    code = "import sys; from pytest_mlbench.agent.board_cache import Cache\n"
    code += (
        f"cache = Cache({str(tmp_path / 'cache')!r}, 1000); print(bool(cache.find({key(1)!r})), flush=True); input()"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as user:
        assert user.stdout.readline() == b"True\n"
        with pytest.raises(NotKept, match=r"0\.0 MB do not fit the cache of 0\.0 MB in .* beside the 0\.0 MB that are"):
            keep(make(), key(2), a=b"x" * 600)
        assert names(tmp_path) == [key(1)]
        user.communicate(b"\n", timeout=20)
    keep(make(), key(2), a=b"x" * 600)
    assert names(tmp_path) == [key(2)]


def test_what_is_larger_than_the_bound_is_refused_and_removes_nothing(make, tmp_path):
    keep(make(), key(1), a=b"x" * 900)
    with pytest.raises(NotKept, match="raise `cache_mb` of the device in the lab file"):
        make().begin(1001)
    assert names(tmp_path) == [key(1)]


def test_what_a_killed_session_left_is_removed_and_what_one_writes_is_not(make, tmp_path):
    left = tmp_path / "cache" / ".part-left"
    left.mkdir(parents=True)
    (left / "a").write_bytes(b"half")
    writing = make()
    writing.begin(1)
    make().begin(1)
    assert ".part-left" not in names(tmp_path)
    assert writing.write("a", b"x") == 1
    writing.finish(key(1), {"a": digest(b"x")})


def test_a_full_disk_leaves_nothing(make, tmp_path, monkeypatch):
    cache = make()
    cache.begin(2)

    def full(self, *args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", full)
        with pytest.raises(NotKept, match="is full: No space left on device; nothing was kept of the file"):
            cache.write("a", b"xx")
    assert names(tmp_path) == []
    monkeypatch.setattr(board_cache.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 1})())
    with pytest.raises(NotKept, match=r"is full: 0\.0 MB are to be written and 0\.0 MB are free"):
        cache.begin(2)


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(NotKept, match=r"the cache folder .*file/cache cannot be made: Not a directory"):
        Cache(str(tmp_path / "file" / "cache"), 1)


@pytest.mark.parametrize("name", ["../a", "/etc/passwd", "a/../../b", ""])
def test_names_that_leave_the_entry_are_refused(make, name):
    cache = make()
    cache.begin(1)
    with pytest.raises(NotKept, match="is no name of a file inside a cache entry"):
        cache.write(name, b"x")


@pytest.mark.parametrize("bad", ["..", "a" * 31, "A" * 64, "x/y", ""])
def test_keys_are_hashes(make, bad):
    with pytest.raises(NotKept, match="is no key of a cache entry"):
        make().find(bad)


def test_what_was_made_in_scratch_can_be_read_and_nothing_else(make, tmp_path):
    cache = make()
    folder = Path(cache.scratch())
    (folder / "made").write_bytes(b"abcdef")
    assert cache.read(str(folder / "made"), 2, 3) == b"cde"
    (tmp_path / "secret").write_text("no")
    for path in (tmp_path / "secret", folder / ".." / ".." / "secret"):
        with pytest.raises(NotKept, match="is not in this session's own folder"):
            cache.read(str(path), 0, 3)
    cache.abandon()
    assert names(tmp_path) == []


def test_nothing_is_written_that_was_not_begun(make):
    with pytest.raises(NotKept, match="nothing was begun in the cache"):
        make().write("a", b"x")
