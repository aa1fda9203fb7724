"""What all importers make: records of one benchmark each, and the run around them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import numpy as np
import numpy.typing as npt

from pytest_mlbench import __version__, environment
from pytest_mlbench.errors import RunFileError
from pytest_mlbench.importers.document import Document, Place
from pytest_mlbench.metrics.catalogue import absent, found
from pytest_mlbench.metrics.latency import CONFIDENCE, TAILS
from pytest_mlbench.record import SCHEMA, Metric, Outcome, Record
from pytest_mlbench.stats.early_stopping import minimum_n, percentile, upper_bound
from pytest_mlbench.stats.median_interval import median_interval
from pytest_mlbench.stores.runfile import Run, encode_samples

SUITE = "imported"
MOST_S = 1e6  # of one call: eleven days
MOST_CALLS = 10**12  # in one reading
MOST_NS = 2**62  # of one reading: more than a century
_LONGEST = 100  # characters of a part of a case id
_EMPTY: npt.NDArray[np.float64] = np.empty(0)


@dataclass(frozen=True)
class Readings:
    """What a file tells of one benchmark's times.

    `call_ns` holds nanoseconds per call in order of time, empty when the file has a summary only; `calls` how many
    calls each reading spans, None when they differ. `starts` are the indices of the first reading of each process.
    The summary's None is for what the file does not tell, `n` counts the readings behind it.
    """

    n: int
    note: str
    min_ns: float | None
    mean_ns: float | None
    p50_ns: float | None
    call_ns: npt.NDArray[np.float64] = field(default_factory=lambda: _EMPTY)
    calls: int | None = None
    starts: tuple[int, ...] = (0,)


@dataclass(frozen=True)
class Benchmark:
    """One benchmark of a file: `original` is its name there, `name` and `variant` what the case id is made of.

    `machine` holds what the file tells of where it ran, `compared` the facts that must be equal before two
    records are compared: not what changes from run to run, such as the frequency right now.
    """

    original: str
    name: str
    variant: str
    started: datetime
    readings: Readings | None
    machine: Mapping[str, Any]
    compared: Mapping[str, Any]
    outcome: Outcome = "pass"
    reason: str = ""
    threads: int | None = None


@dataclass(frozen=True)
class Source:
    """What a file tells of the session that wrote it."""

    tool: str
    version: str
    started: datetime
    commit: Mapping[str, Any] = field(default_factory=dict)


def nanoseconds(place: Place, unit_ns: float, calls: int | None) -> float:
    """Return the time of one call, in ns, from a value in units of `unit_ns`; `calls` are those of its reading."""
    value = place.number(0, MOST_S * 1e9 / unit_ns) * unit_ns
    if value * (calls or 1) > MOST_NS:
        place.wrong(f"the time of one of {calls} calls, not more than a century for all")
    return value


def summary(call_ns: npt.NDArray[np.float64]) -> tuple[float, float, float]:
    """Return minimum, mean and median."""
    return float(call_ns.min()), float(call_ns.mean()), float(np.median(call_ns))


def case_id(benchmark: Benchmark, tool: str) -> str:
    """Return `imported/NAME[VARIANT]`, which depends on the benchmark's own name only.

    Where characters had to be replaced, the start of the name's SHA-256 keeps two names apart.
    """
    name, variant = _word(benchmark.name), _word(benchmark.variant or tool)
    if (name, variant) != (benchmark.name, benchmark.variant or tool):
        variant += "-" + hashlib.sha256(benchmark.original.encode()).hexdigest()[:8]
    return f"{SUITE}/{name}[{variant}]"


def _word(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]+", "_", text)[:_LONGEST] or "_"


def run_of(document: Document, source: Source, benchmarks: Sequence[Benchmark]) -> Run:
    """Return the run. Its id comes from the file's content, so that importing it again is known to be the same.

    RunFileError when the file holds no benchmark, or two whose case ids are the same.
    """
    path = document.root.file
    if not benchmarks:
        raise RunFileError(f"{path}: benchmarks: expected at least one, found none; nothing was measured")
    originals: dict[str, str] = {}
    records: list[Record] = []
    for benchmark in benchmarks:
        record = _record(benchmark, source, document.sha256)
        other = originals.setdefault(record.case, benchmark.original)
        if len(originals) == len(records):
            raise RunFileError(
                f"{path}: benchmarks: {benchmark.original!r} and {other!r} would both be case {record.case}: a record "
                "tells them apart by nothing; rename one of them"
            )
        records.append(record)
    started = source.started.isoformat(timespec="seconds")
    header = {
        "kind": "header",
        "schema": SCHEMA,
        "started": started,
        "id": f"{source.started:%Y%m%dT%H%M%S}-{document.sha256[:8]}",
        "versions": {"pytest-mlbench": __version__, "pytest": "", source.tool: source.version},
        "harness_sha256": "",
        "host": _host(benchmarks[0].machine),
        "source": dict(source.commit),
        "arguments": [],
        "resumed": None,
        "ci": {},
        "imported": {"format": source.tool, "version": source.version, "sha256": document.sha256},
    }
    return Run(header, tuple(records), {"kind": "footer", "finished": started, "exitstatus": None})


def _record(benchmark: Benchmark, source: Source, sha256: str) -> Record:
    readings = benchmark.readings
    axes = {"model": "", "framework": "", "precision": "", "device": "", "batch": 1, "threads": benchmark.threads}
    return Record(
        case=case_id(benchmark, source.tool),
        node=benchmark.original,
        axes={**axes, "scenario": ""},
        outcome=benchmark.outcome,
        reason=benchmark.reason,
        stage="measure" if benchmark.outcome == "error" else "",
        metrics=_metrics(readings) if readings is not None else (),
        samples=_samples(readings) if readings is not None else {},
        target={**benchmark.machine, "imported": source.tool, "versions": {source.tool: source.version}},
        hashes={"file": sha256},
        fingerprint=environment.fingerprint({"tool": source.tool, **benchmark.compared}),
        started=benchmark.started.isoformat(timespec="milliseconds"),
        wall_s=_seconds(readings),
    )


def _host(machine: Mapping[str, Any]) -> dict[str, Any]:
    """Return the machine as a run's header has it; what the file does not tell is empty or null."""
    words = ("node", "system", "release", "python", "executable", "processor", "machine")
    host: dict[str, Any] = {name: machine.get(name, "") for name in words}
    rest = {name: None for name in ("cores_allowed", "smt", "cgroup_cpu_max")}
    return {**host, "flags": machine.get("flags", []), "cores": machine.get("cores"), **rest}


def _metrics(readings: Readings) -> tuple[Metric, ...]:
    given = {"latency.min": readings.min_ns, "latency.mean": readings.mean_ns, "latency.p50": readings.p50_ns}
    centre = [_time(name, value, readings) for name, value in given.items()]
    return (*centre, *_tails(readings))


def _time(name: str, value: float | None, readings: Readings) -> Metric:
    if value is None:
        return absent(name, f"the file does not hold it ({readings.note})")
    if value == 0:
        return absent(name, "0 in the file: the clock was too coarse for it; time more calls per reading")
    if name != "latency.p50" or len(readings.starts) < 2 or not readings.call_ns.size:
        return found(name, value, n=readings.n, note=readings.note)
    processes = [float(np.median(part)) for part in np.split(readings.call_ns, readings.starts[1:])]
    interval = median_interval(processes, CONFIDENCE)
    medians = f"the medians of {len(processes)} processes"
    about = f"interval over {medians}" if interval else f"no interval: {medians} are too few"
    note = f"{readings.note}; {about}"
    return found(name, value, n=readings.n, interval=interval, confidence=CONFIDENCE, note=note)


def _tails(readings: Readings) -> list[Metric]:
    """Return p90, p99 and their upper bounds: from readings of one call each, as in our own runs."""
    names = [*TAILS, *(f"{name}.upper99" for name in TAILS)]
    if not readings.call_ns.size:
        return [absent(name, "the file holds a summary and not the single readings") for name in names]
    if readings.calls != 1:
        spans = f"spans {readings.calls} calls" if readings.calls else "spans several calls"
        return [absent(name, f"each reading {spans}, so tails are unknown") for name in names]
    metrics = []
    for name, level in TAILS.items():
        metrics.append(found(name, percentile(readings.call_ns, level), n=readings.n, note=readings.note))
    for name, level in TAILS.items():
        bound = upper_bound(readings.call_ns, level)
        if bound is None:
            need = minimum_n(level)
            reason = f"the p{100 * level:g} upper bound needs {need} readings of one call, and there are {readings.n}"
            metrics.append(absent(f"{name}.upper99", reason))
        else:
            note = f"{readings.note}; MLPerf early-stopping rule, one-sided 99 %"
            metrics.append(found(f"{name}.upper99", bound, n=readings.n, note=note))
    return metrics


def _samples(readings: Readings) -> dict[str, Any]:
    if readings.calls is None or not readings.call_ns.size:
        return {}
    sample_ns = np.rint(readings.call_ns * readings.calls).astype(np.int64)
    return {
        "sample_ns": encode_samples(sample_ns),
        "block_starts": list(readings.starts),
        "calls": readings.calls,
        "batch": 1,
    }


def _seconds(readings: Readings | None) -> float:
    """Return how long the readings took together, as far as the file tells."""
    if readings is None or readings.mean_ns is None or readings.calls is None:
        return 0.0
    return readings.mean_ns * readings.calls * readings.n / 1e9
