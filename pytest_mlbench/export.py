"""`mlbench export RUN --format pytest-benchmark`: write a run for tools that read the files of another tool."""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_mlbench import __version__
from pytest_mlbench.errors import MlbenchError

if TYPE_CHECKING:
    from pytest_mlbench.record import Record
    from pytest_mlbench.stores.runfile import Run

FORMATS = ("pytest-benchmark",)


@dataclass(frozen=True)
class Row:
    """What pytest-benchmark holds of one benchmark. `rounds_s` are seconds, each of `iterations` calls."""

    name: str
    fullname: str
    group: str
    param: str
    params: Mapping[str, Any]
    extra_info: Mapping[str, Any]
    rounds_s: Sequence[float]
    iterations: int


def row(record: Record) -> Row | None:
    """Return what pytest-benchmark holds of a case; None when it did not pass, or was not timed.

    A failed case is left out: its times are those of a model that gives wrong results, or of half a measurement.
    Raises RunFileError when the record's readings cannot be read.
    """
    from pytest_mlbench.stores.runfile import decode_samples

    if record.outcome != "pass" or "sample_ns" not in record.samples:
        return None
    samples = record.samples
    rounds_s = (decode_samples(samples["sample_ns"]) / 1e9).tolist()
    if not rounds_s:
        return None
    group, _, param = record.case.partition("[")
    told = {"case": record.case, "fingerprint": record.fingerprint, "rounds_taken": samples["sample_ns"].get("total")}
    if record.resumed:
        told["resumed"] = record.resumed
    return Row(
        name=record.node.rpartition("::")[2],
        fullname=record.node,
        group=group,
        param=param.removesuffix("]"),
        params=dict(record.axes),
        extra_info={"mlbench": told},
        rounds_s=rounds_s,
        iterations=_calls(record),
    )


def _calls(record: Record) -> int:
    calls = record.samples.get("calls")
    if isinstance(calls, bool) or not isinstance(calls, int) or calls < 1:
        raise MlbenchError(f"{record.case}: samples.calls: expected a whole number of 1 or more, found {calls!r:.40}")
    return calls


def pytest_benchmark(run: Run) -> dict[str, Any]:
    """Return a run as `--benchmark-json` would write it, statistics computed by pytest-benchmark itself.

    Raises MlbenchError when it is not installed, and when no case of the run passed and was timed.
    """
    try:
        library = importlib.import_module("pytest_benchmark.stats")
    except ImportError as error:
        raise MlbenchError(f"this needs pytest-benchmark: pip install 'pytest-mlbench[benchmark]' ({error})") from None
    rows = [made for record in run.records if (made := row(record)) is not None]
    if not rows:
        raise MlbenchError("no case of this run passed with readings, so there is nothing to export")
    return {
        "machine_info": _machine(run.header.get("host", {})),
        "commit_info": _commit(run.header.get("source", {})),
        "benchmarks": [_benchmark(one, library.Stats()) for one in rows],
        "datetime": run.footer.get("finished") or run.header.get("started"),
        "version": f"pytest-mlbench {__version__}",
    }


def _benchmark(one: Row, stats: Any) -> dict[str, Any]:  # pytest_benchmark.stats.Stats, which has no types
    for seconds in one.rounds_s:
        stats.update(seconds / one.iterations)
    return {
        "group": one.group,
        "name": one.name,
        "fullname": one.fullname,
        "params": one.params,
        "param": one.param,
        "extra_info": one.extra_info,
        "options": {"timer": "mlbench_samples"},
        "stats": {**stats.as_dict(), "data": stats.data, "iterations": one.iterations},
    }


def _machine(host: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "node": host.get("node", ""),
        "processor": host.get("processor", ""),
        "machine": host.get("machine", ""),
        "python_version": host.get("python", ""),
        "release": host.get("release", ""),
        "system": host.get("system", ""),
        "cpu": {"brand_raw": host.get("processor", ""), "count": host.get("cores"), "flags": host.get("flags", [])},
    }


def _commit(source: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "id": source.get("commit", "unversioned"),
        "time": None,
        "author_time": None,
        "dirty": source.get("dirty", False),
        "project": "",
        "branch": source.get("branch") or "(unknown)",
    }


def add_export(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register `export`; the parsed arguments hold `run`, a function of them that returns the exit code."""
    parser = subparsers.add_parser(
        "export",
        help="write a run file in the format of another tool",
        description="Write the passed cases of a run file in the format of another tool.",
    )
    parser.add_argument("file", type=Path, metavar="RUN", help="a run file, or the .parts folder of a killed run")
    parser.add_argument("--format", choices=FORMATS, required=True, help="what to write")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="where (default: standard output)")
    parser.set_defaults(run=run_export)


def run_export(arguments: argparse.Namespace) -> int:
    """Write the file, and say on standard error what was left out."""
    from pytest_mlbench.stores import runfile

    run = runfile.read(arguments.file)
    try:
        document = pytest_benchmark(run)
    except MlbenchError as error:
        raise MlbenchError(f"{arguments.file}: {error}") from None
    text = json.dumps(document, indent=4) + "\n"
    if arguments.output is None:
        sys.stdout.write(text)
    else:
        part = arguments.output.with_name(arguments.output.name + ".part")
        try:
            part.write_text(text, encoding="utf-8")
            part.replace(arguments.output)
        except OSError as error:
            raise MlbenchError(f"cannot write {arguments.output}: {error.strerror or error}") from None
    written = {one["extra_info"]["mlbench"]["case"] for one in document["benchmarks"]}
    left_out = [f"  {record.case}: {record.outcome}" for record in run.records if record.case not in written]
    told = f"wrote {len(written)} of {len(run.records)} cases" + (f" to {arguments.output}" if arguments.output else "")
    print("\n".join([told + ("; left out:" if left_out else ""), *left_out]), file=sys.stderr)
    return 0
