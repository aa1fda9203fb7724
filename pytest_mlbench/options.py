"""The command line: `--mlbench` and `--mlbench-*`, and the frozen Options made of them."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

import pytest

WAIVERS = "mlbench-waivers.toml"
MOST_ROUNDS = 400  # what the exact statistics of rounds take


@dataclass(frozen=True)
class GateOptions:
    """How the candidate is compared with a base revision."""

    base: str
    exact: bool  # the revision itself, not its merge base with the candidate
    python: Path | None  # interpreter of the base's environment
    lock: Path | None  # requirements file, in the base, to make that environment from
    margin: float  # accepted worsening where the suite says nothing
    strict: bool
    rounds: int | None  # confirming rounds
    seconds: float  # of measuring a side, per case
    seed: int
    ceiling: float  # of the burn-in's spread


@dataclass(frozen=True)
class Options:
    """What the command line and the ini file ask for."""

    output: Path | None
    resume: Path | None
    format: str
    list: bool
    pythons: Mapping[str, Path]
    lease_timeout_s: float
    lab: Path | None  # the lab file
    lab_from: str  # what named it, for messages
    gate: GateOptions | None

    @classmethod
    def from_config(cls, config: pytest.Config) -> Options:
        """Read the options; raises pytest.UsageError for a value that cannot be meant."""
        output, resume = config.getoption("mlbench_output"), config.getoption("mlbench_resume")
        invocation = config.invocation_params.dir
        lab, lab_from = lab_file(config.getoption("mlbench_lab"), invocation)
        return cls(
            output=invocation / output if output else None,
            resume=invocation / resume if resume else None,
            format=config.getoption("mlbench_format"),
            list=config.getoption("mlbench_list"),
            pythons=_pythons(config.getoption("mlbench_python"), invocation),
            lease_timeout_s=config.getoption("mlbench_lease_timeout"),
            lab=lab,
            lab_from=lab_from,
            gate=_gate(config),
        )


def lab_file(given: str | None, folder: Path) -> tuple[Path | None, str]:
    """Return the lab file and what named it: the option, else `MLBENCH_LAB`. An empty option is no lab."""
    named = given if given is not None else os.environ.get("MLBENCH_LAB", "")
    what = "MLBENCH_LAB" if given is None else "--mlbench-lab"
    return (folder / Path(named).expanduser() if named else None), what


def add(parser: pytest.Parser) -> None:
    """Declare the options; nothing else happens unless --mlbench is given."""
    group = parser.getgroup("mlbench", "benchmarks of machine-learning models")
    group.addoption(
        "--mlbench", action="store_true", help="Collect and run benchmark suites (bench_*.toml, bench_*.py)."
    )
    group.addoption(
        "--mlbench-list",
        action="store_true",
        help="Print the expanded matrix with the reason of each skip, and run nothing.",
    )
    group.addoption(
        "--mlbench-format",
        choices=("table", "json"),
        default="table",
        help="How results (or the list) are printed: a table for people, or JSON on the last line for scripts.",
    )
    group.addoption("--mlbench-output", metavar="FILE", help="The run file (default: .mlbench/run-TIME-PID.jsonl).")
    group.addoption(
        "--mlbench-resume",
        metavar="FILE",
        help="Go on from a run file, or from what a killed run left of it.",
    )
    group.addoption(
        "--mlbench-python",
        action="append",
        default=[],
        metavar="FRAMEWORK=PATH",
        help="The Python interpreter of the environment a framework lives in, when it is not this one.",
    )
    group.addoption(
        "--mlbench-lease-timeout",
        type=float,
        default=1800.0,
        metavar="SECONDS",
        help="How long to wait for a device that another process holds (default: %(default)g).",
    )
    group.addoption(
        "--mlbench-lab",
        metavar="FILE",
        help="The lab file: the devices of this site (default: the environment variable MLBENCH_LAB, else none).",
    )
    _add_gate(parser)
    parser.addini("mlbench_suites", "Where suites are, when --mlbench is given without a path.", default="suites/")
    parser.addini(
        "mlbench_expected",
        "The committed file of expected cases (see `mlbench freeze`), from the suites folder; empty: check nothing.",
        default="expected-cases.txt",
    )
    parser.addini("mlbench_waivers", "The file of accepted regressions.", default=WAIVERS)
    parser.addini(
        "mlbench_pytest_benchmark",
        "Whether cases appear in pytest-benchmark's table: auto (where it shows one anyway), always, never.",
        default="auto",
    )


def _add_gate(parser: pytest.Parser) -> None:
    group = parser.getgroup("mlbench-base", "comparison of benchmarks with a base revision")
    group.addoption(
        "--mlbench-base",
        metavar="REF",
        help="Measure this revision's cases too, in turn with the working tree's, and fail what became worse. "
        "The merge base of REF and HEAD is taken.",
    )
    group.addoption("--mlbench-base-exact", action="store_true", help="Take REF itself, not the merge base.")
    group.addoption(
        "--mlbench-base-python", metavar="PATH", help="The Python interpreter of the base's environment, if another."
    )
    group.addoption(
        "--mlbench-base-lock",
        metavar="FILE",
        help="Make the base's environment from this requirements file of the base (a path in the repository).",
    )
    group.addoption(
        "--mlbench-max-regression",
        default="3 %",
        metavar="SHARE",
        help="Accepted worsening of p50 (offline: throughput) where a suite has no max_regression (default: 3 %%).",
    )
    group.addoption("--mlbench-strict", action="store_true", help="Fail what could not be decided (inconclusive).")
    group.addoption("--mlbench-rounds", type=int, metavar="N", help="Confirming rounds (default: as many as needed).")
    group.addoption(
        "--mlbench-base-seconds",
        type=float,
        default=10.0,
        metavar="SECONDS",
        help="Most time to measure each side of a case (default: %(default)g; 30 to see 1 %% instead of 3 %%).",
    )
    group.addoption(
        "--mlbench-seed", type=int, metavar="N", help="Of the order of base and candidate (default: drawn)."
    )
    group.addoption(
        "--mlbench-noise-ceiling",
        default="15 %",
        metavar="SHARE",
        help="How much timed blocks of a fixed loop may differ on a machine fit to judge (default: 15 %%).",
    )


def _gate(config: pytest.Config) -> GateOptions | None:
    base = config.getoption("mlbench_base")
    if not base:
        return None
    python, lock = config.getoption("mlbench_base_python"), config.getoption("mlbench_base_lock")
    if python and lock:
        raise pytest.UsageError(
            "--mlbench-base-python and --mlbench-base-lock both name the base's environment; keep one"
        )
    seconds, rounds, seed = (config.getoption(f"mlbench_{name}") for name in ("base_seconds", "rounds", "seed"))
    if not 0 < seconds < 1e6:
        raise pytest.UsageError(f"--mlbench-base-seconds {seconds:g}: expected more than 0 and less than 1000000")
    if rounds is not None and not 1 <= rounds <= MOST_ROUNDS:
        raise pytest.UsageError(f"--mlbench-rounds {rounds}: expected 1 to {MOST_ROUNDS}")
    interpreter = config.invocation_params.dir / Path(python).expanduser() if python else None
    if interpreter is not None and not (interpreter.is_file() and os.access(interpreter, os.X_OK)):
        raise pytest.UsageError(f"--mlbench-base-python {python}: there is no interpreter of that path; correct it")
    return GateOptions(
        base=base,
        exact=config.getoption("mlbench_base_exact"),
        python=interpreter,
        lock=Path(lock) if lock else None,
        margin=_share(config, "max_regression"),
        strict=config.getoption("mlbench_strict"),
        rounds=rounds,
        seconds=seconds,
        seed=seed if seed is not None else int.from_bytes(os.urandom(4), "big"),
        ceiling=_share(config, "noise_ceiling"),
    )


def _share(config: pytest.Config, name: str) -> float:
    text = config.getoption(f"mlbench_{name}")
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*%\s*", text)
    if found is None or float(found[1]) >= 100:
        option = name.replace("_", "-")
        raise pytest.UsageError(f'--mlbench-{option} {text!r}: expected a share below 100 %, as in "3 %"')
    return float(Decimal(found[1]) / 100)  # 0.7 / 100 is not the number that a suite's "0.7 %" is


def _pythons(pairs: list[str], base: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for pair in pairs:
        name, separator, path = pair.partition("=")
        if not (name and separator and path):
            raise pytest.UsageError(f"--mlbench-python {pair!r}: expected FRAMEWORK=PATH")
        found[name] = base / Path(path).expanduser()
    return found
