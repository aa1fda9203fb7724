"""Files that suites name: present, whole, unaltered and inside their folder; and the cache of files we make."""

from __future__ import annotations

import hashlib
import os
import sys
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from filelock import FileLock

from pytest_mlbench.errors import AssetError

CHECKOUTS = "checkouts"  # the kind of cache entry that holds base revisions: REPOSITORY/SHA
_LFS_POINTER = b"version https://git-lfs.github.com/spec/"
_LFS_POINTER_BYTES = 1024  # a pointer is smaller (git-lfs, docs/spec.md)


def cache_dir() -> Path:
    """Return where made files are kept: `MLBENCH_CACHE`, else the user's cache directory."""
    chosen = os.environ.get("MLBENCH_CACHE")
    if chosen:
        return Path(chosen)
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local")) / "mlbench" / "cache"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "mlbench"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mlbench"


def cached(kind: str, key: str) -> Path:
    """Return the folder of the cache entry `key`, made if need be."""
    path = cache_dir() / kind / key
    path.mkdir(parents=True, exist_ok=True)
    return path


def cache_lock(folder: Path) -> FileLock:
    """Return the lock under which a cache entry is made: two workers must not make it twice."""
    return FileLock(folder / ".lock", mode=0o666)


def key_of(*parts: object) -> str:
    """Return a hash of everything an artefact depends on."""
    return hashlib.sha256("\0".join(str(part) for part in parts).encode()).hexdigest()[:32]


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file, remembered while its size and time of change stay the same."""
    facts = path.stat()
    return _sha256(str(path), facts.st_size, facts.st_mtime_ns)


@lru_cache(maxsize=512)
def _sha256(path: str, size: int, mtime_ns: int) -> str:
    total = hashlib.sha256()
    with Path(path).open("rb") as stream:
        while chunk := stream.read(1 << 20):
            total.update(chunk)
    return total.hexdigest()


def check(path: Path, *, suite: Path, expected_sha256: str | None = None, root: Path | None = None) -> str:
    """Check one file a suite names and return a hash of it and of the files it refers to.

    Raises AssetError when the file is missing, empty, a Git LFS pointer, truncated, altered (its SHA-256
    is not the declared one), or an ONNX model whose external data lies outside `root` (default: the
    suite's folder).
    """
    if not path.is_file():
        raise AssetError(f"file {path} does not exist; make or fetch it, or correct the path", file=suite)
    with path.open("rb") as stream:
        head = stream.read(64)
    if not head:
        raise AssetError(f"file {path} is empty", file=suite)
    if lfs_pointer(path):
        raise _lfs_error(path, suite)
    found = sha256_of(path)
    if expected_sha256 is not None and found != expected_sha256.lower():
        raise AssetError(
            f"file {path} has SHA-256 {found}, the suite declares {expected_sha256}: "
            "restore the file, or correct `sha256` if the change is meant",
            file=suite,
        )
    if path.suffix == ".onnx":
        others = external_data(path, suite=suite, root=root or suite.parent)
        if others:
            return key_of(found, *(sha256_of(other) for other in others))
    elif path.suffix == ".tflite" and head[4:8] != b"TFL3":
        raise AssetError(f"file {path} is not a TFLite model (its bytes 4 to 7 are not TFL3)", file=suite)
    elif path.suffix == ".pt2" and not zipfile.is_zipfile(path):
        raise AssetError(
            f"file {path} is no whole archive of torch.export (no zip, or cut short); write it with torch.export.save",
            file=suite,
        )
    return found


def lfs_pointer(path: Path) -> bool:
    """Tell whether Git LFS left a pointer in place of the file; OSError when it cannot be read."""
    with path.open("rb") as stream:
        return stream.read(_LFS_POINTER_BYTES).startswith(_LFS_POINTER) and not stream.read(1)


def _lfs_error(path: Path, suite: Path) -> AssetError:
    remedy = "run `git lfs pull`"
    checkouts = (cache_dir() / CHECKOUTS).resolve()
    if path.resolve().is_relative_to(checkouts):  # of a base revision, which no branch holds to pull
        repository, sha = path.resolve().relative_to(checkouts).parts[:2]
        remedy = f"run `git lfs fetch origin {sha} && git lfs checkout` in {checkouts / repository / sha}"
    return AssetError(f"file {path} is a Git LFS pointer, not its content; {remedy}", file=suite)


def write_arrays(path: Path, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
    """Write an npz file, whole or not at all. numpy.savez would take some names of arrays for its own arguments."""
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    with zipfile.ZipFile(part, "w") as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as stream:
                np.lib.format.write_array(stream, np.asarray(array), allow_pickle=False)
    part.replace(path)


def external_data(path: Path, *, suite: Path, root: Path) -> list[Path]:
    """Return the external-data files of an ONNX model, checked to exist inside `root`.

    The few protobuf fields on the way are read here (onnx.proto3: ModelProto.graph 7, .functions 25,
    GraphProto.node 1, .initializer 5, .sparse_initializer 15, FunctionProto.node 7, .attribute_proto 11,
    NodeProto.attribute 5, AttributeProto.t 5, .g 6, .tensors 10, .graphs 11, .sparse_tensor 22,
    .sparse_tensors 23, SparseTensorProto.values 1, .indices 2, TensorProto.external_data 13), so that no
    framework opens a file before it is known to be allowed.
    """
    try:
        locations = sorted(set(_locations(path.read_bytes())))
    except (IndexError, ValueError):
        raise AssetError(
            f"file {path} is truncated or not an ONNX model; export or fetch it again", file=suite
        ) from None
    found = []
    inside = root.resolve()
    for location in locations:
        try:
            target = (path.parent / location).resolve()
            present = target.is_file()
        except (OSError, ValueError, RuntimeError) as error:  # too long, with a null in it, a loop of links
            message = f"file {path} keeps weights in {location!r}, which is no path: {error}"
            raise AssetError(message, file=suite) from None
        if not target.is_relative_to(inside):
            raise AssetError(
                f"file {path} keeps weights in {location!r}, which leaves the suite's folder {inside}: "
                "move the data beside the model and save it again",
                file=suite,
            )
        if not present:
            raise AssetError(f"file {path} keeps weights in {location!r}, which does not exist", file=suite)
        if lfs_pointer(target):
            raise _lfs_error(target, suite)
        found.append(target)
    return found


_TENSORS_AND_GRAPHS: dict[str, dict[int, str]] = {
    "model": {7: "graph", 25: "function"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {13: "entry"},
}


def _locations(data: bytes) -> Iterator[str]:
    stack: list[tuple[str, memoryview]] = [("model", memoryview(data))]
    seen_graph = False
    while stack:
        kind, view = stack.pop()
        seen_graph = seen_graph or kind == "graph"
        if kind == "entry":
            entry = {number: bytes(value) for number, value in _fields(view)}
            if entry.get(1) == b"location":
                yield entry.get(2, b"").decode()
            continue
        children = _TENSORS_AND_GRAPHS[kind]
        stack.extend((children[number], value) for number, value in _fields(view) if number in children)
    if not seen_graph:
        raise ValueError("no graph")


def _fields(view: memoryview) -> Iterable[tuple[int, memoryview]]:
    """Yield the length-delimited fields of one protobuf message; ValueError or IndexError when it is cut off."""
    position = 0
    while position < len(view):
        tag, position = _varint(view, position)
        wire = tag & 7
        if wire == 0:
            _, position = _varint(view, position)
        elif wire in (1, 5):
            position += 8 if wire == 1 else 4
        elif wire == 2:
            size, position = _varint(view, position)
            if position + size > len(view):
                raise ValueError("cut off")
            yield tag >> 3, view[position : position + size]
            position += size
        else:
            raise ValueError(f"wire type {wire}")
    if position > len(view):
        raise ValueError("cut off")


def _varint(view: memoryview, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = view[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if not byte & 0x80:
            return value, position
        shift += 7
        if shift > 63:
            raise ValueError("varint too long")
