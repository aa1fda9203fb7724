"""How long do the embedded suites take from an empty cache, and how much of a case is spent measuring?

Bounds: the whole run under 3 minutes on 2 cores; at least 70 % of a case's wall time measuring (timed blocks,
warm-up left out) or running the accuracy pass, for models over 1 ms. Each ratio is our share beside its bound.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from time import perf_counter

from pytest_mlbench.record import Record
from pytest_mlbench.stores import runfile

SUITES = Path(__file__).parent.parent / "suites"
WALL_BOUND_S, SHARE_BOUND, OVER_NS = 180.0, 0.70, 1e6


def share(record: Record) -> float:
    """Return the share of a case's wall time in timed blocks (latency, repeated sample) and the accuracy pass."""
    happened = record.scenario["happened"]
    spent = sum(happened[part]["duration_ns"] for part in ("main", "single") if part in happened)
    return float((spent + happened["compliance_ns"] + happened["accuracy_ns"]) / 1e9 / record.wall_s)


def run(output: Path, cache: Path) -> float:
    """Run the suites and return the seconds they took."""
    begin = perf_counter()
    command = [sys.executable, "-m", "pytest", "--mlbench", str(SUITES), "-q", f"--mlbench-output={output}"]
    subprocess.run(command, cwd=SUITES.parent, env={**os.environ, "MLBENCH_CACHE": str(cache)}, check=True)
    return perf_counter() - begin


def main() -> int:
    """Run twice (cold and warm cache), print the shares, and exit 1 when a bound is missed."""
    with tempfile.TemporaryDirectory() as folder:
        cold_s = run(Path(folder, "cold.jsonl"), Path(folder, "cache"))
        warm_s = run(Path(folder, "warm.jsonl"), Path(folder, "cache"))
        cold = runfile.read(Path(folder, "cold.jsonl")).records
        records = runfile.read(Path(folder, "warm.jsonl")).records
    shares = {
        record.case: share(record)
        for record in records
        if record.outcome == "pass" and (record.metric("latency.p50").value or 0) > OVER_NS
    }
    print(f"whole run: cold cache {cold_s:.0f} s ({cold_s / WALL_BOUND_S:.2f} of the bound), warm {warm_s:.0f} s")
    print(f"{'models over 1 ms':<60}{'share':>7}{'of bound':>10}{'cold':>7}")
    first = {record.case: share(record) for record in cold if record.outcome == "pass"}
    for case, part in shares.items():
        print(f"{case:<60}{part:>7.0%}{part / SHARE_BOUND:>10.2f}{first.get(case, 0):>7.0%}")
    worst = min(shares.values())
    met = cold_s <= WALL_BOUND_S and worst >= SHARE_BOUND
    verdict = "met" if met else "MISSED"
    print(f"least share {worst:.0%}, median {median(shares.values()):.0%}, bound {SHARE_BOUND:.0%}: {verdict}")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
