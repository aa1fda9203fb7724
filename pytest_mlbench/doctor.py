"""`mlbench doctor`: what disturbs measurement on this machine, and what to do about it."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from pytest_mlbench import __version__

if TYPE_CHECKING:
    from pytest_mlbench.doctor_finding import Facts, Finding


def add_doctor(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register `doctor`; the parsed arguments hold `run`, a function of them that returns the exit code."""
    parser = subparsers.add_parser(
        "doctor",
        help="find what disturbs measurement on this machine",
        description="Look for what disturbs measurement on this machine and say what to do about it. "
        "Changes nothing and needs no special rights. Exit code 1 when something is bad.",
    )
    parser.add_argument("--format", choices=("table", "json"), default="table", help="for people or for scripts")
    parser.add_argument(
        "--self-test",
        action="store_true",
        help="also compare a built-in net with itself and with itself slowed by 3 %%, as the gate would: "
        "exit code 1 when it is not right about both (under 2 minutes)",
    )
    parser.set_defaults(run=run_doctor)


def run_doctor(arguments: argparse.Namespace) -> int:
    """Print the findings; 1 when one of them is bad, or the self-test went wrong."""
    from pytest_mlbench.doctor_finding import gather

    findings = examine(gather())
    told, document, is_right = lines(findings), to_json(findings), True
    if arguments.self_test:
        from pytest_mlbench import selftest

        found = selftest.run(lambda line: print(line, file=sys.stderr, flush=True))
        told, is_right = [*told, "", *found.lines()], found.is_right
        document = {**document, "self_test": found.to_json()}
    sys.stdout.write(json.dumps(document) + "\n" if arguments.format == "json" else "\n".join(told) + "\n")
    return int(not is_right or any(finding.verdict == "bad" for finding in findings))


def checks() -> tuple[Callable[[Facts], Finding], ...]:
    """Return all checks, in the order of the table."""
    # Here and not above: the other verbs need none of this.
    from pytest_mlbench import doctor_clock as clock
    from pytest_mlbench import doctor_load as load

    return (
        load.steadiness,
        load.foreign_load,
        load.memory,
        load.container,
        load.virtual,
        clock.cores,
        clock.governor,
        clock.frequency,
        clock.turbo,
        clock.smt,
        clock.heat,
        clock.power,
        clock.timer,
    )


def examine(facts: Facts) -> list[Finding]:
    """Return the finding of each check."""
    return [check(facts) for check in checks()]


def to_json(findings: Sequence[Finding]) -> dict[str, object]:
    """Return the findings as one JSON document."""
    return {"mlbench": __version__, "findings": [asdict(finding) for finding in findings]}


def lines(findings: Sequence[Finding]) -> list[str]:
    """Return the table, then one remedy a line: a command is there to be copied, so it is never broken."""
    from pytest_mlbench.checks.facts import plural
    from pytest_mlbench.reporters.table import Table

    table = Table(("check", "verdict", "found"))
    for finding in findings:
        table.add(finding.name, finding.verdict, finding.found)
    verdicts = [finding.verdict for finding in findings]
    counts = [f"{verdicts.count(word)} {word}" for word in ("good", "could be better", "bad", "unknown")]
    told = ", ".join(count for count in counts if not count.startswith("0 "))
    found = [*table.lines(), "", f"{plural(len(findings), 'check')}: {told}"]
    remedies: dict[str, list[str]] = {}
    for finding in findings:
        if finding.remedy:
            remedies.setdefault(finding.remedy, []).append(finding.name)
    if remedies:
        found += ["", "What to do:", *(f"  {', '.join(names)}: {remedy}" for remedy, names in remedies.items())]
    return found
