"""Files kept on a board by what they hold: whole or not at all, bounded in size, never one in use thrown out.

An entry is a folder `KEY` of one or more files. It is written as `.part-...` and renamed when every file has its
right hash. Who uses an entry, or writes one, holds a lock on its folder: what is locked is not removed.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import re
import shutil
import tempfile
from pathlib import Path

_KEY = re.compile(r"[0-9a-f]{32,64}")
_PART = ".part-"


class NotKept(Exception):
    """A file cannot be kept in the cache of a board; nothing is left of it."""


class Cache:
    """The cache folder of one board. One process may use it beside others."""

    def __init__(self, folder: str, limit_bytes: int) -> None:
        """Use `folder`, else `mlbench` in the user's own cache folder; made if need be. NotKept when it cannot be."""
        own = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mlbench" / "board"
        self.folder = Path(folder).expanduser() if folder else own
        self.limit_bytes = limit_bytes
        self._used: dict[str, int] = {}
        self._part: tuple[Path, int] | None = None
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise NotKept(f"the cache folder {self.folder} cannot be made: {error.strerror}") from None

    # --- reading ---------------------------------------------------------------------------------------

    def find(self, key: str) -> str:
        """Return the folder of an entry, which is then in use until this process ends; "" when there is none."""
        path = self.folder / _checked(key)
        if key in self._used:
            return str(path)
        descriptor = _opened(path)
        if descriptor is None:
            return ""
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        if not path.is_dir():  # removed in between
            os.close(descriptor)
            return ""
        self._used[key] = descriptor
        with contextlib.suppress(OSError):
            os.utime(path)  # the order in which entries are thrown out
        return str(path)

    # --- writing ---------------------------------------------------------------------------------------

    def begin(self, size: int) -> None:
        """Begin an entry of `size` bytes: makes room, or refuses."""
        self.abandon()
        self._clear_parts()
        if size > self.limit_bytes:
            raise NotKept(
                f"{_mb(size)} do not fit the cache of {_mb(self.limit_bytes)} in {self.folder}; "
                "raise `cache_mb` of the device in the lab file"
            )
        self._make_room(size)
        free = shutil.disk_usage(self.folder).free
        if size > free:
            raise NotKept(self._full(f"{_mb(size)} are to be written and {_mb(free)} are free"))
        while self._part is None:
            try:
                folder = Path(tempfile.mkdtemp(prefix=_PART, dir=self.folder))
            except OSError as error:
                raise NotKept(self._failed(error)) from None
            descriptor = _opened(folder)
            if descriptor is None:  # another session took it for left over, before it was locked
                continue
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if folder.is_dir():
                self._part = (folder, descriptor)
            else:
                os.close(descriptor)

    def write(self, name: str, data: bytes) -> int:
        """Add bytes to a file of the entry that was begun; what cannot be written whole leaves nothing."""
        path = self._begun / _inside(name)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("ab") as stream:
                stream.write(data)
        except OSError as error:
            self.abandon()
            raise NotKept(self._failed(error)) from None
        return len(data)

    def finish(self, key: str, hashes: dict[str, str]) -> str:
        """Keep the entry under its key when each file has its hash; returns its folder, which is then in use."""
        folder = self._begun
        for name, expected in hashes.items():
            found = _sha256(folder / _inside(name))
            if found != expected:
                self.abandon()
                raise NotKept(f"{name} arrived with SHA-256 {found}, expected {expected}: nothing was kept; try again")
        try:
            folder.rename(self.folder / _checked(key))
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                self.abandon()
                raise NotKept(self._failed(error)) from None
        self.abandon()  # of another session's making meanwhile: the same bytes
        return self.find(key)

    def scratch(self) -> str:
        """Return an empty folder of this session's own, for files that are made here; it goes with abandon()."""
        self.begin(0)
        return str(self._begun)

    def close(self) -> None:
        """Let go of every entry in use, and remove what was not finished."""
        self.abandon()
        while self._used:
            os.close(self._used.popitem()[1])

    def abandon(self) -> None:
        """Remove what was begun and not finished."""
        if self._part is not None:
            folder, descriptor = self._part
            self._part = None
            shutil.rmtree(folder, ignore_errors=True)
            os.close(descriptor)

    def read(self, path: str, offset: int, size: int) -> bytes:
        """Return at most `size` bytes of a file that was made in scratch()."""
        file = Path(path)
        if self._part is None or self._part[0].resolve() not in file.resolve().parents:
            raise NotKept(f"{path} is not in this session's own folder")
        with file.open("rb") as stream:
            stream.seek(offset)
            return stream.read(size)

    # --- room ------------------------------------------------------------------------------------------

    @property
    def _begun(self) -> Path:
        if self._part is None:
            raise NotKept("nothing was begun in the cache")
        return self._part[0]

    def _make_room(self, size: int) -> None:
        """Remove entries, least recently used first, until `size` fits the bound and the disk."""
        entries = sorted((path for path in self.folder.iterdir() if _KEY.fullmatch(path.name)), key=_used_at)
        sizes = {path: _size(path) for path in entries}
        for path in entries:
            if sum(sizes.values()) + size <= self.limit_bytes and size <= shutil.disk_usage(self.folder).free:
                return
            if self._remove(path):
                del sizes[path]
        if sum(sizes.values()) + size > self.limit_bytes:
            raise NotKept(
                f"{_mb(size)} do not fit the cache of {_mb(self.limit_bytes)} in {self.folder} beside the "
                f"{_mb(sum(sizes.values()))} that are in use; raise `cache_mb` of the device in the lab file"
            )

    def _remove(self, path: Path) -> bool:
        """Remove a folder that no process uses."""
        descriptor = _opened(path)
        if descriptor is None:
            return True
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            gone = path.with_name(f"{_PART}{os.getpid()}-{path.name}")
            path.rename(gone)  # at once out of the way of who looks for it
            shutil.rmtree(gone, ignore_errors=True)
        except OSError:  # in use, or another user's
            return False
        finally:
            os.close(descriptor)
        return True

    def _clear_parts(self) -> None:
        """Remove what a killed session left half written."""
        for path in self.folder.glob(f"{_PART}*"):
            descriptor = _opened(path)
            if descriptor is not None:
                with contextlib.suppress(OSError):
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(path, ignore_errors=True)
                os.close(descriptor)

    def _failed(self, error: OSError) -> str:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return self._full(str(error.strerror))
        return f"the cache folder {self.folder} cannot be written: {error.strerror}; nothing was kept of the file"

    def _full(self, why: str) -> str:
        return (
            f"the disk of the cache folder {self.folder} is full: {why}; nothing was kept of the file. Free space "
            "there, or name a folder on another disk with `cache` of the device in the lab file"
        )


def _checked(key: str) -> str:
    if not _KEY.fullmatch(key):
        raise NotKept(f"{key!r} is no key of a cache entry")
    return key


def _inside(name: str) -> Path:
    path = Path(name)
    if path.is_absolute() or ".." in path.parts or not path.parts:
        raise NotKept(f"{name!r} is no name of a file inside a cache entry")
    return path


def _opened(folder: Path) -> int | None:
    try:
        return os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return None


def _sha256(path: Path) -> str:
    total = hashlib.sha256()
    with path.open("rb") as stream:
        for block in iter(lambda: stream.read(1 << 20), b""):
            total.update(block)
    return total.hexdigest()


def _size(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):
            total += path.stat().st_size
    return total


def _used_at(folder: Path) -> float:
    try:
        return folder.stat().st_mtime
    except OSError:
        return 0.0


def _mb(size: int) -> str:
    return f"{size / 1e6:.1f} MB"
