"""Files of pyperf, of its formats 6 and 1.0 (pyperf 0.9.6 and later), also gzipped.

A file holds benchmarks, a benchmark runs (each a process), a run values: seconds per call, each the mean of
`loops * inner_loops` calls. Metadata common to all runs stand once, at the top or in the benchmark.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from pytest_mlbench.importers.document import Document, Place
from pytest_mlbench.importers.imported import MOST_CALLS, Benchmark, Readings, Source, nanoseconds, run_of, summary
from pytest_mlbench.stores.runfile import Run

TOOL = "pyperf"
_VERSIONS = (6, "1.0")
_WORDS = {
    "node": "hostname",
    "processor": "cpu_model_name",
    "platform": "platform",
    "python": "python_version",
    "implementation": "python_implementation",
    "executable": "python_executable",
    "timer": "timer",
    "affinity": "cpu_affinity",
}
_COMPARED = ("node", "processor", "system", "cores", "python", "implementation", "timer", "affinity")


def fits(root: Place) -> bool:
    """Tell whether a JSON file is one of these."""
    return {"version", "benchmarks"} <= set(root.mapping()) and "machine_info" not in root.mapping()


def run(document: Document) -> Run:
    """Return the run; RunFileError names the key of what cannot be taken."""
    root = document.root
    version = root.at("version")
    if version.value not in _VERSIONS:
        version.wrong("format 1.0 or 6", "write the file anew: python -m pyperf convert FILE -o NEW")
    places = root.at("benchmarks").entries()
    benchmarks = [_benchmark(place, root) for place in places]
    if not benchmarks:
        root.at("benchmarks").wrong("a benchmark at least")
    tool = _text("perf_version", (places[0].at("runs").entries()[0], places[0], root))
    return run_of(document, Source(TOOL, tool, min(one.started for one in benchmarks)), benchmarks)


def _benchmark(place: Place, root: Place) -> Benchmark:
    runs = [
        run for run in place.at("runs").entries() if (values := run.find("values")) is not None and values.entries()
    ]
    if not runs:
        place.at("runs").wrong("runs with values; these only calibrate")
    where = (runs[0], place, root)
    unit = _metadata("unit", where)
    if unit is not None and unit.text() != "second":
        unit.wrong('"second"', "only times can be imported")
    original = _required("name", where).text()
    started = min(_required("date", (run, place, root)).moment() for run in runs)
    machine = _machine(where)
    compared = {fact: machine.get(fact) for fact in _COMPARED}
    return Benchmark(original, original, "", started, _readings(runs, place, root), machine, compared)


def _readings(runs: Sequence[Place], benchmark: Place, root: Place) -> Readings:
    values: list[float] = []
    starts: list[int] = []
    spans: set[int] = set()
    for run in runs:
        loops = (_metadata(name, (run, benchmark, root)) for name in ("loops", "inner_loops"))
        calls = math.prod(found.count(MOST_CALLS) for found in loops if found is not None)
        spans.add(calls)
        starts.append(len(values))
        values += [nanoseconds(value, 1e9, calls) for value in run.at("values").entries()]
    low, high = min(spans), max(spans)
    each = "one call" if high == 1 else f"mean of {low} calls" if low == high else f"mean of {low} to {high} calls"
    note = f"{TOOL}, {len(runs)} processes, {each} per value"
    call_ns = np.array(values)
    return Readings(len(values), note, *summary(call_ns), call_ns, low if low == high else None, tuple(starts))


def _required(name: str, where: Sequence[Place]) -> Place:
    return _metadata(name, where) or where[0].at("metadata", name)


def _metadata(name: str, where: Sequence[Place]) -> Place | None:
    """Return a fact: of the run, else of the benchmark, else of the file."""
    return next((found for place in where if (found := place.find("metadata", name)) is not None), None)


def _text(name: str, where: Sequence[Place]) -> str:
    found = _metadata(name, where)
    return found.text() if found is not None else ""


def _machine(where: Sequence[Place]) -> dict[str, Any]:
    machine: dict[str, Any] = {fact: text for fact, name in _WORDS.items() if (text := _text(name, where))}
    if "platform" in machine:  # as in Linux-6.1.0-x86_64-with-glibc2.36
        machine["system"] = machine["platform"].partition("-")[0]
    cores = _metadata("cpu_count", where)
    if cores is not None:
        machine["cores"] = cores.count(10**6)
    return machine
