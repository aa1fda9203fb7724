"""How often does the gate cry wolf, and what does it find? Real models, real slowdowns, peers on the same samples.

A comparison is one line of gate_study.jsonl, so the study resumes where it was stopped and is done in parts:

    python benchmarks/gate_study.py --minutes 55      # more comparisons, then the tables
    python benchmarks/gate_study.py --minutes 0       # the tables alone

A/A compares a model with itself. A slowdown is one extra call in 33 (3 %) or in 100 (1 %); a model whose blocks hold
fewer calls computes on for that share of each call. The margin is 0 and the family 12 comparisons, so that every
confirmed difference counts. The figure is p50, of samples that hold a whole number of extra calls, so that the
slowdown is in each of them, as a real one would be.

The peers' rules see the same screening rounds, as sequential runs would: the base's first, the candidate's last.
Interleaved and in fresh processes, those samples are better than what the peers would have taken themselves.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean, median

import numpy as np

from pytest_mlbench import lease, matrix, screening, suitefile
from pytest_mlbench.compare import Question
from pytest_mlbench.devices.cpu import Cpu
from pytest_mlbench.execute import Executor
from pytest_mlbench.matrix import Case
from pytest_mlbench.metrics import latency
from pytest_mlbench.metrics.api import Measurement
from pytest_mlbench.metrics.catalogue import METRICS
from pytest_mlbench.preparation import Preparation
from pytest_mlbench.record import Metric
from pytest_mlbench.registry import Registry, names
from pytest_mlbench.rounds import BLOCKS, FEWEST_BLOCKS, Pairing, Round, pairs
from pytest_mlbench.spec import Regression
from pytest_mlbench.stats.rank_sum import p_two_sided
from pytest_mlbench.stats.wilson import wilson
from pytest_mlbench.tables import Known

HERE = Path(__file__).parent
SUITES = HERE.parent / "suites"
FAMILY = 12
SLOW_MS = 1.0  # from here on a block of 75 ms holds fewer calls than an extra one is taken in
CASES = {  # name: (suite, model, framework, precision, batch, about how many ms a call takes)
    "litert-int8-2us": ("digits", "digits_cnn", "litert", "int8", 1, 0.0015),
    "litert-fp32-2us": ("digits", "digits_cnn", "litert", "fp32", 1, 0.0017),
    "onnxruntime-fp32-7us": ("digits", "digits_cnn", "onnxruntime", "fp32", 1, 0.0067),
    "onnxruntime-int8-10us": ("digits", "digits_cnn", "onnxruntime", "int8", 1, 0.010),
    "squeezenet-1ms": ("convnets", "squeezenet", "onnxruntime", "fp32", 1, 1.1),
    "mobilenet-2ms": ("convnets", "mobilenet_v2", "onnxruntime", "fp32", 1, 1.6),
    "resnet18-9ms": ("convnets", "resnet18", "onnxruntime", "fp32", 1, 8.8),
    "resnet18x8-80ms": ("convnets", "resnet18", "onnxruntime", "fp32", 8, 75.0),
}


@dataclass(frozen=True)
class Kind:
    """One kind of comparison: how much slower, how many are wanted, and the seconds of measuring a side."""

    name: str
    every: int
    permille: int
    wanted: int
    seconds: float
    needed: int  # found (or, of A/A, at most so many false alarms)


AA, THREE, ONE = Kind("A/A", 0, 0, 300, 10, 1), Kind("3 %", 33, 30, 60, 10, 57), Kind("1 %", 100, 10, 30, 30, 24)
TABLES = {"quiet": (AA, THREE, ONE), "busy": (replace(AA, wanted=100), replace(THREE, wanted=30, needed=0))}


# --- measuring ----------------------------------------------------------------------------------------------


def block_metrics(m: Measurement) -> list[Metric]:
    """Return each block's mean and the fastest sample of the process: what the peers' rules take."""
    assert m.samples is not None
    calls = m.samples.call_ns
    parts = np.split(calls, m.samples.block_starts[1:])
    found = [Metric(f"block{index}", float(part.mean()), "ns", "lower") for index, part in enumerate(parts)]
    return [*found, Metric("fastest", float(calls.min()), "ns", "lower")]


def known(registry: Registry) -> Known:
    """Return the names that suites may use."""
    units = {name: unit for name, (unit, _) in METRICS.items()}
    return Known(registry.frameworks, names("devices"), names("scenarios"), units, False)


class Study:
    """Takes comparisons; model files and suites are read once."""

    def __init__(self) -> None:
        self._registry = Registry()
        self._cases: dict[str, Case] = {}
        for suite in ("convnets", "digits"):
            spec = suitefile.load_suite(SUITES / suite / f"bench_{suite}.toml", known(self._registry))
            for benchmark in spec.benchmarks:
                self._cases |= {one.id: one for one in matrix.expand(spec, benchmark, known(self._registry))}

    def _case(self, name: str) -> Case:
        suite, model, framework, precision, batch, _ = CASES[name]
        benchmark = {"digits": "classify", "convnets": "infer"}[suite]
        found = self._cases[f"{suite}/{benchmark}[{model}-{framework}-{precision}-cpu]"]
        return replace(found, batch=batch)

    def _executor(self, case: Case, slowed: Mapping[str, int] | None) -> Executor:
        framework = self._registry.frameworks[case.framework.name]
        if slowed is not None:
            inner = framework.adapter.rpartition(".")[2]
            framework = replace(framework, adapter="slowed_adapter")
            options = {**case.framework.options, "inner": inner, **slowed}
            case = replace(case, framework=replace(case.framework, options=options))
        return Executor(Preparation(case, framework, Cpu()), self._registry)

    def compare(self, name: str, kind: Kind, seed: int) -> dict[str, object]:
        """Compare once; returns the line to keep."""
        case, call_ms = self._case(name), CASES[name][-1]
        base, candidate = None, None
        if kind.every:
            slow = call_ms >= SLOW_MS
            base = {"permille": 0} if slow else {"every": kind.every, "extra": 0}
            candidate = {"permille": kind.permille} if slow else {"every": kind.every, "extra": 1}
        plan = screening.plan(FAMILY, seconds=kind.seconds)
        confirm, blocks = rounds_within(kind.seconds, call_ms / 1e3, plan.confirm)
        question = Question("latency.p50", "ns", "lower", Regression(0.0), plan.alpha, plan.resolution, confirm)
        pairing = Pairing(
            self._executor(case, base),
            self._executor(case, candidate),
            ("latency.p50", *(f"block{index}" for index in range(BLOCKS)), "fastest"),
            {"latency": latency.measure, "blocks": block_metrics},
            random.Random(f"{seed} {name} {kind.name}"),
            kind.seconds,
            screening.SCREEN_ROUNDS + confirm,
            blocks=blocks,
            calls=calls_in_a_sample(kind, call_ms),
        )
        begin = time.monotonic()
        taken, comparisons = screening.decided(pairing, {"latency.p50": question}, confirm)
        found = comparisons["latency.p50"]
        return {
            "case": name,
            "kind": kind.name,
            "verdict": found.verdict,
            "change": found.change,
            "interval": found.interval,
            "n": found.n,
            "p": found.p,
            "seed": seed,
            "wall_s": round(time.monotonic() - begin, 1),
            "side_s": round(len(taken) * pairing.blocks * max(0.075, 5 * call_ms / 1e3), 1),
            "troubled": sum(bool(one.troubles) for one in taken),
            "ratios": [rounded(c / b) for b, c in zip(*vars(pairs(taken, "latency.p50")).values(), strict=True)],
            "screen": [peers_samples(one) for one in taken[: screening.SCREEN_ROUNDS]],
        }


def calls_in_a_sample(kind: Kind, call_ms: float) -> int:
    """Return how many calls make a sample: a multiple of those between two extra ones, and 50 us at least."""
    if call_ms >= SLOW_MS:
        return 1
    every = kind.every or THREE.every
    return every * max(1, -(-50_000 // int(every * call_ms * 1e6)))


def rounds_within(seconds: float, call_s: float, wanted: int) -> tuple[int, int]:
    """Return the confirming rounds and the blocks a process gets, within seconds of measuring a side."""
    block_s = max(0.075, 5 * call_s)
    blocks = BLOCKS if (screening.SCREEN_ROUNDS + wanted) * BLOCKS * block_s <= seconds else FEWEST_BLOCKS
    fit = int(seconds / (blocks * block_s)) - screening.SCREEN_ROUNDS
    return max(8, min(fit, wanted)), blocks


def rounded(value: float) -> float:
    """Return five significant digits, which keep the file small."""
    return float(f"{value:.5g}")


def peers_samples(one: Round) -> list[list[float]]:
    """Return, of base and of candidate, the fastest sample and each block's mean, in ns."""
    found = []
    for side in (one.base, one.candidate):
        values = [side["fastest"], *(side.get(f"block{index}") for index in range(BLOCKS))]
        found.append([rounded(value) for value in values if value is not None])
    return found


@contextmanager
def foreign(busy: bool) -> Iterator[None]:
    """Keep one core busy with a process of no concern of ours."""
    if not busy:
        yield
        return
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as other:
        os.sched_setaffinity(other.pid, {min(os.sched_getaffinity(0))})
        try:
            yield
        finally:
            other.kill()


def schedule(table: str, done: Sequence[Mapping[str, object]]) -> Iterator[tuple[str, Kind, int]]:
    """Yield what is still to be compared: kinds in proportion, cases in turn, so that every part is balanced."""
    have = {(one["kind"], one["seed"]) for one in done if one["table"] == table}
    jobs = [
        (index / kind.wanted, list(CASES)[index % len(CASES)], kind, index)
        for kind in TABLES[table]
        for index in range(kind.wanted)
    ]
    for _, name, kind, index in sorted(jobs, key=lambda job: (job[0], job[2].name)):
        if (kind.name, index) not in have:
            yield name, kind, index


# --- the rules of others --------------------------------------------------------------------------------------

Screen = Sequence[Sequence[Sequence[float]]]  # round -> (base, candidate) -> fastest, block means


def _blocks(screen: Screen, rounds: slice, side: int) -> list[float]:
    return [value for one in screen[rounds] for value in one[side][1:]]


def grown(screen: Screen, of: Callable[[Sequence[float]], float]) -> float:
    """Return candidate over base, each from one process: the base's first, the candidate's last."""
    return of(screen[-1][1]) / of(screen[0][0])


def by_asv(screen: Screen) -> bool:
    """Two processes a side: medians 1.1 apart and Mann-Whitney p < 0.002."""
    base, candidate = _blocks(screen, slice(0, 2), 0), _blocks(screen, slice(-2, None), 1)
    return median(candidate) > 1.1 * median(base) and p_two_sided(base, candidate) < 0.002


def by_benchstat(screen: Screen) -> bool:
    """Twelve values a side: Mann-Whitney p < 0.05, told as slower."""
    base, candidate = _blocks(screen, slice(0, 3), 0), _blocks(screen, slice(-3, None), 1)
    return median(candidate) > median(base) and p_two_sided(base, candidate) < 0.05


RULES: dict[str, Callable[[Mapping[str, object]], bool]] = {
    "pytest-mlbench": lambda one: one["verdict"] == "regressed",
    "pytest-benchmark mean:5%": lambda one: grown(one["screen"], lambda side: fmean(side[1:])) > 1.05,  # type: ignore[arg-type]
    "pytest-benchmark min:5%": lambda one: grown(one["screen"], lambda side: side[0]) > 1.05,  # type: ignore[arg-type]
    "github-action-benchmark 105 %": lambda one: grown(one["screen"], lambda side: fmean(side[1:])) > 1.05,  # type: ignore[arg-type]
    "github-action-benchmark 200 %": lambda one: grown(one["screen"], lambda side: fmean(side[1:])) > 2.0,  # type: ignore[arg-type]
    "asv 1.1 and p < .002": lambda one: by_asv(one["screen"]),  # type: ignore[arg-type]
    "benchstat p < .05": lambda one: by_benchstat(one["screen"]),  # type: ignore[arg-type]
}


# --- tables ---------------------------------------------------------------------------------------------------


def table_lines(table: str, done: Sequence[Mapping[str, object]]) -> list[str]:
    """Return the table: of each rule and kind how many comparisons were red, and its 95 % bound."""
    kinds = TABLES[table]
    chosen = {kind.name: [one for one in done if (one["table"], one["kind"]) == (table, kind.name)] for kind in kinds}
    heads = [f"{kind.name}: {'false alarms' if kind.name == 'A/A' else 'found'}" for kind in kinds]
    lines = [f"{table} machine", f"{'rule':<32}" + "".join(f"{head:>32}" for head in heads)]
    for rule, is_red in RULES.items():
        cells = []
        for kind in kinds:
            red, total = sum(map(is_red, chosen[kind.name])), len(chosen[kind.name])
            cells.append(cell(red, total, upper=kind.name == "A/A"))
        lines.append(f"{rule:<32}" + "".join(f"{text:>32}" for text in cells))
    for kind in kinds:
        red, total = sum(map(RULES["pytest-mlbench"], chosen[kind.name])), len(chosen[kind.name])
        lines.append(f"target {kind.name}: {target(kind, red, total)}")
    return lines


def cell(red: int, total: int, *, upper: bool) -> str:
    """Return a count with its share and the 95 % bound on the unfavourable side (Wilson, one-sided)."""
    if not total:
        return "-"
    low, high = wilson(red, total, 0.90)
    bound = f"at most {high:.1%}" if upper else f"at least {low:.1%}"
    return f"{red} of {total} ({bound})"


def target(kind: Kind, red: int, total: int) -> str:
    """Say whether the target is met, or how many comparisons are still missing."""
    if total < kind.wanted:
        return f"{total} of {kind.wanted} comparisons done"
    if kind.name == "A/A":
        return f"at most {kind.needed} of {kind.wanted} false alarms: {'met' if red <= kind.needed else 'MISSED'}"
    return f"at least {kind.needed} of {kind.wanted} found: {'met' if red >= kind.needed else 'MISSED'}"


def main() -> int:
    """Take comparisons for so many minutes, then print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=55.0)
    parser.add_argument("--table", choices=tuple(TABLES), default="quiet")
    parser.add_argument("--file", type=Path, default=HERE / "gate_study.jsonl")
    arguments = parser.parse_args()
    lines = arguments.file.read_text(encoding="utf-8").splitlines() if arguments.file.exists() else []
    done: list[Mapping[str, object]] = [json.loads(line) for line in lines]
    until = time.monotonic() + 60 * arguments.minutes
    study = Study()
    with lease.hold(("cpu",), timeout_s=60), foreign(arguments.table == "busy"):
        for name, kind, seed in schedule(arguments.table, done):
            if time.monotonic() >= until:
                break
            line = {"table": arguments.table, **study.compare(name, kind, seed)}
            with arguments.file.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(line, separators=(",", ":")) + "\n")
            done.append(line)
            print(f"{len(done)}: {name} {kind.name}: {line['verdict']} in {line['wall_s']} s", flush=True)
    for table in TABLES:
        print("", *table_lines(table, done), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
