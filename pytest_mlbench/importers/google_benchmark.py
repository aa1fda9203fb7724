"""Files of Google Benchmark: --benchmark_out=FILE --benchmark_out_format=json, of version 1.5 and later.

Source of the format: google/benchmark, docs/user_guide.md and src/json_reporter.cc. Each repetition of a benchmark
is an entry of run_type "iteration" whose times are the mean over its iterations; aggregates follow, or stand alone
with --benchmark_report_aggregates_only. Real time is taken, which is what a caller waits.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import numpy as np

from pytest_mlbench.importers.document import Document, Place
from pytest_mlbench.importers.imported import MOST_CALLS, Benchmark, Readings, Source, nanoseconds, run_of, summary
from pytest_mlbench.record import Outcome
from pytest_mlbench.stores.runfile import Run

TOOL = "google-benchmark"
_UNITS_NS = {"ns": 1.0, "us": 1e3, "ms": 1e6, "s": 1e9}
_COMPARED = ("node", "cores", "caches", "build")
# What a benchmark that was not measured has instead of times: outcome, flag, message (SkipWithError, SkipWithMessage).
_NOT_MEASURED: tuple[tuple[Outcome, str, str], ...] = (
    ("error", "error_occurred", "error_message"),
    ("skip", "skipped", "skip_message"),
)


def fits(root: Place) -> bool:
    """Tell whether a JSON file is one of these."""
    return {"context", "benchmarks"} <= set(root.mapping())


def run(document: Document) -> Run:
    """Return the run; RunFileError names the key of what cannot be taken."""
    root = document.root
    context = root.at("context")
    started = context.at("date").moment()
    machine = _machine(context)
    entries: dict[str, list[Place]] = {}
    for place in root.at("benchmarks").entries():
        entries.setdefault(place.at("run_name").text(), []).append(place)
    benchmarks = [_benchmark(name, places, started, machine) for name, places in entries.items()]
    return run_of(document, Source(TOOL, _text(context, "library_version"), started), benchmarks)


def _benchmark(original: str, places: Sequence[Place], started: datetime, machine: dict[str, Any]) -> Benchmark:
    name, _, variant = original.partition("/")
    variant = variant.replace("/", "-").replace(":", ".")
    compared = {fact: machine.get(fact) for fact in _COMPARED}
    threads = places[0].find("threads")
    for outcome, flag, message in _NOT_MEASURED:
        for place in places:
            found = place.find(flag)
            if found is not None and found.value is True:
                reason = _text(place, message) or flag
                return Benchmark(original, name, variant, started, None, machine, compared, outcome, reason)
    readings = _readings(places)
    count = threads.count(10**6) if threads is not None else None
    return Benchmark(original, name, variant, started, readings, machine, compared, threads=count)


def _readings(places: Sequence[Place]) -> Readings:
    repetitions = [place for place in places if place.at("run_type").text() == "iteration"]
    if not repetitions:
        return _aggregates(places)
    calls = [place.at("iterations").count(MOST_CALLS) for place in repetitions]
    pairs = zip(repetitions, calls, strict=True)
    call_ns = np.array([nanoseconds(place.at("real_time"), _unit(place), spans) for place, spans in pairs])
    low, high = min(calls), max(calls)
    spans_text = f"{low} iterations" if low == high else f"{low} to {high} iterations"
    note = f"Google Benchmark, real time, mean of {spans_text} per repetition"
    return Readings(len(call_ns), note, *summary(call_ns), call_ns, low if low == high else None)


def _aggregates(places: Sequence[Place]) -> Readings:
    """Return what mean and median of the repetitions tell, where these themselves were not written."""
    named = {place.at("aggregate_name").text(): place for place in places}
    if "mean" not in named or "median" not in named:
        places[0].wrong('an entry of run_type "iteration", or the aggregates "mean" and "median"')
    mean, median = (nanoseconds(named[name].at("real_time"), _unit(named[name]), 1) for name in ("mean", "median"))
    n = named["mean"].at("iterations").count(MOST_CALLS)
    return Readings(n, "Google Benchmark, real time, aggregates of the repetitions only", None, mean, median)


def _unit(place: Place) -> float:
    unit = place.at("time_unit")
    if unit.text() not in _UNITS_NS:
        unit.wrong(f"one of {', '.join(_UNITS_NS)}")
    return _UNITS_NS[unit.text()]


def _text(place: Place, name: str) -> str:
    found = place.find(name)
    return found.text() if found is not None else ""


def _machine(context: Place) -> dict[str, Any]:
    """Return the machine's facts. The format has no name of the processor; its caches stand for it."""
    words = {"node": "host_name", "executable": "executable", "build": "library_build_type"}
    machine: dict[str, Any] = {fact: text for fact, name in words.items() if (text := _text(context, name))}
    cores, caches = context.find("num_cpus"), context.find("caches")
    if cores is not None:
        machine["cores"] = cores.count(10**6)
    if caches is not None:
        machine["caches"] = [_cache(cache) for cache in caches.entries()]
    return machine


def _cache(place: Place) -> str:
    level, size, shared = (place.at(name).count(2**40, low=0) for name in ("level", "size", "num_sharing"))
    return f"L{level} {place.at('type').text()} {size} bytes shared by {shared}"
