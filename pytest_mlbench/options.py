"""The command line: `--mlbench` and `--mlbench-*`, and the frozen Options made of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass(frozen=True)
class Options:
    """What the command line and the ini file ask for."""

    output: Path | None
    resume: Path | None
    format: str
    list: bool
    pythons: Mapping[str, Path]
    lease_timeout_s: float

    @classmethod
    def from_config(cls, config: pytest.Config) -> Options:
        """Read the options; raises pytest.UsageError for a value that cannot be meant."""
        output, resume = config.getoption("mlbench_output"), config.getoption("mlbench_resume")
        invocation = config.invocation_params.dir
        return cls(
            output=invocation / output if output else None,
            resume=invocation / resume if resume else None,
            format=config.getoption("mlbench_format"),
            list=config.getoption("mlbench_list"),
            pythons=_pythons(config.getoption("mlbench_python"), invocation),
            lease_timeout_s=config.getoption("mlbench_lease_timeout"),
        )


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
    parser.addini("mlbench_suites", "Where suites are, when --mlbench is given without a path.", default="suites/")


def _pythons(pairs: list[str], base: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for pair in pairs:
        name, separator, path = pair.partition("=")
        if not (name and separator and path):
            raise pytest.UsageError(f"--mlbench-python {pair!r}: expected FRAMEWORK=PATH")
        found[name] = base / Path(path).expanduser()
    return found
