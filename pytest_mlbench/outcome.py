"""Outcomes of cases and the session's exit code (DESIGN decision 6)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from pytest_mlbench.bench import Bench
from pytest_mlbench.matrix import Case
from pytest_mlbench.record import Outcome, Record

# Stages that run what the suite gave, its files and its own functions: no new attempt makes them pass.
_OF_THE_USER = ("suite", "inputs", "metrics", "test setup", "test call")
INCONCLUSIVE, INVALID, INFRASTRUCTURE, NOTHING_MEASURED = 10, 11, 12, 13


def finish_record(case: Case, bench: Bench | None, report: pytest.TestReport) -> Record:
    """Return the case's record with the outcome that pytest's report and the measurement together have.

    A test that passed without measuring anything is made a failure here: it must never look green.
    """
    drafted = bench.record if bench is not None else None
    if drafted is None:
        record = Record(case=case.id, node=report.nodeid, axes=dict(case.axes), outcome="error", wall_s=report.duration)
        if report.skipped:
            return replace(record, outcome="skip", reason=skip_reason(report))
        if report.passed:
            reason = "nothing was measured: the test never called mlbench.run()"
            report.outcome, report.longrepr = "failed", f"invalid: {case.id}: {reason}"
            return replace(record, outcome="invalid", reason=reason)
        return replace(record, stage=f"test {report.when}", reason=_last_line(report))
    record = replace(drafted, node=report.nodeid)
    if report.failed and record.outcome == "pass":
        return replace(record, outcome="fail", reason=_last_line(report))
    if report.skipped and record.outcome != "skip":
        found = f": {record.reason}" if hasattr(report, "wasxfail") and record.reason else ""
        return replace(record, outcome="skip", reason=skip_reason(report) + found)
    if report.passed and record.outcome != "pass":
        report.outcome = "failed"
        report.longrepr = (
            f"{record.outcome}: {case.id}:\n{record.reason}\n"
            "The test caught this failure of mlbench.run(); to expect it, mark the test xfail"
        )
    return record


def skip_reason(report: pytest.TestReport) -> str:
    """Return why a case was skipped, or with xfail expected to fail."""
    if hasattr(report, "wasxfail"):
        return f"expected to fail (xfail): {report.wasxfail}".removesuffix(": ")
    if isinstance(report.longrepr, tuple):
        return report.longrepr[2].removeprefix("Skipped: ")
    return str(report.longrepr)


def _last_line(report: pytest.TestReport) -> str:
    crash = getattr(report.longrepr, "reprcrash", None)
    if crash is not None:
        return str(crash.message)
    lines = report.longreprtext.strip().splitlines()
    return lines[-1] if lines else "failed"


def exit_code(exitstatus: int, records: Sequence[Record], other_failures: int, trouble: str | None) -> int:
    """Return the session's exit code.

    `other_failures` are those of ordinary tests, and deviations from the expected set. pytest's own codes 2, 3 and
    4 stand, and so does 5, nothing collected, unless that is such a deviation. Else, in this order: 1 a failed case
    or test or wrong input, 12 infrastructure (a stage or the run file failed), 11 a measurement not to be believed,
    13 nothing measured, 10 too little measured to decide or a comparison that could not be, 0.
    """
    if exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED and other_failures:
        return int(pytest.ExitCode.TESTS_FAILED)
    if exitstatus not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        return int(exitstatus)

    def any_of(outcome: Outcome) -> bool:
        return any(record.outcome == outcome for record in records)

    wrong_input = any(record.outcome == "error" and record.stage in _OF_THE_USER for record in records)
    if other_failures or any_of("fail") or wrong_input:
        return int(pytest.ExitCode.TESTS_FAILED)
    if any_of("error") or trouble is not None:
        return INFRASTRUCTURE
    if any_of("invalid"):
        return INVALID
    if not any_of("pass") and not any_of("insufficient"):
        return NOTHING_MEASURED
    undecided = any(one.verdict == "inconclusive" for record in records for one in record.comparisons)
    return INCONCLUSIVE if any_of("insufficient") or undecided else int(exitstatus)
