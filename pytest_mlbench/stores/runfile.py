"""The run file: one JSON Lines file per session, made of journals that survive a killed run.

While the session runs, a folder `<run>.parts/` beside the file holds `header.json` and one journal per
worker; each finished record is one line, flushed to disk. At the end the controller merges them into
the run file and renames it into place.
"""

from __future__ import annotations

import base64
import contextlib
import json
import math
import os
import shutil
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pytest_mlbench.errors import RunFileError
from pytest_mlbench.record import SCHEMA, Record

MAX_DEPTH = 40  # of what is read: deeper is no run file, and could exhaust the stack of what handles it
MAX_SAMPLES = 10_000  # per process; beyond it a seeded reservoir, and the record says so


@dataclass(frozen=True)
class Run:
    """One session's records."""

    header: Mapping[str, Any]
    records: tuple[Record, ...]
    footer: Mapping[str, Any] = field(default_factory=dict)


def encode_samples(samples_ns: npt.NDArray[np.int64], seed: int = 0) -> dict[str, Any]:
    """Return samples as one base64 zlib string of little-endian int64, at most MAX_SAMPLES of them.

    More are thinned to a uniform draw without replacement, in order of time; `kept` and `total` tell.
    """
    total = len(samples_ns)
    if total > MAX_SAMPLES:
        chosen = np.sort(np.random.default_rng(seed).choice(total, MAX_SAMPLES, replace=False))
        samples_ns = samples_ns[chosen]
    data = base64.b64encode(zlib.compress(samples_ns.astype("<i8").tobytes(), 6)).decode("ascii")
    rule = "all" if total <= MAX_SAMPLES else f"uniform without replacement, seed {seed}"
    return {"int64_zlib_base64": data, "kept": min(total, MAX_SAMPLES), "total": total, "rule": rule}


def decode_samples(encoded: Mapping[str, Any]) -> npt.NDArray[np.int64]:
    """Return the samples kept in a record; RunFileError for what encode_samples() cannot have made."""
    unpacker = zlib.decompressobj()
    try:
        data = unpacker.decompress(base64.b64decode(encoded["int64_zlib_base64"], validate=True), 8 * MAX_SAMPLES)
        if not unpacker.eof:  # a small text may unpack to more than the memory holds
            raise ValueError(f"they are cut off, or more than {MAX_SAMPLES}")
        return np.frombuffer(data, dtype="<i8").astype(np.int64)
    except (KeyError, TypeError, ValueError, zlib.error) as error:
        raise RunFileError(f"the samples of a record cannot be read: {error}") from None


def dumps(line: Mapping[str, Any]) -> str:
    """Return one line of JSON; NaN and infinities, which JSON lacks, become null."""
    try:
        return json.dumps(line, allow_nan=False, separators=(",", ":"), default=_plain)
    except ValueError:
        return json.dumps(_finite(line), allow_nan=False, separators=(",", ":"), default=_plain)


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, (Path,)):
        return str(value)
    raise TypeError(f"{type(value).__name__} cannot be kept in a run file")


def _finite(value: Any) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(entry) for entry in value]
    return value


def parts_dir(run_file: Path) -> Path:
    """Return the folder of a run's journals."""
    return run_file.with_name(run_file.name + ".parts")


def begin(run_file: Path, header: Mapping[str, Any]) -> None:
    """Start a run: make its folder of journals and write the header.

    Journals that a killed run of the same name left are merged into the run file first, so that none of its
    records passes for one of this run, and `--mlbench-resume` of that file still finds them.
    """
    parts = parts_dir(run_file)
    if run_file.is_dir():
        raise RunFileError(f"cannot write {run_file}: it is a folder; name a file with --mlbench-output")
    if (parts / "header.json").exists():
        finish(run_file, {"exitstatus": None})
    try:
        parts.mkdir(parents=True, exist_ok=True)
        if run_file.parent.name == ".mlbench":
            ignore = run_file.parent / ".gitignore"
            if not ignore.exists():
                ignore.write_text("*\n", encoding="utf-8")
        part = parts / "header.part"  # renamed when whole: a run killed here leaves no half of a header
        part.write_text(dumps({"kind": "header", "schema": SCHEMA, **header}) + "\n", encoding="utf-8")
        part.replace(parts / "header.json")
    except OSError as error:
        raise _unwritable(parts, error) from None


class Journal:
    """Appends finished records, one line each, so that whatever was finished outlives this process."""

    def __init__(self, run_file: Path, worker: str) -> None:
        self.path = parts_dir(run_file) / f"{worker}.jsonl"

    def append(self, record: Record) -> None:
        """Write one record and flush it to disk.

        Raises RunFileError, with the file as it was before, when the disk does not take the line.
        """
        line = (dumps(record.to_json()) + "\n").encode()
        try:
            with self.path.open("ab") as stream:
                start = stream.tell()
                try:
                    stream.write(line)
                    stream.flush()
                    with contextlib.suppress(OSError):  # not every file system can
                        os.fsync(stream.fileno())
                except OSError:
                    with contextlib.suppress(OSError):
                        stream.truncate(start)
                    raise
        except OSError as error:
            raise _unwritable(self.path, error) from None


def _unwritable(path: Path, error: OSError) -> RunFileError:
    return RunFileError(
        f"cannot write {path}: {error.strerror or error}; free space there or choose another place with "
        "--mlbench-output. Records already written are kept"
    )


def sorted_by_node(run: Run, order: Sequence[str]) -> Run:
    """Return the run with its records in the order of the node ids in `order`; others come last."""
    places = {node: place for place, node in enumerate(order)}
    return replace(run, records=tuple(sorted(run.records, key=lambda r: places.get(r.node, len(places)))))


def finish(run_file: Path, footer: Mapping[str, Any], order: Sequence[str] = ()) -> Run:
    """Merge the journals into the run file, atomically, and remove them; returns the run.

    Workers finish in any order: records are put in that of the node ids in `order`.
    """
    parts = parts_dir(run_file)
    run = sorted_by_node(read(parts), order)
    footer = {
        "kind": "footer",
        "finished": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        **footer,
    }
    part = run_file.with_name(run_file.name + ".part")
    try:
        with part.open("w", encoding="utf-8") as stream:
            stream.write(dumps(run.header) + "\n")
            for record in run.records:
                stream.write(dumps(record.to_json()) + "\n")
            stream.write(dumps(footer) + "\n")
            stream.flush()
            with contextlib.suppress(OSError):
                os.fsync(stream.fileno())
        part.replace(run_file)
    except OSError as error:
        with contextlib.suppress(OSError):
            part.unlink()
        raise _unwritable(run_file, error) from None
    shutil.rmtree(parts, ignore_errors=True)
    return Run(run.header, run.records, footer)


def read(path: Path) -> Run:
    """Read a run file, or the folder of journals (`*.parts`) that a killed run left.

    A cut-off last line of a journal is dropped (the process was killed while writing it). Raises
    RunFileError for anything that is no run file, or one of a newer schema.
    """
    if not path.exists() and parts_dir(path).is_dir():
        path = parts_dir(path)
    if path.is_dir():
        files = [path / "header.json", *sorted(file for file in path.glob("*.jsonl") if file.is_file())]
        lines = [line for file in files for line in _lines(file, may_be_cut=file.suffix == ".jsonl")]
    else:
        lines = list(_lines(path, may_be_cut=False))
    if not lines or lines[0].get("kind") != "header":
        raise RunFileError(f"{path} is not a run file: its first line is no header")
    schema = lines[0].get("schema")
    if type(schema) is not int or not 1 <= schema <= SCHEMA:  # true is an int of 1
        raise RunFileError(f"{path} has schema {schema!r}, this version reads up to {SCHEMA}; upgrade pytest-mlbench")
    try:
        records = tuple(Record.from_json(line) for line in lines if line.get("kind") == "record")
    except ValueError as error:
        raise RunFileError(f"{path} holds a record that is not one: {error}") from None
    footers = [line for line in lines if line.get("kind") == "footer"]
    return Run(lines[0], records, footers[-1] if footers else {})


def _refuse(word: str) -> float:
    raise ValueError(f"{word} is no number of JSON")


def _float(text: str) -> float:
    value = float(text)
    return value if math.isfinite(value) else _refuse(text)


def _depth(value: object) -> int:
    """Return how deep lists and objects are nested."""
    depth, level = 0, [value]
    while level:
        depth += 1
        found: list[object] = []
        for entry in level:
            if isinstance(entry, dict):
                found += entry.values()
            elif isinstance(entry, list):
                found += entry
        level = found
    return depth


def _lines(path: Path, *, may_be_cut: bool) -> Iterator[dict[str, Any]]:
    if path.exists() and not path.is_file():  # a device, for one, may never end
        raise RunFileError(f"cannot read {path}: it is no regular file")
    try:
        text = path.read_text(encoding="utf-8", errors="strict")
    except (OSError, UnicodeDecodeError) as error:
        raise RunFileError(f"cannot read {path}: {error}") from None
    whole = text.split("\n")
    for number, line in enumerate(whole, 1):
        if not line:
            continue
        try:
            value = json.loads(line, parse_constant=_refuse, parse_float=_float)
            if _depth(value) > MAX_DEPTH:
                raise ValueError(f"nested deeper than {MAX_DEPTH} levels")
        except (ValueError, RecursionError) as error:
            if may_be_cut and number == len(whole):
                return
            raise RunFileError(f"{path}, line {number}: not JSON: {error}") from None
        if not isinstance(value, dict):
            raise RunFileError(f"{path}, line {number}: expected an object, found {type(value).__name__}")
        yield value
