"""Files of pytest-benchmark: --benchmark-json, and those that --benchmark-save and --benchmark-autosave store."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from pytest_mlbench.importers.document import Document, Place
from pytest_mlbench.importers.imported import MOST_CALLS, Benchmark, Readings, Source, nanoseconds, run_of
from pytest_mlbench.stores.runfile import Run

TOOL = "pytest-benchmark"
_MOST_ROUNDS = 10**9
_COMPARED = ("node", "processor", "machine", "system", "cores", "python", "implementation")


def fits(root: Place) -> bool:
    """Tell whether a JSON file is one of these."""
    return {"machine_info", "benchmarks"} <= set(root.mapping())


def run(document: Document) -> Run:
    """Return the run; RunFileError names the key of what cannot be taken."""
    root = document.root
    started = root.at("datetime").moment()
    version = root.at("version").text()
    machine = _machine(root.at("machine_info"))
    benchmarks = []
    for place in root.at("benchmarks").entries():
        original = place.at("fullname").text()
        name, _, variant = original.partition("[")
        benchmarks.append(
            Benchmark(
                original,
                name.replace(".py::", ".").replace("::", ".").replace("/", "."),
                variant.removesuffix("]"),
                started,
                _readings(place.at("stats"), version),
                machine,
                {**{fact: machine.get(fact) for fact in _COMPARED}, **_options(place)},
            )
        )
    return run_of(document, Source(TOOL, version, started, _commit(root)), benchmarks)


def _readings(stats: Place, version: str) -> Readings:
    rounds = stats.at("rounds").count(_MOST_ROUNDS)
    calls = stats.at("iterations").count(MOST_CALLS)
    spans = "one call per round" if calls == 1 else f"mean of {calls} calls per round"
    data = stats.find("data")  # saved without --benchmark-save-data there is none
    entries = data.entries() if data is not None else []
    if data is not None and len(entries) != rounds:
        stats.at("rounds").wrong(f"{len(entries)}, as many as `data` holds")
    return Readings(
        n=rounds,
        note=f"{TOOL} {version}, {spans}",
        min_ns=nanoseconds(stats.at("min"), 1e9, calls),
        mean_ns=nanoseconds(stats.at("mean"), 1e9, calls),
        p50_ns=nanoseconds(stats.at("median"), 1e9, calls),
        call_ns=np.array([nanoseconds(entry, 1e9, calls) for entry in entries]),
        calls=calls,
    )


def _options(place: Place) -> dict[str, Any]:
    """Return what changes the numbers of this benchmark: its timer, and whether garbage was collected meanwhile."""
    timer, disable_gc = place.find("options", "timer"), place.find("options", "disable_gc")
    return {
        "timer": timer.text() if timer is not None else "",
        "gc": not (disable_gc is not None and disable_gc.value is True),
    }


def _machine(info: Place) -> dict[str, Any]:
    """Return the machine's facts. A project's own hooks may have changed them, so that any may be missing."""
    words = {
        "node": ("node",),
        "system": ("system",),
        "release": ("release",),
        "machine": ("machine",),
        "python": ("python_version",),
        "implementation": ("python_implementation",),
        "processor": ("cpu", "brand_raw"),
    }
    found = {name: info.find(*keys) for name, keys in words.items()}
    machine: dict[str, Any] = {name: place.text() for name, place in found.items() if place is not None}
    cores, flags = info.find("cpu", "count"), info.find("cpu", "flags")
    if cores is not None:
        machine["cores"] = cores.count(10**6)
    if flags is not None:
        machine["flags"] = sorted(flag.text() for flag in flags.entries())
    return machine


def _commit(root: Place) -> dict[str, Any]:
    """Return the revision; empty outside a repository, for which the file has "unversioned"."""
    commit = root.find("commit_info", "id")
    if commit is None or not re.fullmatch(r"[0-9a-f]{40,64}", commit.text()):
        return {}
    dirty, branch = root.find("commit_info", "dirty"), root.find("commit_info", "branch")
    return {
        "commit": commit.text(),
        "dirty": dirty is not None and dirty.value is True,
        "branch": branch.text() if branch is not None else None,
    }
