"""Moments in a session that a conftest.py or a plugin may join."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pytest_mlbench.matrix import Case
    from pytest_mlbench.record import Record
    from pytest_mlbench.spec import SuiteSpec


@pytest.hookspec
def pytest_mlbench_modify_cases(config: pytest.Config, suite: SuiteSpec, cases: list[Case]) -> None:
    """Change which cases of a benchmark become items.

    When: after a benchmark is expanded, before its items are made; also for --mlbench-list.
    Arguments: `cases` is edited in place; a Case is frozen, so change one with `dataclasses.replace`
    (its `skip` is the reason shown).
    Return: nothing.
    Order: all implementations, pytest's order; each sees what the earlier ones left.
    Example:

        def pytest_mlbench_modify_cases(config, suite, cases):
            cases[:] = [case for case in cases if case.precision != "fp16"]
    """


@pytest.hookspec
def pytest_mlbench_record(config: pytest.Config, record: Record) -> None:
    """Take note of a finished record, for example to export it.

    When: when a case has been judged and its record is on disk, in the process that ran it.
    Arguments: `record` is frozen.
    Return: nothing.
    Order: all implementations, pytest's order.
    Example:

        def pytest_mlbench_record(config, record):
            print(record.case, record.outcome)
    """
